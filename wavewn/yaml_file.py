"""YAML from strangers: plain data, no larger in memory than on paper.

The safe loader makes no objects. But a few aliases of aliases stand for more items than any memory
holds as soon as somebody writes them out, so what they stand for is counted first, and merge keys,
which the loader itself writes out, are refused.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from wavewn.errors import ConfigError

LARGEST = 1 << 17  # characters, with every alias written out
YAML_ERRORS = (  # what PyYAML raises on text that is none, or whose dates and numbers are none
    OSError,
    yaml.YAMLError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    OverflowError,
    RecursionError,
)


class _Loader(yaml.SafeLoader):
    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        if any(key.tag == "tag:yaml.org,2002:merge" for key, _ in node.value):
            raise yaml.constructor.ConstructorError(None, None, "merge keys (<<) are not read")
        super().flatten_mapping(node)


class _TaglessLoader(_Loader):
    """Takes what a tag stands before as it is written: a mapping, a list or a text."""

    def under_tag(self, tag: str, node: yaml.Node) -> Any:
        if isinstance(node, yaml.MappingNode):
            return self.construct_mapping(node, deep=True)
        if isinstance(node, yaml.SequenceNode):
            return self.construct_sequence(node, deep=True)
        return node.value


_TaglessLoader.add_multi_constructor("", _TaglessLoader.under_tag)  # whatever no YAML knows
_TaglessLoader.add_implicit_resolver(  # 1e-5, a text in PyYAML's YAML and a number in all others
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    "-+0123456789",
)


def load_yaml(path: Path) -> dict[str, Any]:
    """Read a mapping of plain data.

    Raises:
        ConfigError: The file is missing, no YAML, no mapping, or larger than `LARGEST`.
    """
    return _load(path, _Loader)


def load_tagged_yaml(path: Path) -> dict[str, Any]:
    """Read a mapping of plain data in which tags such as `!new:` stand for nothing.

    Raises:
        ConfigError: As in `load_yaml`.
    """
    return _load(path, _TaglessLoader)


def _load(path: Path, loader: type[_Loader]) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            text = file.read(LARGEST + 1)
        values = yaml.load(text, loader) if len(text) <= LARGEST else None
    except YAML_ERRORS as error:
        raise ConfigError(f"{path}: cannot be read as YAML ({error})") from None
    size, waiting = len(text), [values]
    while waiting and size <= LARGEST:
        one = waiting.pop()
        if isinstance(one, (dict, list, str, set, tuple)):
            size += len(one)
        if isinstance(one, dict):
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one
    if size > LARGEST:
        raise ConfigError(f"{path}: larger than {LARGEST} characters, too much for settings")
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ConfigError(f"{path}: expected a mapping of names to values")
    return values
