"""Graphs as files: what runs them gives the model's audio, or there is no file."""

import json

import pytest
import torch
from torch.testing import assert_close

from wavewn.audio.mel_spec import MelSpec
from wavewn.errors import BundleError, ConfigError, EngineError
from wavewn.export import checks, export_stream, export_whole, files
from wavewn.models.generators import make_generator
from wavewn.models.levelled import Levelled, Levels
from wavewn.nn.weight_norm import apply_weight_norm

KINDS = ["hifigan", "melgan", "parallel-wavegan", "spectral"]
RTOL = 1e-4  # of the peak; what a file must keep


def inputs(model, frames):
    torch.manual_seed(2)
    mel = torch.rand(1, 10, frames) * 8 - 11
    return (mel, torch.randn(1, 1, frames * 32)) if model.noise_channels else (mel,)


@torch.no_grad()
def assert_same(audio, model, given):
    expected = model(*given)
    atol = RTOL * float(expected.abs().max())
    assert_close(audio, expected, rtol=0, atol=atol)


def onnx_run(path):
    """Run a file as its user would: by the names of its inputs."""
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(**given):
        given = {name: one.numpy() for name, one in given.items()}
        names = [one.name for one in session.get_outputs()]
        return dict(zip(names, map(torch.from_numpy, session.run(None, given)), strict=True))

    return run, json.loads(session.get_modelmeta().custom_metadata_map["wavewn"])


def needs_onnx():
    for package in files.NEEDED:
        pytest.importorskip(package)


def test_a_program_of_torch_runs_mels_of_any_length(make, spec, tmp_path):
    model, path = make("hifigan"), tmp_path / "voice.pt2"
    apply_weight_norm(model)

    share = export_whole(model, spec, path, "torch")

    assert 0 <= share < RTOL
    about = {"wavewn.json": ""}
    program = torch.export.load(path, extra_files=about)
    assert not any("parametrizations" in name for name in program.state_dict)  # folded
    for frames in (2, 5, 30):
        assert_same(program.module()(*inputs(model, frames)), model, inputs(model, frames))
    assert MelSpec.from_dict(json.loads(about["wavewn.json"])["mel"]) == spec
    assert [one.name for one in tmp_path.iterdir()] == ["voice.pt2"]


def test_a_graph_of_other_audio_is_not_kept(make, spec, tmp_path, monkeypatch):
    model = make("hifigan")
    monkeypatch.setattr(checks, "RTOL", -1.0)

    with pytest.raises(EngineError, match="differs from the model's .* it is not kept"):
        export_whole(model, spec, tmp_path / "voice.pt2", "torch")

    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_not_replaced(make, spec, tmp_path):
    there = tmp_path / "voice.onnx"
    there.write_text("mine")

    with pytest.raises(BundleError, match="exists already"):
        export_whole(make("hifigan"), spec, there, "torch")
    with pytest.raises(BundleError, match="exists already"):
        export_stream(make("hifigan"), spec, there, "torch", force=True)
    assert there.read_text() == "mine"


def test_impossible_wishes_are_refused(make, spec, tmp_path, monkeypatch):
    model = make("hifigan")
    with pytest.raises(ConfigError, match="onnx or torch, got 'jit'"):
        export_whole(model, spec, tmp_path / "voice", "jit")
    with pytest.raises(ConfigError, match="at least 1 frame, got 0"):
        export_stream(model, spec, tmp_path / "voice", "torch", chunk_frames=0)
    monkeypatch.setattr(files, "NEEDED", ("no_such_package",))
    with pytest.raises(ConfigError, match=r"no_such_package; pip install 'wavewn\[export\]'"):
        export_whole(model, spec, tmp_path / "voice.onnx")


