"""Adversarial training that goes on: resumed, fine-tuned, stopped by NaN, in two processes."""

import os
import runpy
import subprocess
import sys
import textwrap
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback

from wavewn.bundle import load_checkpoint, save_bundle
from wavewn.data.crops import Batch, Crops
from wavewn.errors import ConfigError, TrainingError
from wavewn.training.recipe import load_recipe
from wavewn.training.run import train

SAVED = runpy.run_path(str(Path(__file__).with_name("checkpoints.py")))
read, last, steps_of, discriminators = (
    SAVED[name] for name in ("read", "last", "steps_of", "discriminators")
)


@pytest.mark.parametrize(
    ("kind", "stop"),  # before the discriminators enter, and after
    [("hifigan", 4), ("hifigan", 6), ("noisy", 6), ("spectral", 6), ("bfloat16", 6)],
)
def test_a_resumed_training_is_the_uninterrupted_one(
    run, generator_file, tmp_path, kinds, stop, kind
):
    chosen = kinds.get(kind, ("--trainer.precision", "bf16-mixed"))
    warm = (*chosen, "--adversarial.warmup_steps", "5", "--trainer.max_steps", "8")
    _, whole = run(generator_file, tmp_path / "whole", *warm)
    _, begun = run(generator_file, tmp_path / "parts", *warm, "--trainer.max_steps", str(stop))
    _, rest = run(generator_file, tmp_path / "parts", *warm, resume="auto")

    assert list(rest.train) == list(range(stop + 1, 9))
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
    best, fresh = run(generator_file, tmp_path / "first", "--trainer.max_steps", "4")
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
