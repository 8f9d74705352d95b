"""The threads of the CUDA kernel wait for each other wherever they must.

The contract runs them one after another, which hides a barrier that is missing. Here as many
threads as a block has run at once under ThreadSanitizer, which finds every two accesses that no
barrier orders, whether or not they met.
"""

import shutil
import subprocess

import pytest
import torch

from wavewn.engine.cuda import CudaEngine
from wavewn.engine.weights import pack_wavenet
from wavewn.state import StreamState

AUDIO = 9  # where it stands among the kernel's arguments
RACE = 66  # ThreadSanitizer's exit code


@pytest.fixture(scope="module", autouse=True)
def _sanitizer(cuda_host, tmp_path_factory):
    compiler, made = cuda_host["compiler"](), tmp_path_factory.mktemp("sanitizer") / "made"
    if compiler is None:
        pytest.skip("no C++ compiler is in PATH")
    command = [compiler, "-fsanitize=thread", "-x", "c++", "-", "-o", str(made)]
    done = subprocess.run(command, input=b"int main() {}", capture_output=True)
    if done.returncode or subprocess.run([made], capture_output=True).returncode:
        pytest.skip("this compiler's ThreadSanitizer does not work here")
    shutil.rmtree(made.parent)


def watched(cuda_host, model, precision, batch, mel_of, speaker_of, *flags):
    """Run one frame at once and one after another: what came of it, and the audio."""
    runs = []

    def make(source):
        at_once = cuda_host["watched_launcher"](source, *flags)
        serial = cuda_host["host_launcher"](source)

        def launch(blocks, arguments):
            at_once(blocks, arguments)
            serial(blocks, arguments)
            runs.append((*at_once.found[-1], arguments[AUDIO].numpy().tobytes()))

        return launch

    engine = CudaEngine(pack_wavenet(model), "cpu", precision, make)
    engine._blocks = 1
    mel, speaker = mel_of(batch, 1 + engine.look_ahead), speaker_of(engine, batch)
    engine.generate(StreamState.zeros(engine.layout, batch), mel, speaker=speaker)
    assert torch.frombuffer(bytearray(runs[0][3]), dtype=torch.float32).any()
    return runs[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "precision", "batch"),
    [
        ("mu-law", "float32", 1),
        ("mixture-predicted", "float16", 2),
        ("gaussian-predicted", "float32", 3),
    ],
    indirect=["model"],
)
def test_every_access_is_ordered_by_a_barrier(
    cuda_host, model, precision, batch, mel_of, speaker_of
):
    code, audio, complaints, expected = watched(
        cuda_host, model, precision, batch, mel_of, speaker_of
    )

    assert code == 0, complaints[:4000]
    assert audio == expected


@pytest.mark.slow
@pytest.mark.parametrize("model", ["mu-law"], indirect=True)
def test_a_missing_barrier_is_noticed(cuda_host, model, mel_of, speaker_of):
    code, _, complaints, _ = watched(
        cuda_host, model, "float32", 1, mel_of, speaker_of, "-DWITHOUT_BARRIERS"
    )

    assert code == RACE
    assert "data race" in complaints
