"""Tiny HiFi-GANs with random weights in the layouts of five programs, and their common forward.

The forward is written from the definition (Kong et al. 2020, section 2.2): plain functions over
plain weights, nothing of wavewn's and nothing of theirs.
"""

import json
import tarfile
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
import yaml
from safetensors.torch import save_file

BANDS, CHANNELS, RATES, KERNELS = 5, 8, (4, 3), (8, 7)
BLOCK_KERNELS = (3, 5)
DILATIONS = {"1": [[1, 2, 3], [1, 3, 2]], "2": [[1, 2], [2, 3]]}
HOP = 12
SPELLINGS = {
    "hook": ("weight_g", "weight_v"),
    "parametrized": ("parametrizations.weight.original0", "parametrizations.weight.original1"),
}
JIK876 = {
    "upsample_rates": list(RATES), "upsample_kernel_sizes": list(KERNELS),
    "upsample_initial_channel": CHANNELS, "resblock_kernel_sizes": list(BLOCK_KERNELS),
    "num_mels": BANDS, "n_fft": 64, "hop_size": HOP, "win_size": 64, "sampling_rate": 16000,
    "fmin": 0, "fmax": 8000, "fmax_for_loss": None, "segment_size": 96,
}  # fmt: skip
COQUI_AUDIO = {
    "fft_size": 64, "win_length": 64, "hop_length": HOP, "sample_rate": 16000, "num_mels": BANDS,
    "mel_fmin": 0.0, "mel_fmax": None, "log_func": "np.log", "spec_gain": 1.0, "signal_norm": False,
}  # fmt: skip


