"""A bundle comes back as it was saved, or says what is wrong with it."""

import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from wavewn.bundle import load_bundle, save_bundle
from wavewn.config import Condition, Gaussian, LogisticMixture, MuLaw
from wavewn.errors import BundleError
from wavewn.models.wavenet import WaveNet
from wavewn.nn.weight_norm import apply_weight_norm, folded_state_dict

HALF = 2.0**-11  # relative rounding of float16


@pytest.fixture
def folder(tmp_path, small, spec):
    """A good bundle."""
    save_bundle(tmp_path / "voice", small(), spec, licence="CC0")
    return tmp_path / "voice"


def rewrite(folder, **changes):
    """Change fields of config.json; None removes one."""
    path = folder / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


@pytest.mark.parametrize("head", [MuLaw(classes=16), LogisticMixture(components=2), Gaussian()])
@pytest.mark.parametrize("upsampling", ["linear", "nearest", "transposed"])
def test_a_bundle_comes_back_whole(small, tmp_path, head, upsampling, spec):
    model = small(head, speakers=2)
    settings = dataclasses.replace(
        model.settings, condition=Condition(channels=4, upsampling=upsampling)
    )
    model = WaveNet(settings, spec.n_mels, spec.hop_length, spec.log_floor)
    spec = dataclasses.replace(spec, mean=(0.0, 0.0, 0.0, 0.0))
    save_bundle(tmp_path / "v", model, spec, speakers=["a", "б"], provenance={"steps": 3})

    bundle = load_bundle(tmp_path / "v")

    assert bundle.model.settings == settings
    assert bundle.mel == spec
    assert bundle.speakers == ["a", "б"]
    assert bundle.config["provenance"] == {"steps": 3}
    assert bundle.config["verdict"]["float32"]
    assert not bundle.model.training
    for key, value in model.state_dict().items():
        assert torch.equal(bundle.model.state_dict()[key], value), key


def test_weight_norm_is_folded_and_the_model_is_left_alone(small, tmp_path, spec):
    model = small()
    apply_weight_norm(model)
    before = {key: value.clone() for key, value in model.state_dict().items()}

    save_bundle(tmp_path / "v", model, spec)

    for key, value in folded_state_dict(model).items():
        assert torch.equal(load_bundle(tmp_path / "v").model.state_dict()[key], value)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_float16_halves_the_matrices_and_reads_back_as_float32(small, tmp_path, spec):
    model = small()
    save_bundle(tmp_path / "v", model, spec, dtype="float16")

    stored = load_file(tmp_path / "v/model.safetensors")
    loaded = load_bundle(tmp_path / "v").model.state_dict()

    assert stored["output.weight"].dtype == torch.float16
    assert stored["output.bias"].dtype == stored["mel_silence"].dtype == torch.float32
    assert all(value.dtype == torch.float32 for value in loaded.values())
    for key, value in model.state_dict().items():
        torch.testing.assert_close(loaded[key], value, rtol=HALF, atol=2.0**-24)
    assert not torch.equal(loaded["output.weight"], model.state_dict()["output.weight"])


def test_a_weight_that_float16_cannot_hold_is_refused(small, tmp_path, spec):
    model = small()
    torch.nn.init.constant_(model.output.weight, 1e5)

    with pytest.raises(BundleError, match=r"as float16: 'output\.weight' holds NaN or infinite"):
        save_bundle(tmp_path / "v", model, spec, dtype="float16")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten_without_force(small, folder, spec):
    before = (folder / "model.safetensors").read_bytes()

    with pytest.raises(BundleError, match="exists already.*--force"):
        save_bundle(folder, small(seed=1), spec)
    assert (folder / "model.safetensors").read_bytes() == before

    save_bundle(folder, small(seed=1), spec, force=True)
    assert (folder / "model.safetensors").read_bytes() != before
    assert [path.name for path in folder.parent.iterdir()] == ["voice"]


