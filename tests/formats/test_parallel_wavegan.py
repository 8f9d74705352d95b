"""Checkpoints of the ParallelWaveGAN toolkit, beside forwards written from the papers' definitions.

The networks here are tiny, their weights random, their files in the toolkit's layout.
"""

import math

import h5py
import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml

from wavewn.errors import FormatError
from wavewn.formats import parallel_wavegan
from wavewn.formats.found import read_foreign
from wavewn.models.generators import make_generator
from wavewn.nn.weight_norm import load_state

BANDS, FRAMES = 5, 9
ATOL = 1e-5  # float32; sums in another order
AUDIO = {
    "sampling_rate": 16000, "fft_size": 64, "hop_size": 12, "win_length": None, "window": "hann",
    "num_mels": BANDS, "fmin": 80, "fmax": 7600, "global_gain_scale": 1.0, "format": "hdf5",
}  # fmt: skip
PWG = {
    "in_channels": 1, "out_channels": 1, "kernel_size": 3, "layers": 6, "stacks": 2,
    "residual_channels": 4, "gate_channels": 6, "skip_channels": 3, "aux_channels": BANDS,
    "aux_context_window": 2, "dropout": 0.0, "use_weight_norm": True,
    "upsample_net": "ConvInUpsampleNetwork", "upsample_params": {"upsample_scales": [4, 3]},
}  # fmt: skip
MELGAN = {
    "in_channels": BANDS, "out_channels": 1, "kernel_size": 5, "channels": 16,
    "upsample_scales": [4, 3], "stack_kernel_size": 3, "stacks": 2, "use_weight_norm": True,
    "use_causal_conv": False,
}  # fmt: skip
HIFIGAN = {
    "in_channels": BANDS, "out_channels": 1, "channels": 16, "kernel_size": 7,
    "upsample_scales": [4, 3], "upsample_kernel_sizes": [8, 6], "resblock_kernel_sizes": [3, 5],
    "resblock_dilations": [[1, 2], [1, 3]], "use_additional_convs": True, "bias": True,
    "nonlinear_activation": "LeakyReLU", "nonlinear_activation_params": {"negative_slope": 0.1},
    "use_weight_norm": True,
}  # fmt: skip


class Weights:
    """A state dict of theirs in the making; calling it gives what a layer computes with."""

    def __init__(self, spelling="hook", bias=True):
        self.random = torch.Generator().manual_seed(3)
        self.spelling, self.bias = spelling, bias
        self.state, self.plain = {}, {}

    def __call__(self, name, *shape, bias=True):
        if name not in self.plain:
            self.plain[name] = self._make(name, shape, bias and self.bias)
        return self.plain[name]

    def _make(self, name, shape, bias):
        draw = lambda *sizes: torch.randn(sizes, generator=self.random)  # noqa: E731
        v = draw(*shape) / math.sqrt(math.prod(shape[1:]))
        g = draw(shape[0], *[1] * (len(shape) - 1)).abs() + 0.3
        weight = g * v / v.flatten(1).norm(dim=1).view(g.shape)
        if self.spelling == "hook":
            self.state |= {f"{name}.weight_g": g, f"{name}.weight_v": v}
        elif self.spelling == "parametrized":
            stem = f"{name}.parametrizations.weight.original"
            self.state |= {f"{stem}0": g, f"{stem}1": v}
        else:
            self.state[f"{name}.weight"] = weight
        if not bias:
            return weight, None
        outputs = shape[1] if "upsamples" in name or self.transposed(name) else shape[0]
        self.state[f"{name}.bias"] = 0.3 * draw(outputs)
        return weight, self.state[f"{name}.bias"]

    @staticmethod
    def transposed(name):
        return name in ("melgan.3", "melgan.7")


def padded_conv(w, x, outputs, taps, dilation, name, mode="constant"):
    span = (taps - 1) // 2 * dilation
    weight, bias = w(name, outputs, x.shape[1], taps)
    return F.conv1d(F.pad(x, (span, span), mode), weight, bias, 1, 0, dilation)


