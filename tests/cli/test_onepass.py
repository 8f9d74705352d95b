"""Every verb serves one-pass models as it serves WaveNets."""

import dataclasses
import json
import re

import numpy as np
import pytest
import torch

import wavewn
from wavewn.audio.io import read_audio, write_audio
from wavewn.bundle import fresh_model, load_bundle, save_bundle
from wavewn.cli.main import main
from wavewn.config import HiFiGANConfig
from wavewn.data.manifest import Utterance, save_manifest
from wavewn.engine.native import available
from wavewn.nn.weight_norm import apply_weight_norm

HOP = 20
FRAMES = 12
ENGINE = "onepass" if available() else "native"


@pytest.fixture
def generator(spec):
    torch.manual_seed(0)
    model = fresh_model(HiFiGANConfig(8, (5, 4), (11, 8), "2", (3,), ((1, 2),)), spec)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.15 * torch.randn_like(parameter))
    return model


@pytest.fixture
def bundle(tmp_path, generator, spec):
    save_bundle(tmp_path / "fast", generator, spec)
    return tmp_path / "fast"


@pytest.fixture
def file(tmp_path, spec):
    values = np.random.default_rng(0).normal(-4, 2, (spec.n_mels, FRAMES))
    np.save(tmp_path / "a.npy", np.clip(values, spec.log_floor, 0).astype(np.float32))
    return tmp_path / "a.npy"


@pytest.fixture
def corpus(tmp_path, spec):
    """Three recordings of noise and a manifest."""
    (tmp_path / "corpus").mkdir()
    rows = []
    for i in range(3):
        path = tmp_path / f"corpus/{i}.wav"
        audio = 0.1 * torch.randn(spec.sample_rate // 2, generator=torch.Generator().manual_seed(i))
        write_audio(path, audio, spec.sample_rate)
        rows.append(Utterance(path, len(audio), spec.sample_rate))
    save_manifest(tmp_path / "corpus", {"train": rows, "valid": [], "test": rows}, [], "noise")
    return tmp_path / "corpus"


def test_synth_and_stream_write_the_same_file(bundle, file, tmp_path, capsys):
    assert main(["synth", str(bundle), str(file), "-o", str(tmp_path / "a.wav")]) == 0
    assert f"engine {ENGINE}, float32" in capsys.readouterr().out
    for frames in ("1", "5"):
        out = tmp_path / f"b{frames}.wav"
        assert main(["stream", str(bundle), str(file), "-o", str(out), "--frames", frames]) == 0
        whole, streamed = read_audio(tmp_path / "a.wav"), read_audio(out)
        assert whole.shape == streamed.shape == (FRAMES * HOP,)
        assert whole.std() > 0.01
        assert (whole - streamed).abs().max() <= 2.0**-15  # a step of 16 bits

    latency = wavewn.load(bundle).engine.latency_samples
    assert latency > 0
    err = capsys.readouterr().err
    assert re.search(rf"latency {latency} samples .* engine {ENGINE}, float32", err)


def test_files_of_one_command_hear_their_own_ends(bundle, file, tmp_path):
    np.save(tmp_path / "short.npy", np.load(file)[:, :7])
    both = [str(file), str(tmp_path / "short.npy")]

    assert main(["synth", str(bundle), *both, "-o", str(tmp_path / "both")]) == 0
    assert main(["synth", str(bundle), both[1], "-o", str(tmp_path / "alone.wav")]) == 0

    alone, batched = (read_audio(tmp_path / name) for name in ("alone.wav", "both/short.wav"))
    assert alone.shape == (7 * HOP,)
    assert (alone - batched).abs().max() <= 2.0**-15


def test_what_it_has_not_is_one_line(bundle, file, tmp_path, capsys):
    out = ["-o", str(tmp_path / "a.wav")]
    for options, message in (
        (["--engine", "graph"], "is a hifigan, which runs in no engine graph"),
        (["--precision", "int8"], "which runs in no precision int8; choose auto or bfloat16"),
        (["--temperature", "0.8"], "no noise drives this model"),
        (["--speaker", "anna"], "one voice and takes no speaker"),
    ):
        assert main(["synth", str(bundle), str(file), *out, *options]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1


def test_export_folds_and_judges_bfloat16(generator, corpus, spec, tmp_path, capsys):
    settings = generator.settings
    apply_weight_norm(generator)
    state = generator.state_dict()
    recipe = {
        "mel": spec.to_dict(),
        "model": dataclasses.asdict(settings),
        "data": {"manifest": str(corpus)},
    }
    ours = {"format": 1, "recipe": recipe, "speakers": [], "ema": state, "step": 20}
    weights = {f"model.{key}": value for key, value in state.items()}
    torch.save({"wavewn": ours, "state_dict": weights}, tmp_path / "last.ckpt")

    assert main(["export", str(tmp_path / "last.ckpt"), "-o", str(tmp_path / "v")]) == 0

    config = load_bundle(tmp_path / "v").config
    assert list(config["verdict"]) == ["float32", "bfloat16"]
    found = config["verdict"]["bfloat16"]
    assert found["usable"] == (found["snr_db"] >= 40)
    assert config["statistics"] == {}
    out = capsys.readouterr().out
    assert "measured on 6 recordings" in out
    assert ("bfloat16 is not usable" in out) == (not found["usable"])
    command = ["export", str(tmp_path / "v"), "-o", str(tmp_path / "w"), "--dtype", "float16"]
    assert main([*command, "--calibrate", str(corpus)]) == 0
    again = load_bundle(tmp_path / "w").config["verdict"]
    assert abs(again["bfloat16"]["snr_db"] - found["snr_db"]) < 6


def test_inspect_and_evaluate_know_it(bundle, voice, corpus, tmp_path, capsys):
    assert main(["inspect", str(bundle), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["kind"].startswith("bundle, hifigan, ")
    assert report["model"]["upsample_rates"] == [5, 4]

    command = ["evaluate", str(bundle), "--data", str(corpus), "--limit", "2", "--seconds", "0.5"]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    found = json.loads((tmp_path / "out/evaluation.json").read_text())
    assert "fast" in json.dumps(found)
    assert (tmp_path / "out/fast/0.wav").exists()
