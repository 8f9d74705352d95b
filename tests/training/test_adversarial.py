"""Adversarial training: turns, counts, clipping, noise, what resumes and what is taken over."""

import os
import subprocess
import sys
import textwrap
from dataclasses import fields

import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch import Callback

from wavewn.bundle import load_checkpoint, save_bundle
from wavewn.cli.main import main
from wavewn.data.crops import Batch, Crops
from wavewn.errors import ConfigError, TrainingError
from wavewn.nn.weight_norm import normed_modules
from wavewn.shipped import shipped_folder
from wavewn.training.adversarial import Adversarial
from wavewn.training.recipe import load_recipe
from wavewn.training.run import make_data, train

NOISY = (  # a generator that noise drives
    *("--model.kind", "parallel-wavegan"),
    *("--model.residual_channels", "8"),
    *("--model.gate_channels", "8"),
    *("--model.skip_channels", "8"),
    *("--model.cycles", "1"),
    *("--model.layers_per_cycle", "3"),
    *("--model.upsample_rates", "[10, 5]"),
)
SPECTRAL = (
    *("--model.kind", "spectral"),
    *("--model.channels", "8"),
    *("--model.hidden_channels", "8"),
    *("--model.dilations", "[1, 2]"),
    *("--model.look_ahead", "1"),
    *("--model.n_fft", "100"),
    *("--mel.n_fft", "256", "--mel.win_length", "150"),
)


def read(path):
    return torch.load(path, weights_only=True)


def last(out):
    return out / "checkpoints" / "last.ckpt"


def steps_of(optimiser):
    return {int(one["step"]) for one in optimiser["state"].values()}


def discriminators(state):
    return {key: value for key, value in state.items() if key.startswith("discriminators.")}


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
    best, curve = run(generator_file, tmp_path / "run", "--trainer.max_steps", "20")

    assert list(curve.train) == list(range(1, 21))
    assert curve.train[20] < 0.5 * curve.train[1]
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
    ("clip", "wanted"),
    [
        (("--trainer.gradient_clip_val", "0.01"), (0.01, 0.01)),
        (("--trainer.gradient_clip_val", "0.01", "--adversarial.gradient_clip_val", "0.02"),) * 2,
        (("--trainer.gradient_clip_val", "0.01", "--adversarial.gradient_clip_val", "0"),) * 2,
    ],
)
def test_each_network_is_clipped_by_its_own_norm(generator_file, tmp_path, clip, wanted):
    if wanted is clip:
        wanted = (0.01, float(clip[-1]) or None)

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


@pytest.mark.parametrize("kind", [(), NOISY, SPECTRAL], ids=["hifigan", "noisy", "spectral"])
@pytest.mark.parametrize("stop", [4, 6])  # before the discriminators enter, and after
def test_a_resumed_training_is_the_uninterrupted_one(run, generator_file, tmp_path, stop, kind):
    warm = (*kind, "--adversarial.warmup_steps", "5")
    _, whole = run(generator_file, tmp_path / "whole", *warm)
    _, begun = run(generator_file, tmp_path / "parts", *warm, "--trainer.max_steps", str(stop))
    _, rest = run(generator_file, tmp_path / "parts", *warm, resume="auto")

    assert list(rest.train) == list(range(stop + 1, 13))
    assert begun.train | rest.train == whole.train
    assert begun.valid | rest.valid == whole.valid
    a, b = (read(last(tmp_path / name)) for name in ("parts", "whole"))
    for part in (lambda c: c["state_dict"], lambda c: c["wavewn"]["ema"]):
        assert part(a).keys() == part(b).keys()
        assert all(torch.equal(part(a)[key], part(b)[key]) for key in part(a))
    assert a["lr_schedulers"] == b["lr_schedulers"]
    for one, two in zip(a["optimizer_states"], b["optimizer_states"], strict=True):
        assert one["state"].keys() == two["state"].keys() != set()
        for i, moments in one["state"].items():
            assert all(torch.equal(moments[key], two["state"][i][key]) for key in moments)


