"""A bundle comes back as it was saved, or says what is wrong with it; no pickle is ever run."""

import dataclasses
import json
import os
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file

from wavewn.audio.mel import MelSpec
from wavewn.bundle import load_bundle, load_checkpoint, save_bundle
from wavewn.config import Condition, Gaussian, LogisticMixture, MuLaw, WaveNetConfig, wavenet_config
from wavewn.errors import BundleError, ConfigError
from wavewn.models.wavenet import WaveNet
from wavewn.nn.weight_norm import apply_weight_norm, folded_state_dict

SPEC = MelSpec(n_mels=4, hop_length=20, win_length=80, n_fft=128)
HALF = 2.0**-11  # relative rounding of float16


def small(head=None, speakers=0, seed=0, **sizes):
    """Build a tiny random WaveNet."""
    torch.manual_seed(seed)
    settings = WaveNetConfig(
        residual_channels=8,
        skip_channels=8,
        head_channels=8,
        cycles=1,
        layers_per_cycle=3,
        head=head or MuLaw(classes=16),
        condition=Condition(channels=4),
        speakers=speakers,
        **sizes,
    )
    return WaveNet(settings, SPEC.n_mels, SPEC.hop_length, SPEC.log_floor)


def checkpoint(model, **changes):
    """Lay a checkpoint out as `wavewn train` does; `changes` go into its part "wavewn"."""
    state = model.state_dict()
    ours = {
        "format": 1,
        "recipe": {"mel": SPEC.to_dict(), "model": dataclasses.asdict(model.settings)},
        "speakers": [],
        "ema": {key: value.clone() for key, value in state.items()},
        "step": 7,
    }
    return {
        "wavewn": {**ours, **changes},
        "state_dict": {f"model.{k}": v for k, v in state.items()},
    }


@pytest.fixture
def folder(tmp_path):
    """A good bundle."""
    save_bundle(tmp_path / "voice", small(), SPEC, licence="CC0")
    return tmp_path / "voice"


def rewrite(folder, **changes):
    """Change fields of config.json; None removes one."""
    path = folder / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


@pytest.mark.parametrize("head", [MuLaw(classes=16), LogisticMixture(components=2), Gaussian()])
@pytest.mark.parametrize("upsampling", ["linear", "nearest", "transposed"])
def test_a_bundle_comes_back_whole(tmp_path, head, upsampling):
    model = small(head, speakers=2)
    settings = dataclasses.replace(
        model.settings, condition=Condition(channels=4, upsampling=upsampling)
    )
    model = WaveNet(settings, SPEC.n_mels, SPEC.hop_length, SPEC.log_floor)
    spec = dataclasses.replace(SPEC, mean=(0.0, 0.0, 0.0, 0.0))
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


def test_weight_norm_is_folded_and_the_model_is_left_alone(tmp_path):
    model = small()
    apply_weight_norm(model)
    before = {key: value.clone() for key, value in model.state_dict().items()}

    save_bundle(tmp_path / "v", model, SPEC)

    for key, value in folded_state_dict(model).items():
        assert torch.equal(load_bundle(tmp_path / "v").model.state_dict()[key], value)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_float16_halves_the_matrices_and_reads_back_as_float32(tmp_path):
    model = small()
    save_bundle(tmp_path / "v", model, SPEC, dtype="float16")

    stored = load_file(tmp_path / "v/model.safetensors")
    loaded = load_bundle(tmp_path / "v").model.state_dict()

    assert stored["output.weight"].dtype == torch.float16
    assert stored["output.bias"].dtype == stored["mel_silence"].dtype == torch.float32
    assert all(value.dtype == torch.float32 for value in loaded.values())
    for key, value in model.state_dict().items():
        torch.testing.assert_close(loaded[key], value, rtol=HALF, atol=2.0**-24)
    assert not torch.equal(loaded["output.weight"], model.state_dict()["output.weight"])


