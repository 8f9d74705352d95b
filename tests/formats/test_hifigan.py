"""HiFi-GANs of five programs: the same waveform as an independent forward gives."""

import dataclasses
import json
import math

import pytest
import torch
from torch.testing import assert_close

from wavewn.audio.mel import mel_spectrogram
from wavewn.audio.mel_presets import preset
from wavewn.audio.mel_spec import MelSpec
from wavewn.bundle.contents import make_model
from wavewn.errors import BundleError, FormatError
from wavewn.formats.found import find_family, read_foreign
from wavewn.source import open_source

ATOL = 1e-5  # float32; sums in another order
FRAMES = 30  # so that the widest convolution of a frame-rate layer can be reflected

# Name: (writer, its switches, kind of residual block).
CASES = {
    "jik876, two convolutions a dilation": ("jik876", {}, "1"),
    "jik876, one convolution a dilation": ("jik876", {}, "2"),
    "jik876, as published": ("jik876", {"name": "generator_v1"}, "1"),
    "SpeechBrain": ("speechbrain", {}, "1"),
    "NeMo, newer": ("nemo", {}, "1"),
    "NeMo, older, compressed": ("nemo", {"nested": False, "mode": "w:gz"}, "2"),
    "Coqui, newer": ("coqui", {}, "1"),
    "Coqui, older": ("coqui", {"spelling": "hook"}, "2"),
    "Coqui, the generator alone": ("coqui", {"prefix": "", "spelling": "plain"}, "1"),
    "transformers": ("transformers", {}, "1"),
    "transformers, older": ("transformers", {"file": "pytorch_model.bin"}, "1"),
}


@pytest.fixture(params=CASES)
def case(request, tmp_path, files):
    """Give a source, its network, and the program's name."""
    program, switches, resblock = CASES[request.param]
    network = files.Network(resblock)
    return getattr(files, program)(tmp_path, network, **switches), network, program


def mel_of(files):
    return torch.randn(2, files.BANDS, FRAMES, generator=torch.Generator().manual_seed(1)) - 3


@torch.no_grad()
def test_the_waveform_is_the_same(case, files):
    source, network, program = case
    mel = mel_of(files)
    expected = network(mel, "reflect" if program == "speechbrain" else "constant")

    model = open_source(source).model

    if program == "transformers":  # its model normalises; here the mel comes normalised
        mel = (mel - files.STATISTICS["mean"][:, None]) / files.STATISTICS["scale"][:, None]
        expected = network(mel)
    audio = model(mel)
    assert audio.shape == (2, FRAMES * files.HOP)
    assert_close(audio, expected, rtol=0, atol=ATOL)
    assert expected.std() > 0.05
    assert not torch.allclose(model(mel.flip(1)), expected, atol=100 * ATOL)


def test_every_program_is_recognised_by_its_files_alone(case, files):
    source, _, program = case
    families = {"jik876": "hifigan", "transformers": "speecht5"}

    family = find_family(source)

    assert family.__name__ == f"wavewn.formats.{families.get(program, program)}"
    assert [one for one in sorted(source.parent.iterdir()) if find_family(one) is family]
    assert read_foreign(source).notes[0].startswith("settings from ")


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("jik876", MelSpec(16000, 64, 12, 64, 5, 0, 8000, magnitude_epsilon=1e-9)),
        ("speechbrain", MelSpec(16000, 64, 12, 64, 5, 0, 8000, grid="centred")),
        ("nemo", MelSpec(16000, 64, 12, 64, 5, 0, 8000)),
        ("coqui", MelSpec(16000, 64, 12, 64, 5, 0, 8000, grid="centred")),
        (
            "transformers",
            MelSpec(
                16000, 1024, 12, 1024, 5, 80, 7600, grid="centred", log_base="10", floor=1e-10,
                mean=(-3.0, -2.5, -2.0, -1.5, -1.0), scale=(0.5, 0.75, 1.0, 1.25, 1.5),
            ),
        ),
    ],
)  # fmt: skip
def test_the_mels_are_those_of_the_program(program, expected, tmp_path, files):
    assert read_foreign(getattr(files, program)(tmp_path, files.Network())).mel == expected


