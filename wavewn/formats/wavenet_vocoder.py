"""Autoregressive WaveNets of r9y9's wavenet_vocoder, of today's layout and that of 2018.

    *.json                        settings ("name": "wavenet_vocoder")
    checkpoint_step*[_ema].pth    {"state_dict": weights, ...}
    stats.h5 or stats.npy         mean and scale of each mel band, as ParallelWaveGAN writes them;
                                  theirs are a pickle of scikit-learn's, which is not read; a
                                  model of 2018 has none

Mels are stretched by a network (models/smoothed_wavenet.py), or repeated. What is not held, and
why, is said by the checks below. A checkpoint of 2018 is known by the biases of its conditions.

Source: wavenet_vocoder/{wavenet,modules,mixture}.py, audio.py and datasets/ of the repository.
"""

import math
import re
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from wavewn.audio.mel_spec import MelSpec
from wavewn.errors import FormatError
from wavewn.formats.arguments import Arguments
from wavewn.formats.found import Found
from wavewn.formats.parallel_wavegan import FLOOR, STATS, read_statistics
from wavewn.formats.plain import folded, folder_of, read_json, read_tensors, state_at
from wavewn.formats.wavenet_vocoder_2018 import read_old_mel, with_old_upsampling
from wavewn.formats.wavenet_vocoder_weights import Network, translate

LOOKS_FOR = 'wavenet_vocoder (checkpoint_*.pth beside a json of settings named "wavenet_vocoder")'
NAME = "wavenet_vocoder"
FAMILY = "WaveNet of wavenet_vocoder"
PRE_EMPHASIS = 0.85  # the only one that its audio.py knows
WIDEST = 4096  # bands of a mel, or channels of a speaker: no honest model has more
OLD = "conv_layers.0.conv1x1c.bias"  # since 2019 there is none
STATISTICS = "numpy.save('stats.npy', [scaler.mean_, scaler.scale_])"


def recognise(path: Path) -> bool:
    """See `found.Family.recognise`."""
    return _checkpoint(path) is not None and _settings(path) is not None


def read(path: Path) -> Found:
    """See `found.Family.read`."""
    checkpoint, settings_path = _checkpoint(path), _settings(path)
    if checkpoint is None or settings_path is None:
        raise FormatError(f"{path}: expected {LOOKS_FOR}")
    state = folded(state_at(read_tensors(checkpoint), checkpoint, ("state_dict",)), checkpoint)
    values = Arguments(read_json(settings_path), settings_path)
    bands = _width(values, "num_mels")
    values.only("cin_channels", bands, "the mel alone conditions its layers")
    notes = [f"weights of {checkpoint.name}, settings of {settings_path.name}"]
    network = _with_speakers(_network(values, bands), values, state)
    if OLD in state:
        mel, assumed = read_old_mel(values, bands)
        network = with_old_upsampling(network, values, settings_path)
        notes += ["its layout is that of 2018", assumed]
    else:
        mel = _mel(values, bands)
        context, rates = _conditioning(values)
        network = replace(network, context=context, rates=rates)
    if network.rates and math.prod(network.rates) != mel.hop_length:
        raise FormatError(f"{settings_path}: upsample_scales do not multiply to {mel.hop_length}")
    if not network.old:
        mel, statistics = _normalised(mel, checkpoint.parent)
        notes.append(f"mean and scale of the mels from {statistics}")
    settings, ours = translate(network, state, mel, checkpoint)
    notes.append("the distribution of each sample is the same; the random numbers drawn are not")
    if mel.high_pass_hz:
        notes.append("its high-pass has 255 taps, ours is another: the lowest band may differ")
    if network.gain != 1:
        notes.append(f"its gain of {network.gain:g} is in the weights: audio comes out as recorded")
    speakers = [str(number) for number in range(network.speakers)]
    if speakers:
        notes.append("its speakers are numbers; their names stand in none of its files")
    return Found(FAMILY, settings, mel, ours, notes=notes, speakers=speakers)


