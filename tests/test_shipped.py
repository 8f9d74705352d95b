"""Recipes and bundles answer to their names, installed or in a checkout."""

import pytest

import wavewn.shipped
from wavewn.errors import WavewnError
from wavewn.shipped import shipped, shipped_names


def fill(root):
    """Lay out two recipes, a corpus and a bundle below `root`."""
    for name in (
        "recipes/a.yaml",
        "recipes/b.yaml",
        "recipes/corpus/x.txt",
        "pretrained/v/config.json",
    ):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")


@pytest.fixture(params=["installed", "checkout"])
def root(request, tmp_path, monkeypatch):
    """Stand up wavewn's files as a wheel or as a checkout has them; return their root."""
    package = tmp_path / "wavewn"
    package.mkdir()
    monkeypatch.setattr(wavewn.shipped, "PACKAGE", package)
    if request.param == "checkout":
        (tmp_path / "pyproject.toml").touch()
    root = package if request.param == "installed" else tmp_path
    fill(root)
    return root


def test_names_lead_to_files(root):
    assert shipped("recipes", "a") == root / "recipes/a.yaml"
    assert shipped("recipes", "a.yaml") == root / "recipes/a.yaml"
    assert shipped("recipes", "corpus") == root / "recipes/corpus"
    assert shipped("pretrained", "v") == root / "pretrained/v"
    assert shipped_names("recipes") == ["a", "b"]
    assert shipped_names("pretrained") == ["v"]


@pytest.mark.parametrize("name", ["c", "", ".", "../pretrained/v", "/etc"])
def test_an_unknown_name_lists_what_there_is(root, name):
    with pytest.raises(WavewnError, match=r"shipped recipes \(a, b\), got .*spelling"):
        shipped("recipes", name)


def test_strangers_beside_an_installed_package_are_not_ours(tmp_path, monkeypatch):
    monkeypatch.setattr(wavewn.shipped, "PACKAGE", tmp_path / "wavewn")
    fill(tmp_path)  # a folder `recipes` in site-packages, without a pyproject.toml

    with pytest.raises(WavewnError, match="reinstall wavewn"):
        shipped("recipes", "a")


def test_this_installation_ships_the_quickstart():
    assert shipped("recipes", "quickstart").suffix == ".yaml"
    assert "wavenet-ru-16k" in shipped_names("pretrained")
