"""Corpora that Debian packages hold: festvox-ru and the sounds of Asterisk.

A package is fetched and unpacked, never installed, so no rights are needed.
"""

import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from wavewn.data.corpora.folders import read_lines, sub_folders
from wavewn.data.scan import Candidate
from wavewn.errors import DataError

FESTVOX_RU_VOICE = Path("usr/share/festival/voices/russian/msu_ru_nsh_clunits")
FESTVOX_RU_SPEAKER = "msu_ru_nsh"
ASTERISK_SOUNDS = Path("usr/share/asterisk/sounds")
ASTERISK_VOICE = r"([a-z]{2})_[A-Z]{2}_[a-z]_\w+"  # such as en_US_f_Allison
ASTERISK_LICENCES = {  # by language, as the packages' copyright files state them
    "en": ("CC-BY-SA-3.0", "Allison Smith"),
    "es": ("CC-BY-SA-3.0", "Allison Smith"),
    "fr": ("CC-BY-SA-3.0", "June Wallack"),
    "it": ("CC-BY-3.0", "Carlo Flora"),
    "ru": ("CC-BY-3.0", "Maxim Topal"),
}
ASTERISK_PACKAGES = tuple(f"asterisk-core-sounds-{name}-g722" for name in ASTERISK_LICENCES)


def _find_below(tree: Path, shared: Path) -> list[Path]:
    """Where `shared` may end if `tree` is a folder on the way down to it."""
    return [tree.joinpath(*shared.parts[i:]) for i in range(len(shared.parts) + 1)]


def _festvox_ru_voice(tree: Path) -> Path | None:
    voices = _find_below(tree, FESTVOX_RU_VOICE)
    voices += [tree.parent] if tree.name == "wav" else []
    return next((path for path in voices if any(path.glob("wav/ru_*.wav"))), None)


def is_festvox_ru(tree: Path) -> bool:
    """Whether `tree` is an extracted festvox-ru package, or any folder down to the wavs' own."""
    return _festvox_ru_voice(tree) is not None


def list_festvox_ru(tree: Path) -> list[Candidate]:
    """Name the recordings of an extracted festvox-ru package, with their transcripts."""
    voice = _festvox_ru_voice(tree)
    assert voice is not None
    transcripts = voice / "etc" / "txt.done.data"
    lines: Iterable[str] = read_lines(transcripts) if transcripts.is_file() else ()
    matches = [re.match(r'\(\s*(\S+)\s+"(.*)"\s*\)', line) for line in lines]
    texts = {match[1]: match[2] for match in matches if match}
    return [
        Candidate(path, FESTVOX_RU_SPEAKER, texts.get(path.stem, ""))
        for path in sorted(voice.glob("wav/*.wav"))
    ]


def asterisk_voices(tree: Path) -> list[Path]:
    """The voices' folders of extracted packages, or of any folder on the way down to them."""
    for sounds in _find_below(tree, ASTERISK_SOUNDS):
        found = [sounds] if re.fullmatch(ASTERISK_VOICE, sounds.name) else []
        if sounds.is_dir():
            found += [one for one in sub_folders(sounds) if re.fullmatch(ASTERISK_VOICE, one.name)]
        found = [voice for voice in found if any(voice.glob("**/*.g722"))]
        if found:
            return found
    return []


def is_asterisk(tree: Path) -> bool:
    """Whether `tree` holds Asterisk's sounds in G.722."""
    return bool(asterisk_voices(tree))


def list_asterisk(tree: Path) -> list[Candidate]:
    """Name Asterisk's prompts; the voice's folder is the speaker. They are still G.722."""
    return [
        Candidate(path, voice.name)
        for voice in asterisk_voices(tree)
        for path in sorted(voice.glob("**/*.g722"), key=lambda path: path.parts)
    ]


def asterisk_licence(tree: Path) -> str:
    """The licence of what is made of these voices: the strictest of theirs, and who is named."""
    languages = [voice.name[:2] for voice in asterisk_voices(tree)]
    strange = [one for one in languages if one not in ASTERISK_LICENCES]
    if strange:
        return f"as Asterisk's sounds in {', '.join(strange)}: see the packages' copyright files"
    terms = [ASTERISK_LICENCES[language] for language in languages]
    by = ", ".join(dict.fromkeys(f"{who} ({licence})" for licence, who in terms))
    strictest = next((one for one, _ in terms if "SA" in one), terms[0][0])
    return f"{strictest}, as its corpus: Asterisk core sounds by {by}"


def fetch_packages(packages: Sequence[str], folder: Path) -> list[Path]:
    """Fetch Debian package files without root and without installing them.

    Raises:
        DataError: There is no apt here, or it has no such package.
    """
    names = " ".join(packages)
    if shutil.which("apt-get") is None:
        raise DataError(
            f"--download needs apt-get (Debian, Ubuntu), which is not here; fetch {names} from "
            "packages.debian.org and give --from FILE.deb, or --from FOLDER with them unpacked"
        )
    done = subprocess.run(
        ["apt-get", "download", *packages], cwd=folder, capture_output=True, text=True, check=False
    )
    files = sorted(folder.glob("*.deb"))
    if done.returncode != 0 or len(files) < len(packages):
        said = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise DataError(
            f"apt-get download {names} failed ({said}); run `apt-get update` as root first, "
            "and see that Debian's main section is among the sources; or use --from FILE.deb"
        )
    return files


def extract_package(package: Path, folder: Path) -> None:
    """Unpack a .deb into `folder` without installing it.

    Raises:
        DataError: There is no dpkg here, or the file is no package.
    """
    if shutil.which("dpkg") is None:
        raise DataError(
            f"unpacking {package} needs dpkg, which is not here; unpack it yourself "
            "(ar x FILE.deb; tar xf data.tar.*) and pass the folder with --from"
        )
    done = subprocess.run(
        ["dpkg", "-x", str(package), str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise DataError(f"{package} is not a Debian package that can be unpacked: {said}")
