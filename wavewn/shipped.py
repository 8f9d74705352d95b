"""Where the recipes and bundles that come with wavewn lie.

In an installed wheel they are `wavewn/recipes` and `wavewn/pretrained`; in a source checkout
(also an editable install) they lie beside the package, at the top of the repository.
"""

from pathlib import Path, PurePosixPath
from typing import Literal

from wavewn.errors import WavewnError

Kind = Literal["recipes", "pretrained"]

PACKAGE = Path(__file__).parent


def shipped(kind: Kind, name: str) -> Path:
    """Find a shipped recipe, bundle or other file by its name.

    Args:
        kind: "recipes" or "pretrained".
        name: A recipe without its ending ("quickstart"), a bundle's folder
            ("wavenet-ru-16k"), or any path below `kind` ("corpus").

    Returns:
        The existing file or folder.

    Raises:
        WavewnError: Nothing of that name is shipped; the message lists what is.
    """
    folder = shipped_folder(kind)
    relative = PurePosixPath(name)
    if name and not relative.is_absolute() and ".." not in relative.parts:
        for candidate in (folder / relative, folder / f"{relative}.yaml"):
            if candidate.exists() and candidate != folder:
                return candidate
    raise WavewnError(
        f"expected a path that exists or one of the shipped {kind} "
        f"({', '.join(shipped_names(kind)) or 'none'}), got {name!r}; check the spelling"
    )


def shipped_names(kind: Kind) -> list[str]:
    """List the names that `shipped` knows, sorted: recipes without ending, bundle folders."""
    folder = shipped_folder(kind)
    if kind == "recipes":
        return sorted(path.stem for path in folder.glob("*.yaml"))
    return sorted(path.parent.name for path in folder.glob("*/config.json"))


def shipped_folder(kind: Kind) -> Path:
    """Return the folder of a kind.

    Raises:
        WavewnError: This installation has no such folder.
    """
    installed = PACKAGE / kind
    if installed.is_dir():
        return installed
    beside = PACKAGE.parent / kind
    # Beside an installed package lie strangers: only a checkout's neighbours are ours.
    if (PACKAGE.parent / "pyproject.toml").is_file() and beside.is_dir():
        return beside
    raise WavewnError(
        f"expected the folder {kind!r} in or beside {PACKAGE}, found none; reinstall wavewn"
    )
