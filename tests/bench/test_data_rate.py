"""How fast crops are delivered, against how fast a training consumes them."""

import time
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from wavewn.data.module import CropsModule, DataConfig
from wavewn.training.likelihood import Likelihood, initialise
from wavewn.training.recipe import Recipe

CORPUS = Path(__file__).parents[2] / "recipes" / "corpus" / "festvox-ru"
STEPS = 4


@pytest.mark.bench
def test_one_reader_delivers_faster_than_a_step_consumes():
    recipe = Recipe(DataConfig(str(CORPUS), workers=1))
    data = CropsModule(recipe.data, Path(), recipe.mel, lead=3, look_ahead=2, seed=0)
    samples = recipe.data.batch_size * recipe.data.frames * recipe.mel.hop_length

    loader = iter(DataLoader(data.training_crops(), batch_size=None, num_workers=1))
    next(loader)
    began = time.perf_counter()
    for _ in range(20 * STEPS):
        next(loader)
    delivered = 20 * STEPS * samples / (time.perf_counter() - began)

    module = Likelihood(recipe, [])
    initialise(module, data.first_batch())
    optimiser = module.configure_optimizers()["optimizer"]
    batch = data.training_crops().batch(0)
    began = time.perf_counter()
    for _ in range(STEPS):
        optimiser.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = module.loss(batch)
        loss.backward()
        optimiser.step()
    consumed = STEPS * samples / (time.perf_counter() - began)

    print(f"\ndelivered {delivered:,.0f} samples/s by one worker, consumed {consumed:,.0f}")
    assert delivered > 2 * consumed
