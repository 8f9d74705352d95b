import subprocess
from pathlib import Path

import pytest

from wavewn.data import corpora
from wavewn.data.scan import Candidate
from wavewn.errors import DataError


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def listed(candidates, root):
    return [(one.path.relative_to(root).as_posix(), one.speaker) for one in candidates]


def make_festvox_ru(root):
    voice = root / corpora.FESTVOX_RU_VOICE
    touch(voice, "wav/ru_0002.wav", "wav/ru_0001.wav", "lab/ru_0001.lab")
    (voice / "etc").mkdir()
    (voice / "etc" / "txt.done.data").write_text('( ru_0001 "Добрый день." )\nnot a line\n')
    return voice


def test_a_folder_is_searched_deeply_in_the_order_of_paths(tmp_path):
    touch(tmp_path, "b.WAV", "a/2.flac", "a/1.ogg", "a/deep/3.mp3", "notes.txt", "._b.wav")
    touch(tmp_path, ".cache/x.wav")
    found = corpora.find_candidates(tmp_path)
    assert listed(found, tmp_path) == [
        ("a/1.ogg", ""),
        ("a/2.flac", ""),
        ("a/deep/3.mp3", ""),
        ("b.WAV", ""),
    ]


def test_several_sub_folders_are_speakers_and_shared_ones_are_not(tmp_path):
    touch(tmp_path, "wav48/p225/x/1.wav", "wav48/p226/1.wav", "readme/about.txt")
    assert listed(corpora.find_candidates(tmp_path), tmp_path) == [
        ("wav48/p225/x/1.wav", "p225"),
        ("wav48/p226/1.wav", "p226"),
    ]
    touch(tmp_path, "wav48/loose.wav")
    assert ("wav48/loose.wav", "wav48") in listed(corpora.find_candidates(tmp_path), tmp_path)


def test_every_format_that_soundfile_names_after_its_ending_is_looked_for():
    import soundfile as sf

    named_otherwise = {"IRCAM", "MPC2K", "NIST", "WAVEX", "WVE", "RAW", "MAT4", "MAT5", "MP3"}
    for name in set(sf.available_formats()) - named_otherwise:
        assert f".{name.lower()}" in corpora.AUDIO_SUFFIXES, name


@pytest.mark.parametrize(("suffix", "mark"), [(".txt", "|"), (".lst", "\t"), (".csv", ",")])
def test_a_file_list_names_paths_speakers_and_texts(tmp_path, suffix, mark):
    lines = [
        "# a comment",
        "a.wav",
        f"sub/b.wav{mark}ann",
        "",
        f"/else/c.wav{mark}bob{mark}hello, you",
        f"a.wav{mark}ann",
    ]
    (tmp_path / f"files{suffix}").write_text("\ufeff" + "\r\n".join(lines), "utf-8")
    assert corpora.find_candidates(tmp_path / f"files{suffix}") == [
        Candidate(tmp_path / "a.wav"),
        Candidate(tmp_path / "sub" / "b.wav", "ann"),
        Candidate(Path("/else/c.wav"), "bob", "hello, you"),
    ]


def test_a_heading_is_passed_over_and_a_path_may_hold_commas(tmp_path):
    (tmp_path / "a.csv").write_text("path,speaker\na.wav,x\n")
    (tmp_path / "b.txt").write_text("a, b.wav\n")
    assert corpora.find_candidates(tmp_path / "a.csv") == [Candidate(tmp_path / "a.wav", "x")]
    assert corpora.find_candidates(tmp_path / "b.txt") == [Candidate(tmp_path / "a, b.wav")]


def test_a_list_of_texts_is_not_taken_for_a_list_of_speakers(tmp_path):
    lines = [f"{i}.wav|This is sentence {i}." for i in range(20)]
    (tmp_path / "train.txt").write_text("\n".join(lines))
    with pytest.raises(DataError, match="each of the 20 lines names a speaker of its own"):
        corpora.find_candidates(tmp_path / "train.txt")


