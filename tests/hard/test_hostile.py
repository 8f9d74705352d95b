"""Files made to harm: they claim all memory, name what is not theirs, or want to run something."""

import json
import os
import shutil
import zipfile

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file

from wavewn import yaml_file
from wavewn.audio import io, mel_files
from wavewn.audio.io import audio_info, read_audio
from wavewn.audio.mel_files import load_mel
from wavewn.bundle import load_bundle, load_checkpoint, save_bundle
from wavewn.data.manifest import Utterance, load_manifest, save_manifest
from wavewn.errors import AudioError, BundleError, ConfigError, DataError, MelError
from wavewn.training.recipe import load_recipe

MEL = np.zeros((80, 3), np.float32)
HUGE = 10**12  # numbers; no machine has them, so a test that makes them cannot pass


def wav(channels=1, rate=16000, data=bytes(64), claims=None):
    """A 16-bit WAV file whose header may lie."""
    size = len(data) if claims is None else claims
    form = b"".join(
        number.to_bytes(length, "little")
        for number, length in [(1, 2), (channels, 2), (rate, 4), (0, 4), (2 * channels, 2), (16, 2)]
    )
    chunks = b"WAVEfmt " + (16).to_bytes(4, "little") + form + b"data" + size.to_bytes(4, "little")
    return b"RIFF" + (36 + size).to_bytes(4, "little") + chunks + data


def test_a_wav_that_claims_four_gigabytes_is_truncated(tmp_path):
    (tmp_path / "a.wav").write_bytes(wav(claims=2**32 - 64))

    try:
        assert len(read_audio(tmp_path / "a.wav")) == 32  # libsndfile goes by the file's size
    except AudioError as error:
        assert "truncated" in str(error)


@pytest.mark.parametrize("rate", [1, 100, 2_000_000, 2**31 - 1])
def test_no_sample_rate_makes_resampling_endless(tmp_path, rate):
    (tmp_path / "a.wav").write_bytes(wav(rate=rate))

    with pytest.raises(AudioError, match=f"{rate} Hz|not an audio file"):
        read_audio(tmp_path / "a.wav", 16000)


def test_a_thousand_channels_are_read_in_small_blocks(tmp_path, monkeypatch):
    asked = []
    read = soundfile.SoundFile.read
    monkeypatch.setattr(
        soundfile.SoundFile,
        "read",
        lambda self, frames=-1, **options: asked.append(frames) or read(self, frames, **options),
    )
    (tmp_path / "a.wav").write_bytes(wav(channels=1000, data=bytes(2000 * 5)))

    assert len(read_audio(tmp_path / "a.wav")) == 5
    assert max(asked) * 1000 <= io.BLOCK


@pytest.mark.parametrize("form", ["wav", "flac", "mp3"])
def test_a_recording_that_unpacks_to_more_than_fits_is_refused(tmp_path, monkeypatch, form):
    path = tmp_path / f"a.{form}"
    soundfile.write(path, np.zeros(5000), 16000)  # a FLAC file of 5000 zeros has 90 bytes
    monkeypatch.setattr(io, "LONGEST", 5500)
    assert 4900 < len(read_audio(path)) < 5500  # MP3 pads

    with pytest.raises(AudioError, match="more than the 5500 that fit"):
        read_audio(path, 32000)
    monkeypatch.setattr(io, "LONGEST", 4000)
    with pytest.raises(AudioError, match="cut it into shorter files"):
        read_audio(path)


def test_a_flac_of_unknown_length_is_refused_with_its_cause(tmp_path):
    soundfile.write(tmp_path / "a.flac", np.full(5000, 0.25), 16000)
    content = bytearray((tmp_path / "a.flac").read_bytes())
    content[21] &= 0xF0  # 36 bits of STREAMINFO: the number of samples, 0 is unknown
    content[22:26] = bytes(4)
    (tmp_path / "a.flac").write_bytes(content)

    for read in (audio_info, read_audio):
        with pytest.raises(AudioError, match="does not tell the length"):
            read(tmp_path / "a.flac")


