"""A training from recipe to checkpoint: resuming, starting from others' weights, stopping."""

import os
import runpy
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback

from wavewn.bundle import load_checkpoint
from wavewn.errors import TrainingError
from wavewn.training.callbacks import Interrupted
from wavewn.training.recipe import load_recipe
from wavewn.training.run import train

SAVED = runpy.run_path(str(Path(__file__).with_name("checkpoints.py")))
read, last = SAVED["read"], SAVED["last"]


def assert_same_state(a, b):
    for part in (lambda c: c["state_dict"], lambda c: c["wavewn"]["ema"]):
        one, two = part(a), part(b)
        assert one.keys() == two.keys()
        assert all(torch.equal(one[key], two[key]) for key in one)
    one, two = (c["optimizer_states"][0]["state"] for c in (a, b))
    assert all(torch.equal(one[i]["exp_avg_sq"], two[i]["exp_avg_sq"]) for i in one)


def test_a_training_learns_and_leaves_whole_checkpoints(run, recipe_file, tmp_path):
    best, curve = run(recipe_file, tmp_path / "run")

    assert curve.train[12] < curve.train[1]
    assert best == tmp_path / "run" / "checkpoints" / "best.ckpt"
    checkpoint = read(last(tmp_path / "run"))
    assert checkpoint["wavewn"]["step"] == checkpoint["global_step"] == 12
    assert checkpoint["wavewn"]["recipe"]["model"]["residual_channels"] == 8
    assert load_checkpoint(best).model.settings.residual_channels == 8


@pytest.mark.parametrize("stop", [4, 6])  # where it is validated, and between
def test_a_resumed_training_is_the_uninterrupted_one(run, recipe_file, tmp_path, stop):
    _, whole = run(recipe_file, tmp_path / "whole")
    _, begun = run(recipe_file, tmp_path / "parts", "--trainer.max_steps", str(stop))
    _, rest = run(recipe_file, tmp_path / "parts", resume="auto")

    assert list(rest.train) == list(range(stop + 1, 13))
    assert begun.train | rest.train == whole.train
    assert begun.valid | rest.valid == whole.valid
    assert_same_state(read(last(tmp_path / "parts")), read(last(tmp_path / "whole")))


def test_accumulated_batches_in_bfloat16_resume_too(run, recipe_file, tmp_path):
    more = ("--trainer.accumulate_grad_batches", "2", "--trainer.val_check_interval", "8")
    more += ("--trainer.precision", "bf16-mixed")
    _, whole = run(recipe_file, tmp_path / "whole", *more)
    run(recipe_file, tmp_path / "parts", *more, "--trainer.max_steps", "5")
    _, rest = run(recipe_file, tmp_path / "parts", *more, resume="auto")

    assert all(rest.train[step] == whole.train[step] for step in range(7, 13))
    assert_same_state(read(last(tmp_path / "parts")), read(last(tmp_path / "whole")))


