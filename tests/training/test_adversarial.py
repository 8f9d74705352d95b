"""Adversarial training: turns, counts, clipping, noise, switches, what reaches TensorBoard."""

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch import Callback

from wavewn.bundle import load_checkpoint
from wavewn.cli.main import main
from wavewn.nn.weight_norm import normed_modules
from wavewn.shipped import shipped_folder
from wavewn.training.adversarial import Adversarial
from wavewn.training.recipe import load_recipe
from wavewn.training.run import make_data, train

SAVED = runpy.run_path(str(Path(__file__).with_name("checkpoints.py")))
read, last, steps_of, discriminators = (
    SAVED[name] for name in ("read", "last", "steps_of", "discriminators")
)


class Look(Callback):
    """Keeps the discriminators and the norms of both gradients after every step."""

    def __init__(self):
        self.networks, self.norms, self.rates = {}, {}, {}

    def on_train_batch_end(self, trainer, pl_module, *rest):
        step = trainer.global_step
        self.networks[step] = {k: v.clone() for k, v in pl_module.discriminators.named_parameters()}
        parts = (pl_module.model, pl_module.discriminators)
        self.norms[step] = [norm(part.parameters()) for part in parts]
        self.rates[step] = [one.param_groups[0]["lr"] for one in trainer.optimizers]


def norm(parameters):
    gradients = [p.grad for p in parameters if p.grad is not None]
    return torch.nn.utils.get_total_norm(gradients).item() if gradients else None


def look(recipe_file, out, *overrides):
    seen = Look()
    train(load_recipe(recipe_file, list(overrides)), out, callbacks=[seen])
    return seen


def test_twenty_steps_learn_and_leave_a_checkpoint_of_both_networks(run, generator_file, tmp_path):
    more = ("--trainer.max_steps", "20", "--optimiser.lr", "0.003")
    best, curve = run(generator_file, tmp_path / "run", *more)

    assert list(curve.train) == list(range(1, 21))
    assert curve.train[20] < 0.7 * curve.train[1]
    assert curve.valid[20] < curve.valid[4]
    checkpoint = read(last(tmp_path / "run"))
    assert checkpoint["wavewn"]["step"] == checkpoint["global_step"] == 20
    assert discriminators(checkpoint["state_dict"])
    assert not discriminators(checkpoint["wavewn"]["ema"])
    assert load_checkpoint(best).model.settings.channels == 16
    raw = checkpoint["state_dict"]["model.conv_post.bias"]
    assert not torch.equal(checkpoint["wavewn"]["ema"]["conv_post.bias"], raw)


def test_the_shipped_corpus_trains_by_one_command(generator_file, tmp_path, capsys):
    kept = yaml.safe_load(generator_file.read_text())
    recipe = {
        **{part: kept[part] for part in ("clips", "trainer")},
        "data": {"manifest": "corpus/festvox-ru", "frames": 12, "workers": 0, "valid_batches": 1},
        "model": {"preset": "hifigan-v3-16k", "channels": 16, "resblock_kernel_sizes": [3]}
        | {"resblock_dilations": [[1, 2]]},
        "adversarial": {"discriminators": "light", "warmup_steps": 10},
    }
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(recipe))
    manifest = f"--data.manifest={shipped_folder('recipes') / 'corpus/festvox-ru'}"

    code = main(
        ["train", str(path), "--out", str(tmp_path / "run"), manifest, "--trainer.max_steps", "20"]
    )

    assert code == 0
    assert "wavewn export" in capsys.readouterr().out
    checkpoint = read(last(tmp_path / "run"))
    assert [steps_of(one) for one in checkpoint["optimizer_states"]] == [{20}, {10}]


