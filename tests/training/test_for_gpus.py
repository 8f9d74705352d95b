"""What training does for a GPU: compiled networks, pinned batches, a predictor fitted there."""

import pytest
import torch
from torch.utils.data import DataLoader
from torch.utils.data._utils.pin_memory import pin_memory

from wavewn.bundle import load_checkpoint
from wavewn.training.adversarial import Adversarial
from wavewn.training.likelihood import Likelihood, device_of
from wavewn.training.recipe import load_recipe
from wavewn.training.run import make_data


@pytest.fixture
def graphs(monkeypatch):
    """The graphs that Dynamo finds; they run as they are, instead of through Inductor."""
    found = []

    def backend(graph, inputs):
        found.append(graph)
        return graph.forward

    for kind in (Likelihood, Adversarial):
        compile_parts = kind.compile_parts
        monkeypatch.setattr(
            kind, "compile_parts", lambda self, own=compile_parts: own(self, backend)
        )
    torch._dynamo.reset()
    yield found
    torch._dynamo.reset()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wavenet", "generator"])
def test_a_compiled_training_is_the_eager_one(
    run, recipe_file, generator_file, tmp_path, graphs, kind
):
    file = recipe_file if kind == "wavenet" else generator_file
    steps = ("--trainer.max_steps", "3", "--trainer.val_check_interval", "2")

    _, eager = run(file, tmp_path / "eager", *steps)
    assert not graphs
    best, compiled = run(file, tmp_path / "compiled", *steps, "--compile", "true")

    assert graphs
    assert compiled.train == pytest.approx(eager.train, rel=1e-4)
    assert compiled.valid == pytest.approx(eager.valid, rel=1e-4)
    one, other = (
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for name in ("eager", "compiled")
    )
    assert list(one) == list(other)
    assert load_checkpoint(best).model is not None


@pytest.mark.parametrize(
    ("accelerator", "present", "expected"),
    [("auto", True, "cuda"), ("gpu", True, "cuda"), ("cpu", True, "cpu"), ("auto", False, "cpu")],
)
def test_the_predictor_is_fitted_where_the_training_will_run(
    recipe_file, monkeypatch, accelerator, present, expected
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: present)
    monkeypatch.setenv("LOCAL_RANK", "3")
    recipe = load_recipe(recipe_file, ["--trainer.accelerator", accelerator])

    device = device_of(recipe)

    assert device.type == expected
    assert device.index == (3 if expected == "cuda" else None)


def test_a_batch_in_pinned_memory_is_not_waited_for(recipe_file, monkeypatch, tmp_path):
    data = make_data(load_recipe(recipe_file), tmp_path)
    batch, asked = data.training_crops().batch(0), []
    to = torch.Tensor.to

    def noting(self, *args, non_blocking=False, **rest):
        asked.append(non_blocking)
        return to(self, *args, non_blocking=non_blocking, **rest)

    monkeypatch.setattr(torch.Tensor, "to", noting)
    batch.to(torch.device("cpu"))
    monkeypatch.setattr(torch.Tensor, "is_pinned", lambda self: True)
    moved = batch.to(torch.device("cpu"))

    assert asked == [False] * 6 + [True] * 6
    assert torch.equal(moved.keep, batch.keep) and moved.paths == batch.paths


def test_a_loader_finds_how_a_batch_is_pinned(recipe_file, monkeypatch, tmp_path):
    batch = make_data(load_recipe(recipe_file), tmp_path).training_crops().batch(0)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self + 0)

    pinned = pin_memory(batch)

    assert torch.equal(pinned.audio, batch.audio) and pinned.audio is not batch.audio
    assert pinned.paths == batch.paths


@pytest.mark.gpu
def test_on_a_gpu_batches_come_pinned(recipe_file, tmp_path):
    data = make_data(load_recipe(recipe_file), tmp_path)
    loader = DataLoader(data.training_crops(), batch_size=None, pin_memory=True)

    batch = next(iter(loader))

    assert batch.mel.is_pinned() and batch.noise.is_pinned()
    assert torch.equal(batch.to(torch.device("cuda")).mel.cpu(), batch.mel)


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wavenet", "generator"])
def test_on_a_gpu_a_compiled_training_in_bfloat16_learns(
    run, recipe_file, generator_file, tmp_path, kind
):
    file = recipe_file if kind == "wavenet" else generator_file
    settings = ("--trainer.accelerator", "gpu", "--trainer.precision", "bf16-mixed")

    _, curve = run(file, tmp_path / "run", *settings, "--compile", "true")

    losses = [curve.train[step] for step in sorted(curve.train)]
    assert losses[-1] < losses[0]
