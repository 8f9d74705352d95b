"""Settings and weights of strangers as plain data: bounded, checked, and never run."""

import json
import pickle
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wavewn.errors import ConfigError, FormatError
from wavewn.nn.weight_norm import convert_state_dict
from wavewn.torch_file import load_torch_file
from wavewn.yaml_file import load_tagged_yaml

JSON_BYTES = 1 << 20  # no honest settings are longer


def folder_of(path: Path) -> Path:
    """Give the folder that a user names, or the one in which the named file lies."""
    return path if path.is_dir() else path.parent


def read_json(path: Path, prepare: Callable[[str], str] = str) -> dict[str, Any]:
    """Read an object of JSON.

    Args:
        path: The file.
        prepare: Goes over the text first, as to take out what is no JSON.

    Raises:
        FormatError: The file is missing, too long, no JSON or no object.
    """
    try:
        with path.open("rb") as file:
            content = file.read(JSON_BYTES + 1)
        text = content[:JSON_BYTES].decode(json.detect_encoding(content))
        values = json.loads(prepare(text)) if len(content) <= JSON_BYTES else None
    except (OSError, ValueError, RecursionError) as error:
        raise FormatError(f"{path}: cannot be read as JSON ({error})") from None
    if not isinstance(values, dict):
        raise FormatError(f"{path}: expected settings, an object of JSON of at most 1 MB")
    return values


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a mapping of YAML; tags such as `!new:` are skipped, what they stand before is kept.

    Raises:
        FormatError: The file is missing, too long, no YAML or no mapping.
    """
    try:
        return load_tagged_yaml(path)
    except ConfigError as error:
        raise FormatError(str(error)) from None


def read_tensors(path: Path) -> Any:
    """Read a file of `torch.save` that holds tensors and plain values.

    Raises:
        FormatError: It is none, is broken, or holds more than that.
    """
    try:
        return load_torch_file(path)
    except pickle.UnpicklingError:
        raise FormatError(
            f"{path}: no torch file, or one that holds more than tensors and plain values; "
            "pickled code is never run"
        ) from None
    except ValueError as error:
        raise FormatError(f"{path}: cannot be read as a torch file ({error})") from None


def newest(folder: Path, *patterns: str) -> Path:
    """Choose among a folder's files of these names: the largest number, or the only one.

    Raises:
        FormatError: There is none, or there are several without numbers.
    """
    files = {one for pattern in patterns for one in folder.glob(pattern) if one.is_file()}
    if not files:
        raise FormatError(f"{folder}: holds no {' or '.join(patterns)}; where are the weights?")
    numbered = {int(found[0]): one for one in files if (found := re.findall(r"\d{4,12}", one.name))}
    if numbered:
        return numbered[max(numbered)]
    if len(files) > 1:
        names = ", ".join(sorted(one.name for one in files)[:8])
        raise FormatError(f"{folder}: holds several models ({names}); name the file of one")
    return files.pop()


def state_at(content: Any, path: Path, *places: Sequence[str]) -> dict[str, Tensor]:
    """Take the state dict that lies at the first of these places (() is the content itself).

    Raises:
        FormatError: None of them holds tensors by name.
    """
    for place in places:
        state = content
        for key in place:
            state = state.get(key) if isinstance(state, Mapping) else None
        if isinstance(state, Mapping):
            tensors = {k: v for k, v in state.items() if isinstance(k, str)}
            tensors = {k: v for k, v in tensors.items() if isinstance(v, Tensor)}
            if tensors:
                return tensors
    named = " or ".join(repr("/".join(place)) if place else "itself" for place in places)
    raise FormatError(f"{path}: expected weights by name in {named}, found none")


def folded(state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Fold weight norm in any spelling; what counts is left as float32.

    Raises:
        FormatError: A gain lacks its direction, a direction is zero, or a tensor holds no numbers.
    """
    odd = [key for key, value in state.items() if not value.is_floating_point()]
    if odd:
        raise FormatError(f"{path}: {odd[0]!r} is {state[odd[0]].dtype}, expected a float")
    try:
        plain = convert_state_dict({k: v.float() for k, v in state.items()}, "plain")
    except (ConfigError, RuntimeError) as error:
        raise FormatError(f"{path}: {error}") from None
    bad = [key for key, value in plain.items() if not bool(torch.isfinite(value).all())]
    if bad:
        raise FormatError(f"{path}: {bad[0]!r} holds NaN or infinite weights")
    return plain
