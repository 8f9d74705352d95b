"""What settings check about themselves."""

import math

from wavewn.errors import ConfigError


def check_at_least(owner: object, minimum: int, *names: str) -> None:
    """Raise ConfigError unless each named attribute of `owner` is at least `minimum`."""
    for name in names:
        value = getattr(owner, name)
        if value < minimum:
            raise ConfigError(
                f"{type(owner).__name__}.{name} must be at least {minimum}, got {value}"
            )


def check_finite(owner: object, *names: str) -> None:
    """Raise ConfigError unless each named attribute of `owner` is a finite number."""
    for name in names:
        value = getattr(owner, name)
        if not math.isfinite(value):
            raise ConfigError(f"{type(owner).__name__}.{name} must be finite, got {value}")