def test_a_weight_that_float16_cannot_hold_is_refused(tmp_path):
    model = small()
    torch.nn.init.constant_(model.output.weight, 1e5)

    with pytest.raises(BundleError, match=r"as float16: 'output\.weight' holds NaN or infinite"):
        save_bundle(tmp_path / "v", model, SPEC, dtype="float16")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten_without_force(folder):
    before = (folder / "model.safetensors").read_bytes()

    with pytest.raises(BundleError, match="exists already.*--force"):
        save_bundle(folder, small(seed=1), SPEC)
    assert (folder / "model.safetensors").read_bytes() == before

    save_bundle(folder, small(seed=1), SPEC, force=True)
    assert (folder / "model.safetensors").read_bytes() != before
    assert [path.name for path in folder.parent.iterdir()] == ["voice"]


def test_force_replaces_no_folder_that_is_not_a_bundle(tmp_path):
    (tmp_path / "thesis.tex").touch()

    with pytest.raises(BundleError, match="not a bundle"):
        save_bundle(tmp_path, small(), SPEC, force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_link_to_a_bundle_is_followed(folder):
    link = folder.parent / "link"
    link.symlink_to(folder, target_is_directory=True)

    save_bundle(link, small(), SPEC, licence="MIT", force=True)

    assert link.is_symlink()
    assert load_bundle(folder).config["licence"] == "MIT"


def test_a_made_card_is_made_anew_and_a_written_one_is_kept(folder):
    assert "CC0" in (folder / "README.md").read_text()
    (folder / "evaluation.json").write_text("{}")
    save_bundle(folder, small(), SPEC, licence="MIT", force=True)
    assert "MIT" in (folder / "README.md").read_text()

    (folder / "README.md").write_text("# By hand\n")
    save_bundle(folder, small(), SPEC, licence="BSD", force=True)

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
        ({"model": {"kind": "oracle"}}, "model.kind is 'oracle', this wavewn knows 'wavenet'"),
        ({"model": {"kind": "wavenet", "layrs": 3}}, "no setting 'layrs'; its settings are"),
        ({"model": {"kind": "wavenet", "cycles": 10**9}}, "fewer tensors than the model has"),
        ({"model": {"kind": "wavenet"}}, "missing 'stack"),
        ({"mel": {"n_mel": 4}}, "no field 'n_mel'"),
        ({"mel": SPEC.to_dict() | {"n_mels": 5}}, "expected, .* found"),
        ({"mel": SPEC.to_dict() | {"floor": 1e-3}}, "takes -11.5129 for silence"),
    ],
)
def test_every_field_is_checked(folder, changes, message):
    rewrite(folder, **changes)

    with pytest.raises(BundleError, match=message):
        load_bundle(folder)


def test_a_config_that_claims_all_memory_is_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    rewrite(folder, model=config["model"] | {"residual_channels": 10**7})

    with pytest.raises(BundleError, match="expected, .* found"):
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


@pytest.mark.parametrize("weights", ["ema", "raw"])
def test_a_checkpoint_loads_folded(tmp_path, weights):
    raw, ema = small(seed=1), small(seed=2)
    apply_weight_norm(raw)
    apply_weight_norm(ema)
    torch.save(checkpoint(raw, ema=ema.state_dict()), tmp_path / "a.ckpt")

    bundle = load_checkpoint(tmp_path / "a.ckpt", weights)

    wanted = folded_state_dict(ema if weights == "ema" else raw)
    for key, value in wanted.items():
        assert torch.equal(bundle.model.state_dict()[key], value), key
    assert bundle.mel == SPEC
    assert bundle.config["provenance"] == {"steps": 7, "weights": weights}
    save_bundle(tmp_path / "v", bundle.model, bundle.mel)
    assert load_bundle(tmp_path / "v").model.settings == raw.settings


