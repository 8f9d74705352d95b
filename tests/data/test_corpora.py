from pathlib import Path

import pytest

from wavewn.data.corpora import find, find_source
from wavewn.data.corpora.folders import AUDIO_SUFFIXES
from wavewn.data.scan import Candidate, scan
from wavewn.errors import DataError


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def find_candidates(source):
    return find_source(source).candidates


def listed(candidates, root):
    return [(one.path.relative_to(root).as_posix(), one.speaker) for one in candidates]


def test_a_folder_is_searched_deeply_in_the_order_of_paths(tmp_path):
    touch(tmp_path, "b.WAV", "a/2.flac", "a/1.ogg", "a/deep/3.mp3", "notes.txt", "._b.wav")
    touch(tmp_path, ".cache/x.wav")
    found = find_candidates(tmp_path)
    assert listed(found, tmp_path) == [
        ("a/1.ogg", ""),
        ("a/2.flac", ""),
        ("a/deep/3.mp3", ""),
        ("b.WAV", ""),
    ]


def test_several_sub_folders_are_speakers_and_shared_ones_are_not(tmp_path):
    touch(tmp_path, "wav48/p225/x/1.wav", "wav48/p226/1.wav", "readme/about.txt")
    assert listed(find_candidates(tmp_path), tmp_path) == [
        ("wav48/p225/x/1.wav", "p225"),
        ("wav48/p226/1.wav", "p226"),
    ]
    touch(tmp_path, "wav48/loose.wav")
    assert ("wav48/loose.wav", "wav48") in listed(find_candidates(tmp_path), tmp_path)


def test_every_format_that_soundfile_names_after_its_ending_is_looked_for():
    import soundfile as sf

    named_otherwise = {"IRCAM", "MPC2K", "NIST", "WAVEX", "WVE", "RAW", "MAT4", "MAT5", "MP3"}
    for name in set(sf.available_formats()) - named_otherwise:
        assert f".{name.lower()}" in AUDIO_SUFFIXES, name


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
    assert find_candidates(tmp_path / f"files{suffix}") == [
        Candidate(tmp_path / "a.wav"),
        Candidate(tmp_path / "sub" / "b.wav", "ann"),
        Candidate(Path("/else/c.wav"), "bob", "hello, you"),
    ]


def test_a_heading_is_passed_over_and_a_path_may_hold_commas(tmp_path):
    (tmp_path / "a.csv").write_text("path,speaker\na.wav,x\n")
    (tmp_path / "b.txt").write_text("a, b.wav\n")
    assert find_candidates(tmp_path / "a.csv") == [Candidate(tmp_path / "a.wav", "x")]
    assert find_candidates(tmp_path / "b.txt") == [Candidate(tmp_path / "a, b.wav")]


def test_a_list_of_texts_is_not_taken_for_a_list_of_speakers(tmp_path):
    lines = [f"{i}.wav|This is sentence {i}." for i in range(20)]
    (tmp_path / "train.txt").write_text("\n".join(lines))
    with pytest.raises(DataError, match="each of the 20 lines names a speaker of its own"):
        find_candidates(tmp_path / "train.txt")


def test_ljspeechs_layout_gives_its_order_and_its_normalised_text(tmp_path):
    touch(tmp_path, "wavs/LJ001-0002.wav", "wavs/LJ001-0001.wav", "wavs/extra.wav")
    (tmp_path / "metadata.csv").write_text('LJ001-0002|No. 2 "x|number two\nLJ001-0001|One|one\n')
    assert find_candidates(tmp_path) == [
        Candidate(tmp_path / "wavs" / "LJ001-0002.wav", "", "number two"),
        Candidate(tmp_path / "wavs" / "LJ001-0001.wav", "", "one"),
    ]
    (tmp_path / "metadata.csv").write_text("LJ001-0002,two\n")
    with pytest.raises(DataError, match=r"metadata.csv, line 1: expected id\|text"):
        find_candidates(tmp_path)


def test_what_is_no_corpus_is_refused_with_a_word_on_what_is(tmp_path):
    with pytest.raises(DataError, match="does not exist; expected a folder"):
        find_candidates(tmp_path / "nowhere")
    with pytest.raises(DataError, match="names no recordings"):
        find_candidates(tmp_path)
    touch(tmp_path, "one.wav")
    with pytest.raises(DataError, match="neither a folder nor a table"):
        find_candidates(tmp_path / "one.wav")
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="not UTF-8 text"):
        find_candidates(tmp_path / "bytes.txt")


