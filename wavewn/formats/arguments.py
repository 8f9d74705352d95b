"""Settings of strangers, taken one by one: each is checked, and none is overlooked.

A setting that nobody has looked at may change the sound, so `close` refuses what is left.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from wavewn.errors import FormatError

LARGEST = 1 << 31  # no honest number of anything is larger
LONGEST = 64  # nor any list longer


class Arguments:
    """Named values of one part of a file of settings.

    Args:
        values: What the file says there.
        path: The file, for messages.
        part: Name of the part, for messages; "" is the whole file.

    Raises:
        FormatError: They are no mapping of names.
    """

    def __init__(self, values: Any, path: Path, part: str = "") -> None:
        self._where = f"{path}: {part}." if part else f"{path}: "
        if not isinstance(values, Mapping) or not all(isinstance(key, str) for key in values):
            raise FormatError(f"{path}: expected settings by name in {part or 'the file'}")
        self._values = dict(values)
        self.path = path

    def take(self, name: str, default: Any = None) -> Any:
        """Give a value as it is."""
        return self._values.pop(name, default)

    def whole(self, name: str, default: int | None = None, least: int = 1) -> int:
        """Give a whole number of at least `least`; null is the default."""
        value: Any = self._values.pop(name, None)
        value = default if value is None else value
        if not _is_whole(value) or value < least:
            raise self.wrong(name, value, f"a whole number from {least} on")
        return int(value)

    def wholes(self, name: str, default: tuple[int, ...] | None = None) -> tuple[int, ...]:
        """Give a list of whole numbers from 1 on."""
        value = self._values.pop(name, default)
        listed = isinstance(value, (list, tuple)) and len(value) <= LONGEST
        if not listed or not all(_is_whole(v) and v > 0 for v in value):
            raise self.wrong(name, value, f"at most {LONGEST} whole numbers from 1 on")
        return tuple(value)

    def switch(self, name: str, default: bool) -> bool:
        """Give true or false."""
        value = self._values.pop(name, default)
        if not isinstance(value, bool):
            raise self.wrong(name, value, "true or false")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """Give a number; null is the default."""
        value: Any = self._values.pop(name, None)
        value = default if value is None else value
        if not (_is_whole(value) or isinstance(value, float)):
            raise self.wrong(name, value, "a number")
        return float(value)

    def part(self, name: str, default: Mapping[str, Any]) -> "Arguments":
        """Give the settings below a name."""
        return Arguments(self._values.pop(name, default), self.path, name)

    def only(self, name: str, value: Any, why: str, default: Any = ...) -> None:
        """Refuse any other value than this one; where it is missing, it has its default."""
        found = self._values.pop(name, value if default is ... else default)
        if found != value or isinstance(found, bool) != isinstance(value, bool):
            raise self.wrong(name, found, f"{value!r}: {why}")

    def close(self, ignored: Collection[str]) -> None:
        """Refuse what is left, other than names that change nothing of the sound."""
        odd = sorted(set(self._values) - set(ignored))
        if odd:
            raise FormatError(
                f"{self._where}{odd[0]} is no setting that wavewn knows, and it may change the "
                "sound; is the checkpoint of a newer version of that program?"
            )

    def wrong(self, name: str, value: Any, expected: str) -> FormatError:
        """Make the error that refuses a value."""
        return FormatError(f"{self._where}{name} is {value!r:.60}, wavewn reads only {expected}")


def _is_whole(value: Any) -> bool:
    right = isinstance(value, int) and not isinstance(value, bool)
    return right and abs(value) <= LARGEST
