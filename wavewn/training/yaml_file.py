"""YAML from strangers: plain data, no larger in memory than on paper.

The safe loader makes no objects. But a few aliases of aliases stand for more items than any memory
holds as soon as somebody writes them out, so what they stand for is counted first, and merge keys,
which the loader itself writes out, are refused.
"""

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


def load_yaml(path: Path) -> dict[str, Any]:
    """Read a mapping of plain data.

    Raises:
        ConfigError: The file is missing, no YAML, no mapping, or larger than `LARGEST`.
    """
    try:
        with path.open("rb") as file:
            text = file.read(LARGEST + 1)
        values = yaml.load(text, _Loader) if len(text) <= LARGEST else None
    except YAML_ERRORS as error:
        raise ConfigError(f"{path}: cannot be read as a recipe ({error})") from None
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
        raise ConfigError(f"{path}: larger than {LARGEST} characters, not a recipe")
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ConfigError(f"{path}: expected a mapping of keys such as data, mel, model")
    return values
