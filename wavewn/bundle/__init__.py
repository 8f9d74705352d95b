"""A model on disk: a folder with `config.json`, `model.safetensors` and a model card.

    config.json        format number, model settings (their `kind` says which model), MelSpec,
                       speakers, statistics, licence, provenance, verdict for each precision,
                       calibration of int8, how often the audio is levelled
    model.safetensors  plain weights, weight norm folded; matrices as float16 or float32, vectors
                       and scalars always as float32
    README.md          the model card

Bundles and training checkpoints come from strangers: no pickle is ever executed, every field is
checked before memory is spent on it, and whatever is wrong is one `BundleError`. A bundle is
written beside its place and renamed, so it is there whole or not at all.
"""

from wavewn.bundle.checkpoint import load_checkpoint
from wavewn.bundle.contents import Bundle, Model, fresh_model, with_weights
from wavewn.bundle.folder import check_target, load_bundle, save_bundle
from wavewn.bundle.precisions import Calibration, calibration_of

__all__ = [
    "Bundle",
    "Calibration",
    "Model",
    "calibration_of",
    "check_target",
    "fresh_model",
    "load_bundle",
    "load_checkpoint",
    "save_bundle",
    "with_weights",
]
