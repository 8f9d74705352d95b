import pytest
import torch
from torch.testing import assert_close

from wavewn.nn.fourier import Fourier, MatrixFourier, Pair

ATOL = 1e-5  # float32 sums of a hundred terms of the order of one


def frames(samples):
    torch.manual_seed(0)
    return torch.randn(2, 3, samples)


@pytest.mark.parametrize(("samples", "length"), [(80, 80), (64, 100), (6, 6), (2, 2)])
def test_matrices_transform_as_the_fft_does(samples, length):
    fast, by_matrices = Fourier(), MatrixFourier(length, 12)
    expected = fast.rfft(frames(samples), length)

    found = by_matrices.rfft(frames(samples), length)

    assert isinstance(found, Pair)
    assert_close(torch.complex(found.real, found.imag), expected, rtol=0, atol=ATOL)
    back = by_matrices.irfft(found, length)
    assert_close(back, fast.irfft(expected, length), rtol=0, atol=ATOL)
    assert_close(back[..., :samples], frames(samples), rtol=0, atol=ATOL)


def test_the_way_back_ignores_what_no_real_frame_has():
    # The imaginary parts of the lowest and the highest bin.
    spectrum = torch.randn(2, 3, 41, dtype=torch.complex64)

    found = MatrixFourier(80).irfft(spectrum, 80)

    assert_close(found, Fourier().irfft(spectrum, 80), rtol=0, atol=ATOL)


def test_both_turn_scale_and_add_alike():
    torch.manual_seed(1)
    gain, angle = torch.rand(2, 3, 41), torch.randn(2, 3, 41)

    def work(fourier):
        spectrum = fourier.rfft(frames(80), 80)
        spectrum = fourier.turned(spectrum, gain, angle) + spectrum * gain
        return spectrum.real, spectrum.imag, fourier.irfft(spectrum, 80)

    expected = work(Fourier())
    for one, other in zip(work(MatrixFourier(80)), expected, strict=True):
        assert_close(one, other, rtol=0, atol=ATOL)
    assert expected[2].std() > 0.1


def test_neither_is_saved_with_a_model():
    assert not MatrixFourier(80).state_dict() and not Fourier().state_dict()
