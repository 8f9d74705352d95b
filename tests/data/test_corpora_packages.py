"""Corpora that are fetched: Debian's packages, torchaudio's downloads, and G.722 on the way in."""

import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from wavewn.audio.io import read_audio
from wavewn.data.corpora import catalogue, find, find_source, g722, packages
from wavewn.data.scan import Candidate, scan
from wavewn.errors import DataError


def make_festvox_ru(root):
    voice = root / packages.FESTVOX_RU_VOICE
    for name in ("wav/ru_0002.wav", "wav/ru_0001.wav", "lab/ru_0001.lab", "etc/txt.done.data"):
        (voice / name).parent.mkdir(parents=True, exist_ok=True)
        (voice / name).touch()
    (voice / "etc" / "txt.done.data").write_text('( ru_0001 "Добрый день." )\nnot a line\n')
    return voice


def test_festvox_ru_is_found_from_any_folder_on_the_way_to_its_recordings(tmp_path):
    voice = make_festvox_ru(tmp_path)
    for tree in (tmp_path, tmp_path / "usr" / "share", voice, voice / "wav"):
        found = find("festvox-ru", tmp_path / "out", given=tree)
        assert found.candidates == [
            Candidate(voice / "wav" / "ru_0001.wav", "msu_ru_nsh", "Добрый день."),
            Candidate(voice / "wav" / "ru_0002.wav", "msu_ru_nsh", ""),
        ]
    assert "Shmyrev" in found.licence
    with pytest.raises(DataError, match="does not hold festvox-ru"):
        find("festvox-ru", tmp_path / "out", given=voice / "lab")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("festvox-ru", "add --download .Debian or Ubuntu., or --from PATH with its .deb"),
        ("ljspeech", "add --download .through torchaudio.*published at https://keithito.com"),
        ("jsut", "add --from PATH with its folder; it is published at"),
    ],
)
def test_no_corpus_is_fetched_unasked(tmp_path, name, message):
    with pytest.raises(DataError, match=message):
        find(name, tmp_path / "out")
    with pytest.raises(DataError, match="--from .*: expected .* folder"):
        find(name, tmp_path / "out", given=tmp_path / "no.deb")
    assert not (tmp_path / "out").exists()


class FakeTools:
    """Stands in for apt-get and dpkg: notes the commands, and makes the files they would."""

    def __init__(self, monkeypatch, present=("apt-get", "dpkg"), apt_rc=0, dpkg_rc=0):
        self.apt_rc, self.dpkg_rc, self.commands = apt_rc, dpkg_rc, []
        which = SimpleNamespace(which=lambda name: name if name in present else None)
        monkeypatch.setattr(packages, "shutil", which)
        monkeypatch.setattr(packages, "subprocess", SimpleNamespace(run=self.run))

    def run(self, command, cwd=None, **_):
        self.commands.append(command[0])
        code = self.apt_rc if command[0] == "apt-get" else self.dpkg_rc
        if code == 0 and command[0] == "apt-get":
            for name in command[2:]:
                (cwd / f"{name}_0.5_all.deb").touch()
        elif code == 0:
            make_festvox_ru(Path(command[3]))
        return subprocess.CompletedProcess(command, code, "", "W: first\nE: no such thing\n")


def test_a_download_needs_no_root_and_happens_once(tmp_path, monkeypatch):
    tools = FakeTools(monkeypatch)
    for _ in range(2):
        found = find("festvox-ru", tmp_path / "out", download=True)
    assert len(found.candidates) == 2
    assert found.candidates[0].path.is_relative_to(tmp_path / "out" / "festvox-ru")
    assert tools.commands == ["apt-get", "dpkg"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["festvox-ru"]


def test_a_package_file_that_the_user_has_is_taken(tmp_path, monkeypatch):
    tools = FakeTools(monkeypatch)
    (tmp_path / "mine.deb").touch()
    find("festvox-ru", tmp_path / "out", given=tmp_path / "mine.deb")
    assert tools.commands == ["dpkg"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"present": ()}, "needs apt-get .* which is not here; .* --from FILE.deb"),
        ({"apt_rc": 100}, r"failed \(E: no such thing\); run `apt-get update`"),
        ({"present": ("apt-get",)}, "needs dpkg, which is not here; unpack it yourself"),
        ({"dpkg_rc": 2}, "is not a Debian package that can be unpacked: E: no such thing"),
    ],
)
def test_a_failed_download_says_what_to_do_and_leaves_nothing(
    tmp_path, monkeypatch, settings, message
):
    FakeTools(monkeypatch, **settings)
    with pytest.raises(DataError, match=message):
        find("festvox-ru", tmp_path / "out", download=True)
    assert list((tmp_path / "out").iterdir()) == []


def give_torchaudio(monkeypatch, datasets):
    module = ModuleType("torchaudio")
    module.datasets = datasets
    monkeypatch.setitem(sys.modules, "torchaudio", module)


