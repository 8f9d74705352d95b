import json
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from wavewn.data.manifest import (
    Rejected,
    Utterance,
    load_manifest,
    load_summary,
    save_manifest,
    split,
)
from wavewn.data.scan import Candidate, scan
from wavewn.errors import DataError

RATE = 8000
REPOSITORY = Path(__file__).parents[2]


def write_noise(path, seconds=1.0, peak=0.5, rate=RATE, channels=1):
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = round(seconds * rate)
    noise = np.random.default_rng(0).uniform(-peak, peak, (samples, channels))
    sf.write(path, noise, rate)
    return path


def utterances_of(*speakers):
    return [
        Utterance(Path(f"{i:03}.wav"), RATE, RATE, speaker) for i, speaker in enumerate(speakers)
    ]


def reason_of(path, min_seconds=0.5):
    used, rejected = scan([Candidate(path)], min_seconds)
    assert len(used) + len(rejected) == 1
    return rejected[0].reason if rejected else None


def test_a_scan_keeps_the_order_and_states_the_length_at_the_files_own_rate(tmp_path):
    paths = [
        write_noise(tmp_path / "b.wav", 1.5, rate=RATE),
        write_noise(tmp_path / "a.flac", 1.0, rate=16000, channels=2),
        write_noise(tmp_path / "c.ogg", 2.0, rate=22050),
    ]

    used, rejected = scan([Candidate(path, "s", "t") for path in paths])

    assert used == [
        Utterance(paths[0], 12000, 8000, "s", "t"),
        Utterance(paths[1], 16000, 16000, "s", "t"),
        Utterance(paths[2], 44100, 22050, "s", "t"),
    ]
    assert rejected == []


def test_unusable_files_are_named_with_their_reason_and_the_scan_goes_on(tmp_path):
    good = write_noise(tmp_path / "good.wav")
    text = tmp_path / "text.wav"
    text.write_text("this is no recording\n" * 100)
    nothing = tmp_path / "nothing.wav"
    nothing.write_bytes(b"")
    header = write_noise(tmp_path / "header.wav", seconds=0)
    short = write_noise(tmp_path / "short.wav", seconds=0.3)
    silent = write_noise(tmp_path / "silent.wav", peak=0.0005)
    missing = tmp_path / "missing.wav"
    files = [text, nothing, header, short, silent, missing, good]
    seen = []

    used, rejected = scan([Candidate(path) for path in files], on_file=lambda: seen.append(1))

    assert [one.path for one in used] == [good]
    assert len(seen) == len(files)
    reasons = {one.path.name: one.reason for one in rejected}
    for name in ("text.wav", "nothing.wav", "header.wav", "missing.wav"):
        assert reasons[name] == "unreadable", name
    assert reasons["short.wav"] == "too short"
    assert reasons["silent.wav"] == "silent"


def test_the_bounds_of_length_and_level_are_where_they_are_said_to_be(tmp_path):
    half = write_noise(tmp_path / "half.wav", seconds=0.5)
    assert reason_of(half, min_seconds=0.5) is None
    assert reason_of(half, min_seconds=0.51) == "too short"
    assert reason_of(write_noise(tmp_path / "quiet.wav", peak=0.002)) is None


