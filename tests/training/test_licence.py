"""What a corpus asks for reaches every bundle that is made of it."""

import json

from wavewn.bundle import load_bundle
from wavewn.cli.main import main
from wavewn.data.corpora.catalogue import NAMED
from wavewn.shipped import shipped
from wavewn.training.recipe import load_recipe
from wavewn.training.run import make_data


def state_licence(manifest, licence):
    path = manifest / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "licence": licence}))


def export(checkpoint, out, *words):
    assert main(["export", str(checkpoint), "-o", str(out), *words]) == 0
    return load_bundle(out).config["licence"]


def test_the_corpus_licence_reaches_the_bundle_its_card_and_what_is_fine_tuned_from_it(
    run, recipe_file, manifest, tmp_path
):
    state_licence(manifest, "CC-BY-SA-3.0")
    best, _ = run(recipe_file, tmp_path / "run", "--trainer.max_steps", "4")
    assert export(best, tmp_path / "voice") == "CC-BY-SA-3.0"
    assert "- Licence: CC-BY-SA-3.0\n" in (tmp_path / "voice" / "README.md").read_text()

    state_licence(manifest, "CC0-1.0")
    tuned = {"init_from": tmp_path / "voice"}
    best, _ = run(recipe_file, tmp_path / "tuned", "--trainer.max_steps", "4", **tuned)
    assert export(best, tmp_path / "tuned-voice") == "CC0-1.0; CC-BY-SA-3.0"
    best, _ = run(recipe_file, tmp_path / "tuned", "--trainer.max_steps", "8", resume="auto")
    assert export(best, tmp_path / "resumed") == "CC0-1.0; CC-BY-SA-3.0"  # each once


def test_a_licence_that_the_user_names_and_one_that_nobody_names(run, recipe_file, tmp_path):
    best, _ = run(recipe_file, tmp_path / "run", "--trainer.max_steps", "4")
    assert export(best, tmp_path / "none") == ""
    assert export(best, tmp_path / "mine", "--licence", "MIT") == "MIT"


def test_the_embedded_corpus_states_its_licence_to_what_is_trained_on_it():
    recipe = shipped("recipes", "quickstart")

    data = make_data(load_recipe(recipe), recipe.parent)

    assert "Shmyrev" in data.licence
    assert data.licence == NAMED["festvox-ru"].licence  # as if it had been prepared
