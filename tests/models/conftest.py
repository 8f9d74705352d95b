"""What tests of several generators do in the same way."""

import pytest
import torch
from torch.testing import assert_close


@pytest.fixture
def compare():
    """Hold a generator against its published forward: `published(state, settings, mode, mel)`."""

    @torch.no_grad()
    def check(made, published, mode, frames, atol):
        mel = torch.randn(2, made.n_mels, frames)

        audio = made(mel)

        assert audio.shape == (2, frames * made.hop_length)
        expected = published(made.state_dict(), made.settings, mode, mel)
        assert_close(audio, expected, rtol=0, atol=atol)
        assert expected.std() > 0.01

    return check
