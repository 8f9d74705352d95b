"""Archives of strangers: members by name, bounded in size, no links and no way out of the folder.

Nothing is unpacked by an archive's own names. A compressed archive may not stand for more than
`EXPANSION` times its size, because weights hardly compress: more is a bomb.
"""

import gzip
import shutil
import tarfile
import zlib
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from wavewn.errors import FormatError

EXPANSION = 8
SLACK = 1 << 20  # bytes on top, for settings, which do compress
PIECE = 1 << 20
MEMBERS = 1000  # that an archive may list
GZIP, USTAR = b"\x1f\x8b", b"ustar"
TAR_ERRORS = (tarfile.TarError, OSError, EOFError, ValueError, OverflowError, zlib.error)


def is_archive(path: Path) -> bool:
    """Tell by its first bytes whether a file is a tar archive, or a compressed file."""
    try:
        with path.open("rb") as file:
            head = file.read(262)
    except OSError:
        return False
    return head[:2] == GZIP or head[257:262] == USTAR


def take_members(path: Path, names: Collection[str], folder: Path) -> dict[str, Path]:
    """Copy some members of a tar archive into a folder, under these very names.

    Args:
        path: The archive, plain or compressed by gzip.
        names: File names, in whatever folder of the archive.
        folder: Ours, empty; the copies lie in it.

    Returns:
        Those that are there, by name.

    Raises:
        FormatError: It is no tar archive, is broken, or has a member that no honest one has.
    """
    try:
        plain = _uncompressed(path, folder / "archive.tar")
        with tarfile.open(plain, "r:") as archive:
            return _copy(archive, path, plain.stat().st_size, names, folder)
    except TAR_ERRORS as error:
        raise FormatError(f"{path}: cannot be read as a tar archive ({error})") from None


def _uncompressed(path: Path, place: Path) -> Path:
    with path.open("rb") as file:
        if file.read(2) != GZIP:
            return path
    size, allowed = 0, EXPANSION * path.stat().st_size + SLACK
    with gzip.open(path) as source, place.open("wb") as target:
        while piece := source.read(PIECE):
            size += len(piece)
            if size > allowed:
                raise FormatError(
                    f"{path}: unpacks to more than {EXPANSION} times its size, as no weights do; "
                    "it is not read"
                )
            target.write(piece)
    return place


def _copy(
    archive: tarfile.TarFile, path: Path, size: int, names: Collection[str], folder: Path
) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for count, member in enumerate(archive):
        place = PurePosixPath(member.name)
        odd = (
            "has too many members"
            if count >= MEMBERS
            else "leads out of the archive"
            if place.is_absolute() or ".." in place.parts
            else "is a link or a device"
            if not (member.isdir() or member.isreg())
            else "claims more than the archive has"
            if member.issparse() or member.size > size
            else "is there twice"
            if place.name in found
            else ""
        )
        if odd:
            raise FormatError(f"{path}: its member {member.name!r:.100} {odd}; it is not read")
        if place.name in names and member.isreg():
            found[place.name] = folder / place.name
            source = archive.extractfile(member)
            assert source is not None  # it is a regular file
            with source, found[place.name].open("wb") as target:
                shutil.copyfileobj(source, target)
    return found