@pytest.mark.parametrize(
    ("program", "name"),
    [
        ("jik876", "hifigan-22k"),
        ("speechbrain", "speechbrain-22k"),
        ("nemo", "nemo-hifigan-22k"),
        ("coqui", "tacotron2"),
        ("coqui", "coqui-22k"),
    ],
)
def test_the_usual_settings_give_the_preset_of_the_family(program, name, tmp_path, files):
    spec = preset(name)
    sizes = {
        "jik876": {"sampling_rate": 22050, "n_fft": 1024, "hop_size": 256, "win_size": 1024},
        "speechbrain": {"sample_rate": 22050, "n_fft": 1024, "hop_length": 256, "win_length": 1024},
        "nemo": {
            "sample_rate": 22050, "n_fft": 1024, "n_window_stride": 256, "n_window_size": 1024
        },
        "coqui": {
            "sample_rate": 22050, "fft_size": 1024, "hop_length": 256, "win_length": 1024,
            "mel_fmax": 8000.0,
        },
    }[program]  # fmt: skip
    if name == "coqui-22k":
        sizes |= {"mel_fmax": None, "log_func": "np.log10", "spec_gain": 20, "signal_norm": True}

    mel = read_foreign(getattr(files, program)(tmp_path, files.Network(), **sizes)).mel

    mel = dataclasses.replace(mel, n_mels=80)
    for field in ("mean", "scale", "floor"):
        assert math.isclose(getattr(mel, field), getattr(spec, field), abs_tol=1e-12), field
    same = {field: getattr(spec, field) for field in ("mean", "scale", "floor")}
    assert dataclasses.replace(mel, **same) == spec


def test_a_number_without_a_point_is_a_number(tmp_path, files):
    files.speechbrain(tmp_path, files.Network(), mel_fmax=7600)
    text = (tmp_path / "hyperparams.yaml").read_text()
    (tmp_path / "hyperparams.yaml").write_text(text.replace("mel_fmax: 7600", "mel_fmax: 76e2"))

    assert "76e2" in (tmp_path / "hyperparams.yaml").read_text()
    assert read_foreign(tmp_path).mel.f_max == 7600


LEVELS = {
    "symmetric": {},
    "from zero": {"symmetric_norm": False},
    "not clipped": {"clip_norm": False},
    "other levels": {"ref_level_db": 0, "min_level_db": -60, "max_norm": 1.0},
    "not moved": {"signal_norm": False},
}


@pytest.mark.parametrize("levels", LEVELS)
def test_coquis_levels_are_one_affine_map_with_a_floor(levels, tmp_path, files):
    settings = {"log_func": "np.log10", "spec_gain": 20.0, "signal_norm": True} | LEVELS[levels]
    spec = read_foreign(files.coqui(tmp_path, files.Network(), **settings)).mel
    audio = torch.randn(600, generator=torch.Generator().manual_seed(2)) * 0.1
    audio[200:400] = 0
    linear = dataclasses.replace(spec, log_base=None, mean=0.0, scale=1.0, floor=0.0)
    decibels = 20 * mel_spectrogram(audio, linear).clamp(min=1e-5).log10()

    expected = decibels
    if settings["signal_norm"]:
        lowest, top = settings.get("min_level_db", -100), settings.get("max_norm", 4.0)
        expected = (decibels - settings.get("ref_level_db", 20) - lowest) / -lowest
        symmetric = settings.get("symmetric_norm", True)
        expected = 2 * top * expected - top if symmetric else top * expected
        if settings.get("clip_norm", True):
            expected = expected.clamp(-top if symmetric else 0, top)

    assert_close(mel_spectrogram(audio, spec), expected, rtol=0, atol=1e-4)


def test_the_newest_generator_of_a_folder_is_read_and_any_by_name(tmp_path, files):
    files.jik876(tmp_path, files.Network(), "g_02500000")
    other = files.Network()
    other.layers["conv_post"] = (*other.layers["conv_post"][:2], torch.tensor([9.0]))
    files.jik876(tmp_path, other, "g_00000100")

    assert read_foreign(tmp_path).state["conv_post.bias"] != 9
    assert read_foreign(tmp_path / "g_00000100").state["conv_post.bias"] == 9


def test_a_last_layer_without_bias_gets_one_of_zero(tmp_path, files):
    network = files.Network()
    g, v, _ = network.layers["conv_post"]
    network.layers["conv_post"] = g, v, torch.zeros(1)
    files.coqui(tmp_path, network)
    content = torch.load(tmp_path / "best_model.pth")
    del content["model"]["model_g.conv_post.bias"]
    torch.save(content, tmp_path / "best_model.pth")
    mel = mel_of(files)

    with torch.no_grad():
        audio = open_source(tmp_path).model(mel)

    assert_close(audio, network(mel), rtol=0, atol=ATOL)


