"""The terms under which trained weights stand."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class Licence(Callback):
    """Tells every checkpoint under which terms its weights stand: those of all they came from.

    Args:
        terms: Of the corpus, of the weights that the training started from; "" where not stated.
    """

    def __init__(self, *terms: str) -> None:
        parts = [part for one in terms for part in one.split("; ") if part]
        self.licence = "; ".join(dict.fromkeys(parts))

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Put the licence under `wavewn`, where `bundle` finds it."""
        checkpoint.setdefault("wavewn", {})["licence"] = self.licence