@pytest.mark.slow
def test_streams_of_torch_programs(make, spec, tmp_path):
    model, folder = make("hifigan", causal=True), tmp_path / "voice"

    assert export_stream(model, spec, folder, "torch", chunk_frames=4) < RTOL

    names = {"first.pt2", "next.pt2", "one.pt2", "last.pt2", "whole.pt2", "wavewn.json"}
    assert {one.name for one in folder.iterdir()} == names
    export_stream(model, spec, folder, "torch", chunk_frames=3, force=True)
    assert json.loads((folder / "wavewn.json").read_text())["chunk_frames"] == 3


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_onnx_runtime_makes_the_models_audio(make, spec, tmp_path, kind):
    needs_onnx()
    model, path = make(kind), tmp_path / "voice.onnx"

    export_whole(model, spec, path)

    run, about = onnx_run(path)
    assert about["kind"] == kind and about["graph"] == "whole"
    for frames in (2, 31):
        given = inputs(model, frames)
        audio = run(**dict(zip(("mel", "noise"), given, strict=False)))["audio"]
        assert_same(audio, model, given)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "edges"),
    [
        ("hifigan", {"padding": "replicate"}),
        ("melgan", {"padding": "reflect"}),
        ("parallel-wavegan", {}),
        ("spectral", {}),
    ],
)
def test_onnx_runtime_streams_the_models_audio(make, spec, tmp_path, kind, edges):
    needs_onnx()
    model, folder = make(kind, **edges), tmp_path / "voice"

    export_stream(model, spec, folder, chunk_frames=4)

    runs = {name: onnx_run(folder / f"{name}.onnx") for name in ("first", "next", "one", "last")}
    about = runs["next"][1]
    calls = ["next", "one", "next", "next", "one", "one"]
    sizes = {"first": about["first_frames"], "next": about["chunk_frames"], "one": 1}
    given = inputs(model, sum(sizes[name] for name in ["first", *calls]))
    start, state, parts = 0, {}, []
    for name in ["first", *calls]:
        end = start + sizes[name]
        piece = {"mel": given[0][:, :, start:end]}
        if about["noise_channels"]:
            piece["noise"] = given[1][:, :, start * 32 : end * 32]
        found = runs[name][0](**piece, **state)
        state, start = {"state": found["next_state"]}, end
        assert state["state"].shape == (1, about["state_size"])
        parts.append(found["audio"])
    parts.append(runs["last"][0](**state)["audio"])

    assert parts[-1].shape == (1, about["lag_samples"])
    assert_same(torch.cat(parts, 1), model, given)


@pytest.mark.slow
def test_a_mel_of_another_log_is_what_the_file_says(make, tmp_path):
    # Statistics and base ten travel with the file, so that its user can make such mels.
    needs_onnx()
    spec = MelSpec(
        sample_rate=8000,
        n_fft=128,
        hop_length=32,
        win_length=128,
        n_mels=10,
        f_min=0,
        f_max=4000,
        log_base="10",
        mean=(-2.0,) * 10,
        scale=(1.5,) * 10,
    )
    model = make_generator(make("spectral").settings, spec)

    export_whole(model, spec, tmp_path / "voice.onnx")

    assert MelSpec.from_dict(onnx_run(tmp_path / "voice.onnx")[1]["mel"]) == spec


@pytest.mark.slow
@pytest.mark.parametrize("streaming", [False, True])
def test_onnx_runtime_levels_as_the_model_does(make, spec, tmp_path, streaming):
    """Without complex numbers; `export_*` itself compares with the levelled model, by FFT."""
    needs_onnx()
    plain = make("hifigan")
    model = Levelled(plain, Levels(spec, 2)).eval()
    if streaming:
        assert export_stream(model, spec, tmp_path / "voice", chunk_frames=4) < RTOL
        return

    assert export_whole(model, spec, tmp_path / "voice.onnx") < RTOL

    run, about = onnx_run(tmp_path / "voice.onnx")
    assert about["kind"] == "hifigan"
    given = inputs(model, 31)
    audio = run(mel=given[0])["audio"]
    assert_same(audio, model, given)
    with torch.no_grad():
        assert (audio - plain(*given)).abs().max() > 0.1 * audio.abs().max()
