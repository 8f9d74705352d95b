"""The systems of an evaluation keep the length and the time of what they copy."""

from types import SimpleNamespace

import pytest
import torch

from wavewn.audio.mel import MelSpec, mel_spectrogram
from wavewn.evaluation.metrics import log_mel_l1
from wavewn.evaluation.systems import (
    griffin_lim_system,
    mu_law_copy,
    mu_law_system,
    vocoder_system,
)

SPEC = MelSpec()


class FakeVocoder:
    """Says each frame's loudest band, so that a test sees which mel went where."""

    mel_spec = SPEC

    def synthesize(self, mel, *, lengths, speaker, temperature, seed):
        self.call = SimpleNamespace(mel=mel, lengths=lengths, speaker=speaker, seed=seed)
        assert temperature == 0.7
        return mel.mean(dim=1).repeat_interleave(SPEC.hop_length, dim=1)


def test_a_vocoder_gets_one_padded_batch_and_its_silence_is_cut(voice):
    vocoder = FakeVocoder()
    recordings = [voice(seconds=0.3), voice(200.0, seconds=0.21)]
    copies = vocoder_system(vocoder, temperature=0.7, seed=5, speaker="anna")(recordings)

    assert vocoder.call.lengths == [24, 16]
    assert (vocoder.call.speaker, vocoder.call.seed) == ("anna", 5)
    assert vocoder.call.mel[1, :, 16:].eq(SPEC.log_floor).all()
    assert [len(copy) for copy in copies] == [24 * 200, 16 * 200]
    expected = mel_spectrogram(recordings[1], SPEC)[0].mean(dim=0).repeat_interleave(200)
    assert copies[1].equal(expected)


def test_griffin_lim_and_mu_law_copies_are_close(voice, noise):
    recording = voice(seconds=0.5)
    recording = recording + noise(recording, 0.01)
    for system in (griffin_lim_system(SPEC), mu_law_system(256, 0.85)):
        (copy,) = system([recording])
        assert len(copy) == len(recording)
        assert log_mel_l1(recording, copy, SPEC) < 0.25


@pytest.mark.parametrize("emphasis", [0.0, 0.85])
def test_more_classes_are_a_better_mu_law_copy(voice, emphasis):
    recording = voice(seconds=0.2)
    errors = [
        (mu_law_copy(recording, classes, emphasis) - recording).square().mean().sqrt()
        for classes in (64, 256, 65536)
    ]
    assert errors[0] > 2 * errors[1] > 20 * errors[2] > 0
    assert torch.isfinite(errors[0])
