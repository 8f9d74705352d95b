"""Levelling: audio comes to have the mel that is stated, whole or in chunks."""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from wavewn.audio.mel import MelSpec, mel_spectrogram
from wavewn.errors import ConfigError
from wavewn.nn.flow import Flow, Rows
from wavewn.nn.latency import measure
from wavewn.nn.levelling import Levelling, between_bands

SPEC = MelSpec()
FRAMES = 40


def signals():
    """Noise, and the mel of louder, darker noise."""
    torch.manual_seed(0)
    noise = 0.05 * torch.randn(2, FRAMES * SPEC.hop_length)
    other = 0.2 * torch.randn(2, FRAMES * SPEC.hop_length)
    return noise, mel_spectrogram(other + other.roll(1, 1), SPEC)


def test_audio_comes_nearer_to_the_mel_and_the_lack_says_how_far_it_was():
    audio, mel = signals()

    levelled, lack = Levelling(SPEC).flow(Flow(), Rows.of(mel), Rows.of(audio[:, None]))

    before = mel - mel_spectrogram(audio, SPEC)
    after = mel - mel_spectrogram(levelled.whole[:, 0], SPEC)
    assert_close(lack.transpose(1, 2), before, rtol=0, atol=1e-3)
    assert after.abs().mean() < 0.3 * before.abs().mean()


def test_audio_that_has_its_mel_is_left_as_it_is():
    audio, _ = signals()
    mel = mel_spectrogram(audio, SPEC)

    levelled, _ = Levelling(SPEC).flow(Flow(), Rows.of(mel), Rows.of(audio[:, None]))

    edge = 2 * SPEC.win_length  # where windows are missing at the ends
    assert_close(levelled.whole[:, 0, edge:-edge], audio[:, edge:-edge], rtol=0, atol=2e-3)


@pytest.mark.parametrize("chunk", [1, 3, FRAMES])
@pytest.mark.parametrize("grid", ["half-hop", "centred"])
def test_chunks_equal_the_whole(chunk, grid):
    audio, mel = signals()
    levelling, hop = Levelling(replace(SPEC, grid=grid)), SPEC.hop_length

    def run(flow, mel, audio):
        return levelling.flow(flow, mel, audio)[0]

    whole = run(Flow(), Rows.of(mel), Rows.of(audio[:, None])).whole
    shapes = measure(run, SPEC.n_mels, hop).shapes
    memory = {name: torch.zeros(2, rows, channels) for name, (rows, channels) in shapes.items()}
    parts = []
    for start in range(0, FRAMES, chunk):
        end = min(start + chunk, FRAMES)
        heard = Rows.of(audio[:, None, start * hop : end * hop], start * hop, end == FRAMES)
        stated = Rows.of(mel[:, :, start:end], start, end == FRAMES)
        parts.append(run(Flow(memory), stated, heard).whole)

    assert_close(torch.cat(parts, dim=2), whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize("spec", [SPEC, replace(SPEC, power=2.0, n_fft=2048, mel_scale="htk")])
def test_apart_no_frame_knows_what_comes_with_it(spec):
    """To the last bit, and within rounding of what frames give together."""
    _, mel = signals()
    levelling, lone = Levelling(spec), Levelling(spec)
    lone.apart()
    frames = 0.1 * torch.randn(18, spec.win_length, 7)
    stated = mel[:1, :, :7] + torch.randn(18, 1, 1)

    together, lack = lone._mended(frames, stated)

    for row in (slice(0, 1), slice(3, 8), slice(17, 18)):
        for part in (slice(0, 1), slice(2, 5), slice(6, 7)):
            alone, own = lone._mended(frames[row, :, part], stated[row, :, part])
            assert torch.equal(alone, together[row, :, part])
            assert torch.equal(own, lack[row, part])
    expected, expected_lack = levelling._mended(frames, stated)
    assert_close(together, expected, rtol=0, atol=1e-5)
    assert_close(lack, expected_lack, rtol=0, atol=1e-4)


def test_weights_between_bands_sum_to_one_and_are_whole_at_a_centre():
    import librosa

    centres = librosa.mel_frequencies(n_mels=82, fmin=60.0, fmax=7000.0)[1:-1]

    assert_close(torch.from_numpy(between_bands(SPEC, centres)), torch.eye(80).double())
    somewhere = between_bands(SPEC, centres[:-1] + 3.0)
    assert_close(torch.from_numpy(somewhere.sum(1)), torch.ones(79).double())


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"log_base": None}, "takes none"), ({"win_length": 500}, "three hops or more")],
)
def test_mels_that_cannot_be_levelled_to_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        Levelling(replace(SPEC, **changes))