class Network:
    """Weights of every layer by the published names, as gain, direction and bias."""

    def __init__(self, resblock="1", kernels=KERNELS):
        self.resblock, self.kernels, self.layers = resblock, kernels, {}
        self.random = torch.Generator().manual_seed(7)
        width = CHANNELS
        self._make("conv_pre", width, BANDS, 7)
        for i, taps in enumerate(kernels):
            self._make(f"ups.{i}", width, width // 2, taps, outputs=width // 2)
            width //= 2
            for j, (size, dilations) in enumerate(self.blocks()):
                for k in range(len(dilations)):
                    for part in ("convs1", "convs2") if resblock == "1" else ("convs",):
                        self._make(f"resblocks.{2 * i + j}.{part}.{k}", width, width, size)
        self._make("conv_post", 1, width, 7)

    def blocks(self):
        return list(zip(BLOCK_KERNELS, DILATIONS[self.resblock], strict=True))

    def _make(self, name, *shape, outputs=None):
        v = torch.randn(shape, generator=self.random)
        g = 0.5 + torch.rand(shape[0], 1, 1, generator=self.random)
        self.layers[name] = g, v, 0.1 * torch.randn(outputs or shape[0], generator=self.random)

    def weight(self, name):
        g, v, _ = self.layers[name]
        return g * v / v.flatten(1).norm(dim=1)[:, None, None]

    def state(self, spelling, rename=lambda name: name):
        """Give a state dict as a program would save it."""
        found = {}
        for name, (g, v, bias) in self.layers.items():
            layer = rename(name)
            if spelling == "plain":
                found[f"{layer}.weight"] = self.weight(name)
            else:
                for end, value in zip(SPELLINGS[spelling], (g, v), strict=True):
                    found[f"{layer}.{end}"] = value
            found[f"{layer}.bias"] = bias
        return found

    def conv(self, name, x, mode, dilation=1):
        weight = self.weight(name)
        margin = (weight.shape[2] - 1) * dilation // 2
        x = F.pad(x, (margin, margin), mode=mode)
        return F.conv1d(x, weight, self.layers[name][2], dilation=dilation)

    def __call__(self, mel, mode="constant"):
        """Turn [batch, bands, frames] into [batch, samples]."""
        x = self.conv("conv_pre", mel, mode)
        for i, (rate, taps) in enumerate(zip(RATES, self.kernels, strict=True)):
            weight, bias = self.weight(f"ups.{i}"), self.layers[f"ups.{i}"][2]
            x = F.conv_transpose1d(
                F.leaky_relu(x, 0.1), weight, bias, stride=rate, padding=(taps - rate) // 2
            )
            outs = [self.block(2 * i + j, x, one[1], mode) for j, one in enumerate(self.blocks())]
            x = sum(outs) / len(outs)
        return torch.tanh(self.conv("conv_post", F.leaky_relu(x, 0.01), mode))[:, 0]

    def block(self, number, x, dilations, mode):
        for k, dilation in enumerate(dilations):
            y, name = F.leaky_relu(x, 0.1), f"resblocks.{number}"
            if self.resblock == "1":
                y = F.leaky_relu(self.conv(f"{name}.convs1.{k}", y, mode, dilation), 0.1)
                x = x + self.conv(f"{name}.convs2.{k}", y, mode)
            else:
                x = x + self.conv(f"{name}.convs.{k}", y, mode, dilation)
        return x


def jik876(folder, network, name="g_00000010", **changed):
    config = JIK876 | {"resblock": network.resblock}
    config["resblock_dilation_sizes"] = DILATIONS[network.resblock]
    (folder / "config.json").write_text(json.dumps(config | changed))
    torch.save({"generator": network.state("hook")}, folder / name)
    return folder


def speechbrain(folder, network, **changed):
    sizes = {
        "in_channels": BANDS, "resblock_type": network.resblock, "sample_rate": 16000,
        "resblock_dilation_sizes": DILATIONS[network.resblock], "n_fft": 64, "win_length": 64,
        "resblock_kernel_sizes": list(BLOCK_KERNELS), "hop_length": HOP, "mel_fmin": 0.0,
        "upsample_kernel_sizes": list(KERNELS), "upsample_initial_channel": CHANNELS,
        "upsample_factors": list(RATES), "mel_fmax": 8000,
    }  # fmt: skip
    names = "resblock_dilation_sizes", "upsample_factors", "in_channels"
    text = yaml.safe_dump(sizes | changed) + (
        "__set_seed: !apply:os.system [!ref <in_channels>]\n"
        "generator: !new:speechbrain.lobes.models.HifiGAN.HifiganGenerator\n"
        + "".join(f"    {name}: !ref <{name}>\n" for name in names)
        + "modules:\n    generator: !ref <generator>\n"
    )
    (folder / "hyperparams.yaml").write_text(text)
    torch.save(network.state("hook", lambda name: f"{name}.conv"), folder / "generator.ckpt")
    return folder


def nemo(folder, network, nested=True, mode="w", **changed):
    def rename(name):
        parts = name.split(".")
        if nested and parts[0] == "resblocks":
            parts[1] = f"{int(parts[1]) // 2}.{int(parts[1]) % 2}"
        return "generator." + ".".join(parts)

    config = {
        "target": "nemo.collections.tts.models.hifigan.HifiGanModel",
        "generator": {
            "resblock": int(network.resblock),
            "upsample_rates": list(RATES), "upsample_kernel_sizes": list(KERNELS),
            "upsample_initial_channel": CHANNELS, "resblock_kernel_sizes": list(BLOCK_KERNELS),
            "resblock_dilation_sizes": DILATIONS[network.resblock],
        },
        "preprocessor": {
            "nfilt": BANDS, "lowfreq": 0, "highfreq": 8000, "n_fft": 64, "n_window_size": 64,
            "n_window_stride": HOP, "sample_rate": 16000, "log_zero_guard_type": "clamp",
            "log_zero_guard_value": 1e-05, "mag_power": 1.0, "exact_pad": True, "normalize": None,
        } | changed,
    }  # fmt: skip
    (folder / "model_config.yaml").write_text(yaml.safe_dump(config))
    torch.save(network.state("hook", rename), folder / "model_weights.ckpt")
    with tarfile.open(folder / "voice.nemo", mode) as archive:
        for name in ("model_config.yaml", "model_weights.ckpt"):
            archive.add(folder / name, f"./{name}")
            (folder / name).unlink()
    return folder / "voice.nemo"


def coqui(folder, network, prefix="model_g.", spelling="parametrized", **audio):
    config = {
        "generator_model": "hifigan_generator",
        "generator_model_params": {
            "upsample_factors": list(RATES), "upsample_kernel_sizes": list(KERNELS),
            "upsample_initial_channel": CHANNELS, "resblock_kernel_sizes": list(BLOCK_KERNELS),
            "resblock_dilation_sizes": DILATIONS[network.resblock],
        },
        "audio": COQUI_AUDIO | audio,
    }  # fmt: skip
    text = json.dumps(config, indent=1).replace(
        '"audio"', '// the mels\n"url": "http://a/*b*/", /* more\n */ "audio"'
    )
    (folder / "config.json").write_text(text)
    state = network.state(spelling, lambda name: f"{prefix}{name}")
    if prefix:
        state["model_d.mpd.discriminators.0.convs.0.bias"] = torch.zeros(1)
    torch.save({"model": state, "step": 3}, folder / "best_model.pth")
    return folder


STATISTICS = {
    "mean": torch.linspace(-3, -1, BANDS),
    "scale": torch.linspace(0.5, 1.5, BANDS),
}


def transformers(folder, network, file="model.safetensors", **changed):
    config = {
        "model_type": "hifigan", "architectures": ["SpeechT5HifiGan"], "model_in_dim": BANDS,
        "sampling_rate": 16000, "upsample_initial_channel": CHANNELS,
        "upsample_rates": list(RATES), "upsample_kernel_sizes": list(KERNELS),
        "resblock_kernel_sizes": list(BLOCK_KERNELS), "leaky_relu_slope": 0.1,
        "resblock_dilation_sizes": DILATIONS[network.resblock], "normalize_before": True,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config | changed))
    state = network.state("plain", lambda name: name.replace("ups.", "upsampler.")) | STATISTICS
    if file.endswith("bin"):
        torch.save(state, folder / file)
    else:
        save_file({key: value.contiguous() for key, value in state.items()}, folder / file)
    return folder


@pytest.fixture(scope="session")
def files():
    """Give the writers of this file, because test files cannot import each other."""
    return SimpleNamespace(
        Network=Network,
        jik876=jik876,
        speechbrain=speechbrain,
        nemo=nemo,
        coqui=coqui,
        transformers=transformers,
        BANDS=BANDS,
        HOP=HOP,
        STATISTICS=STATISTICS,
    )
