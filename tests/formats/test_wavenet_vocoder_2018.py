"""Checkpoints of wavenet_vocoder as it was in 2018, beside a forward written from its definition.

Three things were others: transposed convolutions over bands and time, each rectified, stretched
the mels; conditions had biases; and the sum of skips was halved in power at each layer but the
first. Mels were others, too: tests/audio/test_mel_presets.py has them.
"""

import json
import math
import runpy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import wavewn
from wavewn.audio.mel_spec import MelSpec
from wavewn.bundle.contents import fresh_model
from wavewn.cli.main import main
from wavewn.engine.choice import make_engine
from wavewn.engine.native import available
from wavewn.errors import FormatError
from wavewn.formats.found import read_foreign
from wavewn.nn.weight_norm import load_state
from wavewn.state import StreamState

THEIRS = runpy.run_path(str(Path(__file__).with_name("wavenet_vocoder.py")))
BANDS, FRAMES, HOP, ATOL, Weights = (
    THEIRS[name] for name in ("BANDS", "FRAMES", "HOP", "ATOL", "Weights")
)
SPEAKERS = 3
HPARAMS = THEIRS["SIZES"] | {
    "builder": "wavenet", "silence_threshold": 2, "min_level_db": -100, "ref_level_db": 20,
    "rescaling": True, "rescaling_max": 0.999, "allow_clipping_in_normalization": True,
    "log_scale_min": -32.23619130191664, "dropout": 0.05, "weight_normalization": True,
    "upsample_conditional_features": True, "upsample_scales": [4, 4], "freq_axis_kernel_size": 3,
    "n_speakers": SPEAKERS,
}  # fmt: skip
MULTI = {"gin_channels": 2}
ENGINES = [
    "reference",
    pytest.param("native", marks=pytest.mark.skipif(bool(available()), reason="not compiled")),
]


