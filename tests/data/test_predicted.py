"""Predicted mels: paired by name, cut to the audio, and refused where they are others' mels."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from wavewn.audio.io import read_audio, write_audio
from wavewn.audio.mel import MelSpec, mel_spectrogram
from wavewn.data.crops import Crops
from wavewn.data.manifest import Utterance, save_manifest
from wavewn.data.module import CropsModule, DataConfig
from wavewn.data.predicted import pair_mels
from wavewn.errors import DataError, MelError

RATE, HOP = 8000, 100
SPEC = MelSpec(RATE, 256, HOP, 256, 16, 50.0, 4000.0)


def speech(seed, seconds=2.0):
    """Noise through a resonance that wanders, loud and soft in turns, as syllables are."""
    generator = np.random.default_rng(seed)
    samples = int(seconds * RATE)
    knots = np.linspace(0, samples, int(12 * seconds))
    level = np.interp(np.arange(samples), knots, generator.uniform(-6, -1, len(knots)))
    pitch = np.interp(np.arange(samples), knots, generator.uniform(300, 3000, len(knots)))
    tone = np.sin(2 * np.pi * np.cumsum(pitch) / RATE)
    return (np.exp(level) * (tone + 0.2 * generator.standard_normal(samples))).astype(np.float32)


def predict(audio, spec, seed=0):
    """The mel as an acoustic model gives it: smoother, and off by some tenths of a neper."""
    mel = mel_spectrogram(torch.as_tensor(audio), spec)[0]
    mel = torch.nn.functional.avg_pool1d(mel, 3, 1, 1, count_include_pad=False)
    generator = torch.Generator().manual_seed(seed)
    return mel + 0.4 * torch.randn(mel.shape, generator=generator)


@pytest.fixture
def utterances(tmp_path):
    found = []
    for number in range(6):
        path = tmp_path / "wavs" / f"{number}.wav"
        path.parent.mkdir(exist_ok=True)
        audio = speech(number, 1.5 + 0.11 * number)
        write_audio(path, audio, RATE)
        found.append(Utterance(path, len(audio), RATE))
    return found


@pytest.fixture
def mels(tmp_path, utterances):
    """Write a mel for each utterance; what is done to its audio or to the mel can be given."""

    def write(spec=SPEC, audio=lambda x: x, mel=lambda x: x, shuffle=0):
        folder = tmp_path / "mels"
        folder.mkdir(exist_ok=True)
        for number, one in enumerate(utterances):
            source = utterances[(number + shuffle) % len(utterances)]
            predicted = mel(predict(audio(read_audio(source.path)), spec, number))
            np.save(folder / f"{one.path.stem}.npy", predicted.numpy())
        return folder

    return write


def test_a_crop_begins_on_a_frame_and_has_the_files_frames_with_silence_around(utterances, mels):
    pairs = pair_mels(utterances, mels(), SPEC)
    settings = {"frames": 6, "batch_size": 3, "lead": 2, "look_ahead": 1, "seed": 1}
    crops = Crops(utterances, [], SPEC, **settings, predicted=pairs)
    seen_start = False

    for step in range(12):
        batch = crops.batch(step)
        rows = zip(batch.audio, batch.mel, batch.starts, batch.paths, strict=True)
        for audio, mel, start, path in rows:
            whole = read_audio(path)
            begin = int((whole.unfold(0, len(audio), 1) - audio).abs().sum(1).argmin())
            assert torch.equal(whole[begin : begin + len(audio)], audio)
            assert begin % HOP == 0 and (begin == 0) == bool(start)
            file = np.load(next(p.path for w, p in pairs.items() if str(w) == path))
            file = torch.nn.functional.pad(torch.from_numpy(file), (2, 1), value=SPEC.log_floor)
            assert torch.equal(mel, file[:, begin // HOP : begin // HOP + 9])
            seen_start |= bool(start)
    assert seen_start
    again = Crops(utterances, [], SPEC, **settings, predicted=pairs).batch(5)
    assert torch.equal(again.mel, crops.batch(5).mel)
    assert torch.equal(again.audio, crops.batch(5).audio)
    assert not torch.equal(again.audio, crops.batch(6).audio)


@pytest.mark.parametrize("grid", ["half-hop", "centred", "causal", "ahead"])
@pytest.mark.parametrize(("change", "lost"), [(0, 0), (-3, 3), (4, 0)])
def test_what_both_have_is_used_on_each_grid(utterances, mels, grid, change, lost):
    spec = replace(SPEC, grid=grid, pad_mode="constant")
    folder = mels(spec, mel=lambda x: torch.nn.functional.pad(x, (0, change)))

    pairs = pair_mels(utterances, folder, spec)

    spare = grid == "centred"  # its last frame has no audio of its own
    for one in utterances:
        assert pairs[one.path].frames == one.samples // HOP - max(lost - spare, 0)


@pytest.mark.parametrize("change", [-6, 6])
def test_a_length_that_is_not_the_recordings_is_refused(utterances, mels, change):
    folder = mels(mel=lambda x: torch.nn.functional.pad(x, (0, change)))
    with pytest.raises(DataError, match=r"0.npy: has 1\d\d frames, but its .* samples has 120"):
        pair_mels(utterances, folder, SPEC)
    with pytest.raises(DataError, match="teacher forcing.*or with this hop: 80 would fit"):
        pair_mels(utterances, mels(replace(SPEC, hop_length=80)), SPEC)


@pytest.mark.parametrize(("mine", "others"), [("half-hop", "centred"), ("centred", "half-hop")])
def test_mels_of_another_grid_are_refused_by_its_name(utterances, mels, mine, others):
    folder = mels(replace(SPEC, grid=others))
    with pytest.raises(DataError, match=rf"frames lie [+-]50 samples .*likely {others} \(mel.grid"):
        pair_mels(utterances, folder, replace(SPEC, grid=mine))


def test_a_causal_grid_is_told_and_so_is_audio_that_was_cut_at_the_start(utterances, mels):
    causal = mels(replace(SPEC, grid="causal", pad_mode="constant"))
    with pytest.raises(DataError, match=r"frames lie -100 samples|likely causal"):
        pair_mels(utterances, causal, SPEC)
    with pytest.raises(DataError, match=r"frames lie \+150 samples"):
        pair_mels(utterances, mels(audio=lambda x: x[150:]), SPEC)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ({"audio": lambda x: x * 4}, r"lie \+1.\d\d nats .*another level of the recordings"),
        ({"spec": replace(SPEC, norm=None, mel_scale="htk")}, "nats.*other mel filters"),
        ({"mel": lambda x: x / 2.302585}, r"spread is 0.4\d of theirs .* one log10"),
        ({"mel": lambda x: (x - x.mean()) / x.std()}, "nats.*statistics that were taken off"),
    ],
)
def test_mels_of_another_contract_are_refused_with_the_likely_cause(
    utterances, mels, made, message
):
    with pytest.raises(DataError, match=message):
        pair_mels(utterances, mels(**made), SPEC)


def test_mels_of_other_recordings_are_refused(utterances, mels):
    same_length = [replace(one, samples=utterances[0].samples) for one in utterances]
    cut = {"mel": lambda x: x[:, :120]}
    pair_mels(same_length, mels(**cut), SPEC)
    with pytest.raises(DataError, match="they are other speech, .* were files mixed up"):
        pair_mels(same_length, mels(**cut, shuffle=1), SPEC)


def test_every_mel_is_checked_against_the_contract(utterances, mels):
    folder = mels()
    np.save(folder / "5.npy", np.load(folder / "5.npy").T)
    with pytest.raises(MelError, match=r"5.npy: the mel is transposed"):
        pair_mels(utterances, folder, SPEC)


def test_files_pair_by_name_and_by_folder_where_names_repeat(tmp_path):
    recordings = []
    for number, speaker in enumerate(("ann", "bob")):
        path = tmp_path / "wavs" / speaker / "1.wav"
        path.parent.mkdir(parents=True)
        write_audio(path, speech(number), RATE)
        recordings.append(Utterance(path, 2 * RATE, RATE, speaker))
        (tmp_path / "mels" / speaker).mkdir(parents=True)
        np.save(tmp_path / "mels" / speaker / "1.npy", predict(speech(number), SPEC).numpy())

    pairs = pair_mels(recordings, tmp_path / "mels", SPEC)

    assert [pairs[one.path].path.parent.name for one in recordings] == ["ann", "bob"]
    (tmp_path / "mels" / "bob").rename(tmp_path / "mels" / "carl")
    with pytest.raises(DataError, match="not clear which mel belongs to .*bob/1.wav, .*or another"):
        pair_mels(recordings, tmp_path / "mels", SPEC)
    with pytest.raises(DataError, match="bob/1.wav and to .*ann/1.wav"):
        pair_mels(recordings, tmp_path / "mels" / "ann", SPEC)


def test_a_recording_without_a_mel_and_a_folder_without_any_are_refused(utterances, mels):
    folder = mels()
    (folder / "3.npy").unlink()
    with pytest.raises(DataError, match=r"1 of 6 recordings have no mel in .*first is .*3.wav"):
        pair_mels(utterances, folder, SPEC)
    with pytest.raises(DataError, match="holds no mel files"):
        pair_mels(utterances, folder / "nowhere", SPEC)


def test_a_training_takes_the_predicted_mels_for_training_and_validation(
    utterances, mels, tmp_path
):
    save_manifest(tmp_path, {"train": utterances[:4], "valid": utterances[4:], "test": []}, [], "x")
    settings = {"frames": 6, "batch_size": 2, "workers": 0, "valid_frames": 1000}
    config = DataConfig(".", mels=str(mels()), **settings)

    module = CropsModule(config, tmp_path, SPEC, lead=2, look_ahead=1, seed=1)
    plain = CropsModule(DataConfig(".", **settings), tmp_path, SPEC, lead=2, look_ahead=1, seed=1)

    assert len(module.predicted) == 6
    assert module.valid_frames == plain.valid_frames == utterances[5].samples // HOP
    assert module.training_crops().batch(0).mel.shape == (2, 16, 9)
    assert not torch.equal(module.first_batch().mel, plain.first_batch().mel)