SCRIPT = """
    import sys, time
    from pathlib import Path
    import torch
    torch.set_num_threads(1)
    from lightning.pytorch import Callback
    from wavewn.training.recipe import load_recipe
    from wavewn.training.run import train

    class Slow(Callback):
        def on_train_batch_end(self, trainer, *rest):
            print("step", trainer.global_step, flush=True)
            time.sleep(0.2)

    if __name__ == "__main__":
        recipe, out, *overrides = sys.argv[1:]
        train(load_recipe(Path(recipe), overrides), Path(out), resume="auto", callbacks=[Slow()])
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "go.py"
    path.write_text(textwrap.dedent(SCRIPT))
    return path


def start(script, *arguments):
    return subprocess.Popen(
        [sys.executable, script, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def wait_for_step(process, step):
    for line in process.stdout:
        if line.strip() == f"step {step}":
            return
    raise AssertionError(f"the training ended before step {step}")


@pytest.mark.slow
def test_a_killed_training_resumes_bitwise(run, recipe_file, tmp_path, script):
    _, whole = run(recipe_file, tmp_path / "whole")
    process = start(script, recipe_file, tmp_path / "killed")
    wait_for_step(process, 6)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL

    _, rest = run(recipe_file, tmp_path / "killed", resume="auto")

    assert list(rest.train) == list(range(5, 13))  # from the checkpoint of step 4
    assert all(rest.train[step] == whole.train[step] for step in rest.train)
    assert_same_state(read(last(tmp_path / "killed")), read(last(tmp_path / "whole")))


@pytest.mark.slow
def test_two_processes_train_the_model_that_one_trains_with_two_batches_a_step(
    run, recipe_file, tmp_path, script
):
    one = ("--trainer.accumulate_grad_batches", "2", "--trainer.val_check_interval", "8")
    run(recipe_file, tmp_path / "one", *one)
    two = ("--trainer.devices", "2", "--trainer.strategy", "ddp")
    process = start(script, recipe_file, tmp_path / "two", *two)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output

    a, b = (read(last(tmp_path / name)) for name in ("one", "two"))
    assert b["wavewn"]["step"] == 12
    for key, value in a["state_dict"].items():
        # the ranks' initialisation, crops and gradients are those of one process
        torch.testing.assert_close(b["state_dict"][key], value, rtol=1e-4, atol=1e-5)


def test_ctrl_c_saves_and_the_rest_is_bitwise(run, recipe_file, tmp_path):
    class Press(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if trainer.global_step == 5:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.01)  # the interpreter runs the handler between two instructions

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted, match="stopped at step 6") as stopped:
        train(load_recipe(recipe_file), tmp_path / "run", callbacks=[Press()])

    assert signal.getsignal(signal.SIGINT) is before
    assert stopped.value.checkpoint == last(tmp_path / "run")
    _, rest = run(recipe_file, tmp_path / "run", resume="auto")
    _, whole = run(recipe_file, tmp_path / "whole")
    assert rest.train == {step: whole.train[step] for step in range(7, 13)}


def test_when_the_time_is_up_the_last_step_is_saved(recipe_file, tmp_path):
    class Late(Callback):
        def on_train_batch_end(self, trainer, *rest):
            time.sleep(2.5 if trainer.global_step == 3 else 0)

    late = ("--trainer.max_time", "00:00:00:02", "--trainer.limit_val_batches", "0")
    recipe = load_recipe(recipe_file, list(late))

    saved = train(recipe, tmp_path / "run", callbacks=[Late()])

    assert saved == last(tmp_path / "run")  # nothing was validated
    assert read(saved)["wavewn"]["step"] == 3


def test_nan_stops_and_names_the_files_and_changes_nothing(recipe_file, tmp_path):
    class Poison(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if trainer.global_step == 5:
                batch.audio[0, 3] = float("nan")
                batch.mel[0] = float("nan")

    with pytest.raises(TrainingError, match=r"step 5: .*nan.*\d\.wav"):
        run_with(recipe_file, tmp_path / "run", Poison())

    state = read(last(tmp_path / "run"))["state_dict"]
    assert all(value.isfinite().all() for value in state.values())


def run_with(recipe_file, out, *callbacks):
    return train(load_recipe(recipe_file), out, callbacks=callbacks)


def test_validation_runs_on_the_average(recipe_file, tmp_path):
    seen = {}

    class Look(Callback):
        def on_validation_batch_start(self, trainer, pl_module, *rest):
            seen["valid"] = {k: v.clone() for k, v in pl_module.model.named_parameters()}

        def on_train_batch_end(self, trainer, pl_module, *rest):
            seen["train"] = {k: v.clone() for k, v in pl_module.model.named_parameters()}

    run_with(recipe_file, tmp_path / "run", Look())

    ema = read(last(tmp_path / "run"))["wavewn"]["ema"]
    raw = read(last(tmp_path / "run"))["state_dict"]
    assert all(torch.equal(seen["valid"][name], ema[name]) for name in seen["valid"])
    assert all(torch.equal(seen["train"][name], raw[f"model.{name}"]) for name in seen["train"])
    assert not torch.equal(ema["output.bias"], raw["model.output.bias"])


def test_the_average_warms_up():
    # At step 1 the decay is 2/11, so that little of the start remains.
    from wavewn.training.callbacks import Averaging

    class Trainer:
        global_step = 1

    module = torch.nn.Module()
    module.model = torch.nn.Linear(1, 1)
    averaging = Averaging(0.999)
    torch.nn.init.zeros_(module.model.weight)
    averaging.on_fit_start(Trainer, module)
    torch.nn.init.ones_(module.model.weight)
    averaging.on_train_batch_end(Trainer, module, None, None, 0)

    assert averaging.average["weight"].item() == pytest.approx(1 - 2 / 11)


def test_the_bar_of_a_resumed_training_knows_where_it_is_and_where_it_ends(
    run, recipe_file, tmp_path, capsys
):
    bar = ("--trainer.enable_progress_bar", "true")
    run(recipe_file, tmp_path / "run", *bar, "--trainer.max_steps", "4")
    capsys.readouterr()
    run(recipe_file, tmp_path / "run", *bar, "--trainer.max_steps", "8", resume="auto")

    shown = capsys.readouterr()
    assert "train:  50%" in shown.err + shown.out
    assert "4/8 [" in shown.err + shown.out
