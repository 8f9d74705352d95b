"""Speech, free running, the recurrent network and the rate rule, each for itself."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from wavewn.audio.io import read_audio
from wavewn.errors import DataError
from wavewn.nn.norms import NORMS, make_stack
from wavewn.studies.weight_norm.recurrent import Recurrent, StepBatchNorm
from wavewn.studies.weight_norm.run import load_study_speech
from wavewn.studies.weight_norm.settings import RECURRENT
from wavewn.studies.weight_norm.speech import RMS, crops, encode
from wavewn.studies.weight_norm.stack_cell import free_run, long_term_db

ATOL = 1e-6  # float32; sums in another order


def test_the_last_of_two_speakers_is_strange(speech):
    assert speech.strange_is == "the speaker boris, left out of the training"
    assert (len(speech.train), len(speech.held_out), len(speech.strange)) == (2, 1, 1)


def test_the_digest_is_of_the_files_not_of_what_arithmetic_made_of_them(
    monkeypatch, toy, corpus, speech, lonely_corpus
):
    reader = "wavewn.studies.weight_norm.speech.read_audio"
    monkeypatch.setattr(reader, lambda path, rate: read_audio(path, rate) * (1 + 1e-3))

    assert load_study_speech(toy, corpus).digest == speech.digest
    assert load_study_speech(toy, lonely_corpus).digest != speech.digest


def test_one_speaker_alone_is_played_faster(toy, lonely_corpus):
    speech = load_study_speech(toy, lonely_corpus)

    assert "1.25 times as fast" in speech.strange_is
    assert abs(len(speech.held_out[0]) / len(speech.strange[0]) - 1.25) < 0.01


def test_recordings_are_equally_loud(speech):
    for recording in (*speech.train, *speech.held_out, *speech.strange):
        assert np.sqrt((recording**2).mean()) == pytest.approx(RMS, rel=1e-3)


def test_a_corpus_of_short_recordings_is_refused(changed, corpus):
    with pytest.raises(DataError, match=r"no train recording of 0\.63 s"):
        load_study_speech(changed(scored=5000 - 4), corpus)


def test_crops_are_a_function_of_their_key(speech):
    first = crops(speech.train, 4, 50, (0, 1))

    assert torch.equal(first, crops(speech.train, 4, 50, (0, 1)))
    assert not torch.equal(first, crops(speech.train, 4, 50, (0, 2)))
    assert first.shape == (4, 50)
    content = [recording.tobytes() for recording in speech.train]
    assert all(any(row.numpy().tobytes() in one for one in content) for row in first)


def test_a_level_of_minus_twenty_is_a_tenth():
    audio = torch.full((1, 4), 0.5)

    assert torch.equal(encode(audio, 256, -20.0), encode(audio / 10, 256))
    assert int(encode(audio, 256, 20.0).max()) == 255


def test_remembering_and_looking_again_draw_the_same_samples():
    prompt = torch.randint(0, 8, (2, 8))
    model = make_stack(NORMS["batch"], 8, 4, 6, 2, (1, 2, 4), seed=0, batch=prompt)

    remembered = free_run(model, prompt, 20, 3, streams=True)

    assert torch.equal(remembered, free_run(model, prompt, 20, 3, streams=False))
    assert not torch.equal(remembered, free_run(model, prompt, 20, 4, streams=True))


def test_the_long_term_spectrum_knows_level_and_pitch():
    time = np.arange(8000) / 8000
    tone = np.sin(2 * np.pi * 1000 * time)

    assert long_term_db(tone).argmax() == 32
    assert_close(long_term_db(tone)[32] - long_term_db(tone / 10)[32], 20.0, rtol=0, atol=1e-3)


def test_the_plain_recurrent_network_is_torchs_gru():
    torch.manual_seed(0)
    model = Recurrent("none", 8, 5, 16)
    gru = torch.nn.GRU(5, 5, batch_first=True)
    with torch.no_grad():
        gru.weight_ih_l0.copy_(model.input.weight)
        gru.bias_ih_l0.zero_()
        gru.weight_hh_l0.copy_(model.hidden.weight)
        gru.bias_hh_l0.copy_(model.hidden.bias)
    x = torch.randint(0, 8, (3, 11))

    assert_close(model(x), model.last(gru(model.embed(x))[0]), rtol=0, atol=ATOL)


@pytest.mark.parametrize("variant", RECURRENT)
def test_a_recurrent_variant_trains_and_goes_beyond_its_length(variant):
    torch.manual_seed(0)
    model = Recurrent(variant, 8, 5, 16).train()
    x = torch.randint(0, 8, (3, 16))
    model(x).square().mean().backward()

    assert all(p.grad is not None for p in model.parameters())
    with torch.no_grad():
        assert model.eval()(torch.randint(0, 8, (3, 64))).isfinite().all()
        changed = x.clone()
        changed[:, 8:] = 0
        model.train()
        moved = (model(x)[:, :8] - model(changed)[:, :8]).abs().max()
    assert (moved > 1e-6) == (variant == "batch-input")  # it alone hears the future


def test_batch_norm_a_step_is_its_equation_and_ends_with_the_last_step():
    norm, x = StepBatchNorm(3, 2).train(), torch.randn(5, 3)
    rows = x.double().numpy()
    wanted = 0.1 * (rows - rows.mean(0)) / np.sqrt(rows.var(0) + 1e-5)

    np.testing.assert_allclose(norm(x, 1).detach().numpy(), wanted, atol=ATOL)
    assert norm.mean[0].abs().max() == 0
    assert norm.mean[1].abs().max() > 0
    norm.eval()
    assert torch.equal(norm(x, 1), norm(x, 99))
    assert not torch.equal(norm(x, 0), norm(x, 1))


def test_the_rate_warms_up_and_decays_without_knowing_the_end(changed):
    settings = changed(warmup=10, decay_from=100)

    assert settings.rate_of(1, 1.0) == 0.1
    assert settings.rate_of(10, 1.0) == settings.rate_of(100, 1.0) == 1.0
    assert settings.rate_of(400, 1.0) == 0.5
