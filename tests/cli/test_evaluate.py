"""`wavewn evaluate`, with a fake vocoder: what it prints, writes and refuses."""

import argparse
import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import wavewn
from wavewn.audio.io import read_audio, write_audio
from wavewn.audio.mel import MelSpec
from wavewn.cli.evaluate import add_evaluate, name_models
from wavewn.config import WaveNetConfig
from wavewn.data.manifest import Utterance, save_manifest
from wavewn.errors import ConfigError, DataError

SPEC = MelSpec()
SPEECH_S = 0.6


class FakeVocoder:
    model = SimpleNamespace(settings=WaveNetConfig(), parameters=lambda: [torch.zeros(1234)])
    speakers = ("anna", "boris")
    config = {"model": {"kind": "fake"}, "provenance": {"steps": 77}, "licence": "none <given>"}
    engine = SimpleNamespace(name="pretence", precision="int4", device="cpu")
    levellings = 3

    def __init__(self, spec=SPEC):
        self.mel_spec = spec

    def synthesize(self, mel, *, lengths, speaker, temperature, seed):
        assert speaker in (None, 1, *self.speakers)
        noise = torch.randn(
            len(mel), mel.shape[2] * 200, generator=torch.Generator().manual_seed(seed)
        )
        return 0.05 * noise


@pytest.fixture
def manifest(tmp_path):
    time = torch.arange(round(SPEECH_S * SPEC.sample_rate)) / SPEC.sample_rate
    (tmp_path / "corpus").mkdir()
    utterances = []
    for i, speaker in enumerate(("anna", "anna", "boris")):
        tone = sum(torch.sin(2 * torch.pi * (110 + 10 * i) * k * time) / k for k in range(1, 9))
        path = tmp_path / "corpus" / f"u{i}.wav"
        write_audio(path, 0.2 * tone, SPEC.sample_rate)
        utterances.append(Utterance(path, len(time), SPEC.sample_rate, speaker))
    splits = {"train": [], "valid": [], "test": utterances}
    save_manifest(tmp_path / "corpus", splits, [], "made")
    return tmp_path / "corpus"


@pytest.fixture
def evaluate(monkeypatch, manifest):
    def load(model, **settings):
        return FakeVocoder(dataclasses.replace(SPEC, f_min=0.0) if "other" in model else SPEC)

    monkeypatch.setitem(vars(wavewn), "load", load)
    parser = argparse.ArgumentParser()
    add_evaluate(parser.add_subparsers())

    def run(*arguments):
        args = parser.parse_args(["evaluate", *arguments, "--data", str(manifest)])
        args.run(args)

    return run


def test_a_table_files_and_audio_come_out(evaluate, tmp_path, capsys):
    out = tmp_path / "out"
    evaluate("models/noisy", "--out", str(out), "--limit", "2", "--seed", "3")

    printed = capsys.readouterr().out
    assert printed.splitlines()[0].split() == ["noisy", "griffin-lim", "mu-law-256-0.85"]
    assert "2 recordings" in printed and "1.2 s" in printed
    stored = json.loads((out / "evaluation.json").read_text())
    assert stored["settings"]["seed"] == 3 and stored["settings"]["mel"] == SPEC.to_dict()
    means = {name: values["log_mel_l1"]["mean"] for name, values in stored["means"].items()}
    assert means["mu-law-256-0.85"] < means["noisy"] and means["griffin-lim"] < means["noisy"]
    assert len((out / "evaluation.csv").read_text().splitlines()) == 1 + 3 * 2
    for system in ("recording", "noisy", "griffin-lim", "mu-law-256-0.85"):
        assert len(read_audio(out / system / "u1.wav")) == SPEECH_S * SPEC.sample_rate


def test_a_page_shows_several_models_and_their_settings(evaluate, tmp_path, capsys):
    out, page = tmp_path / "out", tmp_path / "new" / "page.html"
    evaluate("a/noisy", "b/noisy", "--html", str(page), "--out", str(out), "--limit", "1")

    text = page.read_text("utf-8")
    assert text.count("<article") == 1 and text.count("<audio") == 1 + 4
    ran_on = "pretence, int4, cpu"
    for words in ("model noisy-2", "b/noisy", "1,234", "77", "none &lt;given&gt;", ran_on):
        assert f">{words}" in text or f", {words}" in text or f"engine {words}" in text
    assert f"{page}: " in capsys.readouterr().out
    assert list(json.loads((out / "evaluation.json").read_text())["means"]) == [
        "noisy",
        "noisy-2",
        "griffin-lim",
        "mu-law-256-0.85",
    ]

    evaluate("noisy", "--out", str(out), "--limit", "1", "--html")
    assert (out / "evaluation.html").read_text("utf-8").startswith("<!doctype html>")


def test_a_page_never_takes_the_place_of_a_model(evaluate, tmp_path):
    (tmp_path / "voice.ckpt").write_text("precious")
    with pytest.raises(ConfigError, match=r"ends in .html, got .*give the models before"):
        evaluate("noisy", "--html", str(tmp_path / "voice.ckpt"))
    assert (tmp_path / "voice.ckpt").read_text() == "precious"
    with pytest.raises(DataError, match="choose another --html"):
        evaluate("noisy", "--html", str(tmp_path / "voice.ckpt" / "page.html"))


def test_a_speaker_chooses_the_recordings(evaluate, capsys):
    evaluate("noisy", "--speaker", "boris")
    assert "1 recordings" in capsys.readouterr().out
    evaluate("noisy", "--speaker", "1")
    assert "3 recordings" in capsys.readouterr().out


def test_only_the_beginnings_are_judged_if_asked(evaluate, tmp_path):
    evaluate("voice", "--seconds", "0.5", "--out", str(tmp_path / "out"))

    assert read_audio(tmp_path / "out" / "recording" / "u0.wav").shape == (8000,)
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text())["settings"][
        "seconds_of_each"
    ] == pytest.approx(0.5)
    with pytest.raises(ConfigError, match="--seconds must be at least 0.5"):
        evaluate("voice", "--seconds", "0.1")


def test_models_of_different_mels_are_refused(evaluate):
    with pytest.raises(ConfigError, match=r"noisy and other read different mels \(f_min\)"):
        evaluate("noisy", "other")


def test_nothing_to_evaluate_is_refused(evaluate):
    with pytest.raises(DataError, match="the split valid of .* is empty"):
        evaluate("noisy", "--split", "valid")
    with pytest.raises(ConfigError, match="--limit must be at least 1, got 0"):
        evaluate("noisy", "--limit", "0")


def test_an_impossible_folder_is_refused_before_any_work(evaluate, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="choose another --out"):
        evaluate("noisy", "--out", str(tmp_path / "file"))


def test_models_of_one_name_are_told_apart():
    names = name_models(["a/best", "b/best", "griffin-lim", "c/best"])
    assert list(names) == ["best", "best-2", "griffin-lim-2", "best-3"]
    assert names["best-2"] == "b/best"
    assert name_models([".", "a/.."]).keys() == {Path.cwd().name, f"{Path.cwd().name}-2"}