def test_ljspeechs_layout_gives_its_order_and_its_normalised_text(tmp_path):
    touch(tmp_path, "wavs/LJ001-0002.wav", "wavs/LJ001-0001.wav", "wavs/extra.wav")
    (tmp_path / "metadata.csv").write_text('LJ001-0002|No. 2 "x|number two\nLJ001-0001|One|one\n')
    assert corpora.find_candidates(tmp_path) == [
        Candidate(tmp_path / "wavs" / "LJ001-0002.wav", "", "number two"),
        Candidate(tmp_path / "wavs" / "LJ001-0001.wav", "", "one"),
    ]
    (tmp_path / "metadata.csv").write_text("LJ001-0002,two\n")
    with pytest.raises(DataError, match=r"metadata.csv, line 1: expected id\|text"):
        corpora.find_candidates(tmp_path)


def test_what_is_no_corpus_is_refused_with_a_word_on_what_is(tmp_path):
    with pytest.raises(DataError, match="does not exist; expected a folder"):
        corpora.find_candidates(tmp_path / "nowhere")
    with pytest.raises(DataError, match="names no recordings"):
        corpora.find_candidates(tmp_path)
    touch(tmp_path, "one.wav")
    with pytest.raises(DataError, match="neither a folder nor a file list"):
        corpora.find_candidates(tmp_path / "one.wav")
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="not UTF-8 text"):
        corpora.find_candidates(tmp_path / "bytes.txt")


def test_festvox_ru_is_found_from_any_folder_on_the_way_to_its_recordings(tmp_path):
    voice = make_festvox_ru(tmp_path)
    for tree in (tmp_path, tmp_path / "usr" / "share", voice, voice / "wav"):
        assert corpora.list_festvox_ru(tree) == [
            Candidate(voice / "wav" / "ru_0001.wav", "msu_ru_nsh", "Добрый день."),
            Candidate(voice / "wav" / "ru_0002.wav", "msu_ru_nsh", ""),
        ]
    with pytest.raises(DataError, match="does not hold festvox-ru"):
        corpora.list_festvox_ru(voice / "lab")


def test_festvox_ru_is_not_fetched_unasked(tmp_path):
    with pytest.raises(DataError, match="add --download .* or --from PATH"):
        corpora.get_festvox_ru(tmp_path, download=False, given=None)
    with pytest.raises(DataError, match="expected a .deb file or an extracted folder"):
        corpora.get_festvox_ru(tmp_path, download=False, given=tmp_path / "no.deb")


class FakeTools:
    """Stands in for apt-get and dpkg: notes the commands, and makes the files they would."""

    def __init__(self, monkeypatch, present=("apt-get", "dpkg"), apt_rc=0, dpkg_rc=0):
        self.apt_rc, self.dpkg_rc, self.commands = apt_rc, dpkg_rc, []
        monkeypatch.setattr(corpora.shutil, "which", lambda name: name if name in present else None)
        monkeypatch.setattr(corpora.subprocess, "run", self.run)

    def run(self, command, cwd=None, **_):
        self.commands.append(command[0])
        code = self.apt_rc if command[0] == "apt-get" else self.dpkg_rc
        if code == 0 and command[0] == "apt-get":
            (cwd / f"{command[2]}_0.5_all.deb").touch()
        elif code == 0:
            make_festvox_ru(Path(command[3]))
        return subprocess.CompletedProcess(command, code, "", "W: first\nE: no such thing\n")


def test_a_download_needs_no_root_and_happens_once(tmp_path, monkeypatch):
    tools = FakeTools(monkeypatch)
    for _ in range(2):
        tree = corpora.get_festvox_ru(tmp_path / "out", download=True, given=None)
    assert tree == tmp_path / "out" / "festvox-ru"
    assert len(corpora.list_festvox_ru(tree)) == 2
    assert tools.commands == ["apt-get", "dpkg"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["festvox-ru"]


def test_a_package_file_or_a_tree_that_the_user_has_is_taken(tmp_path, monkeypatch):
    tools = FakeTools(monkeypatch)
    touch(tmp_path, "mine.deb")
    tree = corpora.get_festvox_ru(tmp_path / "out", download=False, given=tmp_path / "mine.deb")
    assert tools.commands == ["dpkg"]
    assert corpora.get_festvox_ru(tmp_path / "other", download=False, given=tree) == tree


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
        corpora.get_festvox_ru(tmp_path / "out", download=True, given=None)
    assert list((tmp_path / "out").iterdir()) == []
