"""A bundle says how often its audio is levelled, and nothing that cannot be."""

import dataclasses
import json

import pytest

from wavewn.bundle import fresh_model, load_bundle, save_bundle
from wavewn.bundle.levelling import levelled
from wavewn.config import SpectralConfig
from wavewn.errors import BundleError, ConfigError
from wavewn.models.spectral import Spectral

SPECTRAL = SpectralConfig(channels=6, hidden_channels=5, dilations=(1, 2), look_ahead=1, n_fft=40)


@pytest.fixture
def folder(tmp_path, small, spec):
    """A bundle that is levelled three times."""
    save_bundle(tmp_path / "voice", small(), spec, levellings=3)
    return tmp_path / "voice"


def rewrite(folder, **changes):
    """Change fields of config.json; None removes one."""
    path = folder / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


def test_the_number_comes_back_and_stands_in_the_card(folder, small, spec):
    assert load_bundle(folder).levellings == 3
    assert "- Levellings: 3" in (folder / "README.md").read_text()

    save_bundle(folder, small(), spec, force=True)

    assert json.loads((folder / "config.json").read_text())["levellings"] == 0
    assert load_bundle(folder).levellings == 0
    assert "Levellings" not in (folder / "README.md").read_text()


def test_a_bundle_that_does_not_say_it_is_not_levelled(folder):
    rewrite(folder, levellings=None)

    assert load_bundle(folder).levellings == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"levellings": "2"}, "levellings must be int, got '2'"),
        ({"levellings": 1.0}, "levellings must be int, got 1.0"),
        ({"levellings": True}, "a whole number in 0 to 16, got True"),
        ({"levellings": -1}, "a whole number in 0 to 16, got -1"),
        ({"levellings": 17}, "a whole number in 0 to 16, got 17"),
    ],
)
def test_a_number_that_cannot_be_is_refused(folder, changes, message):
    rewrite(folder, **changes)

    with pytest.raises(BundleError, match=message):
        load_bundle(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"win_length": 40}, "three hops or more"),
        ({"log_base": None, "floor": 0.0}, "mels with a logarithm"),
        ({"n_fft": 1 << 22}, "sizes are beyond any machine"),
    ],
)
def test_mels_that_cannot_be_levelled_to_are_refused(folder, small, spec, changes, message):
    mel = json.loads((folder / "config.json").read_text())["mel"]
    rewrite(folder, mel=mel | changes)

    with pytest.raises(BundleError, match=message):
        load_bundle(folder)
    if changes.get("win_length"):
        with pytest.raises(BundleError, match=message):
            spec = dataclasses.replace(spec, **changes)
            save_bundle(folder, small(), spec, levellings=1, force=True)


def test_a_spectral_model_levels_by_itself(tmp_path, spec):
    model = fresh_model(SPECTRAL, spec)
    with pytest.raises(BundleError, match=r"its model\.levellings is the place"):
        save_bundle(tmp_path / "v", model, spec, levellings=1)

    save_bundle(tmp_path / "v", model, spec)
    bundle = load_bundle(tmp_path / "v")

    assert levelled(bundle) == (bundle.model, None)
    other, beside = levelled(bundle, 5)
    assert isinstance(other, Spectral) and beside is None
    assert (other.settings.levellings, bundle.model.settings.levellings) == (5, 2)
    with pytest.raises(ConfigError, match="0 to 16, got 17"):
        levelled(bundle, 17)
