"""The native kernel gives what torch gives, whatever the set, the chunks and the threads."""

import math

import pytest
import torch

from wavewn.config import HiFiGANConfig
from wavewn.engine import onepass_flow, onepass_native, onepass_plans
from wavewn.engine.onepass import OnePassEngine
from wavewn.engine.onepass_native import (
    instruction_sets,
    kernel_for,
    run_natively,
    why_not_native,
)
from wavewn.engine.stream import Stream
from wavewn.errors import EngineError, ShapeError
from wavewn.models.hifigan import HiFiGAN
from wavewn.nn.flow import Flow, Rows
from wavewn.state import StreamState

_native = pytest.importorskip("wavewn._native", reason="`pip install .` compiles it")

ATOL = 1e-5  # sums of another order
BANDS, HOP, FRAMES = 6, 20, 26
SETS = [(name, kind) for kind in ("float32", "bfloat16") for name in instruction_sets(kind)]


def mel_of(batch, frames=FRAMES, bands=BANDS):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, bands, frames, generator=generator) * 2 - 6


def play(engine, mel, cuts=FRAMES):
    stream = Stream(engine, len(mel))
    return torch.cat([*map(stream.push, mel.split(cuts, dim=2)), stream.finish()], dim=1)


def engine_of(model, instruction_set, precision="float32", threads=1):
    if why := instruction_sets(precision)[instruction_set]:
        pytest.skip(why)
    return OnePassEngine(model, precision, threads=threads, native=instruction_set)


@pytest.fixture(scope="module")
def odd():
    """Widths that fill no vector, kernels that are no multiple of their rate."""
    torch.manual_seed(1)
    dilations = ((1, 3), (1, 2), (1, 2))
    settings = HiFiGANConfig(40, (4, 3), (10, 7), "1", (3, 7, 5), dilations)
    model = HiFiGAN(settings, 10)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def wide():
    """Convolutions that are worth a thread's while."""
    torch.manual_seed(1)
    settings = HiFiGANConfig(160, (5, 4), (10, 8), "2", (3, 5), ((1, 3), (1, 2)))
    return HiFiGAN(settings, BANDS).eval().requires_grad_(False)


@pytest.mark.parametrize("name", instruction_sets("float32"))
def test_every_instruction_set_gives_what_torch_gives(odd, name):
    mel = mel_of(2, bands=10)

    found = play(engine_of(odd, name), mel)

    torch.testing.assert_close(found, play(OnePassEngine(odd), mel), rtol=0, atol=ATOL)
    assert found.std() > 0.01


@pytest.mark.parametrize(("name", "precision"), SETS)
@pytest.mark.parametrize("cuts", [1, 7])
def test_audio_does_not_depend_on_chunks_nor_company_to_the_last_bit(odd, name, precision, cuts):
    engine, mel = engine_of(odd, name, precision), mel_of(2, bands=10)

    whole = play(engine, mel)

    assert torch.equal(play(engine, mel, cuts), whole)
    assert torch.equal(play(engine, mel[1:]), whole[1:])


def test_bfloat16_rounds_less_than_torch_does(one_pass):
    model, mel = one_pass("hifigan"), mel_of(2)
    true = play(OnePassEngine(model), mel)

    def decibels(engine):
        error = play(engine, mel) - true
        return 10 * math.log10(true.square().sum() / error.square().sum())

    native = decibels(engine_of(model, "avx512-bf16", "bfloat16"))
    assert 25 < native < 80
    assert native > decibels(OnePassEngine(model, "bfloat16"))


def test_long_chunks_are_heard_in_pieces_to_the_last_bit(odd, monkeypatch):
    mel = mel_of(2, bands=10)
    whole = play(OnePassEngine(odd, native="auto"), mel)

    monkeypatch.setattr(onepass_flow, "MOST_NUMBERS", 4 * 12 * 10)
    engine = OnePassEngine(odd, native="auto")
    assert engine._model._native.most_rows == 4
    assert torch.equal(play(engine, mel), whole)


