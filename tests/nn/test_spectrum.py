"""The transform against torch's, forward and back."""

import pytest
import torch
from torch.testing import assert_close

from wavewn.nn.spectrum import Transform, spectrum

SAMPLES = 700
RESOLUTIONS = [(64, 16, 64), (64, 10, 40), (32, 8, 31), (16, 20, 16), (256, 256, 200)]


def torchs(audio, n_fft, hop_length, window):
    return torch.stft(
        audio, n_fft, hop_length, window.shape[0], window, return_complex=True
    ).transpose(1, 2)


@pytest.fixture
def audio():
    return torch.randn(2, SAMPLES, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("n_fft", "hop_length", "win_length"), RESOLUTIONS)
def test_it_is_torchs_transform_with_frames_first(audio, n_fft, hop_length, win_length):
    window = torch.hann_window(win_length)

    ours = spectrum(audio, n_fft, hop_length, window)

    assert ours.shape == (2, 1 + SAMPLES // hop_length, n_fft // 2 + 1)
    assert ours.is_contiguous()
    assert_close(ours, torchs(audio, n_fft, hop_length, window))


@pytest.mark.parametrize(("n_fft", "hop_length", "win_length"), RESOLUTIONS)
def test_its_way_back_is_torchs(audio, n_fft, hop_length, win_length):
    window = torch.hann_window(win_length)
    gradients = []
    for transform in (spectrum, torchs):
        leaf = audio.clone().requires_grad_()
        result = torch.view_as_real(transform(leaf, n_fft, hop_length, window))
        weights = torch.arange(float(result.numel())).reshape(result.shape).cos()
        (result * weights).sum().backward()
        gradients.append(leaf.grad)

    assert_close(*gradients, rtol=1e-4, atol=1e-4)  # sums over some 100 values each
    assert gradients[0].abs().max() > 1


def test_its_way_back_is_the_derivative():
    audio = torch.randn(1, 40, dtype=torch.float64, requires_grad=True)
    window = torch.hann_window(16, dtype=torch.float64)

    assert torch.autograd.gradcheck(lambda x: Transform.apply(x, window, 6), (audio,))


def test_it_is_float32_under_autocast(audio):
    window = torch.hann_window(64)

    with torch.autocast("cpu", torch.bfloat16):
        inside = spectrum(audio.bfloat16(), 64, 16, window)

    assert inside.dtype == torch.complex64
    assert torch.equal(inside, spectrum(audio.bfloat16().float(), 64, 16, window))