def test_max_steps_are_the_generators_and_the_discriminators_enter_after_the_warm_up(
    generator_file, tmp_path
):
    rates = ("--adversarial.lr", "0.02", "--optimiser.warmup_steps", "2")
    warm = ("--adversarial.warmup_steps", "5", *rates)

    seen = look(generator_file, tmp_path / "run", *warm)

    states = read(last(tmp_path / "run"))["optimizer_states"]
    assert [steps_of(one) for one in states] == [{12}, {7}]
    fresh = Adversarial(load_recipe(generator_file)).discriminators.named_parameters()
    kept, moved = seen.networks[5], seen.networks[6]
    assert kept.keys() == dict(fresh).keys()
    assert all(torch.equal(seen.networks[1][key], kept[key]) for key in kept)
    assert not any(torch.equal(kept[key], moved[key]) for key in kept if key.endswith("bias"))
    # Their schedule begins with them: the same warm-up, and the cosine over the steps that remain.
    assert [seen.rates[step][1] for step in (1, 5)] == [0.01, 0.01]
    assert seen.rates[6][1] == pytest.approx(0.02, rel=0.1)
    assert seen.rates[12][1] == pytest.approx(0.02 * 0.01)
    assert seen.rates[12][0] == pytest.approx(0.01 * 0.01)


@pytest.mark.parametrize(
    ("own", "wanted"),
    [
        ([], (0.01, 0.01)),
        (["--adversarial.gradient_clip_val=0.02"], (0.01, 0.02)),
        (["--adversarial.gradient_clip_val=0"], (0.01, None)),
        (["--trainer.gradient_clip_val=null"], (None, None)),
    ],
)
def test_each_network_is_clipped_by_its_own_norm(generator_file, tmp_path, own, wanted):
    clip = ["--trainer.gradient_clip_val=0.01", *own]

    seen = look(generator_file, tmp_path / "run", *clip, "--trainer.max_steps", "3")

    for norms in seen.norms.values():
        for found, limit in zip(norms, wanted, strict=True):
            assert found > 0.05 if limit is None else found == pytest.approx(limit, rel=1e-3)


def test_gradients_can_be_clipped_by_value(generator_file, tmp_path):
    class Largest(Callback):
        found = 0.0

        def on_train_batch_end(self, trainer, pl_module, *rest):
            gradients = [p.grad.abs().max() for p in pl_module.parameters() if p.grad is not None]
            self.found = torch.stack(gradients).max().item()

    seen = Largest()
    clip = ("--trainer.gradient_clip_val", "0.001", "--trainer.gradient_clip_algorithm", "value")
    recipe = load_recipe(generator_file, [*clip, "--trainer.max_steps", "1"])
    train(recipe, tmp_path / "run", callbacks=[seen])

    assert seen.found == pytest.approx(0.001)


@pytest.mark.parametrize(
    "overrides",
    [
        ["--adversarial.loss", "hinge", "--trainer.precision", "bf16-mixed"],
        ["--data.frames", "24", "--adversarial.stft_weight", "1.0", "--adversarial.mel_weight=0"],
        ["--data.frames=24", "--adversarial.mel_loss=multi-scale-light"],
        ["--data.frames=24", "--adversarial.mel_loss=multi-scale", "--data.workers=1"],
        ["--adversarial.feature_weight", "0", "--adversarial.context", "3"],
        ["--adversarial.adversarial_weight", "0", "--optimiser.weight_decay", "0.1"],
    ],
)
def test_every_switch_trains(run, generator_file, tmp_path, overrides):
    _, curve = run(generator_file, tmp_path / "run", *overrides, "--trainer.max_steps", "4")

    assert len(curve.train) == 4
    assert np.isfinite([*curve.train.values(), *curve.valid.values()]).all()


@pytest.mark.parametrize("kind", ["noisy", "spectral"])
def test_other_kinds_train_in_bfloat16_with_frames_beside(
    run, generator_file, tmp_path, kinds, kind
):
    more = ("--trainer.precision", "bf16-mixed", "--adversarial.context", "2")
    short = ("--trainer.max_steps", "4")

    _, curve = run(generator_file, tmp_path / "run", *kinds[kind], *more, *short)

    assert np.isfinite([*curve.train.values(), *curve.valid.values()]).all()


