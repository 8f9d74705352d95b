"""Made-up trees in the shape of published corpora."""

import pytest

from wavewn.data.corpora import find, find_source
from wavewn.data.scan import Candidate, scan


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")


@pytest.fixture
def libritts(tmp_path, sines):
    root = sines(
        "LibriTTS_R/train-clean-100/19/198/19_198_000000_000000.wav",
        "LibriTTS_R/train-clean-100/103/1240/103_1240_000000_000001.wav",
        "LibriTTS_R/train-clean-360/14/208/14_208_000001_000000.wav",
        "LibriTTS_R/dev-clean/84/121123/84_121123_000007_000001.wav",
        rate=24000,
    )
    write(
        root / "LibriTTS_R/train-clean-100/19/198/19_198_000000_000000.normalized.txt", "Mister\n"
    )
    write(root / "LibriTTS_R/train-clean-100/19/198/19_198_000000_000000.original.txt", "Mr.\n")
    write(root / "LibriTTS_R/train-clean-100/19/198/19_198.book.tsv", "x\n")
    return root / "LibriTTS_R"


def test_libritts_gives_speakers_normalised_text_and_of_its_subsets_the_training_ones(libritts):
    found = find_source(libritts)

    got = [(one.path.name, one.speaker, one.text) for one in found.candidates]
    assert got == [
        ("103_1240_000000_000001.wav", "103", ""),
        ("19_198_000000_000000.wav", "19", "Mister"),
        ("14_208_000001_000000.wav", "14", ""),
    ]
    assert found.recipe == "libritts-r-wavenet"
    used, rejected = scan(found.candidates)
    assert {one.sample_rate for one in used} == {24000} and not rejected


def test_a_subset_of_libritts_is_taken_as_it_is_named_and_the_corpus_from_above(libritts, tmp_path):
    (one,) = find_source(libritts / "dev-clean").candidates
    assert one.speaker == "84"
    named = find("libritts-r", tmp_path / "out", given=libritts.parent)
    assert named.candidates == find_source(libritts).candidates
    assert "CC-BY-4.0" in named.licence


def test_vctk_gives_one_microphone_of_each_sentence(tmp_path, sines):
    root = sines(
        "wav48_silence_trimmed/p226/p226_001_mic2.flac",  # the only one of this sentence
        "wav48_silence_trimmed/p225/p225_002_mic1.flac",
        "wav48_silence_trimmed/p225/p225_001_mic2.flac",
        "wav48_silence_trimmed/p225/p225_001_mic1.flac",
    )
    write(root / "wav48_silence_trimmed/log.txt", "x")
    write(root / "txt/p225/p225_001.txt", "Please call\nStella.\n")
    write(root / "speaker-info.txt", "ID  AGE\n")
    audio = root / "wav48_silence_trimmed"

    found = find_source(root)

    assert found.candidates == [
        Candidate(audio / "p225" / "p225_001_mic1.flac", "p225", "Please call Stella."),
        Candidate(audio / "p225" / "p225_002_mic1.flac", "p225", ""),
        Candidate(audio / "p226" / "p226_001_mic2.flac", "p226", ""),
    ]
    assert len(scan(found.candidates)[0]) == 3
    assert found.recipe == "vctk-wavenet"


def test_the_older_vctk_is_read_likewise(tmp_path, sines):
    root = sines("VCTK-Corpus/wav48/p225/p225_001.wav", "VCTK-Corpus/wav48/p227/p227_001.wav")
    found = find("vctk", tmp_path / "out", given=root)
    assert [one.speaker for one in found.candidates] == ["p225", "p227"]


def test_csmsc_gives_its_characters_without_the_prosody_marks(tmp_path, sines):
    root = sines("BZNSYP/Wave/000002.wav", "BZNSYP/Wave/000001.wav") / "BZNSYP"
    write(
        root / "ProsodyLabeling" / "000001-010000.txt",
        "000001\t卡尔普#2陪外孙#1玩滑梯#4。\n\tka2 er2 pu3\n"
        "000002\t假语村言#2别再#1拥抱我#4。\n\tjia2\n",
    )

    found = find_source(root)

    assert found.candidates == [
        Candidate(root / "Wave" / "000001.wav", "", "卡尔普陪外孙玩滑梯。"),
        Candidate(root / "Wave" / "000002.wav", "", "假语村言别再拥抱我。"),
    ]
    assert len(scan(found.candidates)[0]) == 2
    assert "non-commercial" in find("csmsc", tmp_path / "out", given=root).licence


def test_jsut_gives_all_its_subsets_or_one(tmp_path, sines):
    root = sines(
        "jsut_ver1.1/loanword128/wav/LOANWORD128_001.wav",
        "jsut_ver1.1/basic5000/wav/BASIC5000_0002.wav",
        "jsut_ver1.1/basic5000/wav/BASIC5000_0001.wav",
    )
    root = root / "jsut_ver1.1"
    write(root / "basic5000" / "transcript_utf8.txt", "BASIC5000_0001:水を:飲む。\n")
    write(root / "loanword128" / "transcript_utf8.txt", "LOANWORD128_001:パスタ\n")
    basic = root / "basic5000" / "wav"

    found = find_source(root).candidates

    assert found == [
        Candidate(basic / "BASIC5000_0001.wav", "", "水を:飲む。"),
        Candidate(basic / "BASIC5000_0002.wav", "", ""),
        Candidate(root / "loanword128" / "wav" / "LOANWORD128_001.wav", "", "パスタ"),
    ]
    assert len(scan(found)[0]) == 3
    assert find_source(root / "basic5000").candidates == found[:2]
    assert "personal use" in find("jsut", tmp_path / "out", given=root).licence
