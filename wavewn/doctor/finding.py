"""What a check of the doctor says, and how one asks whether a package loads."""

import importlib
import importlib.metadata
import sys
from dataclasses import dataclass
from typing import Literal

# What packages raise whose libraries are missing, or are built for another version of a neighbour.
IMPORT_ERRORS = (ImportError, OSError, RuntimeError, AttributeError, TypeError, ValueError)


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        group: Of which chapter of the report.
        name: What was looked at.
        status: "ok", "note" (wavewn works, but this does not) or "broken" (it does not work).
        detail: Version, size, or the reason.
        advice: What to do; empty where there is nothing to do.
    """

    group: str
    name: str
    status: Literal["ok", "note", "broken"]
    detail: str
    advice: str = ""


def why_not(module: str) -> str | None:
    """Import a module; return None, or in one line why it cannot be used."""
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        return "is not installed" if error.name == module else f"does not load: {error}"
    except IMPORT_ERRORS as error:
        return f"does not load: {first_line(error)}"
    return None


def version_of(distribution: str) -> str:
    """Look up the version of an installed package."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        module = sys.modules.get(distribution)
        return str(getattr(module, "__version__", "of unknown version"))


def first_line(error: BaseException) -> str:
    """Say in one line what an exception says."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
