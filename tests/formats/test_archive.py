"""Archives made to harm: what no honest one has is refused, and nothing is left behind."""

import gzip
import io
import tarfile

import pytest

from wavewn.errors import FormatError
from wavewn.formats import archive
from wavewn.formats.found import read_foreign


def answer(path):
    """Read an archive and return what was wrong with it."""
    with pytest.raises(FormatError) as caught:
        read_foreign(path)
    return str(caught.value)


def write_tar(path, *members):
    """Write a tar archive of (TarInfo, content)."""
    with tarfile.open(path, "w") as file:
        for info, content in members:
            info.size = len(content) if info.size == 0 else info.size
            file.addfile(info, io.BytesIO(content))


def member(name, **fields):
    info = tarfile.TarInfo(name)
    for key, value in fields.items():
        setattr(info, key, value)
    return info


MEMBERS = {
    "leads out of the archive": lambda: [member("../model_config.yaml")],
    "leads out": lambda: [member("/etc/model_config.yaml")],
    "is a link or a device": lambda: [
        member("model_config.yaml", type=tarfile.SYMTYPE, linkname="/etc/passwd")
    ],
    "is a link": lambda: [member("model_config.yaml", type=tarfile.LNKTYPE, linkname="b")],
    "or a device": lambda: [member("model_weights.ckpt", type=tarfile.CHRTYPE)],
    "is there twice": lambda: [member("model_config.yaml"), member("a/model_config.yaml")],
    "too many members": lambda: [member(f"{i}") for i in range(archive.MEMBERS + 1)],
}


@pytest.mark.parametrize("cause", MEMBERS)
def test_a_member_of_an_archive_that_no_honest_one_has_is_refused(cause, tmp_path):
    write_tar(tmp_path / "a.nemo", *((info, b"") for info in MEMBERS[cause]()))

    assert cause in answer(tmp_path / "a.nemo")
    assert sorted(tmp_path.iterdir()) == [tmp_path / "a.nemo"]


def test_a_member_that_claims_more_than_there_is_is_refused(tmp_path):
    with tarfile.open(tmp_path / "a.nemo", "w") as file:
        file.addfile(member("other"), None)
    head = bytearray((tmp_path / "a.nemo").read_bytes())
    head[:512] = member("model_weights.ckpt", size=1 << 40).tobuf()
    (tmp_path / "a.nemo").write_bytes(head)

    assert "claims more than the archive has" in answer(tmp_path / "a.nemo")


def test_an_archive_that_unpacks_to_gigabytes_is_refused_early(tmp_path):
    with gzip.open(tmp_path / "a.nemo", "wb", compresslevel=1) as file:
        for _ in range(300):
            file.write(bytes(1 << 20))

    assert "unpacks to more than 8 times its size" in answer(tmp_path / "a.nemo")
