"""What the command does with mistakes, interrupts and closed pipes."""

import re
import subprocess
import sys

import pytest

import wavewn
from wavewn.cli import main as program
from wavewn.errors import DataError


def declare(monkeypatch, run, **defaults):
    """Make `wavewn speak --loud N` the only verb; it calls `run`."""

    def add_speak(verbs):
        verb = verbs.add_parser("speak")
        verb.add_argument("--loud", type=int, default=0)
        verb.set_defaults(run=run, **defaults)

    monkeypatch.setattr(program, "VERBS", (add_speak,))


def test_a_verb_runs_with_its_arguments(monkeypatch):
    seen = []
    declare(monkeypatch, seen.append)

    assert program.main(["speak", "--loud", "3"]) == 0
    assert seen[0].loud == 3


def test_a_mistake_is_one_line_and_exit_code_2(monkeypatch, capsys):
    def run(args):
        raise DataError("expected a wav,\n  got a text file;\n\nconvert it")

    declare(monkeypatch, run)

    assert program.main(["speak"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "wavewn: error: expected a wav, got a text file; convert it\n"


def test_a_bug_keeps_its_traceback(monkeypatch):
    def run(args):
        raise ZeroDivisionError

    declare(monkeypatch, run)

    with pytest.raises(ZeroDivisionError):
        program.main(["speak"])


def test_ctrl_c_is_exit_code_130(monkeypatch, capsys):
    def run(args):
        raise KeyboardInterrupt

    declare(monkeypatch, run)

    assert program.main(["speak"]) == 130
    assert capsys.readouterr().err == "wavewn: interrupted\n"


@pytest.mark.parametrize("lines", [1, 100_000])  # found by the last flush, or while printing
def test_a_closed_pipe_is_quiet(lines):
    source = (
        "import sys, time\n"
        "from wavewn.cli import main as program\n"
        "def run(args):\n"
        "    sys.stdin.read()\n"  # until the reader of our output has gone
        f"    for _ in range({lines}): print('words')\n"
        "def add_speak(verbs): verbs.add_parser('speak').set_defaults(run=run)\n"
        "program.VERBS = (add_speak,)\n"
        "sys.exit(program.main(['speak']))\n"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", source], stdin=pipe, stdout=pipe, stderr=pipe
    ) as p:
        p.stdout.close()
        p.stdin.close()
        assert p.stderr.read() == b""
        assert p.wait(timeout=60) == 141


def test_unknown_options_are_refused(monkeypatch, capsys):
    declare(monkeypatch, print)

    with pytest.raises(SystemExit) as stop:
        program.main(["speak", "--lowd", "3"])
    assert stop.value.code == 2
    assert "unrecognized arguments: --lowd 3" in capsys.readouterr().err


def test_unknown_options_reach_a_verb_that_takes_overrides(monkeypatch):
    seen = []
    declare(monkeypatch, seen.append, overrides=[])

    assert program.main(["speak", "--model.layers", "3", "--loud", "1"]) == 0
    assert seen[0].overrides == ["--model.layers", "3"]
    assert seen[0].loud == 1


def test_the_version_is_printed(capsys):
    with pytest.raises(SystemExit) as stop:
        program.main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"wavewn {wavewn.__version__}\n"


def test_help_names_every_verb(capsys):
    with pytest.raises(SystemExit):
        program.main(["--help"])
    out = capsys.readouterr().out
    for verb in ("train", "prepare", "export", "synth", "evaluate", "quickstart"):
        assert re.search(rf"^ +{verb}\b", out, re.MULTILINE)


def test_no_verb_is_a_usage_error(capsys):
    with pytest.raises(SystemExit) as stop:
        program.main([])
    assert stop.value.code == 2
    assert "VERB" in capsys.readouterr().err
