"""What a checkpoint of another program turned out to be: the one door to all families.

A family is a module with three names. `LOOKS_FOR` says in words by what files it is known;
`recognise(path)` looks at names, settings and the directories of archives, runs nothing and raises
nothing; `read(path)` gives a `Found` or raises `FormatError`. `path` is whatever a user names: a
folder, or one of the files in it. Nothing that was read is executed on any way.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from torch import Tensor

from wavewn.audio.mel_spec import MelSpec
from wavewn.config import ModelConfig
from wavewn.errors import ConfigError, FormatError


@dataclass(frozen=True)
class Found:
    """A model of another program, in our terms.

    Attributes:
        family: Whose it is, in words.
        settings: Those of our model that computes the same.
        mel: The mels that it reads, the way of its audio before them included.
        state: Our model's state dict: plain weights (weight norm folded), float32.
        licence: Under which the weights may be used; "" where its files do not say.
        notes: For people: what was mapped, what was assumed, what is not reproduced.
        speakers: Names in the order of its embedding.
        discriminators: State dict of our discriminators (`mpd.`, `msd.`), where theirs are there.
    """

    family: str
    settings: ModelConfig
    mel: MelSpec
    state: dict[str, Tensor]
    licence: str = ""
    notes: list[str] = field(default_factory=list)
    speakers: list[str] = field(default_factory=list)
    discriminators: dict[str, Tensor] | None = None


class Family(Protocol):
    """A module of this package that reads one family."""

    LOOKS_FOR: str

    def recognise(self, path: Path) -> bool:
        """Tell whether a file or a folder is of this family."""

    def read(self, path: Path) -> Found:
        """Read it."""


def families() -> tuple[Family, ...]:
    """List the families in the order in which they are asked."""
    from wavewn.formats import (  # the families know this file
        coqui,
        hifigan,
        nemo,
        parallel_wavegan,
        speechbrain,
        speecht5,
        wavenet_vocoder,
    )

    return hifigan, speecht5, coqui, nemo, speechbrain, parallel_wavegan, wavenet_vocoder


def find_family(path: Path) -> Family | None:
    """Give the family that knows these files; None where they are nobody's, or not there."""
    if not path.exists():
        return None
    return next((family for family in families() if family.recognise(path)), None)


def read_foreign(path: Path) -> Found:
    """Read a checkpoint of another program, whosever it is.

    Args:
        path: A file of it, or the folder that holds its files.

    Raises:
        FormatError: Nothing is there, no family knows it, or it is broken.
    """
    if not path.exists():
        raise FormatError(f"{path}: no such file or folder; check the path")
    family = find_family(path)
    if family is None:
        known = "; ".join(one.LOOKS_FOR for one in families())
        raise FormatError(f"{path}: no checkpoint of a known program. Looked for: {known}")
    try:
        return family.read(path)
    except ConfigError as error:  # a setting that none of our models can have
        raise FormatError(f"{path}: {error}") from None
    except (OverflowError, ValueError):  # a whole number that no float holds, or no text
        raise FormatError(f"{path}: a number is beyond any machine") from None