def module_and_batch(generator_file, *overrides):
    torch.manual_seed(0)
    recipe = load_recipe(generator_file, list(overrides))
    data = make_data(recipe, generator_file.parent)
    module = Adversarial(recipe)
    module.log = lambda *args, **kwargs: None
    return module, data.training_crops().batch(0)


def test_a_generator_that_says_how_its_layers_start_is_set_from_data_and_others_are_left(
    generator_file, kinds
):
    for kind, names in (("spectral", {"inlet", "outlet"}), ("hifigan", set())):
        recipe = load_recipe(generator_file, list(kinds[kind]))
        module = Adversarial(recipe)
        before = {key: value.clone() for key, value in module.model.state_dict().items()}

        report = module.initialise(make_data(recipe, generator_file.parent))

        after = module.model.state_dict()
        assert names <= set(report.layers)
        assert bool(report.layers) is bool(names)
        assert all(torch.equal(before[key], after[key]) for key in before) is not bool(names)


def test_noise_is_a_function_of_seed_number_and_row(generator_file, kinds):
    module, batch = module_and_batch(generator_file, *kinds["noisy"])
    batch.mel[1] = batch.mel[0]

    with torch.no_grad():
        one, again, next_one, other_seed = (
            module.generate(batch, number, seed)
            for number, seed in ((3, 0), (3, 0), (4, 0), (3, 1))
        )

    assert one.shape == batch.audio.shape
    assert torch.equal(one, again)
    for other in (next_one, other_seed, one.flip(0)):
        assert not torch.allclose(one, other)


def test_the_frames_beside_a_crop_are_heard_and_not_scored(generator_file):
    module, batch = module_and_batch(generator_file, "--adversarial.context", "3")

    with torch.no_grad():
        whole = module.model(batch.mel)
        scored = module.generate(batch, 0, 0)

    assert batch.mel.shape[2] == 3 + 8 + 3
    assert torch.equal(scored, whole[:, 150:550])
    assert scored.shape == batch.audio.shape


def test_losses_and_their_gradients_are_float32_under_autocast(run, generator_file, tmp_path):
    types = []

    class Listen(Callback):
        def on_train_start(self, trainer, pl_module):
            measure = pl_module.mel_loss.forward

            def forward(generated, reference):
                types.append((generated.dtype, torch.is_autocast_enabled("cpu")))
                generated.register_hook(
                    lambda g: types.append((g.dtype, torch.is_autocast_enabled("cpu")))
                )
                return measure(generated, reference)

            pl_module.mel_loss.forward = forward

    recipe = load_recipe(
        generator_file, ["--trainer.precision", "bf16-mixed", "--trainer.max_steps", "1"]
    )
    train(recipe, tmp_path / "run", callbacks=[Listen()])

    assert types == [(torch.float32, True), (torch.float32, False)]


def test_the_generators_loss_reaches_no_discriminator_but_hears_it(generator_file):
    module, batch = module_and_batch(generator_file, "--adversarial.mel_weight", "0")
    generated = torch.randn_like(batch.audio).requires_grad_()

    module.generators_loss(batch, generated, True, {}).backward()

    assert generated.grad.abs().max() > 0
    assert all(p.grad is None and p.requires_grad for p in module.discriminators.parameters())
    assert len(normed_modules(module.discriminators)) > 4


def test_generated_clips_reach_tensorboard(run, generator_file, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    clips = ("--clips.every", "2", "--clips.seconds", "0.1", "--trainer.max_steps", "8")
    run(generator_file, tmp_path / "run", *clips)

    events = EventAccumulator(str(tmp_path / "run")).Reload()
    assert events.Tags()["audio"] == ["clip/4", "clip/4/recording"]
    expected = {"mel", "adversarial", "features", "discriminators", "train", "valid"}
    scalars = set(events.Tags()["scalars"])
    assert {f"loss/{name}" for name in expected} <= scalars
    for network in ("generator", "discriminators"):
        assert f"gradient_norm/{network}" in scalars
        assert any(name.startswith(f"lr/{network}") for name in scalars)
