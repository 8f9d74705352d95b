"""What is read of a run's checkpoints; tests take it in with `runpy`, for they are no package."""

import torch


def read(path):
    return torch.load(path, weights_only=True)


def last(out):
    return out / "checkpoints" / "last.ckpt"


def steps_of(optimiser):
    """Steps that the parameters of an optimiser's state have made."""
    return {int(one["step"]) for one in optimiser["state"].values()}


def discriminators(state):
    """The part of a state dict that is the discriminators'."""
    return {key: value for key, value in state.items() if key.startswith("discriminators.")}
