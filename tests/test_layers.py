"""Who may import whom: the table of the design, read from the source and held to it."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "wavewn"

# Lowest first. A room imports from itself and from lower floors, never from its neighbours.
FLOORS = [
    {"errors", "_native"},
    {"config", "shipped", "lock", "torch_file", "yaml_file"},
    {"state", "noise", "audio"},
    {"nn"},
    {"models", "losses"},
    {"data", "bundle", "formats"},
    {"engine", "source"},
    {"vocoder", "export"},
    {"wavewn"},  # the public names, which lead to any room below
    {"training", "evaluation", "studies", "doctor", "bench"},
    {"cli"},
]

# Who alone may import a package at all; a folder ends in a slash.
ONLY_IN = {
    "lightning": ("training/", "studies/", "data/module.py"),
    "pytorch_lightning": (),
    "soundfile": ("audio/io.py",),
}

FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


def room_of(path):
    """Name the room of a file given relative to the package."""
    if path == Path("__init__.py"):
        return "wavewn"
    return path.parts[0].removesuffix(".py")


def imported_modules(tree):
    """Yield (line, dotted name) of every import, inside functions and type checks too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            for alias in node.names:
                yield node.lineno, f"{module}.{alias.name}"


def violations(source, path):
    """List what the imports of one file break, as `file:line: why`."""
    room = room_of(path)
    if room not in FLOOR_OF:
        return [f"{path}: the table has no room {room!r}"]
    found = []
    for line, name in imported_modules(ast.parse(source)):
        top, _, rest = name.partition(".")
        if not top:
            found.append(f"{path}:{line}: relative import {name}")
        elif top in ONLY_IN and not path.as_posix().startswith(ONLY_IN[top] or ("/",)):
            found.append(f"{path}:{line}: {top} belongs to {ONLY_IN[top] or 'nobody'}")
        elif top == "wavewn" and rest != "__version__":
            target = rest.split(".")[0]
            target = target if target in FLOOR_OF else "wavewn"
            if target != room and FLOOR_OF[target] >= FLOOR_OF[room]:
                found.append(f"{path}:{line}: {room} imports {target}")
    return found


def test_imports_go_down_only():
    # The package's __init__ only forwards names to whoever asks, so it is no floor's guest.
    files = [path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py"]
    assert len(files) > 5

    found = [
        line for path in files for line in violations(path.read_text(), path.relative_to(PACKAGE))
    ]

    assert found == []


@pytest.mark.parametrize(
    ("path", "source", "expected"),
    [
        ("errors.py", "import wavewn.config", "errors imports config"),
        ("state.py", "from wavewn.audio.io import read_audio", "state imports audio"),
        ("nn/conv.py", "def f():\n    from wavewn.models import wavenet", "nn imports models"),
        ("audio/mel.py", "from wavewn import bundle", "audio imports bundle"),
        ("engine/stream.py", "import wavewn", "engine imports wavewn"),
        ("engine/stream.py", "from wavewn import load", "engine imports wavewn"),
        ("nn/conv.py", "from . import wn", "relative import"),
        ("models/wavenet.py", "import lightning as L", "lightning belongs to"),
        ("data/manifest.py", "from lightning.pytorch import Trainer", "lightning belongs to"),
        ("training/run.py", "import pytorch_lightning", "belongs to nobody"),
        ("cli/synth.py", "import soundfile", "soundfile belongs to"),
        ("utils.py", "", "no room 'utils'"),
    ],
)
def test_a_planted_violation_is_found(path, source, expected):
    found = violations(source, Path(path))

    assert len(found) == 1
    assert expected in found[0]


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("config.py", "from wavewn.errors import ConfigError"),
        ("data/module.py", "import lightning"),
        ("audio/io.py", "import soundfile"),
        ("bundle.py", "from wavewn import __version__"),
        ("cli/synth.py", "import wavewn"),
        ("nn/wn.py", "from wavewn.nn.conv import CausalConv1d"),
    ],
)
def test_a_lawful_import_is_left_alone(path, source):
    assert violations(source, Path(path)) == []


