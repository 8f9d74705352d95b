"""The loss, its schedule and the data-dependent initialisation."""

import math

import pytest
import torch
import yaml

from wavewn.config import Gaussian, LogisticMixture, MuLaw
from wavewn.data.module import CropsModule
from wavewn.errors import ConfigError
from wavewn.nn.weight_norm import normed_modules
from wavewn.training.likelihood import (
    PREDICTOR_SHARE,
    Likelihood,
    initialise,
    output_scale,
)
from wavewn.training.module import learning_rate_factor
from wavewn.training.recipe import load_recipe
from wavewn.training.settings import OptimiserConfig


@pytest.fixture
def recipe(recipe_file):
    return load_recipe(recipe_file)


@pytest.fixture
def data(recipe, tmp_path):
    model = recipe.model
    return CropsModule(
        recipe.data, tmp_path, recipe.mel, lead=2, look_ahead=model.condition.look_ahead, seed=0
    )


def deviations(module, batch):
    """Standard deviation of every weight-normed layer's output channels."""
    found = {}

    def hook_of(name):
        def hook(layer, args, out):
            found[name] = out.flatten(0, -2).std(0, correction=0)

        return hook

    hooks = [m.register_forward_hook(hook_of(n)) for n, m in normed_modules(module.model).items()]
    module.loss(batch)
    for hook in hooks:
        hook.remove()
    return found


def share_on_goal(recipe, found):
    """Share of the channels whose deviation is within 5 % of the wanted one."""
    hits = []
    for name, deviation in found.items():
        wanted = torch.as_tensor(output_scale(recipe.model, name, len(deviation)))
        hits.append(((deviation / wanted - 1).abs() < 0.05).float())
    return torch.cat(hits).mean().item()


@torch.no_grad()
def test_initialisation_sets_the_deviation_of_every_layer(recipe, data):
    torch.manual_seed(0)
    module = Likelihood(recipe, [])
    assert module.model.condition.lead == data.lead
    batch = data.first_batch()
    before = deviations(module, batch)

    report = initialise(module, batch)
    after = deviations(module, batch)

    assert set(report.layers) == set(after) == set(normed_modules(module.model))
    # A channel that would need more than the largest gain factor stays below its goal.
    assert share_on_goal(recipe, after) > 0.95
    assert share_on_goal(recipe, before) < 0.2
    # An almost uniform head: the loss of a fair guess.
    assert module.loss(batch).item() == pytest.approx(math.log(32), abs=0.1)


@pytest.mark.parametrize("head", [MuLaw(), LogisticMixture(), Gaussian()])
def test_the_loss_is_float32_and_the_log_probability_in_bfloat16_too(
    recipe_file, tmp_path, data, head
):
    values = yaml.safe_load(recipe_file.read_text())
    values["model"]["head"] = vars(head)
    recipe_file.write_text(yaml.safe_dump(values))
    module = Likelihood(load_recipe(recipe_file), [])
    initialise(module, data.first_batch())
    batch = data.training_crops().batch(0)
    model = module.model

    exact = module.loss(batch)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = module.loss(batch)

    levels = model.levels(batch.audio)
    parameters = model(levels, batch.mel, lead=model.condition.lead)
    batch.starts[:] = False
    scored = model.head.log_prob(parameters, levels)
    torch.testing.assert_close(module.loss(batch), -scored.mean())
    assert rounded.dtype == torch.float32
    assert rounded.item() == pytest.approx(exact.item(), abs=0.05)
    assert rounded.item() != exact.item()


def test_the_learning_rate_warms_up_and_comes_down():
    settings = OptimiserConfig(warmup_steps=10, final=0.01)

    assert learning_rate_factor(0, settings, 100) == pytest.approx(0.1)
    assert learning_rate_factor(9, settings, 100) == pytest.approx(1, abs=0.03)
    assert learning_rate_factor(50, settings, 100) == pytest.approx(0.505)
    assert learning_rate_factor(100, settings, 100) == pytest.approx(0.01)
    assert learning_rate_factor(500, settings, 100) == pytest.approx(0.01)
    assert learning_rate_factor(0, OptimiserConfig(warmup_steps=0), 100) == 1


def test_only_plain_weights_decay(recipe_file):
    module = Likelihood(load_recipe(recipe_file, ["--optimiser.weight_decay", "0.1"]), [])

    groups = module.configure_optimizers()["optimizer"].param_groups

    decayed = {id(p) for g in groups if g["weight_decay"] for p in g["params"]}
    names = {name for name, p in module.model.named_parameters() if id(p) in decayed}
    assert not [name for name in names if "original" in name or name.endswith("bias")]
    assert sum(len(g["params"]) for g in groups) == len(list(module.parameters()))