def upsample(w, x, rate, name):
    weight, bias = w(name, x.shape[1], x.shape[1] // 2, 2 * rate)
    odd = rate % 2
    return F.conv_transpose1d(x, weight, bias, rate, rate // 2 + odd, odd)


def hifigan(w, mel, p=HIFIGAN):
    leaky = lambda x: F.leaky_relu(x, 0.1)  # noqa: E731
    x = padded_conv(w, mel, p["channels"], 7, 1, "input_conv")
    for i, rate in enumerate(p["upsample_scales"]):
        x = upsample(w, leaky(x), rate, f"upsamples.{i}.1")
        total = 0
        for j, taps in enumerate(p["resblock_kernel_sizes"]):
            y, block = x, f"blocks.{i * len(p['resblock_kernel_sizes']) + j}"
            for k, dilation in enumerate(p["resblock_dilations"][j]):
                z = padded_conv(w, leaky(y), x.shape[1], taps, dilation, f"{block}.convs1.{k}.1")
                if p["use_additional_convs"]:
                    z = padded_conv(w, leaky(z), x.shape[1], taps, 1, f"{block}.convs2.{k}.1")
                y = y + z
            total = total + y
        x = total / len(p["resblock_kernel_sizes"])
    return torch.tanh(padded_conv(w, F.leaky_relu(x, 0.01), 1, 7, 1, "output_conv.1"))


def melgan(w, mel, mode="reflect"):
    leaky = lambda x: F.leaky_relu(x, 0.2)  # noqa: E731
    x = padded_conv(w, mel, 16, 5, 1, "melgan.1", mode)
    for first, rate in ((2, 4), (6, 3)):
        x = upsample(w, leaky(x), rate, f"melgan.{first + 1}")
        for j in range(2):
            stack = f"melgan.{first + 2 + j}"
            y = padded_conv(w, leaky(x), x.shape[1], 3, 3**j, f"{stack}.stack.2", mode)
            y = padded_conv(w, leaky(y), x.shape[1], 1, 1, f"{stack}.stack.4")
            x = y + padded_conv(w, x, x.shape[1], 1, 1, f"{stack}.skip_layer")
    return torch.tanh(padded_conv(w, leaky(x), 1, 5, 1, "melgan.12", mode))


def parallel_wavegan_forward(w, mel, noise, p=PWG):
    causal, ahead = p.get("use_causal_conv", False), p["aux_context_window"]
    c = F.pad(mel, (ahead, ahead), "replicate")
    taps = ahead + 1 if causal else 2 * ahead + 1
    c = F.conv1d(c, *w("upsample_net.conv_in", BANDS, BANDS, taps, bias=False))[..., :FRAMES]
    for i, rate in enumerate(p["upsample_params"]["upsample_scales"]):
        name, c = f"upsample_net.upsample.up_layers.{2 * i + 1}", c.repeat_interleave(rate, 2)
        weight, _ = w(name, 1, 1, 1, 2 * rate + 1, bias=False)
        sides = (2 * rate, 0) if causal else (rate, rate)
        rows = F.pad(c, sides).reshape(-1, 1, c.shape[2] + 2 * rate)  # each band by itself
        c = F.conv1d(rows, weight[:, :, 0]).view(c.shape)
    x, skips, gates = F.conv1d(noise, *w("first_conv", 4, 1, 1)), 0, p["gate_channels"]
    for i in range(p["layers"]):
        name, dilation = f"conv_layers.{i}", 2 ** (i % (p["layers"] // p["stacks"]))
        sides = (2 * dilation, 0) if causal else (dilation, dilation)
        a = F.conv1d(F.pad(x, sides), *w(f"{name}.conv", gates, 4, 3), 1, 0, dilation)
        a = a + F.conv1d(c, *w(f"{name}.conv1x1_aux", gates, BANDS, 1, bias=False))
        z = torch.tanh(a[:, : gates // 2]) * torch.sigmoid(a[:, gates // 2 :])
        skips = skips + F.conv1d(z, *w(f"{name}.conv1x1_skip", 3, gates // 2, 1))
        x = (F.conv1d(z, *w(f"{name}.conv1x1_out", 4, gates // 2, 1)) + x) * math.sqrt(0.5)
    x = skips * math.sqrt(1 / p["layers"])
    x = F.conv1d(F.relu(x), *w("last_conv_layers.1", 3, 3, 1))
    return F.conv1d(F.relu(x), *w("last_conv_layers.3", 1, 3, 1))


def inputs():
    random = torch.Generator().manual_seed(5)
    mel = torch.randn(2, BANDS, FRAMES, generator=random)
    return mel, torch.randn(2, 1, FRAMES * AUDIO["hop_size"], generator=random)


def write(folder, kind, params, weights, **changes):
    """Lay out the files that the toolkit's training leaves."""
    config = AUDIO | {"generator_type": kind, "generator_params": params, "version": "0.6.1"}
    (folder / "config.yml").write_text(yaml.safe_dump(config | changes))
    model = {"generator": weights.state, "discriminator": {"conv.weight": torch.ones(1)}}
    whole = {"model": model, "optimizer": {}, "scheduler": {}, "steps": 7, "epochs": 1}
    torch.save(whole, folder / "checkpoint-7steps.pkl")
    with h5py.File(folder / "stats.h5", "w") as file:
        file["mean"], file["scale"] = np.arange(BANDS) - 2.0, np.arange(BANDS) / 4 + 0.5
    return folder


def converted(folder):
    found = read_foreign(folder)
    model = make_generator(found.settings, found.mel)
    load_state(model, found.state)
    return found, model.eval()


def same(ours, theirs):
    assert ours.shape == theirs[:, 0].shape == (2, FRAMES * AUDIO["hop_size"])
    assert theirs.std() > 0.01
    torch.testing.assert_close(ours, theirs[:, 0], rtol=0, atol=ATOL)


@torch.no_grad()
@pytest.mark.parametrize("spelling", ["hook", "parametrized", "plain"])
@pytest.mark.parametrize("blocks", [True, False])
def test_hifigan_gives_the_same_waveform(tmp_path, spelling, blocks):
    weights, params = Weights(spelling), HIFIGAN | {"use_additional_convs": blocks}
    mel, _ = inputs()
    expected = hifigan(weights, mel, params)

    found, model = converted(write(tmp_path, "HiFiGANGenerator", params, weights))

    same(model(mel), expected)
    assert found.family == "HiFiGAN of ParallelWaveGAN"


@torch.no_grad()
@pytest.mark.parametrize(
    ("pad", "mode"), [("ReflectionPad1d", "reflect"), ("ReplicationPad1d", "replicate")]
)
def test_melgan_gives_the_same_waveform(tmp_path, pad, mode):
    weights, (mel, _) = Weights(), inputs()
    expected = melgan(weights, mel, mode)

    _, model = converted(write(tmp_path, "MelGANGenerator", MELGAN | {"pad": pad}, weights))

    same(model(mel), expected)


@torch.no_grad()
@pytest.mark.parametrize("causal", [False, True])
def test_parallel_wavegan_turns_the_same_noise_into_the_same_waveform(tmp_path, causal):
    weights, params = Weights(), PWG | {"use_causal_conv": causal}
    mel, noise = inputs()
    expected = parallel_wavegan_forward(weights, mel, noise, params)

    _, model = converted(write(tmp_path, "ParallelWaveGANGenerator", params, weights))

    same(model(mel, noise), expected)
    assert not torch.allclose(model(mel, -noise), expected[:, 0], atol=1e-2)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["HiFiGANGenerator", "MelGANGenerator"])
def test_layers_without_biases_have_biases_of_zero(tmp_path, kind):
    forward, params = {
        "HiFiGANGenerator": (hifigan, HIFIGAN),
        "MelGANGenerator": (melgan, MELGAN),
    }[kind]
    weights, (mel, _) = Weights(bias=False), inputs()
    expected = forward(weights, mel)

    _, model = converted(write(tmp_path, kind, params | {"bias": False}, weights))

    same(model(mel), expected)


@pytest.fixture
def folder(tmp_path):
    """A HiFi-GAN of the toolkit."""
    weights = Weights()
    hifigan(weights, inputs()[0])
    return write(tmp_path, "HiFiGANGenerator", HIFIGAN, weights)


def edit(folder, **changes):
    path = folder / "config.yml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | changes))


def test_the_statistics_become_part_of_the_mel(folder):
    mel = read_foreign(folder).mel

    assert (mel.log_base, mel.floor, mel.grid, mel.f_min, mel.win_length) == (
        "10", 1e-10, "centred", 80, 64,
    )  # fmt: skip
    assert mel.mean == (-2, -1, 0, 1, 2)
    assert mel.scale == (0.5, 0.75, 1, 1.25, 1.5)


def test_statistics_of_numpy_are_read(folder):
    (folder / "stats.h5").unlink()
    np.save(folder / "stats.npy", np.array([[1.0] * BANDS, [2.0] * BANDS], np.float32))

    mel = read_foreign(folder).mel

    assert (mel.mean, mel.scale) == ((1,) * BANDS, (2,) * BANDS)


def test_without_statistics_nobody_can_normalise(folder):
    (folder / "stats.h5").unlink()

    with pytest.raises(FormatError, match=r"neither stats.h5 nor stats.npy.*copy the file"):
        read_foreign(folder)


@pytest.mark.parametrize(
    "content", [np.zeros((2, BANDS - 1)), np.array(["a"] * BANDS), np.zeros(BANDS)]
)
def test_statistics_of_another_shape_are_refused(folder, content):
    (folder / "stats.h5").unlink()
    np.save(folder / "stats.npy", content)

    with pytest.raises(FormatError, match=f"expected mean and scale of {BANDS} bands"):
        read_foreign(folder)


def test_statistics_that_lie_in_another_file_are_not_followed(folder, tmp_path):
    (folder / "stats.h5").rename(folder / "other.h5")
    with h5py.File(folder / "stats.h5", "w") as file:
        file["mean"] = h5py.ExternalLink("other.h5", "/mean")
        file["scale"] = h5py.ExternalLink("other.h5", "/scale")

    with pytest.raises(FormatError, match="expected mean and scale"):
        read_foreign(folder)


def test_any_of_its_files_names_a_checkpoint(folder):
    for name in ("config.yml", "stats.h5", "checkpoint-7steps.pkl"):
        assert parallel_wavegan.recognise(folder / name)
        assert read_foreign(folder / name).family == "HiFiGAN of ParallelWaveGAN"


def test_of_several_checkpoints_the_last_is_read_and_said(folder):
    for steps in (10, 9):
        (folder / f"checkpoint-{steps}steps.pkl").write_bytes(
            (folder / "checkpoint-7steps.pkl").read_bytes()
        )

    assert "weights of checkpoint-10steps.pkl" in read_foreign(folder).notes
    assert "weights of checkpoint-9steps.pkl" in read_foreign(
        folder / "checkpoint-9steps.pkl"
    ).notes  # fmt: skip


@pytest.mark.parametrize("text", ["", "a: 1", "[", "!!python/object/apply:os.system [ls]"])
def test_other_settings_are_not_recognised(folder, text):
    (folder / "config.yml").write_text(text)

    assert not parallel_wavegan.recognise(folder)


def test_a_gain_is_told(folder):
    edit(folder, global_gain_scale=0.8)

    found = read_foreign(folder)

    assert any("0.8 times as loud" in note for note in found.notes)
    assert found.mel.gain == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"generator_type": "StyleMelGANGenerator"}, "generator_type is StyleMelGANGenerator"),
        ({"window": "blackman"}, "window is 'blackman'"),
        ({"sampling_rate_for_feats": 8000}, "sampling_rate_for_feats is 8000"),
        ({"hop_size": 16}, "do not multiply to hop_size, 16"),
        ({"num_mels": 80}, "in_channels is 5, wavewn reads only 80"),
        ({"fft_size": "64"}, "fft_size is '64', wavewn reads only a whole number"),
        ({"sampling_rate": 10**300}, "sampling_rate is 1000"),
        ({"generator_params": [1]}, "expected settings by name"),
    ],
)
def test_what_cannot_be_held_is_refused_with_the_reason(folder, change, message):
    edit(folder, **change)

    with pytest.raises(FormatError, match=message):
        read_foreign(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"out_channels": 4}, "out_channels is 4.*synthesis filters"),
        ({"use_causal_conv": True}, "use_causal_conv is True.*repeat the first row"),
        ({"use_causal_conv": 0}, "use_causal_conv is 0"),
        ({"nonlinear_activation_params": {"negative_slope": 0.2}}, "0.2"),
        ({"kernel_size": 5}, "kernel_size is 5"),
        ({"upsample_kernel_sizes": [8, 8]}, "twice the rates"),
        ({"resblock_dilations": [[1, 2, 3], [1, 3]]}, "has no weights of 'blocks.0.convs1.2.1'"),
        ({"resblock_dilations": [[1], [1, 3]]}, "other weights are none"),
        ({"resblock_dilations": 3}, "resblock_dilations is 3"),
        ({"snake": True}, "snake is no setting that wavewn knows"),
    ],
)
def test_a_generator_that_cannot_be_held_is_refused(folder, change, message):
    edit(folder, generator_params=HIFIGAN | change)

    with pytest.raises(FormatError, match=message):
        read_foreign(folder)


def test_a_name_that_older_versions_misspelt_is_read(folder):
    params = dict(HIFIGAN)
    params["upsample_kernal_sizes"] = params.pop("upsample_kernel_sizes")
    edit(folder, generator_params=params)

    assert read_foreign(folder).settings.upsample_kernel_sizes == (8, 6)


def test_a_checkpoint_that_would_run_something_is_refused(folder):
    class Runs:
        def __reduce__(self):
            return print, ("ran",)

    torch.save({"model": {"generator": Runs()}}, folder / "checkpoint-7steps.pkl")

    with pytest.raises(FormatError, match="never run"):
        read_foreign(folder)