def test_force_replaces_no_folder_that_is_not_a_bundle(small, tmp_path, spec):
    (tmp_path / "thesis.tex").touch()

    with pytest.raises(BundleError, match="not a bundle"):
        save_bundle(tmp_path, small(), spec, force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_link_to_a_bundle_is_followed(small, folder, spec):
    link = folder.parent / "link"
    link.symlink_to(folder, target_is_directory=True)

    save_bundle(link, small(), spec, licence="MIT", force=True)

    assert link.is_symlink()
    assert load_bundle(folder).config["licence"] == "MIT"


def test_a_made_card_is_made_anew_and_a_written_one_is_kept(small, folder, spec):
    assert "CC0" in (folder / "README.md").read_text()
    (folder / "evaluation.json").write_text("{}")
    save_bundle(folder, small(), spec, licence="MIT", force=True)
    assert "MIT" in (folder / "README.md").read_text()

    (folder / "README.md").write_text("# By hand\n")
    save_bundle(folder, small(), spec, licence="BSD", force=True)

    assert (folder / "README.md").read_text() == "# By hand\n"
    assert (folder / "evaluation.json").read_text() == "{}"
    assert load_bundle(folder).config["licence"] == "BSD"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "has format 2, this wavewn reads up to 1; upgrade"),
        ({"format": "1"}, "expected a format number"),
        ({"verdict": None}, "'verdict' is missing"),
        ({"colour": 1}, "'colour' is unknown"),
        ({"speakers": "anna"}, "speakers must be list"),
        ({"speakers": ["anna"]}, "the model has 0 speakers, 1 are named"),
        ({"speakers": ["", ""]}, "must be different names"),
        ({"licence": 3}, "licence must be str"),
        ({"verdict": {"float32": "good"}}, "an object for each precision"),
        ({"model": {"kind": "oracle"}}, "kind must be one of wavenet, hifigan,.* got 'oracle'"),
        ({"model": {"kind": "wavenet", "layrs": 3}}, "no setting 'layrs'; its settings are"),
        ({"model": {"kind": "wavenet", "cycles": 10**9}}, "fewer tensors than the model has"),
        ({"model": {"kind": "wavenet"}}, "missing 'stack"),
        ({"mel": {"n_mel": 4}}, "no field 'n_mel'"),
    ],
)
def test_every_field_is_checked(folder, changes, message):
    rewrite(folder, **changes)

    with pytest.raises(BundleError, match=message):
        load_bundle(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"n_mels": 5}, "expected, .* found"), ({"floor": 1e-3}, "takes -11.5129 for silence")],
)
def test_the_mel_must_go_with_the_weights(folder, spec, changes, message):
    rewrite(folder, mel=spec.to_dict() | changes)

    with pytest.raises(BundleError, match=message):
        load_bundle(folder)


@pytest.mark.parametrize(
    ("channels", "message"),
    [
        (10**7, "expected, .* found"),
        (10**16, "sizes are beyond any machine"),  # more bytes than 64 bits count
        (10**30, "sizes are beyond any machine"),
    ],
)
def test_a_config_that_claims_all_memory_is_refused(folder, channels, message):
    config = json.loads((folder / "config.json").read_text())
    rewrite(folder, model=config["model"] | {"residual_channels": channels})

    with pytest.raises(BundleError, match=message):
        load_bundle(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_truncated_bundle_is_named(folder, name, share):
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: int(len(content) * share)])

    with pytest.raises(BundleError, match=rf"{name}: .*truncated"):
        load_bundle(folder)


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "\xff", '{"format": NaN}'])
def test_a_config_that_is_no_config_is_refused(folder, text):
    (folder / "config.json").write_bytes(text.encode("latin-1"))

    with pytest.raises(BundleError, match="config.json: "):
        load_bundle(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("output.bias"), "missing 'output.bias'"),
        (lambda state: state.update(extra=torch.ones(1)), "unexpected 'extra'"),
        (lambda state: state.update({"output.bias": torch.ones(3)}), r"\[16\] expected, \[3\]"),
        (lambda state: state["output.bias"].fill_(torch.nan), "'output.bias' holds NaN"),
        (lambda state: state.update({"output.bias": torch.ones(16).int()}), "torch.int32"),
    ],
)
def test_weights_that_do_not_fit_are_named(folder, change, message):
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors")

    with pytest.raises(BundleError, match=message):
        load_bundle(folder)


@pytest.mark.parametrize("name", ["nothing", "voice/model.safetensors"])
def test_a_path_without_a_bundle_says_what_was_expected(folder, name):
    with pytest.raises(BundleError, match="expected a bundle, a folder with config.json"):
        load_bundle(folder.parent / name)