def test_a_checkpoint_may_name_its_mel(tmp_path):
    spec = MelSpec.preset("wavewn-16k")
    model = WaveNet(small().settings, spec.n_mels, spec.hop_length, spec.log_floor)
    recipe = {"mel": "wavewn-16k", "model": dataclasses.asdict(model.settings)}
    torch.save(checkpoint(model, recipe=recipe), tmp_path / "a.ckpt")

    assert load_checkpoint(tmp_path / "a.ckpt").mel == spec


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 9}, "has format 9"),
        ({"recipe": None}, "holds no recipe"),
        ({"recipe": {"mel": "nonsense"}}, "no mel preset"),
        ({"recipe": {"mel": {}, "model": None}}, "model must be dict"),
        ({"ema": None}, "holds no ema weights"),
        ({"ema": {"a": 1}}, "holds no ema weights"),
        ({"ema": {}}, "fewer tensors"),
        ({"speakers": ["anna"]}, "0 speakers, 1 are named"),
    ],
)
def test_a_broken_checkpoint_says_what_is_wrong(tmp_path, changes, message):
    torch.save(checkpoint(small(), **changes), tmp_path / "a.ckpt")

    with pytest.raises(BundleError, match=message):
        load_checkpoint(tmp_path / "a.ckpt")


class Bomb:
    """Creates a file when it is unpickled by anything that runs what it reads."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("container", ["torch", "pickle"])
def test_a_pickle_bomb_does_not_go_off(tmp_path, container):
    path, bomb = tmp_path / "a.ckpt", {"wavewn": Bomb(tmp_path / "harm")}
    if container == "torch":
        torch.save(bomb, path)
    else:
        path.write_bytes(pickle.dumps(bomb, protocol=2))

    with pytest.raises(BundleError, match="pickled code is never run"):
        load_checkpoint(path)
    assert not (tmp_path / "harm").exists()

    if container == "torch":  # so that the line above can fail
        torch.load(path, weights_only=False)
    else:
        pickle.loads(path.read_bytes())
    assert (tmp_path / "harm").exists()


@pytest.mark.parametrize("content", [b"", b"RIFF....WAVEfmt ", b"PK\x03\x04 no zip"])
def test_what_is_no_checkpoint_is_refused(tmp_path, content):
    (tmp_path / "a.ckpt").write_bytes(content)

    with pytest.raises(BundleError, match=r"a\.ckpt: "):
        load_checkpoint(tmp_path / "a.ckpt")


def test_other_torch_files_are_no_checkpoints(tmp_path):
    torch.save(torch.zeros(3), tmp_path / "a.pt")

    with pytest.raises(BundleError, match="not a checkpoint of `wavewn train`"):
        load_checkpoint(tmp_path / "a.pt")
    with pytest.raises(BundleError, match="no such file"):
        load_checkpoint(tmp_path / "b.ckpt")


def test_settings_survive_json():
    settings = small(Gaussian(log_scale_min=-7.0), speakers=3, kernel_size=3).settings

    assert wavenet_config(json.loads(json.dumps(dataclasses.asdict(settings)))) == settings
    assert wavenet_config({"pre_emphasis": 0}).pre_emphasis == 0.0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"residual_chanels": 3}, "model has no setting 'residual_chanels'; its settings are cond"),
        ({"condition": {"layer": 3}}, "model.condition has no setting 'layer'"),
        ({"condition": 3}, "model.condition must be a group of settings"),
        ({"condition": {"upsampling": "cubic"}}, r"upsampling must be one of \['nearest'"),
        ({"head": {"classes": 3}}, r"model.head.kind must be one of mu-law, .*, got None"),
        ({"head": {"kind": "gaussian", "classes": 3}}, "model.head has no setting 'classes'"),
        ({"cycles": 2.0}, r"model.cycles must be int, finite; got 2\.0"),
        ({"cycles": True}, "model.cycles must be int"),
        ({"pre_emphasis": float("nan")}, "model.pre_emphasis must be float"),
        ({"pre_emphasis": "0.8"}, "model.pre_emphasis must be float"),
        ({"cycles": 0}, "WaveNetConfig.cycles must be at least 1"),
    ],
)
def test_impossible_settings_are_named(values, message):
    with pytest.raises(ConfigError, match=message):
        wavenet_config(values)