@pytest.mark.parametrize("compressed", [True, False])
def test_an_npz_that_unpacks_to_a_gigabyte_is_refused(tmp_path, monkeypatch, compressed):
    (np.savez_compressed if compressed else np.savez)(tmp_path / "a.npz", mel=MEL)
    assert load_mel(tmp_path / "a.npz").shape == (80, 3)
    monkeypatch.setattr(mel_files, "LARGEST", 500)

    with pytest.raises(MelError, match="a mel at most 500"):
        load_mel(tmp_path / "a.npz")


def test_an_h5_data_set_of_nothing_claims_no_memory(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("mel", (80, HUGE // 80), "f4", chunks=(80, 1000))
        file["text"] = ["not a mel"]
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["mel"] = h5py.Empty("f4")

    with pytest.raises(MelError, match=f"holds {4 * HUGE} bytes"):
        load_mel(tmp_path / "a.h5")
    with pytest.raises(MelError):
        load_mel(tmp_path / "b.h5")


HOSTILE_TENSORS = {
    "repeats its numbers": lambda: torch.zeros(1).expand(80, HUGE // 80),
    "expected a plain one": lambda: torch.sparse_coo_tensor(size=(80, HUGE // 80)).float(),
    "on meta": lambda: torch.empty(80, HUGE // 80, device="meta"),
}


@pytest.mark.parametrize("cause", HOSTILE_TENSORS)
def test_a_tensor_holds_its_own_numbers(tmp_path, cause):
    torch.save(HOSTILE_TENSORS[cause](), tmp_path / "a.pt")
    torch.save({"wavewn": {"ema": [HOSTILE_TENSORS[cause]()]}}, tmp_path / "a.ckpt")

    with pytest.raises(MelError, match=f"cannot be read .*{cause}"):
        load_mel(tmp_path / "a.pt")
    with pytest.raises(BundleError, match=f"cannot be read .*{cause}"):
        load_checkpoint(tmp_path / "a.ckpt")


def test_a_torch_file_may_not_be_compressed(tmp_path):
    torch.save(torch.zeros(80, 1000), tmp_path / "whole.pt")
    with (
        zipfile.ZipFile(tmp_path / "whole.pt") as whole,
        zipfile.ZipFile(tmp_path / "a.pt", "w", zipfile.ZIP_DEFLATED) as small,
    ):
        for record in whole.namelist():
            small.writestr(record, whole.read(record))

    with pytest.raises(MelError, match="records claim .* more than the file has"):
        load_mel(tmp_path / "a.pt")


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGES = "a: &a {x: 1}\n" + "".join(
    f"{name}: &{name} {{<<: [{', '.join([f'*{before}'] * 9)}]}}\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (LAUGHS, "larger than"),
        (MERGES, "merge keys"),
        ("a: &a [*a]", "larger than"),
        ("x" * (yaml_file.LARGEST + 1), "larger than"),
        ("[" * 1000, "cannot be read"),
        ("seed: " + "9" * 5000, "cannot be read"),
        ("seed: 2026-13-45", "cannot be read"),
        ("seed: !!timestamp x", "cannot be read"),
        ("seed: !!bool x", "cannot be read"),
        ("? {a: 1}\n: 2", "cannot be read"),
        ("1: 2", "expected a mapping"),
        ("\0", "cannot be read"),
        ("config: /dev/zero\ndata: {manifest: m}", "config"),
        ("print_config: true\ndata: {manifest: m}", "print_config"),
    ],
)
def test_a_recipe_that_wants_to_grow_or_wander_is_refused(tmp_path, text, cause):
    (tmp_path / "a.yaml").write_text(text)

    with pytest.raises(ConfigError, match=cause):
        load_recipe(tmp_path / "a.yaml")


@pytest.fixture
def corpus(tmp_path):
    """A manifest of one utterance a split."""
    (tmp_path / "a.wav").touch()
    found = [Utterance(tmp_path / "a.wav", 100, 16000)]
    save_manifest(tmp_path, {"train": found, "valid": found, "test": found}, [], "x")
    return tmp_path


@pytest.mark.parametrize(
    "line",
    [
        "[" * 100_000,
        '{"audio": "a.wav", "samples": 1%s, "sample_rate": 1}' % ("0" * 400),
        '{"audio": "a.wav", "samples": true, "sample_rate": 1}',
        '{"audio": "a.wav", "samples": 1e999, "sample_rate": 1}',
        '{"audio": ["a.wav"], "samples": 1, "sample_rate": 1}',
        '{"audio": "a.wav", "samples": 1, "sample_rate": 1, "speaker": [1]}',
        '{"audio": "a\\u0000.wav", "samples": 1, "sample_rate": 1}',
    ],
)
def test_a_line_of_a_manifest_is_checked(corpus, line):
    (corpus / "train.jsonl").write_text(line)

    with pytest.raises(DataError, match=r"train\.jsonl"):
        load_manifest(corpus, "train")


@pytest.mark.parametrize(
    "change",
    [{"counts": [1]}, {"counts": 3}, {"speakers": "anna"}, {"speakers": [[1]]}, {"format": []}]
    + [{"sample_rates": {"x": 1}}, {"speakers": None}],
)
def test_a_manifest_of_other_types_is_damaged(corpus, change):
    whole = json.loads((corpus / "manifest.json").read_text())
    (corpus / "manifest.json").write_text(json.dumps({**whole, **change}))

    with pytest.raises(DataError):
        load_manifest(corpus, "train")


def test_a_bundle_that_would_remember_more_than_any_machine_is_refused(tmp_path, model, spec):
    save_bundle(tmp_path / "v", model, spec)
    config = json.loads((tmp_path / "v/config.json").read_text())
    layers = 40  # the last dilates by 2 ** 39
    config["model"]["layers_per_cycle"] = layers
    (tmp_path / "v/config.json").write_text(json.dumps(config))
    state = load_file(tmp_path / "v/model.safetensors")
    state.update({f"more.{number}": torch.zeros(1) for number in range(layers)})
    save_file(state, tmp_path / "v/model.safetensors")

    with pytest.raises(BundleError, match="beyond any machine"):
        load_bundle(tmp_path / "v")


@pytest.mark.parametrize("field", ["model", "mel"])
@pytest.mark.parametrize(
    "number", [10**400, -(10**400), 2**63, 5e-324], ids=["huge", "far below", "long", "tiny"]
)
def test_no_number_of_a_bundle_is_too_large_to_be_refused(tmp_path, model, spec, field, number):
    save_bundle(tmp_path / "v", model, spec)
    config = json.loads((tmp_path / "v/config.json").read_text())
    for key in ("kernel_size", "speakers") if field == "model" else ("gain", "n_mels", "scale"):
        changed = {**config, field: {**config[field], key: number}}
        (tmp_path / "v/config.json").write_text(json.dumps(changed))
        if key == "gain" and 0 < number < 10**300:
            continue  # a very quiet recording, or a very loud one
        with pytest.raises(BundleError):
            load_bundle(tmp_path / "v")


def test_a_bundle_whose_files_are_links_elsewhere_is_only_read(tmp_path, model, spec):
    save_bundle(tmp_path / "v", model, spec)
    (tmp_path / "secret").write_text("not yours")
    (tmp_path / "v/config.json").unlink()
    os.symlink(tmp_path / "secret", tmp_path / "v/config.json")

    with pytest.raises(BundleError, match="not JSON"):
        load_bundle(tmp_path / "v")
    save_bundle(tmp_path / "v", model, spec, force=True)
    assert (tmp_path / "secret").read_text() == "not yours"
    assert not (tmp_path / "v/config.json").is_symlink()
    shutil.rmtree(tmp_path / "v")