def test_what_is_remembered_is_what_torch_remembers(one_pass):
    model, mel = one_pass("hifigan-reflect"), mel_of(2)
    torchs, ours = OnePassEngine(model), OnePassEngine(model, native="auto")
    begun = StreamState.zeros(torchs.layout, 2)
    torchs.generate(begun, mel[:, :, :11])
    went_on = begun.clone()

    expected, found = torchs.generate(begun, mel[:, :, 11:]), ours.generate(went_on, mel[:, :, 11:])

    torch.testing.assert_close(found, expected, rtol=0, atol=ATOL)
    torch.testing.assert_close(went_on.buffer, begun.buffer, rtol=0, atol=ATOL)


def test_threads_share_convolutions_and_change_nothing(wide):
    mel = mel_of(1, 40)
    alone = play(OnePassEngine(wide, native="auto"), mel, 40)

    for cuts in (40, 9):
        shared = play(OnePassEngine(wide, native="auto", threads=3), mel, cuts)
        assert torch.equal(shared, alone)


def test_chunks_of_one_size_share_a_program_and_not_too_many_are_kept(one_pass, monkeypatch):
    model, mel = one_pass("hifigan"), mel_of(1)
    engine = OnePassEngine(model, native="auto")
    programs = engine._model._native._programs
    stream = Stream(engine)
    for frame in mel.split(1, dim=2):
        stream.push(frame)
        known = len(programs)

    stream.push(mel[:, :, :1])
    assert len(programs) == known < FRAMES

    monkeypatch.setattr(onepass_plans, "MOST_PLANS", 3)
    play(engine, mel, 5)
    assert len(programs) <= known
    assert torch.equal(play(engine, mel, 5), play(engine, mel))


def test_numbers_of_rows_go_through_as_through_the_generator(one_pass):
    model = one_pass("hifigan")
    rows = Rows(None, BANDS, 3, 9, False)

    own, its = Flow(), Flow()
    found = run_natively(model, "float32").flow(own, rows)

    assert found == model.flow(its, rows)
    assert own.shapes == its.shapes


def test_an_utterance_too_short_to_reflect_is_named(one_pass):
    engine = OnePassEngine(one_pass("hifigan-reflect"), native="auto")

    with pytest.raises(ShapeError, match="too short: a layer that pads by reflect"):
        play(engine, mel_of(1, 1))


def test_what_it_cannot_run_is_refused_with_the_reason(odd):
    other = torch.nn.Linear(2, 2)
    assert "one-pass models and plain WaveNets alone" in why_not_native(other, "float32")
    with pytest.raises(EngineError, match="cannot run natively: it runs one-pass models"):
        run_natively(other, "float32")
    with pytest.raises(EngineError, match="avx1024: it has no kernel of float32"):
        OnePassEngine(odd, native="avx1024")


def test_widths_that_make_no_pairs_run_in_bfloat16():
    torch.manual_seed(1)
    model = HiFiGAN(HiFiGANConfig(12, (5, 4), (10, 8), "1", (3,), ((1, 2),)), 5)
    model = model.eval().requires_grad_(False)
    mel = mel_of(1, bands=5)

    found = play(engine_of(model, "avx512-bf16", "bfloat16"), mel)

    torch.testing.assert_close(found, play(OnePassEngine(model), mel), rtol=0, atol=1e-2)


def test_a_machine_without_a_set_says_why(one_pass, monkeypatch):
    monkeypatch.setattr(onepass_native, "instruction_sets", lambda precision: {"set": "too old"})

    assert why_not_native(one_pass("hifigan"), "bfloat16") == "too old"


@pytest.mark.parametrize(
    ("distrust", "chosen"),
    [("", "amx-bf16"), ("wrong sums", "avx512-bf16")],
    ids=["right", "wrong"],
)
def test_the_tiles_of_amx_are_taken_only_where_they_give_known_sums(
    monkeypatch, wide, distrust, chosen
):
    both = [(name, "bfloat16", "") for name in ("amx-bf16", "avx512-bf16")]
    monkeypatch.setattr(_native, "onepass_sets", lambda: both)
    monkeypatch.setattr(onepass_native, "why_no_tiles", lambda: distrust)

    assert kernel_for(wide, "bfloat16", "auto", 1).instruction_set == chosen
    if distrust:
        with pytest.raises(EngineError, match="instruction set amx-bf16: wrong sums"):
            kernel_for(wide, "bfloat16", "amx-bf16", 1)
