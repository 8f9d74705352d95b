"""Checkpoints of wavenet_vocoder, beside a forward written from WaveNet's definition.

The networks here are tiny, their weights random, their files in that program's layout. What is
compared are the parameters of every sample's distribution, given the samples before it.
"""

import json
import math
import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from wavewn.bundle.contents import fresh_model
from wavewn.config import Condition, Gaussian, HiFiGANConfig, MuLaw
from wavewn.engine.native import NativeEngine, available
from wavewn.engine.reference import ReferenceEngine
from wavewn.engine.weights import pack_wavenet
from wavewn.errors import FormatError
from wavewn.formats import wavenet_vocoder
from wavewn.formats.found import read_foreign
from wavewn.formats.writing import write_foreign
from wavewn.nn.weight_norm import load_state
from wavewn.state import StreamState

THEIRS = runpy.run_path(str(Path(__file__).with_name("wavenet_vocoder.py")))
BANDS, FRAMES, HOP, ATOL, Weights = (
    THEIRS[name] for name in ("BANDS", "FRAMES", "HOP", "ATOL", "Weights")
)
GAIN = 0.55
HPARAMS = THEIRS["SIZES"] | {
    "preprocess": "preemphasis", "postprocess": "inv_preemphasis", "global_gain_scale": GAIN,
    "win_length": 64, "win_length_ms": -1.0, "window": "hann", "highpass_cutoff": 70.0,
    "output_distribution": "Logistic", "log_scale_min": -16.0, "dropout": 0.0, "cin_pad": 0,
    "upsample_conditional_features": False, "n_speakers": 7, "exponential_moving_average": True,
}  # fmt: skip
SMOOTHED = {
    "upsample_conditional_features": True, "cin_pad": 2, "upsample_net": "ConvInUpsampleNetwork",
    "upsample_params": {"upsample_scales": [4, 2, 2]},
}  # fmt: skip
MEAN, SCALE = np.linspace(-3, -2, BANDS), np.linspace(0.5, 1.5, BANDS)


def upsampled(w, mel, p):
    """The condition of each sample, [batch, bands, samples]."""
    if not p["upsample_conditional_features"]:
        return mel.repeat_interleave(HOP, 2)
    pad, bands = p["cin_pad"], mel.shape[1]
    weight = torch.randn(bands, bands, 2 * pad + 1, generator=w.random) / 3
    w.state["upsample_net.conv_in.weight"] = weight  # without weight norm
    c = F.conv1d(F.pad(mel, (pad, pad), "replicate"), weight)
    for i, rate in enumerate(p["upsample_params"]["upsample_scales"]):
        name = f"upsample_net.upsample.up_layers.{2 * i + 1}"
        v = torch.rand(1, 1, 1, 2 * rate + 1, generator=w.random)
        g = torch.rand(1, 1, 1, 1, generator=w.random) + 0.5
        w.state |= {f"{name}.weight_g": g, f"{name}.weight_v": v}
        taps = (g * v / v.norm())[:, :, 0]
        c = c.repeat_interleave(rate, 2)
        c = F.conv1d(c.reshape(-1, 1, c.shape[2]), taps, padding=rate).view(c.shape)
    return c