def test_another_generator_and_other_discriminators_are_not_resumed(run, generator_file, tmp_path):
    run(generator_file, tmp_path / "run", "--trainer.max_steps", "1")

    with pytest.raises(ConfigError, match="other model or mel settings"):
        run(generator_file, tmp_path / "run", "--model.channels", "8", resume="auto")
    other = ("--adversarial.discriminators.channels", "8")
    with pytest.raises(ConfigError, match="other discriminators"):
        run(generator_file, tmp_path / "run", *other, resume="auto")


def test_nan_stops_names_the_files_and_changes_neither_network(generator_file, tmp_path):
    class Poison(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if trainer.global_step == 5:
                batch.audio[0, 3] = float("nan")
                self.before = {k: v.clone() for k, v in pl_module.state_dict().items()}

        def on_exception(self, trainer, pl_module, exception):
            self.after = pl_module.state_dict()

    poison = Poison()
    with pytest.raises(TrainingError, match=r"step 5: .*discriminators is nan.*\d\.wav"):
        train(load_recipe(generator_file), tmp_path / "run", callbacks=[poison])

    weights = [key for key in poison.before if not key.endswith(("_u", "_v"))]
    assert all(torch.equal(poison.before[key], poison.after[key]) for key in weights)
    alone = ["--adversarial.warmup_steps", "20"]
    with pytest.raises(TrainingError, match=r"step 5: .*generator is nan.*\d\.wav"):
        train(load_recipe(generator_file, alone), tmp_path / "alone", callbacks=[Poison()])


def test_fine_tuning_takes_the_generator_and_from_a_checkpoint_the_discriminators(
    run, generator_file, tmp_path
):
    best, fresh = run(generator_file, tmp_path / "first")
    bundle = load_checkpoint(best)
    save_bundle(tmp_path / "bundle", bundle.model, bundle.mel)
    seen = {}

    class First(Callback):
        def __init__(self, name):
            self.name = name

        def on_train_start(self, trainer, pl_module):
            seen[self.name] = {k: v.clone() for k, v in pl_module.state_dict().items()}

    def tune(name, source, *overrides):
        recipe = load_recipe(
            generator_file, ["--trainer.max_steps", "1", "--seed", "5", *overrides]
        )
        train(recipe, tmp_path / name, init_from=source, callbacks=[First(name)])

    tune("anew", None)
    tune("from bundle", tmp_path / "bundle")
    tune("from checkpoint", best)
    tune("others", best, "--adversarial.discriminators.channels", "8")

    generator = "model.conv_pre.parametrizations.weight.original0"
    ema = read(best)["wavewn"]["ema"][generator.removeprefix("model.")]
    for name in ("from bundle", "from checkpoint", "others"):
        torch.testing.assert_close(seen[name][generator], ema)
    assert not torch.allclose(seen["anew"][generator], ema)
    theirs = discriminators(read(best)["state_dict"])
    for name, same in (("anew", False), ("from bundle", False), ("from checkpoint", True)):
        own = discriminators(seen[name])
        assert own.keys() == theirs.keys()
        assert all(torch.equal(own[key], theirs[key]) for key in theirs) is same


@pytest.mark.parametrize(
    "overrides",
    [
        ["--adversarial.loss", "hinge", "--trainer.precision", "bf16-mixed"],
        ["--data.frames", "24", "--adversarial.stft_weight", "1.0", "--adversarial.mel_weight=0"],
        ["--data.frames=24", "--adversarial.mel_loss=multi-scale-light"],
        ["--data.frames=24", "--adversarial.mel_loss=multi-scale", "--data.workers=1"],
        ["--adversarial.feature_weight", "0", "--adversarial.context", "3"],
        ["--adversarial.adversarial_weight", "0", "--optimiser.weight_decay", "0.1"],
        [*NOISY, "--trainer.precision", "bf16-mixed"],
        [*SPECTRAL, "--trainer.precision", "bf16-mixed", "--adversarial.context", "2"],
    ],
)
def test_every_switch_trains(run, generator_file, tmp_path, overrides):
    _, curve = run(generator_file, tmp_path / "run", *overrides, "--trainer.max_steps", "4")

    assert len(curve.train) == 4
    assert np.isfinite([*curve.train.values(), *curve.valid.values()]).all()


def module_and_batch(generator_file, *overrides):
    torch.manual_seed(0)
    recipe = load_recipe(generator_file, list(overrides))
    data = make_data(recipe, generator_file.parent)
    module = Adversarial(recipe)
    module.log = lambda *args, **kwargs: None
    return module, data.training_crops().batch(0)


def test_a_generator_that_says_how_its_layers_start_is_set_from_data_and_others_are_left(
    generator_file,
):
    for overrides, names in ((SPECTRAL, {"inlet", "outlet"}), ((), set())):
        recipe = load_recipe(generator_file, list(overrides))
        module = Adversarial(recipe)
        before = {key: value.clone() for key, value in module.model.state_dict().items()}

        report = module.initialise(make_data(recipe, generator_file.parent))

        after = module.model.state_dict()
        assert names <= set(report.layers)
        assert bool(report.layers) is bool(names)
        assert all(torch.equal(before[key], after[key]) for key in before) is not bool(names)


def test_noise_is_a_function_of_seed_number_and_row(generator_file):
    module, batch = module_and_batch(generator_file, *NOISY)
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

    module.generators_loss(batch, generated, judged=True).backward()

    assert generated.grad.abs().max() > 0
    assert all(p.grad is None and p.requires_grad for p in module.discriminators.parameters())
    assert len(normed_modules(module.discriminators)) > 4


@pytest.mark.parametrize(
    ("overrides", "needed"),
    [(["--adversarial.stft_weight", "1.0"], 1024), (["--adversarial.mel_loss=multi-scale"], 1024)],
)
def test_a_crop_that_the_losses_cannot_see_whole_is_refused(
    run, generator_file, tmp_path, overrides, needed
):
    with pytest.raises(ConfigError, match=f"data.frames is 8 .* more than {needed} at once"):
        run(generator_file, tmp_path / "run", *overrides)


def test_a_hop_that_is_not_the_mels_is_refused(run, generator_file, tmp_path):
    with pytest.raises(ConfigError, match="hop_length"):
        run(generator_file, tmp_path / "run", "--mel.hop_length", "40")


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


SCRIPT = """
    import sys
    from pathlib import Path
    import torch
    torch.set_num_threads(1)
    from lightning.pytorch import Callback
    from wavewn.training.recipe import load_recipe
    from wavewn.training.run import train

    class Keep(Callback):
        def on_train_end(self, trainer, pl_module):
            torch.save(pl_module.state_dict(), Path(out) / f"rank{trainer.global_rank}.pt")

    if __name__ == "__main__":
        recipe, out, *overrides = sys.argv[1:]
        train(load_recipe(Path(recipe), overrides), Path(out), callbacks=[Keep()])
"""


@pytest.mark.slow
def test_two_processes_train_what_one_trains_with_both_their_batches(
    run, generator_file, tmp_path, monkeypatch
):
    short = ("--trainer.max_steps", "6", "--adversarial.warmup_steps", "2")
    script = tmp_path / "go.py"
    script.write_text(textwrap.dedent(SCRIPT))
    two = ("--trainer.devices", "2", "--trainer.strategy", "ddp")
    process = subprocess.run(
        [sys.executable, script, generator_file, tmp_path / "two", *short, *two],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=120,
    )
    assert process.returncode == 0, process.stderr

    alone = Crops.batch

    def both(crops, step):
        pair = [alone(crops, 2 * step + rank) for rank in (0, 1)]
        columns = [[getattr(one, entry.name) for one in pair] for entry in fields(Batch)]
        paths = columns.pop()
        return Batch(*map(torch.cat, columns), paths[0] + paths[1])

    monkeypatch.setattr(Crops, "batch", both)
    run(generator_file, tmp_path / "one", *short)

    checkpoint = read(last(tmp_path / "two"))
    assert checkpoint["wavewn"]["step"] == 6
    assert [steps_of(one) for one in checkpoint["optimizer_states"]] == [{6}, {4}]
    ranks = [read(tmp_path / "two" / f"rank{rank}.pt") for rank in (0, 1)]
    expected = read(last(tmp_path / "one"))["state_dict"]
    for key, value in expected.items():
        assert torch.equal(ranks[0][key], ranks[1][key])
        torch.testing.assert_close(ranks[0][key], value, rtol=1e-3, atol=1e-4)