PREDICTED = ["--model.head.kind", "logistic-mixture", "--model.prediction_order", "30"]


def test_where_an_utterance_is_cut_samples_count_once_the_prediction_is_whole(recipe_file, data):
    module = Likelihood(load_recipe(recipe_file, PREDICTED), [])
    initialise(module, data.first_batch())
    batch = data.training_crops().batch(0)
    levels = module.model.levels(batch.audio)

    def gradient(starts):
        batch.starts[:] = starts
        parameters = []
        kept = module.model.head.log_prob
        module.model.head.log_prob = lambda p, level: parameters.append(p) or kept(p, level)
        loss = module.loss(batch)
        module.model.head.log_prob = kept
        return torch.autograd.grad(loss, parameters[0])[0].abs().sum(-1)

    whole, inside = gradient(True), gradient(False)

    assert bool((whole > 0).all())
    assert not inside[:, :60].any()
    assert bool((inside[:, 60:] > 0).all())
    assert levels.shape == whole.shape


def test_a_crop_without_a_scored_sample_is_refused(run, recipe_file, tmp_path):
    with pytest.raises(ConfigError, match="data.frames is 1 frames .50 samples.*take longer"):
        run(recipe_file, tmp_path, "--data.frames", "1", *PREDICTED)
    lag = ["--model.longest_lag", "120"]  # three frames
    with pytest.raises(ConfigError, match="3 frames .150 samples.*once 150 others precede it"):
        run(recipe_file, tmp_path, "--data.frames", "3", *PREDICTED, *lag)


def test_noise_reaches_the_history_and_not_the_targets(recipe, data):
    module = Likelihood(recipe, [])
    initialise(module, data.first_batch())
    batch = data.training_crops().batch(0)
    model = module.model
    levels, lead = model.levels(batch.audio), model.condition.lead
    batch.starts[:] = True
    batch.keep[:], batch.noise[:] = 0.5, 0.1

    heard = model((0.5 * levels + 0.1).clamp(-1, 1), batch.mel, lead=lead, starts=batch.starts)

    torch.testing.assert_close(module.loss(batch), -model.head.log_prob(heard, levels).mean())
    batch.keep[:], batch.noise[:] = 1, 0
    clean = model(levels, batch.mel, lead=lead, starts=batch.starts)
    assert not torch.equal(clean, heard)
    torch.testing.assert_close(module.loss(batch), -model.head.log_prob(clean, levels).mean())


def test_damage_to_a_residual_leaves_its_prediction_alone(recipe_file, data):
    module = Likelihood(load_recipe(recipe_file, PREDICTED), [])
    initialise(module, data.first_batch())
    batch = data.training_crops().batch(0)
    model = module.model
    levels, lead = model.levels(batch.audio), model.condition.lead
    silent = torch.zeros_like(levels)

    def means(damage):
        return model(levels, batch.mel, None, lead, damage=damage)[..., 10:20]

    clean = means(None)
    torch.testing.assert_close(means((silent + 1, silent)), clean)
    dropped = means((silent, silent))
    assert not torch.equal(dropped, clean)
    # the prediction, to which both are near, still explains the audio
    assert (dropped - clean).abs().mean() < 0.2 * clean.abs().mean()


def test_the_predictor_is_fitted_before_the_network_and_helps(recipe_file, data):
    changes = [*PREDICTED, "--model.longest_lag", "40", "--optimiser.predictor_steps", "60"]
    recipe = load_recipe(recipe_file, changes)
    batch = data.training_crops().batch(100)

    def alone(batches):
        torch.manual_seed(0)
        module = Likelihood(recipe, [])
        report = initialise(module, data.first_batch(), batches)
        assert "predictor.projection" in report.layers and "output" in report.layers
        levels = module.model.levels(batch.audio)
        heard = module.hear(levels, batch)
        assert heard.location.shape == heard.scale.shape == levels.shape
        return module.predictor_loss(batch, levels, heard).item()

    assert alone(data.training_crops().batch) < alone(None) - 0.5


def test_the_training_loss_holds_the_predictors_share_and_the_validation_loss_does_not(
    recipe_file, data
):
    module = Likelihood(load_recipe(recipe_file, PREDICTED), [])
    initialise(module, data.first_batch())
    batch = data.training_crops().batch(0)
    logged = {}
    module.log = lambda name, value, **_: logged.update({name: value.item()})
    module._trainer = type("Trainer", (), {"accumulate_grad_batches": 1})()

    total = module.training_step(batch, 0).item()

    assert logged["loss/train"] == pytest.approx(module.loss(batch).item(), abs=1e-5)
    share = PREDICTOR_SHARE * logged["loss/predictor"]
    assert total == pytest.approx(logged["loss/train"] + share, abs=1e-5)