def forward(w, x, mel, p):
    """Parameters [batch, P, samples] given the samples before each: x [batch, 1, samples]."""
    R, G, S, C = (p[f"{n}_channels"] for n in ("residual", "gate", "skip_out", "cin"))
    c = upsampled(w, mel, p)
    x, skips = F.conv1d(x, *w("first_conv", R, 1, 1)), 0
    for i in range(p["layers"]):
        name, dilation = f"conv_layers.{i}", 2 ** (i % (p["layers"] // p["stacks"]))
        past = F.pad(x, ((p["kernel_size"] - 1) * dilation, 0))
        weight, bias = w(f"{name}.conv", G, R, p["kernel_size"])
        a = F.conv1d(past, weight, bias, 1, 0, dilation)
        a = a + F.conv1d(c, *w(f"{name}.conv1x1c", G, C, 1, bias=False))
        z = torch.tanh(a[:, : G // 2]) * torch.sigmoid(a[:, G // 2 :])
        skips = skips + F.conv1d(z, *w(f"{name}.conv1x1_skip", S, G // 2, 1))
        x = (x + F.conv1d(z, *w(f"{name}.conv1x1_out", R, G // 2, 1))) * math.sqrt(0.5)
    x = F.conv1d(F.relu(skips * math.sqrt(1 / p["layers"])), *w("last_conv_layers.1", S, S, 1))
    return F.conv1d(F.relu(x), *w("last_conv_layers.3", p["out_channels"], S, 1))


def write(folder, weights, params, name="checkpoint_step000000007.pth"):
    (folder / "hparams.json").write_text(json.dumps(params))
    whole = {"state_dict": weights.state, "optimizer": None, "global_step": 7, "global_epoch": 1}
    torch.save(whole, folder / name)
    np.save(folder / "stats.npy", np.stack([MEAN, SCALE]))
    return folder


def spoken():
    """Levels before their gain, and a mel as they hear it."""
    random = torch.Generator().manual_seed(5)
    levels = 0.3 * torch.randn(2, FRAMES * HOP, generator=random)
    mel = 2 * torch.rand(2, BANDS, FRAMES, generator=random) - 1
    return levels, mel


def written(folder, **changes):
    """Write a model; give its parameters, in the domain of its gain."""
    weights, params = Weights(), HPARAMS | changes
    levels, mel = spoken()
    before = F.pad(params["global_gain_scale"] * levels[:, :-1], (1, 0))[:, None]
    expected = forward(weights, before, mel, params).transpose(1, 2)
    write(folder, weights, params)
    return expected


def converted(folder):
    found = read_foreign(folder)
    model = fresh_model(found.settings, found.mel)
    load_state(model, found.state)
    return found, model.eval()


def ungained(parameters, components):
    """Means and log scales of samples that are not multiplied by the gain."""
    logits, means, scales = parameters.split(
        [parameters.shape[-1] - 2 * components, components, components], dim=-1
    )
    return torch.cat([logits, means / GAIN, scales - math.log(GAIN)], dim=-1)


@torch.no_grad()
@pytest.mark.parametrize("gates", [4, 8, 12])  # narrower than the residual, as wide, wider
@pytest.mark.parametrize("kernel_size", [2, 3])
def test_a_mixture_of_logistics_is_the_same(tmp_path, gates, kernel_size):
    expected = written(tmp_path, gate_channels=gates, kernel_size=kernel_size)
    levels, mel = spoken()

    found, model = converted(tmp_path)
    ours = model(levels, mel)

    assert expected.std() > 0.1
    torch.testing.assert_close(ours, ungained(expected, 2), rtol=0, atol=ATOL)
    assert found.settings.head.log_scale_min == pytest.approx(-16 - math.log(GAIN))


@torch.no_grad()
@pytest.mark.parametrize("outputs", [2, 3])
def test_a_gaussian_is_the_same(tmp_path, outputs):
    expected = written(tmp_path, output_distribution="Normal", out_channels=outputs)
    levels, mel = spoken()

    found, model = converted(tmp_path)

    assert isinstance(found.settings.head, Gaussian)
    ours = model(levels, mel)
    torch.testing.assert_close(ours, ungained(expected, 1)[..., -2:], rtol=0, atol=ATOL)


@torch.no_grad()
@pytest.mark.parametrize("pad", [0, 2])
def test_stretched_and_smoothed_mels_are_heard_the_same_to_the_very_ends(tmp_path, pad):
    expected = written(tmp_path, **SMOOTHED | {"cin_pad": pad})
    levels, mel = spoken()

    found, model = converted(tmp_path)

    assert found.settings.kind == "smoothed-wavenet"
    torch.testing.assert_close(model(levels, mel), ungained(expected, 2), rtol=0, atol=ATOL)
    assert not torch.allclose(model(levels, mel.flip(2)), ungained(expected, 2), atol=1e-2)


@torch.no_grad()
def test_thirty_layers_keep_their_precision(tmp_path):
    expected = written(tmp_path, layers=30, stacks=6)
    levels, mel = spoken()

    found, model = converted(tmp_path)

    torch.testing.assert_close(model(levels, mel), ungained(expected, 2), rtol=0, atol=ATOL)
    sizes = [v.abs().max() for k, v in found.state.items() if k.endswith("gate.weight")]
    assert 2**-10 < min(sizes) < max(sizes) < 2**10


def test_without_a_gain_the_head_is_theirs(tmp_path):
    written(tmp_path, global_gain_scale=1.0)

    found = read_foreign(tmp_path)

    assert found.settings.head.log_scale_min == -16
    assert not any("gain" in note for note in found.notes)


@torch.no_grad()
@pytest.mark.skipif(bool(available()), reason="without the native engine")
def test_every_engine_runs_it(tmp_path):
    written(tmp_path)
    _, model = converted(tmp_path)
    levels, mel = spoken()
    expected = model(levels, mel)

    weights = pack_wavenet(model)
    for engine in (ReferenceEngine(weights), NativeEngine(weights)):
        state = StreamState.zeros(engine.layout, 2)
        ours = engine.parameters(state, mel, levels)
        torch.testing.assert_close(ours, expected, rtol=0, atol=ATOL)


def test_the_definition_of_its_mels_is_whole(tmp_path):
    written(tmp_path)

    mel = read_foreign(tmp_path).mel

    assert (mel.grid, mel.log_base, mel.floor, mel.high_pass_hz) == ("centred", "10", 1e-10, 70)
    assert (mel.f_min, mel.f_max, mel.pre_emphasis, mel.gain) == (125, 7600, 0, 1)
    assert mel.mean == pytest.approx(MEAN) and mel.scale == pytest.approx(SCALE)


def test_of_several_checkpoints_the_newest_average_is_read(tmp_path):
    written(tmp_path)
    first = tmp_path / "checkpoint_step000000007.pth"
    for name in ("checkpoint_step000000010.pth", "checkpoint_step000000010_ema.pth"):
        (tmp_path / name).write_bytes(first.read_bytes())

    assert "weights of checkpoint_step000000010_ema.pth" in read_foreign(tmp_path).notes[0]
    assert "weights of checkpoint_step000000007.pth" in read_foreign(first).notes[0]
    assert wavenet_vocoder.recognise(tmp_path / "hparams.json")


def test_without_statistics_it_says_how_to_write_them(tmp_path):
    written(tmp_path)
    (tmp_path / "stats.npy").unlink()

    with pytest.raises(FormatError, match=r"scaler.mean_, scaler.scale_"):
        read_foreign(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cin_pad": 2}, "cin_pad is 2"),
        (SMOOTHED | {"upsample_net": "UpsampleNetwork"}, "upsample_net is 'UpsampleNetwork'"),
        (SMOOTHED | {"upsample_params": {"upsample_scales": [4, 2]}}, "do not multiply to 16"),
        (SMOOTHED | {"upsample_params": {}}, "upsample_scales is None"),
        (SMOOTHED, "'upsample_net.conv_in.weight' is not there"),
        ({"input_type": "mulaw-quantize"}, "one-hot"),
        ({"gin_channels": 16}, "has no embedding of them"),
        ({"output_distribution": "Normal"}, "out_channels is 6"),
        ({"output_distribution": "Beta"}, "Logistic or Normal"),
        ({"postprocess": ""}, "preprocess is"),
        ({"layers": 7}, "multiples? of 2 stacks"),
        ({"layers": 8}, "'conv_layers.6.conv.weight' is not there"),
        ({"residual_channels": 5}, r"'first_conv.weight' is not there, or not \[5, 1\]"),
        ({"layers": 4}, "ask for no weights conv_layers.4"),
        ({"num_mels": 6}, "cin_channels is 5"),
        ({"sample_rate": "16000"}, "sample_rate is '16000'"),
        ({"name": "tacotron"}, "no checkpoint of a known program"),
    ],
)
def test_what_cannot_be_held_is_refused_with_the_reason(tmp_path, change, message):
    written(tmp_path)
    (tmp_path / "hparams.json").write_text(json.dumps(HPARAMS | change))

    with pytest.raises(FormatError, match=message):
        read_foreign(tmp_path)


@torch.no_grad()
@pytest.mark.parametrize(
    "changes",
    [
        SMOOTHED,
        {},
        {"output_distribution": "Normal", "out_channels": 2, "preprocess": "", "postprocess": ""},
        {"gate_channels": 4, "highpass_cutoff": 0.0},
        {"layers": 30, "stacks": 6},
    ],
    ids=["smoothed", "repeated", "gaussian", "filled-up", "deep"],
)
def test_it_goes_back_as_it_came(tmp_path, changes):
    (tmp_path / "theirs").mkdir()
    written(tmp_path / "theirs", **changes)
    found, model = converted(tmp_path / "theirs")

    files = write_foreign(
        found.settings, found.mel, found.state, "wavenet_vocoder", tmp_path / "back"
    )

    assert files == ["checkpoint_step000000000.pth", "hparams.json", "stats.npy"]
    levels, mel = spoken()
    again, other = converted(tmp_path / "back")
    assert (again.settings, again.mel) == (found.settings, found.mel)
    torch.testing.assert_close(other(levels, mel), model(levels, mel), rtol=0, atol=ATOL)


def test_what_goes_back_has_the_names_and_shapes_of_their_program(tmp_path):
    (tmp_path / "theirs").mkdir()
    written(tmp_path / "theirs", **SMOOTHED)
    found = read_foreign(tmp_path / "theirs")

    write_foreign(found.settings, found.mel, found.state, "wavenet_vocoder", tmp_path / "back")

    first, second = (
        torch.load(folder / name, weights_only=True)["state_dict"]
        for folder, name in (
            (tmp_path / "theirs", "checkpoint_step000000007.pth"),
            (tmp_path / "back", "checkpoint_step000000000.pth"),
        )
    )
    assert {k: v.shape for k, v in first.items()} == {k: v.shape for k, v in second.items()}
    params = json.loads((tmp_path / "back/hparams.json").read_text())
    assert params.keys() >= HPARAMS.keys() - {"exponential_moving_average"}
    assert all(type(params[key]) is int for key in ("fmin", "fmax"))  # its parser asks for it


def changed(found, **network):
    return replace(found, settings=replace(found.settings, **network))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: changed(f, head=MuLaw()), "its head is mu-law"),
        (lambda f: changed(f, speakers=2), "it knows speakers"),
        (lambda f: changed(f, head_channels=9), "another width than its skips"),
        (lambda f: changed(f, condition=Condition()), "hears mels through a network"),
        (lambda f: changed(f, pre_emphasis=0.5), "its pre_emphasis is 0.5.*becomes 0.85"),
        (lambda f: replace(f, mel=replace(f.mel, f_min=60.5)), "its settings take whole numbers"),
        (lambda f: replace(f, mel=replace(f.mel, grid="half-hop")), "its mel.grid is 'half-hop'"),
        (lambda f: replace(f, settings=HiFiGANConfig()), "its kind is hifigan"),
    ],
)
def test_what_cannot_go_back_is_refused_with_the_reason(tmp_path, change, message):
    (tmp_path / "theirs").mkdir()
    written(tmp_path / "theirs")
    found = change(read_foreign(tmp_path / "theirs"))

    with pytest.raises(FormatError, match=message):
        write_foreign(found.settings, found.mel, found.state, "wavenet_vocoder", tmp_path / "back")


@pytest.mark.parametrize("key", ["condition.convs.0.weight", "stack.condition.weight"])
def test_one_that_was_trained_on_does_not_go_back(tmp_path, key):
    (tmp_path / "theirs").mkdir()
    written(tmp_path / "theirs")
    found = read_foreign(tmp_path / "theirs")
    found.state[key][0, 1] += 1e-3

    with pytest.raises(FormatError, match="was it trained after it came from there"):
        write_foreign(found.settings, found.mel, found.state, "wavenet_vocoder", tmp_path / "back")