def test_a_recording_that_is_cut_off_is_unreadable(tmp_path):
    whole = write_noise(tmp_path / "whole.flac", seconds=4).read_bytes()
    cut = tmp_path / "cut.flac"
    cut.write_bytes(whole[: len(whole) // 2])
    assert reason_of(cut) == "unreadable"


def test_the_length_is_what_can_be_decoded_not_what_the_header_says(tmp_path):
    whole = write_noise(tmp_path / "whole.mp3", seconds=8, rate=16000).read_bytes()
    cut = tmp_path / "cut.mp3"
    cut.write_bytes(whole[: len(whole) // 2])
    assert sf.info(cut).frames == 8 * 16000

    used, _ = scan([Candidate(cut)])

    assert 3 * 16000 < used[0].samples < 5 * 16000


def test_a_recording_that_holds_nan_is_unreadable(tmp_path):
    audio = np.random.default_rng(0).uniform(-0.5, 0.5, RATE).astype("float32")
    audio[123] = np.nan
    sf.write(tmp_path / "nan.wav", audio, RATE, subtype="FLOAT")
    assert reason_of(tmp_path / "nan.wav") == "unreadable"


def test_the_last_files_are_the_test_set_and_the_ones_before_validation():
    utterances = utterances_of(*[""] * 620)
    parts = split(utterances)
    assert parts["test"] == utterances[-12:]  # 2 % of 620
    assert parts["valid"] == utterances[-24:-12]
    assert parts["train"] == utterances[:-24]

    parts = split(utterances, valid=3, test=5)
    assert parts["test"] == utterances[-5:]
    assert parts["valid"] == utterances[-8:-5]


@pytest.mark.parametrize(("total", "held_out"), [(3, 1), (99, 1), (100, 2), (1000, 20), (5000, 20)])
def test_held_out_sets_are_two_per_cent_at_least_one_and_at_most_twenty(total, held_out):
    parts = split(utterances_of(*[""] * total))
    assert len(parts["valid"]) == len(parts["test"]) == held_out
    assert len(parts["train"]) == total - 2 * held_out


def test_held_out_files_go_round_the_speakers_and_leave_each_one_to_train_on():
    utterances = utterances_of("a", "a", "a", "b", "b", "b", "c")

    parts = split(utterances, valid=1, test=2)

    assert parts["test"] == [utterances[2], utterances[5]]  # the last of a and of b, not c's only
    assert parts["valid"] == [utterances[4]]
    assert {one.speaker for one in parts["train"]} == {"a", "b", "c"}


def test_a_split_that_leaves_nothing_to_train_on_is_refused():
    with pytest.raises(DataError, match="2 usable recordings cannot give 1 .* lower --valid"):
        split(utterances_of("", ""))
    assert len(split(utterances_of("", ""), valid=0, test=1)["train"]) == 1
    with pytest.raises(DataError, match="must be 0 or more, got -1"):
        split(utterances_of("", "", ""), valid=-1)


def saved(folder, audio_folder, force=False):
    paths = [write_noise(audio_folder / f"{name}.wav") for name in ("один", "b", "c")]
    speakers = ["z", "a", "z"]
    used = [
        Utterance(path, RATE, RATE, speaker, "два")
        for path, speaker in zip(paths, speakers, strict=True)
    ]
    parts = {"train": used[:1], "valid": used[1:2], "test": used[2:]}
    rejected = [Rejected(audio_folder / "x.wav", "silent", "peak below -60 dBFS")]
    return used, save_manifest(folder, parts, rejected, "a corpus", force)


def test_what_is_saved_is_loaded(tmp_path):
    used, summary = saved(tmp_path / "manifest", tmp_path / "audio")

    loaded = [load_manifest(tmp_path / "manifest", name)[0] for name in ("train", "valid", "test")]

    assert loaded == used
    assert load_summary(tmp_path / "manifest") == summary
    assert summary.speakers == ("z", "a")
    assert summary.counts == {"train": 1, "valid": 1, "test": 1}
    assert summary.hours["train"] == pytest.approx(1 / 3600)
    assert summary.sample_rates == {RATE: 3}
    assert summary.rejected == 1
    rejected = json.loads((tmp_path / "manifest" / "rejected.jsonl").read_text())
    assert rejected["reason"] == "silent"
    assert not list((tmp_path / "manifest").glob(".*"))


def test_a_manifest_above_its_recordings_can_be_moved_and_another_cannot(tmp_path):
    saved(tmp_path / "corpus", tmp_path / "corpus" / "wavs")
    saved(tmp_path / "apart", tmp_path / "audio")
    assert '"wavs/b.wav"' in (tmp_path / "corpus" / "valid.jsonl").read_text()

    (tmp_path / "corpus").rename(tmp_path / "moved")
    moved = load_manifest(tmp_path / "moved", "valid")[0]
    assert moved.path == tmp_path / "moved" / "wavs" / "b.wav"

    (tmp_path / "audio").rename(tmp_path / "gone")
    with pytest.raises(DataError, match="were the recordings moved"):
        load_manifest(tmp_path / "apart", "valid")


def test_a_manifest_is_replaced_only_by_force(tmp_path):
    saved(tmp_path / "m", tmp_path / "audio")
    with pytest.raises(DataError, match="already holds a manifest; add --force"):
        saved(tmp_path / "m", tmp_path / "audio")
    saved(tmp_path / "m", tmp_path / "audio", force=True)


def test_a_write_that_fails_leaves_the_old_manifest(tmp_path):
    saved(tmp_path / "m", tmp_path / "audio")
    before = (tmp_path / "m" / "train.jsonl").read_bytes()
    (tmp_path / "m" / ".test.jsonl.partial").mkdir()  # makes the third file unwritable
    with pytest.raises(DataError, match="cannot write a manifest"):
        saved(tmp_path / "m", tmp_path / "other", force=True)
    assert (tmp_path / "m" / "train.jsonl").read_bytes() == before
    assert load_manifest(tmp_path / "m", "test")


def test_a_missing_or_damaged_manifest_says_how_to_make_one(tmp_path):
    with pytest.raises(DataError, match="no manifest in .*run: wavewn prepare SOURCE --out"):
        load_manifest(tmp_path / "nowhere", "train")
    saved(tmp_path / "m", tmp_path / "audio")
    with pytest.raises(DataError, match="split must be one of train, valid, test, got 'dev'"):
        load_manifest(tmp_path / "m", "dev")

    lines = (tmp_path / "m" / "train.jsonl").read_text()
    (tmp_path / "m" / "train.jsonl").write_text(lines.replace('"samples"', '"length"'))
    with pytest.raises(DataError, match=r"train.jsonl, line 1: expected audio, samples"):
        load_manifest(tmp_path / "m", "train")
    (tmp_path / "m" / "train.jsonl").write_text("")
    with pytest.raises(DataError, match="lists 0 utterances, manifest.json says 1"):
        load_manifest(tmp_path / "m", "train")

    whole = (tmp_path / "m" / "manifest.json").read_text()
    (tmp_path / "m" / "manifest.json").write_text(whole.replace('"format": 1', '"format": 9'))
    with pytest.raises(DataError, match="format 9, expected 1"):
        load_summary(tmp_path / "m")
    for garbage in ("{", "[]", "{}", "null"):
        (tmp_path / "m" / "manifest.json").write_text(garbage)
        with pytest.raises(DataError, match="is damaged"):
            load_summary(tmp_path / "m")


def test_the_embedded_corpus_is_whole_and_holds_out_what_the_large_recipe_holds_out():
    folder = REPOSITORY / "recipes" / "corpus" / "festvox-ru"
    parts = {name: load_manifest(folder, name) for name in ("train", "valid", "test")}
    everything = [one for part in parts.values() for one in part]

    used, rejected = scan([Candidate(one.path, one.speaker, one.text) for one in everything])

    assert (used, rejected) == (everything, [])
    assert {one.sample_rate for one in used} == {16000}
    assert 60 < sum(one.duration_s for one in used) < 120
    assert all(one.path.is_relative_to(folder) for one in used)
    # festvox-ru's last 20 files begin with ru_0818, the 20 before with ru_0792
    assert all(one.path.stem >= "ru_0818" for one in parts["test"])
    assert all("ru_0792" <= one.path.stem < "ru_0818" for one in parts["valid"])
    assert all(one.path.stem < "ru_0792" for one in parts["train"])
    assert "Shmyrev" in (folder / "LICENSE").read_text()
