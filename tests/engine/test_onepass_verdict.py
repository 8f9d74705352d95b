"""bfloat16 of a one-pass model is judged by what it changes of the audio."""

import math

import pytest
import torch

from wavewn.engine.onepass import OnePassEngine
from wavewn.engine.onepass_verdict import judge, measure_bfloat16
from wavewn.errors import EngineError
from wavewn.state import StreamState


def speak(engine, mel):
    state = StreamState.zeros(engine.layout, 1)
    return torch.cat([engine.generate(state, mel), engine.finish(state)], dim=1)


@pytest.mark.parametrize("name", ["hifigan", "spectral"])
def test_the_verdict_is_the_ratio_of_audio_to_change(one_pass, mel_of, name):
    model, mels = one_pass(name), [mel_of(1, 12, seed) for seed in range(2)]

    verdict = measure_bfloat16(model, mels)

    plain, rounded = OnePassEngine(model), OnePassEngine(model, "bfloat16")
    true = torch.cat([speak(plain, mel) for mel in mels], dim=1)
    error = torch.cat([speak(rounded, mel) for mel in mels], dim=1) - true
    ratio_db = 10 * math.log10(true.square().sum() / error.square().sum())
    assert verdict["float32"] == {"usable": True}
    assert verdict["bfloat16"]["snr_db"] == pytest.approx(ratio_db, abs=0.2)
    assert verdict["bfloat16"]["usable"] == (ratio_db >= 40)


@pytest.mark.parametrize(
    ("snr_db", "usable", "reason"),
    [
        (40.0, True, None),
        (39.94, False, "39.9 dB from float32 on recordings, 40 dB are asked for"),
        (-math.inf, False, "NaN or infinity came up"),
        (None, False, "the recordings gave nothing to compare"),
    ],
)
def test_forty_decibels_are_asked_for(snr_db, usable, reason):
    verdict = judge(snr_db)

    assert verdict["usable"] is usable
    assert verdict.get("reason") == reason


def test_nan_in_bfloat16_alone_is_a_verdict_and_in_float32_an_error(one_pass, mel_of, monkeypatch):
    def broken(engine, *rest, **options):
        raise EngineError("NaN or infinity came up in row 0 at sample 3")

    model, mels = one_pass("hifigan"), [mel_of(1, 9)]
    generate = OnePassEngine.generate
    for precision in ("bfloat16", "float32"):

        def sometimes(engine, *rest, wanted=precision, **options):
            run = broken if engine.precision == wanted else generate
            return run(engine, *rest, **options)

        monkeypatch.setattr(OnePassEngine, "generate", sometimes)
        if precision == "bfloat16":
            found = measure_bfloat16(model, mels)["bfloat16"]
            assert found == {"usable": False, "reason": "NaN or infinity came up"}
        else:
            with pytest.raises(EngineError, match="came up in row 0"):
                measure_bfloat16(model, mels)
    with pytest.raises(EngineError, match="at least 1 recording"):
        measure_bfloat16(model, [])
