import argparse
import json

import numpy as np
import pytest
import soundfile as sf

from wavewn.cli.prepare import add_prepare
from wavewn.data.corpora import g722
from wavewn.data.corpora.packages import FESTVOX_RU_VOICE
from wavewn.data.manifest import load_manifest, load_summary
from wavewn.errors import DataError

RATE = 8000


def run(*words):
    parser = argparse.ArgumentParser()
    add_prepare(parser.add_subparsers())
    args = parser.parse_args(["prepare", *map(str, words)])
    args.run(args)


@pytest.fixture
def corpus(tmp_path):
    return make_corpus(tmp_path / "corpus", [f"{i}.wav" for i in range(5)])


def make_corpus(folder, names):
    folder.mkdir(parents=True)
    for i, name in enumerate(names):
        sf.write(folder / name, np.random.default_rng(i).uniform(-0.5, 0.5, RATE), RATE)
    return folder


def names(folder, split):
    return [one.path.name for one in load_manifest(folder, split)]


def test_a_folder_becomes_a_manifest_and_the_last_line_says_what_to_do_next(
    corpus, tmp_path, capsys
):
    (corpus / "broken.wav").write_text("no audio")
    out = tmp_path / "out"

    run(corpus, "--out", out, "--valid", 1, "--test", 2)

    assert names(out, "train") == ["0.wav", "1.wav"]
    assert names(out, "valid") == ["2.wav"]
    assert names(out, "test") == ["3.wav", "4.wav"]
    row = json.loads((out / "rejected.jsonl").read_text())
    assert (row["audio"], row["reason"]) == (str(corpus / "broken.wav"), "unreadable")
    last = capsys.readouterr().out.splitlines()[-1]
    assert "5 utterances (2 train, 1 valid, 2 test), 0.00 h at 8000 Hz, 1 rejected" in last
    assert f"next: wavewn train own-data-wavenet --data.manifest {out}" in last


def test_the_next_command_suits_the_layout_the_speakers_and_the_shell(tmp_path, capsys):
    lj, out = tmp_path / "LJSpeech-1.1", tmp_path / "out put"
    make_corpus(lj / "wavs", [f"{i}.wav" for i in range(3)])
    (lj / "metadata.csv").write_text("0|a|a\n1|b|b\n2|c|c\n")
    run(lj, "--out", out)
    assert f"next: wavewn train ljspeech-wavenet --data.manifest '{out}'\n" in (
        capsys.readouterr().out
    )

    for speaker in "ab":
        make_corpus(tmp_path / "two" / speaker, [f"{i}.wav" for i in range(3)])
    run(tmp_path / "two", "--out", tmp_path / "m")
    assert capsys.readouterr().out.endswith(
        f"--data.manifest {tmp_path / 'm'} --model.speakers 2\n"
    )


def test_the_same_corpus_is_split_the_same_way_twice(corpus, tmp_path):
    for out in ("a", "b"):
        run(corpus, "--out", tmp_path / out)
    for name in ("train.jsonl", "valid.jsonl", "test.jsonl", "manifest.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_manifest_that_is_there_is_replaced_only_by_force(corpus, tmp_path):
    run(corpus, "--out", tmp_path / "out")
    with pytest.raises(DataError, match="add --force"):
        run(corpus, "--out", tmp_path / "out", "--test", 2)
    assert load_summary(tmp_path / "out").counts["test"] == 1
    run(corpus, "--out", tmp_path / "out", "--test", 2, "--force")
    assert load_summary(tmp_path / "out").counts["test"] == 2


def test_the_shortest_length_is_the_users(corpus, tmp_path):
    with pytest.raises(DataError, match="none of the 5 files .*0.wav, is too short: 1.00 s"):
        run(corpus, "--out", tmp_path / "out", "--min-seconds", 1.5)
    with pytest.raises(DataError, match="--min-seconds must be 0 or more"):
        run(corpus, "--out", tmp_path / "out", "--min-seconds", "nan")
    assert not (tmp_path / "out").exists()


def test_festvox_ru_is_prepared_from_a_tree_with_its_last_twenty_files_as_the_test_set(
    tmp_path, capsys
):
    files = [f"ru_{i:04}.wav" for i in range(1, 43)]
    make_corpus(tmp_path / FESTVOX_RU_VOICE / "wav", files)

    run("festvox-ru", "--from", tmp_path / "usr", "--out", tmp_path / "out")

    assert names(tmp_path / "out", "test") == files[-20:]
    assert names(tmp_path / "out", "valid") == files[-40:-20]
    assert names(tmp_path / "out", "train") == files[:2]
    assert load_summary(tmp_path / "out").speakers == ("msu_ru_nsh",)
    said = capsys.readouterr().out
    assert "next: wavewn train festvox-ru-wavenet" in said
    assert "licence: BSD-like, as its corpus: festvox-ru" in said


def test_download_and_from_are_refused_for_other_corpora(corpus, tmp_path):
    with pytest.raises(DataError, match="--download and --from belong to the names asterisk"):
        run(corpus, "--out", tmp_path / "out", "--download")


def test_a_licence_that_the_user_states_stands_in_the_manifest(corpus, tmp_path):
    run(corpus, "--out", tmp_path / "none")
    run(corpus, "--out", tmp_path / "mine", "--licence", "CC0-1.0")
    assert load_summary(tmp_path / "none").licence == ""
    assert load_summary(tmp_path / "mine").licence == "CC0-1.0"


def test_asterisks_prompts_are_decoded_beside_the_manifest_with_their_voices_and_licence(
    tmp_path, capsys, monkeypatch
):
    for voice in ("en_US_f_Allison", "it_IT_m_Carlo"):
        for name in "1234":
            path = tmp_path / "sounds" / voice / f"{name}.g722"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    noise = np.random.default_rng(0).integers(-9000, 9000, 16000).astype(np.int16)
    monkeypatch.setattr(g722, "check_decoder", lambda: None)
    monkeypatch.setattr(g722, "read_g722", lambda path: noise)  # decoding has a test of its own
    out = tmp_path / "out"

    run("asterisk", "--from", tmp_path / "sounds", "--out", out)

    summary = load_summary(out)
    assert summary.speakers == ("en_US_f_Allison", "it_IT_m_Carlo")
    assert summary.licence.startswith("CC-BY-SA-3.0")
    assert summary.sample_rates == {16000: 8}
    row = json.loads((out / "train.jsonl").read_text().splitlines()[0])
    assert row["audio"] == "decoded/en_US_f_Allison/1.flac"
    said = capsys.readouterr().out
    assert "licence: CC-BY-SA-3.0" in said
    assert f"wavewn train asterisk-wavenet --data.manifest {out} --model.speakers 2" in said
