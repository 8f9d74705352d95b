"""Twenty deaths: a training that is killed again and again is the one that nobody touched."""

import multiprocessing
import random
import signal
import time

import pytest
import torch
from lightning.pytorch import Callback

from wavewn.training.recipe import load_recipe
from wavewn.training.run import train

DEATHS = 20
AHEAD = 5  # steps that a life may have at most
STEPS = DEATHS * AHEAD + 2
SETTINGS = (
    *("--trainer.max_steps", str(STEPS)),
    *("--optimiser.decay_steps", str(STEPS)),
    *("--checkpoint_every", "2"),
    *("--trainer.val_check_interval", "10"),
)
fork = multiprocessing.get_context("fork")


class Report(Callback):
    """Tells every step and its loss, bit for bit."""

    def __init__(self, pipe):
        self.pipe = pipe

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.pipe.send((trainer.global_step, outputs["loss"].item().hex()))


def live(recipe_file, out, pipe):
    torch.set_num_threads(1)
    recipe = load_recipe(recipe_file, list(SETTINGS))
    train(recipe, out, resume="auto", callbacks=[Report(pipe)])
    pipe.close()


def start(recipe_file, out):
    """Begin or resume a training in a process of its own; give it and what it reports."""
    reader, writer = fork.Pipe(duplex=False)
    process = fork.Process(target=live, args=(recipe_file, out, writer))
    process.start()
    writer.close()
    return process, reader


def reports(reader, seconds=60):
    """Yield what comes until the pipe closes."""
    while reader.poll(seconds):
        try:
            yield reader.recv()
        except EOFError:
            return


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["recipe_file", "generator_file"])
def test_twenty_deaths_change_no_bit(recipe, request, tmp_path):
    recipe_file = request.getfixturevalue(recipe)
    process, reader = start(recipe_file, tmp_path / "whole")
    whole = dict(reports(reader))
    process.join()
    assert list(whole) == list(range(1, STEPS + 1))
    chance = random.Random(0)

    for death in range(DEATHS):
        process, reader = start(recipe_file, tmp_path / "killed")
        doomed = chance.randint(1, AHEAD)
        for lived, (step, loss) in enumerate(reports(reader), start=1):
            assert loss == whole[step], f"step {step} after {death} deaths"
            if lived == doomed:
                time.sleep(chance.uniform(0, 0.02))  # in a step, a checkpoint, a validation
                process.kill()
                break
        process.join()
        assert process.exitcode == -signal.SIGKILL
        reader.close()

    process, reader = start(recipe_file, tmp_path / "killed")
    assert all(loss == whole[step] for step, loss in reports(reader))
    process.join()
    assert process.exitcode == 0
    a, b = (
        torch.load(tmp_path / name / "checkpoints/last.ckpt", weights_only=True)
        for name in ("whole", "killed")
    )
    assert a["wavewn"]["step"] == b["wavewn"]["step"] == STEPS
    for part in (lambda c: c["state_dict"], lambda c: c["wavewn"]["ema"]):
        assert all(torch.equal(part(a)[key], part(b)[key]) for key in part(a))
