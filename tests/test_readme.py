"""The README keeps its word: its Python runs, its commands parse, its links lead somewhere."""

import re
import shlex
from pathlib import Path

import pytest
import torch

from wavewn.audio.io import read_audio, write_audio
from wavewn.cli.main import main, make_parser
from wavewn.data.manifest import load_manifest
from wavewn.shipped import shipped

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
SHORT = 2400  # samples, so that this stays a quick test


def blocks(language):
    """Return the fenced blocks of a language in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def commands():
    """Return every line that calls wavewn, also in a container, as words behind `wavewn`."""
    found = []
    for block in blocks("bash"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            words = words[len(words) - words[::-1].index("wavewn") :] if "wavewn" in words else []
            if words and words != ["."]:  # `docker build -t wavewn .`
                found.append(words)
    return found


def test_use_it_from_python_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    sentence = load_manifest(shipped("recipes", "corpus/festvox-ru"), "test")[0]
    audio = read_audio(sentence.path)
    write_audio("recording.wav", audio[16000 : 16000 + SHORT], 16000)

    names = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), names)

    copy = read_audio("copy.wav")
    assert copy.shape == (SHORT,)
    torch.testing.assert_close(copy, names["copy"][0].clamp(-1, 1), rtol=0, atol=2**-15)
    assert re.fullmatch(r"\d+ samples late\n", capsys.readouterr().out)

    assert main(["synth", "spectral-ru-16k", "recording.wav", "-o", "out"]) == 0
    assert Path("out/recording.wav").read_bytes() == Path("copy.wav").read_bytes()


@pytest.mark.parametrize("words", commands(), ids=shlex.join)
def test_every_command_parses(words):
    args, unknown = make_parser().parse_known_args(words)

    assert callable(args.run)
    assert not unknown or args.overrides == []  # only `train` takes a recipe's keys


def test_all_verbs_are_shown():
    assert {words[0] for words in commands()} == {
        "quickstart",
        "prepare",
        "convert",
        "train",
        "export",
        "synth",
        "stream",
        "bench",
        "evaluate",
        "doctor",
        "inspect",
        "study",
    }


@pytest.mark.parametrize("name", ["install-and-run", "develop-and-test"])
def test_ci_finds_the_two_commands(name):
    assert re.search(rf"^<!-- command: {name} -->\n```bash\n.+\n```$", README, re.MULTILINE)


def test_links_lead_to_files():
    links = re.findall(r"\]\(([^)#]+)\)", README)

    assert len(links) > 1
    assert [link for link in links if "://" not in link and not (ROOT / link).exists()] == []


def test_the_results_are_measured():
    assert "PLACEHOLDER" not in README