def _network(values: Arguments, bands: int) -> Network:
    values.only(
        "input_type",
        "raw",
        "a mu-law model hears classes, one-hot, where our input layer hears two numbers a sample",
    )
    stacks, layers = values.whole("stacks"), values.whole("layers")
    if layers % stacks:
        raise values.wrong("layers", layers, f"a multiple of {stacks} stacks")
    gates = values.whole("gate_channels")
    if gates % 2:
        raise values.wrong("gate_channels", gates, "even numbers")
    distribution = values.take("output_distribution", "Logistic")
    outputs = values.whole("out_channels")
    if distribution not in ("Logistic", "Normal"):
        raise values.wrong("output_distribution", distribution, "Logistic or Normal")
    if distribution == "Normal" and outputs not in (2, 3):
        raise values.wrong("out_channels", outputs, "2 or 3 for Normal: one Gaussian, no mixture")
    if distribution == "Logistic" and outputs % 3:
        raise values.wrong("out_channels", outputs, "multiples of 3 for Logistic")
    steps = [values.take(one) or "none" for one in ("preprocess", "postprocess")]
    if steps not in (["none", "none"], ["preemphasis", "inv_preemphasis"]):
        raise values.wrong("preprocess", steps, "none, or preemphasis and inv_preemphasis")
    gain = values.number("global_gain_scale", 1.0)
    return Network(
        layers=layers,
        stacks=stacks,
        residual=values.whole("residual_channels"),
        gates=gates,
        skips=values.whole("skip_out_channels"),
        kernel_size=values.whole("kernel_size"),
        bands=bands,
        outputs=outputs,
        distribution=str(distribution),
        log_scale_min=values.number("log_scale_min", -16.0),
        gain=gain if gain > 0 else 1.0,
        pre_emphasis=PRE_EMPHASIS if steps[0] == "preemphasis" else 0.0,
    )


def _with_speakers(network: Network, values: Arguments, state: dict[str, Tensor]) -> Network:
    """Add how many speakers it knows, and the channels of each."""
    channels = values.take("gin_channels", -1)
    if channels == -1 or channels is None:
        return network
    if not isinstance(channels, int) or not 0 < channels <= WIDEST:
        raise values.wrong("gin_channels", channels, f"-1, or a width from 1 to {WIDEST}")
    if "embed_speakers.weight" not in state:
        raise FormatError(
            f"{values.path}: gin_channels asks for speakers, and the checkpoint has no embedding "
            "of them: its program was given vectors from elsewhere, which wavewn does not take"
        )
    return replace(network, speakers=values.whole("n_speakers"), speaker_channels=channels)


def _conditioning(values: Arguments) -> tuple[int, tuple[int, ...]]:
    """Give the frames of context and the rates of the upsampling; none where mels are repeated."""
    if not values.switch("upsample_conditional_features", False):
        values.only("cin_pad", 0, "without upsampling no context is heard")
        return 0, ()
    values.only("upsample_net", "ConvInUpsampleNetwork", "its programs make no other")
    part = values.part("upsample_params", {})
    rates = part.wholes("upsample_scales")
    part.only("upsample_activation", "none", "our upsampling has no activations")
    part.only("mode", "nearest", "our upsampling repeats rows")
    part.only("freq_axis_kernel_size", 1, "our upsampling smooths along time alone")
    part.close(("upsample_activation_params", "cin_pad", "cin_channels"))
    if not rates:
        raise values.wrong("upsample_scales", rates, "one rate or more")
    return values.whole("cin_pad", 0, least=0), rates


def _width(values: Arguments, name: str) -> int:
    width = values.whole(name)
    if width > WIDEST:
        raise values.wrong(name, width, f"at most {WIDEST}")
    return width


def _mel(values: Arguments, bands: int) -> MelSpec:
    rate, n_fft = values.whole("sample_rate"), values.whole("fft_size")
    values.only("window", "hann", "other windows give other mels")
    cutoff = values.number("highpass_cutoff", 0.0)
    return MelSpec(
        rate, n_fft, values.whole("hop_size"), values.whole("win_length"), bands,
        values.number("fmin"), values.number("fmax", rate / 2), grid="centred", log_base="10",
        floor=FLOOR, high_pass_hz=cutoff if cutoff > 0 else None,
    )  # fmt: skip


def _normalised(mel: MelSpec, folder: Path) -> tuple[MelSpec, str]:
    """Take mean and scale into the mel; give the name of their file."""
    statistics = [folder / one for one in STATS if (folder / one).is_file()]
    if not statistics:
        raise FormatError(
            f"{folder}: its network hears normalised mels, and {' or '.join(STATS)} is "
            f"not there; write it from the scaler of the training: {STATISTICS}"
        )
    mean, scale = read_statistics(statistics[0], mel.n_mels)
    return replace(mel, mean=mean, scale=scale), statistics[0].name


def _checkpoint(path: Path) -> Path | None:
    """Choose the file of weights: the one that is named, else the newest, averaged if it may be."""
    if path.suffix == ".pth" and path.is_file():
        return path
    folder, ranked = folder_of(path), []
    for one in folder.glob("checkpoint_*.pth"):
        steps = re.search(r"step(\d+)", one.stem)
        ranked.append((int(steps[1]) if steps else 0, one.stem.endswith("_ema"), str(one)))
    return Path(max(ranked)[2]) if ranked else None


def _settings(path: Path) -> Path | None:
    """Find the settings: the file that is named, else the first that says so."""
    folder = folder_of(path)
    for one in [path] if path.suffix == ".json" else sorted(folder.glob("*.json")):
        try:
            if read_json(one).get("name") == NAME:
                return one
        except FormatError:
            continue
    return None