def test_what_is_not_reproduced_is_said(tmp_path, files):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()

    brain = read_foreign(files.speechbrain(tmp_path / "a", files.Network()))
    nemo = read_foreign(files.nemo(tmp_path / "b", files.Network()))

    assert any("repeats the first and last 5 frames" in note for note in brain.notes)
    assert any("norm slaney, mel_scale slaney" in note for note in brain.notes)  # it is assumed
    assert not any("sample_rate" in note for note in brain.notes)
    assert any("Hann window is symmetric" in note for note in nemo.notes)


# What is wrong: (writer, its switches, what the refusal says).
REFUSED = {
    "BigVGAN": ("jik876", {"activation": "snakebeta"}, "it is BigVGAN and not HiFi-GAN"),
    "an odd crop": ("jik876", {"upsample_kernel_sizes": [8, 6]}, "by 3 with 6 taps gives one"),
    "other bands": ("jik876", {"num_mels": 80}, "say 80 mel bands, the first layer reads 5"),
    "a number that is text": ("jik876", {"hop_size": "12"}, "hop_length must be an integer"),
    "rates that are no list": ("jik876", {"upsample_rates": 12}, "upsample_rates must be a list"),
    "a huge number": ("jik876", {"fmax": 10**400}, "beyond any machine"),
    "no list of dilations": ("jik876", {"resblock_dilation_sizes": 3}, "must be a list"),
    "normalised mels": ("speechbrain", {"mel_normalized": True}, "divided by their window's norm"),
    "mels of features": ("nemo", {"normalize": "per_feature"}, "preprocessor.normalize"),
    "statistics": ("coqui", {"signal_norm": True, "stats_path": "s.npy"}, "they are a pickle"),
    "pre-emphasis": ("coqui", {"preemphasis": 0.97}, "its audio would be another"),
    "an odd logarithm": ("coqui", {"log_func": "eval"}, "must be one of"),
    "levels of nothing": ("coqui", {"signal_norm": True, "min_level_db": 0}, "levels of audio"),
    "another slope": ("transformers", {"leaky_relu_slope": 0.2}, "leaky_relu_slope 0.2, not 0.1"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_mapped_is_refused_with_its_reason(case, tmp_path, files):
    program, changed, reason = REFUSED[case]
    source = getattr(files, program)(tmp_path, files.Network(), **changed)

    with pytest.raises(FormatError, match=reason):
        read_foreign(source)


def test_a_network_with_more_layers_than_ours_is_refused_by_their_names(tmp_path, files):
    files.jik876(tmp_path, files.Network())
    content = torch.load(tmp_path / "g_00000010")
    content["generator"]["m_source.l_linear.weight"] = torch.zeros(1, 1)
    torch.save(content, tmp_path / "g_00000010")

    with pytest.raises(BundleError, match=r"unexpected 'm_source.l_linear.weight'.*jik876"):
        open_source(tmp_path)


def test_a_speakers_embedding_is_refused(tmp_path, files):
    files.coqui(tmp_path, files.Network())
    content = torch.load(tmp_path / "best_model.pth")
    content["model"]["model_g.cond_layer.weight"] = torch.zeros(8, 4, 1)
    torch.save(content, tmp_path / "best_model.pth")

    with pytest.raises(FormatError, match="'cond_layer.weight' takes a speaker's embedding"):
        read_foreign(tmp_path)


def test_two_generators_without_numbers_are_told_apart_by_the_user(tmp_path, files):
    files.jik876(tmp_path, files.Network(), "generator_v1")
    files.jik876(tmp_path, files.Network(), "generator_v3")

    with pytest.raises(FormatError, match=r"several models \(generator_v1, generator_v3\)"):
        read_foreign(tmp_path)
    assert read_foreign(tmp_path / "generator_v1").settings.resblock == "1"


def test_nobodys_files_are_answered_with_what_was_looked_for(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))

    with pytest.raises(FormatError, match=r"Looked for: HiFi-GAN \(config.json.*NeMo.*hyperparams"):
        read_foreign(tmp_path)
    with pytest.raises(FormatError, match="no such file or folder"):
        read_foreign(tmp_path / "nothing")


def test_the_fresh_model_is_checked_as_a_bundle_is(tmp_path, files):
    found = read_foreign(files.jik876(tmp_path, files.Network()))

    model = make_model(found.settings, found.mel, found.state, "here")

    assert not any(parameter.requires_grad for parameter in model.parameters())
    with pytest.raises(BundleError, match="upsample_rates give 12 samples a frame"):
        other = dataclasses.replace(found.mel, hop_length=16)
        make_model(found.settings, other, found.state, "here")
