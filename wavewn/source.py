"""What lies at a path: a bundle, a checkpoint of `wavewn train`, or one of another program."""

import pickle
from collections.abc import Mapping
from pathlib import Path

from wavewn.bundle import Bundle, load_bundle, load_checkpoint
from wavewn.bundle.contents import VERDICT, check_config, make_config, make_model
from wavewn.errors import BundleError, WavewnError
from wavewn.formats.found import Found, find_family, read_foreign
from wavewn.shipped import shipped
from wavewn.torch_file import load_torch_file


def open_source(path: Path) -> Bundle:
    """Read a model, whosever it is; what is not there as a path may be the name of a shipped one.

    Raises:
        BundleError: There is nothing, or it is broken or of a kind that nobody here reads.
    """
    if not path.exists():
        try:
            path = shipped("pretrained", str(path))
        except WavewnError as error:
            raise BundleError(str(error)) from None
    if find_family(path) is not None and not _ours(path):
        return as_bundle(read_foreign(path), path)
    return load_bundle(path) if path.is_dir() else load_checkpoint(path)


def _ours(path: Path) -> bool:
    """Tell whether a file beside another program's settings is a training checkpoint of wavewn."""
    if not path.is_file() or path.suffix != ".ckpt":
        return False
    try:
        content = load_torch_file(path)
    except (pickle.UnpicklingError, ValueError):
        return False
    return isinstance(content, Mapping) and "wavewn" in content


def as_bundle(found: Found, path: Path) -> Bundle:
    """Build the model of another program's checkpoint, as if it had come from a bundle.

    Args:
        found: What was read.
        path: Where; the bundle's provenance keeps its name.

    Raises:
        BundleError: Its weights do not go with its settings.
    """
    where = str(path)
    config = make_config(
        found.settings,
        found.mel,
        found.speakers,
        found.licence,
        {
            "converted_from": found.family,
            "source": path.resolve().name,
            "notes": "; ".join(found.notes),
        },
        VERDICT,
        None,
    )
    check_config(config, where)
    try:
        model = make_model(found.settings, found.mel, found.state, where)
    except BundleError as error:
        raise BundleError(f"{error} (read as {found.family})") from None
    return Bundle(model, found.mel, list(found.speakers), config)