# What C++ includes: Python only in the bindings, torch nowhere, and in the files that are compiled
# once for each instruction set nothing of C++'s library but these headers of plain C.
SOURCES = sorted((PACKAGE / "csrc").glob("*.[ch]pp"))
PLAIN_C = {"cfloat", "climits", "cmath", "cstddef", "cstdint", "cstring", "math.h"}


def includes(source):
    """Yield (name, whether it is one of ours) of every `#include`, whatever the spacing."""
    for bracket, name in re.findall(r'^\s*#\s*include\s*([<"])([^>"]+)', source, re.MULTILINE):
        yield name, bracket == '"'


def foreign(source):
    """List what a file of csrc includes of Python and torch."""
    words = ("python", "nanobind", "pybind11", "torch", "aten", "c10")
    return [name for name, _ in includes(source) if name.lower().split("/")[0].startswith(words)]


def reached(name, folder=PACKAGE / "csrc"):
    """Collect a file of csrc and all of ours that it includes, near and far."""
    found, open_ends = set(), {name}
    while open_ends:
        name = open_ends.pop()
        found.add(name)
        ours = {other for other, is_ours in includes((folder / name).read_text()) if is_ours}
        open_ends |= ours - found
    return found


def test_the_engine_knows_no_python_but_in_its_bindings_and_no_torch():
    assert {path.name for path in SOURCES} >= {"bindings.cpp", "cpu.cpp"}

    found = {path.name: foreign(path.read_text()) for path in SOURCES}

    faces = [f"bindings_{kind}.cpp" for kind in ("noise", "onepass", "spectrum", "training")]
    for name in ("bindings.cpp", "bindings.hpp", "bindings_onepass.hpp", *faces):
        assert "nanobind/nanobind.h" in found.pop(name)
    assert {name: bad for name, bad in found.items() if bad} == {}
    assert not any(
        "torch" in name for name, _ in includes((PACKAGE / "csrc/bindings.cpp").read_text())
    )


@pytest.mark.parametrize("line", ["#include <Python.h>", "  # include <torch/extension.h>"])
def test_a_planted_include_is_found(line):
    assert len(foreign(f"// a file\n{line}\n#include <vector>\n")) == 1


@pytest.mark.parametrize(
    "path",
    sorted(
        path
        for kind in ("kernel", "onepass", "gated")
        for path in PACKAGE.glob(f"csrc/{kind}_*.cpp")
    ),
    ids=lambda p: p.name,
)
def test_a_kernel_shares_no_code_of_the_standard_library(path):
    systems = set()
    for name in reached(path.name):
        systems |= {
            name for name, ours in includes((PACKAGE / "csrc" / name).read_text()) if not ours
        }

    assert {name for name in systems - PLAIN_C if not name.endswith(".h")} == set()


def fresh_process(program):
    """Run a program in a new interpreter; return what it prints as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    return json.loads(done.stdout)


PROBE = """
import json, sys, time
began = time.perf_counter()
import {module}
took_s = time.perf_counter() - began
heavy = ["torch", "lightning", "librosa", "matplotlib", "torchaudio", "soundfile"]
print(json.dumps([took_s, [name for name in heavy if name in sys.modules]]))
"""


@pytest.mark.parametrize("module", ["wavewn", "wavewn.cli.main"])
def test_the_import_is_quick_and_loads_nothing_heavy(module):
    took_s, heavy = fresh_process(PROBE.format(module=module))

    assert heavy == []
    assert took_s < 3


def test_the_probe_sees_what_is_heavy():
    _, heavy = fresh_process(PROBE.format(module="soundfile"))

    assert heavy == ["soundfile"]


def test_the_public_names_load_neither_lightning_nor_librosa_nor_matplotlib():
    program = (
        "import json, sys, wavewn\n"
        "loaded = [name for name in wavewn.__all__ if getattr(wavewn, name) is not None]\n"
        "heavy = ['lightning', 'librosa', 'matplotlib', 'torchaudio']\n"
        "print(json.dumps([loaded, [name for name in heavy if name in sys.modules]]))"
    )

    loaded, heavy = fresh_process(program)

    assert heavy == []
    assert {"load", "Vocoder", "Stream", "MelSpec", "WavewnError"} <= set(loaded)


def test_an_unknown_name_is_an_attribute_error():
    import wavewn

    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = wavewn.nothing
    assert set(wavewn.__all__) <= set(dir(wavewn))
