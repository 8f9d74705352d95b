"""WaveNet with every switch of its config: shapes, causality, crops, speakers, errors."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from wavewn.audio.companding import pre_emphasis
from wavewn.config import Condition, Gaussian, LogisticMixture, MuLaw, WaveNetConfig
from wavewn.errors import ShapeError
from wavewn.models.wavenet import MEL_SCALE, WaveNet
from wavewn.nn.weight_norm import (
    apply_weight_norm,
    data_dependent_init,
    folded_state_dict,
    load_state,
)

ATOL = 1e-5  # float32; sums in another order (another length), through six layers
BANDS, HOP, FRAMES = 5, 8, 12
SILENCE = -11.5

SMALL = WaveNetConfig(
    residual_channels=4,
    skip_channels=6,
    head_channels=7,
    cycles=2,
    layers_per_cycle=3,
    head=MuLaw(16),
    condition=Condition(channels=8),
)


def vary(condition=None, **changes):
    if condition:
        changes["condition"] = dataclasses.replace(SMALL.condition, **condition)
    return dataclasses.replace(SMALL, **changes)


CONFIGS = {
    "default": SMALL,
    "kernel 3": vary(kernel_size=3),
    "kernel 1": vary(kernel_size=1),
    "one cycle": vary(cycles=1, layers_per_cycle=5),
    "mixture": vary(head=LogisticMixture(3), pre_emphasis=0.0),
    "gaussian": vary(head=Gaussian()),
    "no look-ahead": vary({"look_ahead": 0}),
    "look-ahead at its most": vary({"layers": 3, "kernel_size": 2, "look_ahead": 3}),
    "one condition layer of one tap": vary({"layers": 1, "kernel_size": 1, "look_ahead": 0}),
    "nearest": vary({"upsampling": "nearest"}),
    "transposed": vary({"upsampling": "transposed"}),
    "speakers": vary(speakers=3, speaker_channels=2),
    "prediction": vary(head=LogisticMixture(2), prediction_order=3),
    "prediction over frames, learned upsampling": vary(
        {"upsampling": "transposed"}, head=Gaussian(), prediction_order=2 * HOP
    ),
    "long-term prediction": vary(head=Gaussian(), prediction_order=3, longest_lag=2 * HOP),
}
every_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())


def make(config, seed=0):
    """Give a model whose layers all matter: a fresh one is nearly deaf to far inputs."""
    torch.manual_seed(seed)
    model = WaveNet(config, BANDS, HOP, SILENCE)
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(0, 0.4)
        if model.predictor is not None:  # sharp resonances would multiply rounding
            model.predictor.projection.weight.mul_(0.2)
    return model


def inputs(config, frames=FRAMES, batch=2):
    torch.manual_seed(1)
    mel = SILENCE + 8 * torch.rand(batch, BANDS, frames + config.condition.look_ahead)
    audio = 0.9 * torch.rand(batch, frames * HOP) - 0.45
    speaker = torch.arange(batch) % config.speakers if config.speakers else None
    return audio, mel, speaker


@every_config
def test_parameters_and_their_gradients_exist_for_every_sample_and_weight(config):
    model = make(config)
    audio, mel, speaker = inputs(config)
    levels = model.levels(audio)
    parameters = model(levels, mel, speaker)
    assert parameters.shape == (2, FRAMES * HOP, model.head.parameters)
    log_prob = model.head.log_prob(parameters, levels)
    assert log_prob.shape == levels.shape and log_prob.isfinite().all()
    log_prob.mean().backward()
    dead = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().any()]
    assert not dead


@every_config
def test_a_sample_hears_only_samples_before_it_within_the_receptive_field(config):
    model = make(config)
    audio, mel, speaker = inputs(config)
    levels = model.levels(audio).requires_grad_(True)
    at = FRAMES * HOP - 10
    model(levels, mel, speaker)[:, at].sum().backward()
    heard = levels.grad.abs().amax(0) > 0
    field = model.receptive_field
    assert not heard[at:].any()
    assert heard[at - 1] and heard[at - field]  # so that the line above can fail
    assert not heard[: at - field].any()


@every_config
def test_a_sample_hears_mel_frames_up_to_the_stated_look_ahead(config):
    model = make(config)
    audio, mel, speaker = inputs(config)
    mel.requires_grad_(True)
    frame = 5
    model(model.levels(audio), mel, speaker)[:, frame * HOP : (frame + 1) * HOP].sum().backward()
    heard = mel.grad.abs().amax((0, 1)) > 0
    last = frame + config.condition.look_ahead
    assert not heard[last + 1 :].any()
    assert heard[last]


@every_config
def test_a_crop_with_its_lead_equals_the_whole_once_the_receptive_field_is_filled(config):
    model = make(config)
    audio, mel, speaker = inputs(config, frames=20)
    levels = model.levels(audio)
    whole = model(levels, mel, speaker)
    lead, start = model.condition.lead, 8
    assert 1 <= lead <= start
    crop = model(levels[:, start * HOP :], mel[..., start - lead :], speaker, lead=lead)
    filled = model.receptive_field
    assert filled < crop.shape[1]
    assert_close(crop[:, filled:], whole[:, start * HOP + filled :], rtol=0, atol=ATOL)
    # Without the lead the same frames would sound as if the utterance began with them.
    cold = model(levels[:, start * HOP :], mel[..., start:], speaker)
    if lead > 1 or config.condition.upsampling != "nearest":
        assert (cold - whole[:, start * HOP :])[:, : HOP - 1].abs().max() > 100 * ATOL


@every_config
def test_a_crop_that_starts_its_utterance_equals_the_whole_from_the_first_sample_on(config):
    model = make(config)
    audio, mel, speaker = inputs(config)
    levels, lead = model.levels(audio), model.condition.lead
    silence = torch.full((*mel.shape[:2], lead), float(model.mel_silence))
    starts = torch.arange(len(mel)) % 2 == 0

    whole = model(levels, mel, speaker)
    padded = torch.cat([silence, mel], dim=2)
    crop = model(levels, padded, speaker, lead=lead, starts=starts)

    assert_close(crop[starts], whole[starts], rtol=0, atol=ATOL)
    plain = model(levels, padded, speaker, lead=lead)
    assert torch.equal(crop[~starts], plain[~starts])
    if config.condition.upsampling != "nearest":  # which does not hear the frame before
        assert (plain - whole)[starts].abs().max() > 10 * ATOL


def test_one_frame_less_than_the_lead_is_not_enough():
    network, start = make(SMALL).condition, 12
    mel = torch.randn(2, 20 + SMALL.condition.look_ahead, BANDS)
    whole = network(mel, None, 0)[:, start:]
    enough = network(mel[:, start - network.lead :], None, network.lead)
    short = network(mel[:, start - network.lead + 1 :], None, network.lead - 1)

    assert_close(enough, whole, rtol=0, atol=ATOL)
    assert (short - whole)[:, 0].abs().max() > 100 * ATOL  # the frame before the crop
    assert_close(short[:, 1:], whole[:, 1:], rtol=0, atol=ATOL)


def test_silence_is_zero_to_the_network():
    model = make(SMALL)
    mel = torch.full((1, BANDS, 4), SILENCE)
    mel[0, 2, 1] += MEL_SCALE
    normalised = model.normalise(mel)
    assert normalised.shape == (1, 4, BANDS)
    assert normalised[0, 1, 2] == 1 and normalised.abs().sum() == 1


def test_levels_are_the_heads_view_of_pre_emphasised_audio():
    audio, _, _ = inputs(SMALL)
    model = make(SMALL)
    assert torch.equal(model.levels(audio), model.head.encode(pre_emphasis(audio, 0.85)))
    plain = make(vary(pre_emphasis=0.0))
    assert torch.equal(plain.levels(audio), plain.head.encode(audio))
    assert not torch.equal(plain.levels(audio), model.levels(audio))


def test_speakers_sound_different_and_models_without_speakers_do_not_look():
    config = CONFIGS["speakers"]
    model = make(config)
    audio, mel, _ = inputs(config)
    levels = model.levels(audio)
    one, other = (model(levels, mel, torch.tensor([i, i])) for i in (0, 2))
    assert (one - other).abs().max() > 100 * ATOL
    unnamed = make(SMALL)
    named = unnamed(levels, mel, torch.tensor([0, 1]))
    assert torch.equal(named, unnamed(levels, mel))


@pytest.mark.parametrize("config", [SMALL, CONFIGS["transposed"], CONFIGS["speakers"]])
def test_weight_norm_initialisation_and_folding_carry_the_model_through(config):
    torch.manual_seed(0)
    model = WaveNet(config, BANDS, HOP, SILENCE)
    names = apply_weight_norm(model)
    audio, mel, speaker = inputs(config, frames=100)
    levels = model.levels(audio)
    report = data_dependent_init(
        model,
        lambda: model(levels, mel, speaker),
        scale=lambda name, channels: 0.1 if name == "output" else 1.0,
    )
    assert set(names) - set(report.layers) == ({"condition.speaker"} if config.speakers else set())
    parameters = model(levels, mel, speaker)
    live = set(range(16)) - set(report.capped.get("output", []))
    deviation = parameters.detach().flatten(0, 1).std(0)[sorted(live)]
    assert_close(deviation, torch.full_like(deviation, 0.1), rtol=1e-2, atol=0)
    loss = F.cross_entropy(parameters.flatten(0, 1), model.head.classes_of(levels).flatten()).item()
    assert loss == pytest.approx(torch.tensor(16.0).log().item(), abs=0.1)  # log of the classes

    plain = WaveNet(config, BANDS, HOP, SILENCE)
    load_state(plain, folded_state_dict(model))
    assert_close(plain(levels, mel, speaker), parameters, rtol=0, atol=ATOL)


@pytest.mark.parametrize(
    ("levels", "mel", "lead", "message"),
    [
        ((2, 95), (2, 5, 14), 0, r"\[2, 95\] levels do not fit a mel of \[2, 5, 14\]"),
        ((1, 96), (2, 5, 14), 0, r"\[1, 96\] levels"),
        ((2, 96), (2, 5, 14), 1, r"\[batch, 5, 1 \+ frames \+ 2\]"),
        ((2, 0), (2, 5, 2), 0, r"\[2, 0\] levels"),
        ((2, 96), (2, 6, 14), 0, r"must be \[batch, 5 bands, frames\], got \[2, 6, 14\]"),
        ((2, 96), (5, 14), 0, "fit a mel"),
    ],
)
def test_samples_and_frames_that_do_not_fit_are_refused(levels, mel, lead, message):
    with pytest.raises(ShapeError, match=message):
        make(SMALL)(torch.zeros(levels), torch.zeros(mel), lead=lead)


@pytest.mark.parametrize(("speaker", "got"), [(None, "got None"), (torch.zeros(3), r"got \[3\]")])
def test_a_missing_speaker_is_refused(speaker, got):
    config = CONFIGS["speakers"]
    audio, mel, _ = inputs(config)
    with pytest.raises(ShapeError, match=f"3 speakers.* {got}"):
        make(config)(audio, mel, speaker)