def test_torchaudio_fetches_what_it_knows_and_its_archives_do_not_stay(
    tmp_path, monkeypatch, sines
):
    def fetch(root, download):
        assert download
        (root / "LJSpeech-1.1.tar.bz2").touch()
        sines("wavs/LJ001-0001.wav", root=root / "LJSpeech-1.1")
        (root / "LJSpeech-1.1" / "metadata.csv").write_text("LJ001-0001|One|one\n")

    give_torchaudio(monkeypatch, SimpleNamespace(LJSPEECH=fetch))
    (one,) = find("ljspeech", tmp_path / "out", download=True).candidates
    assert one.path == tmp_path / "out/ljspeech/LJSpeech-1.1/wavs/LJ001-0001.wav"
    assert [path.name for path in (tmp_path / "out" / "ljspeech").iterdir()] == ["LJSpeech-1.1"]


def test_a_download_that_breaks_off_leaves_nothing_and_one_without_torchaudio_says_why(
    tmp_path, monkeypatch
):
    def fetch(root, download):
        (Path(root) / "LJSpeech-1.1" / "wavs").mkdir(parents=True)
        raise RuntimeError("invalid hash value")

    give_torchaudio(monkeypatch, SimpleNamespace(LJSPEECH=fetch))
    with pytest.raises(DataError, match="did not come .invalid hash value.; unpack what https"):
        find("ljspeech", tmp_path / "out", download=True)
    monkeypatch.setitem(sys.modules, "torchaudio", None)
    with pytest.raises(DataError, match="torchaudio, which does not import here"):
        find("vctk", tmp_path / "out", download=True)
    with pytest.raises(DataError, match="nothing here downloads csmsc; unpack what https"):
        find("csmsc", tmp_path / "out", download=True)
    assert list((tmp_path / "out").iterdir()) == []


VOICES = ("en_US_f_Allison", "fr_CA_f_June", "it_IT_m_Carlo")


@pytest.fixture
def asterisk(tmp_path):
    """A tree of the packages' shape; what the files hold is another test's matter."""
    for voice in VOICES:
        for name in ("vm-goodbye.g722", "digits/1.g722"):
            path = tmp_path / "tree" / packages.ASTERISK_SOUNDS / voice / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"\xfa" * 800)
    (tmp_path / "tree" / packages.ASTERISK_SOUNDS / "custom").mkdir()
    return tmp_path / "tree"


def test_asterisks_voices_are_speakers_and_bring_their_licence(asterisk):
    for tree in (asterisk, asterisk / packages.ASTERISK_SOUNDS):
        found = find_source(tree)
        got = [(one.path.name, one.speaker) for one in found.candidates]
        assert got == [(name, one) for one in VOICES for name in ("1.g722", "vm-goodbye.g722")]
        assert found.licence.startswith("CC-BY-SA-3.0, as its corpus: Asterisk core sounds by All")
        assert "Carlo Flora (CC-BY-3.0)" in found.licence
        assert found.recipe == "asterisk-wavenet"
    italian = find_source(asterisk / packages.ASTERISK_SOUNDS / "it_IT_m_Carlo")
    assert italian.licence.startswith("CC-BY-3.0, ")
    (asterisk / packages.ASTERISK_SOUNDS / "it_IT_m_Carlo").rename(asterisk / "ja_JP_f_Someone")
    assert "see the packages' copyright" in find_source(asterisk / "ja_JP_f_Someone").licence


def test_g722_without_pyav_is_refused_with_the_line_that_installs_it(
    asterisk, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(DataError, match=r"pip install 'wavewn\[g722\]'"):
        g722.decode(find_source(asterisk).candidates, tmp_path / "out")
    monkeypatch.setattr(catalogue, "_download", pytest.fail)
    with pytest.raises(DataError, match=r"pip install 'wavewn\[g722\]'"):
        find("asterisk", tmp_path / "out", download=True)  # before megabytes are fetched
    assert not (tmp_path / "out").exists()
    others = [Candidate(tmp_path / "a.wav")]
    assert g722.decode(others, tmp_path / "out") == others


def write_g722(path, audio):
    """Encode int16 [samples] at 16 kHz with PyAV's own encoder."""
    import av

    with av.open(str(path), "w", format="g722") as container:
        stream = container.add_stream("g722", rate=16000)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(audio[None], format="s16", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def test_g722_is_decoded_to_flac_whose_sine_is_the_one_that_was_encoded(tmp_path):
    pytest.importorskip("av")  # without it nothing here decodes G.722, and nothing is shown
    voice = tmp_path / "in" / "en_US_f_Allison"
    (voice / "digits").mkdir(parents=True)
    sine = np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    write_g722(voice / "digits" / "1.g722", (8000 * sine).astype(np.int16))
    (voice / "empty.g722").touch()

    found = g722.decode(find_source(tmp_path / "in").candidates, tmp_path / "out")
    used, rejected = scan(found)

    assert [one.path for one in used] == [tmp_path / "out" / "digits" / "1.flac"]
    assert (used[0].sample_rate, used[0].speaker) == (16000, "en_US_f_Allison")
    assert abs(used[0].samples - 16000) < 400  # the encoder's last frame is padded
    assert [one.path.name for one in rejected] == ["empty.g722"]
    audio = read_audio(used[0].path).numpy()
    peak = np.abs(np.fft.rfft(audio[1000:15000] * np.hanning(14000))).argmax() * 16000 / 14000
    assert abs(peak - 440) < 2
    assert abs(np.abs(audio[1000:15000]).max() - 8000 / 32768) < 0.01