def test_a_hugging_face_folder_gives_its_columns_and_its_own_held_out_splits_stay_out(
    tmp_path, sines
):
    sines("train/a/1.wav", "train/a/2.wav", "test/3.wav")
    (tmp_path / "train" / "metadata.csv").write_text(
        'file_name,transcription,speaker_id\na/2.wav,"Hello, you",7\na/1.wav,One,8\n'
    )
    (tmp_path / "test" / "metadata.jsonl").write_text('{"file_name": "3.wav", "text": "Three"}\n')
    train, test = tmp_path / "train", tmp_path / "test"

    found = find_source(tmp_path)

    assert found.candidates == [
        Candidate(train / "a" / "2.wav", "7", "Hello, you"),
        Candidate(train / "a" / "1.wav", "8", "One"),
    ]
    assert (len(scan(found.candidates)[0]), found.licence) == (2, "")
    for source in (test, test / "metadata.jsonl"):
        assert find_candidates(source) == [Candidate(test / "3.wav", "", "Three")]
    assert find_candidates(train / "metadata.csv") == found.candidates


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metadata.jsonl", '{"file_name": "a.wav"}\n{"file_name": 3}\n', "line 2: .* a file_name"),
        ("metadata.jsonl", '{"file_name": "a.wav"}\n["a.wav"]\n', "line 2: expected an object"),
        ("metadata.jsonl", '{"file_name": "a.wav"\n', "line 1: not JSON"),
        ("metadata.jsonl", '{"file_name":' + "[" * 100_000, "line 1: not JSON"),
        ("metadata.csv", "file_name,text\n,x\n", "line 2: expected a file_name"),
        ("metadata.csv", "text,file_name\n" + "x" * 200_000 + ",a\n", "not CSV .*field larger"),
    ],
)
def test_broken_metadata_is_refused_with_its_line(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        find_candidates(tmp_path)


def test_a_kaldi_directory_gives_files_speakers_and_texts(tmp_path, sines):
    sines("elsewhere/a.wav", "data/b.wav")
    data = tmp_path / "data"
    (data / "wav.scp").write_text(f"utt-b b.wav\nutt-a\t{tmp_path}/elsewhere/a.wav\n")
    (data / "utt2spk").write_text("utt-a ann\nutt-b bob\n")
    (data / "text").write_text("utt-a  Good day\nutt-b\n")

    expected = [
        Candidate(data / "b.wav", "bob"),
        Candidate(tmp_path / "elsewhere" / "a.wav", "ann", "Good day"),
    ]

    assert find_candidates(data) == find_candidates(data / "wav.scp") == expected
    assert len(scan(expected)[0]) == 2
    (data / "utt2spk").write_text("utt-a utt-a\nutt-b utt-b\n")
    assert {one.speaker for one in find_candidates(data)} == {""}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("u touch {}/ran; cat a.wav |", "line 1: u is the output of a command.*executes nothing"),
        ("u | cat", "is the output of a command"),
        ("u raw.ark:1234", "expected `id path-of-an-audio-file`"),
        ("u -", "expected `id path-of-an-audio-file`"),
        ("u", "expected `id path-of-an-audio-file`"),
    ],
)
def test_what_kaldi_would_run_or_cut_is_refused_and_never_run(tmp_path, line, message):
    (tmp_path / "wav.scp").write_text(line.format(tmp_path) + "\n")
    with pytest.raises(DataError, match=message):
        find_candidates(tmp_path)
    assert not (tmp_path / "ran").exists()
    (tmp_path / "wav.scp").write_text("u a.wav\n")
    assert find_candidates(tmp_path) == [Candidate(Path("a.wav"))]
    (tmp_path / "segments").write_text("u1 u 0.0 1.0\n")
    with pytest.raises(DataError, match="its utterances are pieces of recordings"):
        find_candidates(tmp_path)


def test_a_name_is_needed_to_fetch_and_a_licence_comes_with_a_name(tmp_path, sines):
    lj = sines("LJSpeech-1.1/wavs/LJ001-0001.wav") / "LJSpeech-1.1"
    (lj / "metadata.csv").write_text("LJ001-0001|One|one\n")

    named = find("ljspeech", tmp_path / "out", given=tmp_path)

    assert (
        named.candidates
        == find_candidates(lj)
        == [Candidate(lj / "wavs" / "LJ001-0001.wav", "", "one")]
    )
    assert "public domain" in named.licence
    assert find_source(lj).licence == ""  # anyone's data may lie like this
    assert named.recipe == find_source(lj).recipe == "ljspeech-wavenet"
    with pytest.raises(DataError, match="--download and --from belong to the names asterisk,"):
        find(str(lj), tmp_path / "out", download=True)
    with pytest.raises(DataError, match="does not hold vctk: expected wav48_silence_trimmed"):
        find("vctk", tmp_path / "out", given=tmp_path)
