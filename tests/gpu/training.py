"""Training: steps a second, and whether the data keep up.

A recipe trains for some steps on the embedded speech, read by worker processes, and again on one
batch that lies in memory: what the first takes longer is time that the device waited for data.
"""

import contextlib
import logging
import statistics
import time
import warnings
from pathlib import Path

import torch
from lightning.pytorch import Callback, Trainer
from report import Part
from torch.utils.data import DataLoader

from wavewn.data.crops import Batch
from wavewn.nn.layout import innermost
from wavewn.training import adversarial
from wavewn.training.adversarial import Adversarial
from wavewn.training.likelihood import Likelihood
from wavewn.training.recipe import Recipe, load_recipe
from wavewn.training.run import make_data

ROOT = Path(__file__).parents[2]
CORPUS = ROOT / "recipes" / "corpus" / "festvox-ru"
# What the recipes' headers advise for a GPU.
RECIPES = {
    "WaveNet": ("festvox-ru-wavenet", 80, 16, []),
    "HiFi-GAN V2": (
        "festvox-ru-hifigan",
        40,
        16,
        ["--adversarial.discriminators", "hifigan", "--adversarial.warmup_steps", "0"],
    ),
}
WORKERS = 8
WARM, STEPS = 6, 24  # the first ones compile


class Clock(Callback):
    """When each step was done, on the device too."""

    def __init__(self, part: Part) -> None:
        self.part, self.times = part, []

    def on_train_batch_end(self, *_: object) -> None:
        self.part.synchronize()
        self.times.append(time.perf_counter())

    def step_s(self) -> float:
        counted = self.times[len(self.times) // 5 :]
        return statistics.median(b - a for a, b in zip(counted, counted[1:], strict=False))


def load(name: str, tiny: bool) -> Recipe:
    file, frames, batch, more = RECIPES[name]
    if tiny:
        frames, batch = (60 if name == "WaveNet" else 40), 1
    settings = {
        "--data.manifest": str(CORPUS),
        "--data.frames": str(frames),
        "--data.batch_size": str(batch),
        "--data.workers": str(1 if tiny else WORKERS),
    }
    if tiny and name == "WaveNet":
        settings |= {"--model.layers_per_cycle": "2", "--model.residual_channels": "8"}
    words = [word for pair in settings.items() for word in pair]
    return load_recipe(ROOT / "recipes" / f"{file}.yaml", [*words, *([] if tiny else more)])


def step_s(
    part: Part, recipe: Recipe, compiled: bool, from_memory: bool, benchmark: bool = False
) -> float:
    """Seconds a step."""
    wavenet = recipe.adversarial is None
    data = make_data(recipe, Path())
    module = Likelihood(recipe, data.speakers) if wavenet else Adversarial(recipe)
    if compiled:
        module.compile_parts("eager" if part.tiny else "inductor")
    clock = Clock(part)
    settings = {k: v for k, v in recipe.trainer_settings.items() if "clip" not in k or wavenet}
    steps = 5 if part.tiny else WARM + STEPS
    settings |= {"max_steps": steps, "val_check_interval": steps + 1}
    trainer = Trainer(
        **settings,
        accelerator=part.device.type,
        devices=1,
        benchmark=benchmark,
        max_epochs=-1,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[clock],
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if from_memory:
            same = [data.training_crops().batch(0)] * steps
            trainer.fit(module, train_dataloaders=DataLoader(same, batch_size=None))
        else:
            trainer.fit(module, datamodule=data)
    return clock.step_s()


@contextlib.contextmanager
def channels_innermost():
    """Generators train with their channels innermost, as on a CPU."""
    before = adversarial._laid
    adversarial._laid = innermost
    try:
        yield
    finally:
        adversarial._laid = before


def delivered(part: Part, recipe: Recipe, workers: int) -> float:
    """Batches a second that so many workers deliver."""
    data = make_data(recipe, Path())
    loader = iter(DataLoader(data.training_crops(), batch_size=None, num_workers=workers))
    count = 2 if part.tiny else 40
    for _ in range(workers + 1):
        batch: Batch = next(loader)
    assert batch.audio.dim() == 2
    return count / part.seconds_of(lambda: [next(loader) for _ in range(count)])


def main() -> None:
    part = Part("training")
    for name in RECIPES:
        recipe = load(name, part.tiny)
        keeps_up(part, name, recipe, compiled=False)
        for workers in (1,) if part.tiny else (1, WORKERS):
            part.measure(
                name,
                f"{workers} worker(s) deliver",
                recipe.data.batch_size,
                "batches/s",
                lambda r=recipe, w=workers: delivered(part, r, w),
            )
        if recipe.adversarial is not None:
            what_if(part, name, recipe)
    for name in RECIPES:
        keeps_up(part, name, load(name, part.tiny), compiled=True)


def keeps_up(part: Part, name: str, recipe: Recipe, compiled: bool) -> None:
    """Steps from memory and from the corpus, and what lies between."""
    way = "compiled" if compiled else "eager"
    size, found = recipe.data.batch_size, []
    for source in ("memory", "corpus"):

        def run(from_memory: bool = source == "memory") -> float:
            return 1 / step_s(part, recipe, compiled, from_memory)

        way_in_full = f"bf16, {way}, from {source}"
        found.append(part.measure(name, way_in_full, size, "steps/s", run))
    memory, corpus = found
    if memory and corpus:
        share = max(1 - corpus / memory, 0.0)
        part.add(name, f"bf16, {way}, share of waiting", size, share, "")


def what_if(part: Part, name: str, recipe: Recipe) -> None:
    """Settings that are off until a GPU has said that they gain something."""
    size = recipe.data.batch_size
    part.measure(
        name,
        "bf16, eager, cudnn.benchmark",
        size,
        "steps/s",
        lambda: 1 / step_s(part, recipe, False, True, benchmark=True),
    )
    with channels_innermost():
        part.measure(
            name,
            "bf16, eager, channels innermost",
            size,
            "steps/s",
            lambda: 1 / step_s(part, recipe, False, True),
        )


if __name__ == "__main__":
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    main()
