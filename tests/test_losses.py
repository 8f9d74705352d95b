"""Each loss against its formula or another's code, and in float32 whatever autocast does."""

import auraloss
import librosa
import numpy as np
import pytest
import torch
from torch.testing import assert_close

from wavewn.audio.mel import MelSpec, mel_spectrogram
from wavewn.errors import ConfigError, ShapeError
from wavewn.losses import (
    MEL_SCALES,
    MelLoss,
    MultiResolutionStftLoss,
    MultiScaleMelLoss,
    discriminator_loss,
    feature_matching_loss,
    generator_loss,
)

RATE = 16_000
RTOL = 1e-5  # float32 sums over some 10^5 values
SCALES = ((256, 64, 40), (64, 16, 10))
SPECTRAL = {
    "mel": lambda: MelLoss(MelSpec()),
    "multi-scale mel": lambda: MultiScaleMelLoss(RATE, SCALES),
    "multi-resolution stft": lambda: MultiResolutionStftLoss(((256, 60, 200), (64, 16, 64))),
}


def audio(seed, batch=3, samples=4000):
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(batch, samples, generator=generator)
    return 0.1 * noise * torch.linspace(0.01, 1, samples)


def scores(*values):
    return [torch.tensor(value) for value in values]


def test_least_squares_wants_ones_of_recordings_and_zeros_of_the_rest():
    real, fake = scores([[1.0, 3.0]], [[0.0]]), scores([[0.0, 2.0]], [[-1.0]])

    assert discriminator_loss(real, fake, "least-squares") == (0 + 4) / 2 + (0 + 4) / 2 + 1 + 1
    assert generator_loss(fake, "least-squares") == (1 + 1) / 2 + 4
    assert discriminator_loss(scores([[1.0]]), scores([[0.0]])) == 0


def test_hinge_wants_scores_beyond_one():
    real, fake = scores([[1.5, 0.5]], [[-1.0]]), scores([[-2.0, 0.0]], [[1.0]])

    assert discriminator_loss(real, fake, "hinge") == (0 + 0.5) / 2 + (0 + 1) / 2 + 2 + 2
    assert generator_loss(fake, "hinge") == (2 - 0) / 2 - 1


def test_an_unknown_adversarial_loss_is_refused():
    with pytest.raises(ConfigError, match="least-squares or hinge, got 'wasserstein'"):
        generator_loss(scores([[0.0]]), "wasserstein")
    with pytest.raises(ConfigError, match="least-squares or hinge"):
        discriminator_loss(scores([[0.0]]), scores([[0.0]]), "Hinge")


def test_feature_matching_sums_the_means_and_pulls_at_the_copy_alone():
    real = [[torch.tensor([[1.0, 2.0]], requires_grad=True)], [torch.zeros(1, 2, 3)] * 2]
    fake = [[torch.tensor([[0.0, 4.0]], requires_grad=True)], [torch.full((1, 2, 3), 0.5)] * 2]

    loss = feature_matching_loss(real, fake)
    loss.backward()

    assert loss == 1.5 + 0.5 + 0.5
    assert real[0][0].grad is None
    assert fake[0][0].grad.tolist() == [[-0.5, 0.5]]


def test_losses_that_lack_a_discriminator_are_a_bug():
    with pytest.raises(ValueError, match="zip"):
        feature_matching_loss([[torch.zeros(1)]], [[torch.zeros(1)], [torch.zeros(1)]])


def test_the_adversarial_losses_are_float32_under_autocast():
    real, fake = ([(seed + audio(seed)).bfloat16()] for seed in (0, 1))
    with torch.autocast("cpu", torch.bfloat16):
        inside = [
            discriminator_loss(real, fake, "hinge"),
            discriminator_loss(real, fake, "least-squares"),
            generator_loss(fake, "hinge"),
            generator_loss(fake, "least-squares"),
            feature_matching_loss([real], [fake]),
        ]
    real, fake = ([one[0].float()] for one in (real, fake))
    outside = [
        discriminator_loss(real, fake, "hinge"),
        discriminator_loss(real, fake, "least-squares"),
        generator_loss(fake, "hinge"),
        generator_loss(fake, "least-squares"),
        feature_matching_loss([real], [fake]),
    ]

    assert {one.dtype for one in inside} == {torch.float32}
    assert torch.equal(torch.stack(inside), torch.stack(outside))