def stretched(w, mel, p):
    """The condition of each sample, written as sums: [batch, bands, samples]."""
    if not p["upsample_conditional_features"]:
        return mel.repeat_interleave(HOP, 2)
    c, taps = mel, p["freq_axis_kernel_size"]
    for i, rate in enumerate(p["upsample_scales"]):
        weight, bias = w(f"upsample_conv.{2 * i}", 1, 1, taps, rate)
        padded = F.pad(c, (0, 0, taps // 2, taps // 2))
        y = torch.zeros(*c.shape, rate) + bias
        for j in range(taps):  # band m hears band m + taps // 2 - j
            y = y + padded[:, taps - 1 - j :][:, : c.shape[1], :, None] * weight[0, 0, j]
        c = y.flatten(2).clamp(min=0)
    return c


def forward(w, x, mel, speaker, p):
    """Parameters [batch, P, samples] given the samples before each: x [batch, 1, samples]."""
    R, G, S, C = (p[f"{n}_channels"] for n in ("residual", "gate", "skip_out", "cin"))
    c = stretched(w, mel, p)
    if p["gin_channels"] > 0:
        table = torch.randn(SPEAKERS, p["gin_channels"], generator=w.random)
        w.state["embed_speakers.weight"] = table
        g = table[speaker][:, :, None]
    x, skips = F.conv1d(x, *w("first_conv", R, 1, 1)), None
    for i in range(p["layers"]):
        name, dilation = f"conv_layers.{i}", 2 ** (i % (p["layers"] // p["stacks"]))
        past = F.pad(x, ((p["kernel_size"] - 1) * dilation, 0))
        weight, bias = w(f"{name}.conv", G, R, p["kernel_size"])
        a = F.conv1d(past, weight, bias, 1, 0, dilation)
        a = a + F.conv1d(c, *w(f"{name}.conv1x1c", G, C, 1))
        if p["gin_channels"] > 0:
            a = a + F.conv1d(g, *w(f"{name}.conv1x1g", G, p["gin_channels"], 1))
        z = torch.tanh(a[:, : G // 2]) * torch.sigmoid(a[:, G // 2 :])
        h = F.conv1d(z, *w(f"{name}.conv1x1_skip", S, G // 2, 1))
        power = 0.5 if p.get("legacy", True) else 1.0
        skips = h if skips is None else (skips + h) * math.sqrt(power)
        x = (x + F.conv1d(z, *w(f"{name}.conv1x1_out", R, G // 2, 1))) * math.sqrt(0.5)
    x = F.conv1d(F.relu(skips), *w("last_conv_layers.1", S, S, 1))
    return F.conv1d(F.relu(x), *w("last_conv_layers.3", p["out_channels"], S, 1))


def spoken():
    """Levels, a mel as they hear it, and speakers."""
    random = torch.Generator().manual_seed(5)
    levels = 0.3 * torch.randn(2, FRAMES * HOP, generator=random)
    return levels, torch.rand(2, BANDS, FRAMES, generator=random), torch.tensor([2, 0])


@torch.no_grad()
def written(folder, **changes):
    """Write a model; give its parameters."""
    weights, params = Weights(), HPARAMS | changes
    levels, mel, speaker = spoken()
    before = F.pad(levels[:, :-1], (1, 0))[:, None]
    expected = forward(weights, before, mel, speaker, params).transpose(1, 2)
    (folder / "preset.json").write_text(json.dumps(params))
    content = {"state_dict": weights.state, "optimizer": None, "global_step": 410000}
    torch.save(content, folder / "checkpoint_step000410000_ema.pth")
    return expected


def converted(folder):
    found = read_foreign(folder)
    model = fresh_model(found.settings, found.mel)
    load_state(model, found.state)
    return found, model.eval()


@torch.no_grad()
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"freq_axis_kernel_size": 1, "upsample_scales": [16]},
        {"legacy": False},
        {"upsample_conditional_features": False},
        {"layers": 30, "stacks": 6, "gate_channels": 4},
    ],
    ids=["stretched", "one-band", "plain-skips", "repeated", "deep"],
)
def test_it_is_the_same(tmp_path, changes):
    expected = written(tmp_path, **changes)
    levels, mel, _ = spoken()

    found, model = converted(tmp_path)

    assert expected.std() > 0.1 and found.speakers == []
    torch.testing.assert_close(model(levels, mel), expected, rtol=0, atol=ATOL)
    assert not torch.allclose(model(levels, mel.flip(2)), expected, atol=1e-2)
    assert "its layout is that of 2018" in found.notes


@torch.no_grad()
@pytest.mark.parametrize("stretching", [True, False])
def test_each_speaker_is_the_same(tmp_path, stretching):
    expected = written(tmp_path, **MULTI, upsample_conditional_features=stretching)
    levels, mel, speaker = spoken()

    found, model = converted(tmp_path)

    assert found.speakers == ["0", "1", "2"]
    torch.testing.assert_close(model(levels, mel, speaker), expected, rtol=0, atol=ATOL)
    other = model(levels, mel, torch.tensor([1, 0]))
    assert (other[0] - expected[0]).abs().max() > 0.01


def test_its_mels_are_the_preset_of_2018(tmp_path):
    written(tmp_path)
    usual = MelSpec.preset("wavenet-vocoder-2018")

    mel = read_foreign(tmp_path).mel

    names = ("grid", "pad_mode", "window", "log_base", "floor_kind", "norm", "power")
    assert [getattr(mel, one) for one in names] == [getattr(usual, one) for one in names]
    for one in ("floor", "mean", "scale", "f_min", "f_max"):
        assert getattr(mel, one) == pytest.approx(getattr(usual, one), rel=1e-12)


def test_before_26_february_2018_a_hundredth_was_added(tmp_path):
    written(tmp_path, allow_clipping_in_normalization=False)

    found = read_foreign(tmp_path)

    assert (found.mel.floor_kind, found.mel.floor) == ("add", 0.01)
    assert any("before 26 February 2018" in note for note in found.notes)


@torch.no_grad()
@pytest.mark.parametrize("engine", ENGINES)
def test_the_engines_speak_as_the_chosen_speaker_chunk_by_chunk(tmp_path, engine):
    written(tmp_path, **MULTI)
    _, model = converted(tmp_path)
    _, mel, speaker = spoken()
    runner = make_engine(model, engine)

    state = StreamState.zeros(runner.layout, 2)
    parts = [
        runner.generate(state, chunk, speaker=speaker, temperature=0.0)
        for chunk in mel.split([1, 3, 2], dim=2)
    ]
    audio = torch.cat([*parts, runner.finish(state, speaker=speaker, temperature=0.0)], dim=1)

    levels = torch.zeros(2, FRAMES * HOP)
    for t in range(FRAMES * HOP):
        parameters = model(levels, mel, speaker)[:, t]
        levels[:, t] = model.network.head.sample(parameters, torch.zeros(2, 2), temperature=0.0)
    torch.testing.assert_close(audio, levels, rtol=0, atol=ATOL)
    assert audio.std() > 0.01


def test_a_user_hears_its_speakers_by_number(tmp_path, capsys):
    (tmp_path / "theirs").mkdir()
    written(tmp_path / "theirs", **MULTI)

    assert main(["convert", str(tmp_path / "theirs"), "-o", str(tmp_path / "voice")]) == 0

    assert "its speakers are numbers" in capsys.readouterr().out
    voice = wavewn.load(tmp_path / "voice")
    mel = voice.mel(0.1 * torch.randn(20 * HOP, generator=torch.Generator().manual_seed(1)))
    first, second = (voice.synthesize(mel, speaker=one, seed=2) for one in ("0", 1))
    assert first.shape == (1, 20 * HOP)
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input_type": "mulaw-quantize"}, "one-hot"),
        ({"freq_axis_kernel_size": 2}, "a band too many"),
        ({"upsample_scales": [4, 2]}, "do not multiply to 16"),
        ({"hop_size": 20}, "hop_size is 20, .* what divides fft_size, 64"),
        ({"min_level_db": 100}, "min_level_db is 100"),
        ({"gin_channels": 2}, "no embedding"),
        ({"gin_channels": 1 << 20}, "a width from 1 to 4096"),
        ({"num_mels": 1 << 20}, "at most 4096"),
        ({"upsample_scales": [16]}, r"'upsample_conv.0.weight' is not there"),
    ],
)
def test_what_cannot_be_held_is_refused_with_the_reason(tmp_path, change, message):
    written(tmp_path)
    (tmp_path / "preset.json").write_text(json.dumps(HPARAMS | change))

    with pytest.raises(FormatError, match=message):
        read_foreign(tmp_path)
