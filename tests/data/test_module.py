"""Crops: functions of (seed, step), read in part, resampled in part."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from wavewn.audio.io import read_audio, write_audio
from wavewn.audio.mel import MelSpec, mel_spectrogram
from wavewn.data import crops as crops_module
from wavewn.data.crops import Crops, draw_damage, read_at, samples_at
from wavewn.data.manifest import Utterance, save_manifest
from wavewn.data.module import CropsModule, DataConfig
from wavewn.errors import DataError

SPEC = MelSpec(4000, 128, 50, 128, 8, 50.0, 2000.0)


def tone(samples, rate, seed):
    time = np.arange(samples) / rate
    phase = 2 * np.pi * (150 + 40 * seed) * time * (1 + 0.2 * time)
    return (0.4 * np.sin(phase)).astype(np.float32)


@pytest.fixture
def utterances(tmp_path):
    found = []
    for number in range(4):
        path = tmp_path / f"{number}.wav"
        samples = 3000 + 1000 * number
        write_audio(path, tone(samples, 4000, number), 4000)
        found.append(Utterance(path, samples, 4000, "ab"[number % 2]))
    return found


def make(utterances, spec=SPEC, **changes):
    settings = {"frames": 6, "batch_size": 3, "lead": 2, "look_ahead": 1, "seed": 1} | changes
    return Crops(utterances, ["a", "b"], spec, **settings)


def same(one, other):
    return (
        torch.equal(one.audio, other.audio)
        and torch.equal(one.mel, other.mel)
        and torch.equal(one.speaker, other.speaker)
        and one.paths == other.paths
    )


def test_a_batch_is_a_function_of_seed_and_step(utterances):
    crops = make(utterances)
    first = crops.batch(5)
    crops.batch(9)

    assert same(crops.batch(5), first)
    assert same(make(utterances).batch(5), first)
    assert not same(crops.batch(6), first)
    assert not same(make(utterances, seed=2).batch(5), first)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_workers_change_nothing(utterances, workers):
    crops = make(utterances, start=4, stride=2)
    loader = iter(DataLoader(crops, batch_size=None, num_workers=workers))

    got = [next(loader) for _ in range(5)]

    assert all(same(batch, crops.batch(4 + 2 * i)) for i, batch in enumerate(got))


@pytest.mark.parametrize("grid", ["half-hop", "centred", "causal", "ahead"])
def test_the_mel_of_a_crop_is_that_of_the_file(utterances, grid):
    mode = {"pad_mode": "constant"} if grid == "causal" else {}
    spec = MelSpec.from_dict({**SPEC.to_dict(), "grid": grid, **mode})
    crops = make(utterances, spec)
    batch = crops.batch(0)
    assert batch.audio.shape == (3, 300)
    assert batch.mel.shape == (3, 8, 2 + 6 + 1)
    checked = 0
    for step in range(10):
        batch = crops.batch(step)
        for audio, mel, path in zip(batch.audio, batch.mel, batch.paths, strict=True):
            whole = read_audio(path)
            begin = int((whole.unfold(0, 300, 1) - audio).abs().sum(1).argmin())
            assert torch.equal(whole[begin : begin + 300], audio)
            if begin < 500 or begin > len(whole) - 800:
                continue  # the file's own padding is another matter
            start = begin % 50
            expected = mel_spectrogram(whole[start:], spec)[0]
            first = begin // 50 - 2
            torch.testing.assert_close(mel, expected[:, first : first + 9], rtol=0, atol=1e-4)
            checked += 1
    assert checked > 5


def test_one_crop_in_ten_starts_its_utterance_and_says_so(utterances):
    crops = make(utterances)
    batches = [crops.batch(step) for step in range(60)]
    starts = torch.cat([batch.starts for batch in batches])

    assert 0.05 < starts.float().mean() < 0.2
    for batch in batches:
        for audio, start, path in zip(batch.audio, batch.starts, batch.paths, strict=True):
            assert torch.equal(audio, read_audio(path)[: len(audio)]) == bool(start)


def test_damage_to_the_history_is_that_of_the_step(utterances):
    crops = make(utterances, noise=0.02, dropout=0.3)
    again = make(utterances, noise=0.02, dropout=0.3).batch(3)

    assert torch.equal(crops.batch(3).noise, again.noise)
    assert torch.equal(crops.batch(3).keep, again.keep)
    assert not torch.equal(crops.batch(3).noise, crops.batch(4).noise)
    assert torch.equal(crops.batch(3).audio, make(utterances).batch(3).audio[: len(again.audio)])
    plain = make(utterances).batch(3)
    assert not plain.noise.any() and bool((plain.keep == 1).all())


def test_half_of_the_noise_is_none_and_spans_are_dropped_for_louder_noise():
    generator = np.random.default_rng(0)
    drawn = [draw_damage(generator, 8000, 0.02, 0.1) for _ in range(300)]
    keep, noise = (torch.stack(part) for part in zip(*drawn, strict=True))

    quiet = noise.abs().median(1).values  # spans cover less than half of nearly every crop
    assert 0.4 < (quiet == 0).float().mean() < 0.6
    assert 0.01 < quiet.max() < 0.03  # the median of |normal| is 0.67 deviations
    assert set(keep.unique().tolist()) == {0.0, 1.0}
    assert 0.07 < 1 - keep.mean() < 0.12
    assert 0.04 < noise[keep == 0].std() < 0.07  # uniform up to 0.1: 0.058
    assert noise[keep == 1].std() < 0.02


def test_a_span_fits_into_a_short_crop():
    generator = np.random.default_rng(0)
    keep, noise = draw_damage(generator, 50, 0.1, 50.0)
    assert keep.shape == noise.shape == (50,) and not keep.any()


def test_a_crop_reads_only_what_it_needs(utterances, monkeypatch):
    asked = []
    read = crops_module.read_segment
    monkeypatch.setattr(
        crops_module, "read_segment", lambda p, s, n: asked.append(n) or read(p, s, n)
    )

    make(utterances).batch(0)

    assert asked == [(2 + 6 + 1 + 2 * 1) * 50] * 3  # lead, crop, look-ahead, window edges


@pytest.mark.parametrize("rate", [8000, 11025, 3200, 4001])
@pytest.mark.parametrize("start", [-70, 0, 1234, 3800])
def test_a_resampled_stretch_is_that_of_the_resampled_file(tmp_path, rate, start):
    path = tmp_path / "a.wav"
    write_audio(path, tone(rate, rate, 1) * np.hanning(rate).astype(np.float32), rate)
    utterance = Utterance(path, rate, rate)
    whole = torch.nn.functional.pad(read_audio(path, 4000), (100, 1000))

    part = read_at(utterance, 4000, start, 300)

    assert samples_at(utterance, 4000) == 4000
    # soxr's filters ring below -90 dB beyond the margin
    torch.testing.assert_close(part, whole[100 + start :][:300], rtol=0, atol=1e-4)


def test_longer_utterances_are_drawn_more_often_and_short_ones_never(utterances):
    crops = make(utterances, frames=70)  # 3500 samples: the first file is too short
    drawn = [path for step in range(100) for path in crops.batch(step).paths]

    counts = [drawn.count(str(u.path)) for u in utterances]
    assert counts[0] == 0
    assert counts[3] > counts[1] > 30

    with pytest.raises(DataError, match="data.frames"):
        make(utterances, frames=1000)


@pytest.fixture
def module(utterances, tmp_path):
    splits = {"train": utterances[:3], "valid": utterances[3:], "test": []}
    save_manifest(tmp_path, splits, [], "x")
    settings = DataConfig(".", frames=6, batch_size=2, workers=0, valid_frames=10, valid_batches=3)
    return CropsModule(settings, tmp_path, SPEC, lead=2, look_ahead=1, seed=1)


def trainer(step=0, rank=0, ranks=1, accumulate=1):
    return SimpleNamespace(
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
        global_step=step,
        global_rank=rank,
        world_size=ranks,
        accumulate_grad_batches=accumulate,
    )


def take(module, count, **where):
    module.trainer = trainer(**where)
    loader = iter(module.train_dataloader())
    return [next(loader) for _ in range(count)]


def test_ranks_interleave(module):
    alone = take(module, 6)
    ranks = [take(module, 3, rank=rank, ranks=2) for rank in range(2)]

    assert all(same(alone[i], ranks[i % 2][i // 2]) for i in range(6))


def test_a_resumed_loader_goes_on_after_the_last_batch_used(module):
    assert same(take(module, 1, step=4)[0], take(module, 5)[4])
    assert same(take(module, 1, step=2, accumulate=3)[0], take(module, 7)[6])
    assert same(take(module, 1, step=2, rank=1, ranks=2)[0], take(module, 6)[5])


def test_validation_is_the_same_every_time_and_shared_by_the_ranks(module):
    def batches(**where):
        module.trainer = trainer(**where)
        return list(module.val_dataloader())

    alone = batches()
    assert len(alone) == 3
    assert all(same(a, b) for a, b in zip(alone, batches(step=7), strict=True))
    shared = batches(rank=0, ranks=2), batches(rank=1, ranks=2)
    assert [len(part) for part in shared] == [2, 2]  # a rank without work would be waited for
    assert same(shared[1][0], alone[1]) and same(shared[0][1], alone[2])
    assert len(batches(rank=4, ranks=5)) == 1
    assert set(alone[0].paths).isdisjoint(take(module, 1)[0].paths)


def test_a_manifest_without_validation_is_refused(utterances, tmp_path):
    save_manifest(tmp_path, {"train": utterances, "valid": [], "test": []}, [], "x")

    with pytest.raises(DataError, match="no valid utterances"):
        CropsModule(DataConfig("."), tmp_path, SPEC, lead=2, look_ahead=1, seed=1)