def test_the_multi_resolution_stft_loss_is_auralosss_and_so_is_its_gradient():
    reference, results = audio(0), []
    theirs = auraloss.freq.MultiResolutionSTFTLoss()
    for loss in (MultiResolutionStftLoss(), lambda a, b: theirs(a[:, None], b[:, None])):
        generated = audio(1).requires_grad_()
        value = loss(generated, reference)
        value.backward()
        results.append((value.detach(), generated.grad))

    (ours, our_gradient), (their, their_gradient) = results
    assert_close(ours, their, rtol=RTOL, atol=0)
    assert_close(our_gradient, their_gradient, rtol=1e-3, atol=1e-4 * their_gradient.abs().max())
    assert theirs(reference[:, None], audio(1)[:, None]) != pytest.approx(their.item(), rel=RTOL)


def test_the_mel_loss_is_the_distance_of_the_mels_of_the_spec():
    spec, (generated, reference) = MelSpec(n_mels=40, f_max=8000.0), (audio(0), audio(1))

    expected = (mel_spectrogram(generated, spec) - mel_spectrogram(reference, spec)).abs().mean()

    assert_close(MelLoss(spec)(generated, reference), expected, rtol=RTOL, atol=0)


def test_the_multi_scale_mel_loss_is_librosas_mels_one_after_the_other():
    generated, reference = audio(0), audio(1)
    expected = 0.0
    for n_fft, hop_length, n_mels in SCALES:
        mels = [
            librosa.feature.melspectrogram(
                y=one.double().numpy(),
                sr=RATE,
                n_fft=n_fft,
                hop_length=hop_length,
                n_mels=n_mels,
                power=1.0,
                pad_mode="reflect",
            )
            for one in (generated, reference)
        ]
        logs = [np.log10(np.maximum(mel, 1e-5)) for mel in mels]
        expected += np.abs(logs[0] - logs[1]).mean()

    ours = MultiScaleMelLoss(RATE, SCALES)(generated, reference)

    assert ours.item() == pytest.approx(expected, rel=RTOL)


def test_the_published_scales_are_the_published_ones():
    windows, hops, bands = zip(*MEL_SCALES["published"], strict=True)

    assert windows == (32, 64, 128, 256, 512, 1024, 2048)
    assert hops == (8, 16, 32, 64, 128, 256, 512)
    assert bands == (5, 10, 20, 40, 80, 160, 320)
    for scales in MEL_SCALES.values():
        loss = MultiScaleMelLoss(RATE, scales)(audio(0), audio(1))
        assert 0.01 < loss / len(scales) < 1


@pytest.mark.parametrize("make", SPECTRAL.values(), ids=SPECTRAL)
class TestSpectral:
    def test_a_recording_is_at_no_distance_from_itself(self, make):
        loss, reference = make(), audio(0)

        assert loss(reference, reference.clone()) == 0
        assert loss(0.9 * reference, reference) > 1e-3

    def test_silence_is_judged_and_its_gradient_is_finite(self, make):
        generated = torch.zeros(3, 4000, requires_grad=True)

        loss = make()(generated, audio(0))
        loss.backward()

        assert loss.isfinite() and generated.grad.isfinite().all()

    def test_gradients_reach_every_sample_of_the_copy_alone(self, make):
        generated, reference = audio(1).requires_grad_(), audio(0)

        make()(generated, reference).backward()

        assert (generated.grad != 0).float().mean() > 0.99
        assert reference.grad is None

    def test_it_is_float32_under_autocast(self, make):
        loss, generated, reference = make(), audio(1).bfloat16(), audio(0).bfloat16()
        leaf = generated.clone().requires_grad_()

        with torch.autocast("cpu", torch.bfloat16):
            inside = loss(leaf, reference)
            rounded = torch.eye(2) @ torch.full((2, 1), 1.001)
        inside.backward()

        assert rounded.dtype == torch.bfloat16  # so that this autocast does something
        assert inside.dtype == torch.float32
        assert leaf.grad.isfinite().all()
        assert torch.equal(inside, loss(generated.float(), reference.float()))

    def test_it_saves_nothing_and_trains_nothing(self, make):
        loss = make()

        assert not loss.state_dict() and not list(loss.parameters())

    def test_pairs_that_do_not_match_are_refused(self, make):
        loss = make()

        with pytest.raises(ShapeError, match=r"both be \[batch, samples\], got \[3, 4000\]"):
            loss(audio(0), audio(0)[:, 1:])
        with pytest.raises(ShapeError, match="both be"):
            loss(audio(0)[0], audio(0)[0])


@pytest.mark.parametrize("name", ["multi-scale mel", "multi-resolution stft"])
def test_audio_shorter_than_the_longest_window_is_refused(name):
    loss = SPECTRAL[name]()

    with pytest.raises(ShapeError, match="longer than 128 samples"):
        loss(audio(0)[:, :128], audio(0)[:, :128])
    assert loss(audio(0)[:, :129], audio(1)[:, :129]) > 0
