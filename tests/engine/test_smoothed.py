"""The engine of WaveNets that hear stretched and smoothed mels."""

import pytest
import torch

from wavewn.audio.mel_spec import MelSpec
from wavewn.bundle import load_bundle, save_bundle
from wavewn.bundle.precisions import calibration_of
from wavewn.cli.export import measure_precisions
from wavewn.config import Condition, LogisticMixture, SmoothedWaveNetConfig, WaveNetConfig
from wavewn.engine.choice import make_engine
from wavewn.engine.native import available
from wavewn.engine.onepass import OnePassEngine
from wavewn.engine.verdict import Piece
from wavewn.errors import ConfigError, EngineError, StateError
from wavewn.models.smoothed_wavenet import SmoothedWaveNet
from wavewn.state import StreamState

BANDS, FRAMES, HOP = 5, 9, 12
SPEC = MelSpec(n_mels=BANDS, n_fft=64, hop_length=HOP, win_length=64)
ATOL = 1e-5  # float32; sums in another order, through a recursion
NETWORK = WaveNetConfig(
    residual_channels=8,
    skip_channels=8,
    head_channels=8,
    kernel_size=3,
    cycles=2,
    layers_per_cycle=2,
    head=LogisticMixture(2),
    condition=Condition(2 * BANDS, 1, 1, 0, "nearest"),
)
SETTINGS = SmoothedWaveNetConfig(NETWORK, condition_context=2, upsample_rates=(4, 3))
ENGINES = [
    "reference",
    pytest.param("native", marks=pytest.mark.skipif(bool(available()), reason="not compiled")),
]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return SmoothedWaveNet(SETTINGS, BANDS).eval().requires_grad_(False)


@pytest.fixture(params=ENGINES)
def engine(request, model):
    return make_engine(model, request.param)


@pytest.fixture
def mel():
    return torch.randn(3, BANDS, FRAMES, generator=torch.Generator().manual_seed(2))


def streamed(engine, state, mel, cuts=(FRAMES,), **options):
    parts = [engine.generate(state, part, **options) for part in mel.split(list(cuts), dim=2)]
    return torch.cat([*parts, engine.finish(state, **options)], dim=1)


@torch.no_grad()
def test_it_draws_what_the_whole_network_says(engine, model, mel):
    audio = streamed(engine, StreamState.zeros(engine.layout, 3), mel, temperature=0.0)

    head, levels = model.network.head, torch.zeros(3, FRAMES * HOP)
    before = torch.zeros(3)
    for t in range(FRAMES * HOP):
        parameters = model(levels, mel)[:, t]
        levels[:, t] = head.sample(parameters, torch.zeros(3, 2), temperature=0.0)
        before = levels[:, t] + NETWORK.pre_emphasis * before  # the de-emphasis
        torch.testing.assert_close(audio[:, t], before.clamp(-1, 1), rtol=0, atol=ATOL)
    assert audio.std() > 0.01


@pytest.mark.parametrize("cuts", [(1,) * FRAMES, (2, 3, 4), (0, 8, 1)])
def test_chunks_equal_the_whole_to_the_last_bit(engine, mel, cuts):
    whole = StreamState.zeros(engine.layout, 3, seed=4)
    parts = StreamState.zeros(engine.layout, 3, seed=4)

    expected = streamed(engine, whole, mel)

    assert expected.shape == (3, FRAMES * HOP)
    assert torch.equal(streamed(engine, parts, mel, cuts), expected)
    assert torch.equal(parts.buffer, whole.buffer)


def test_a_row_is_what_it_is_alone(engine, mel):
    together = streamed(engine, StreamState.zeros(engine.layout, 3, seed=[7, 8, 9]), mel)

    alone = StreamState.zeros(engine.layout, 1, seed=8, streams=[1])

    assert torch.equal(streamed(engine, alone, mel[1:2])[0], together[1])


def test_rows_that_began_at_different_times_do_not_disturb_each_other(engine, mel):
    expected = streamed(engine, StreamState.zeros(engine.layout, 3), mel)
    state = StreamState.zeros(engine.layout, 3)
    engine.generate(state, mel[:, :, :4])
    state.reset(torch.tensor([False, True, False]))

    shifted = torch.stack([mel[0, :, 4:], mel[1, :, :5], mel[2, :, 4:]])
    rest = torch.cat([engine.generate(state, shifted), engine.finish(state)], dim=1)

    assert torch.equal(rest[0], expected[0, -rest.shape[1] :])
    assert torch.equal(rest[2], expected[2, -rest.shape[1] :])
    alone = streamed(
        engine, StreamState.zeros(engine.layout, 1, streams=[1]), mel[1:2, :, :5], (5,)
    )
    said = rest[1][rest[1].ne(0).nonzero()[0, 0] :]
    assert torch.equal(said, alone[0, -len(said) :])


def test_a_saved_state_goes_on(engine, mel):
    state = StreamState.zeros(engine.layout, 3)
    expected = streamed(engine, state.clone(), mel)

    first = engine.generate(state, mel[:, :, :5])
    state = StreamState.from_state_dict(engine.layout, state.state_dict())
    rest = torch.cat([engine.generate(state, mel[:, :, 5:]), engine.finish(state)], dim=1)

    assert torch.equal(torch.cat([first, rest], dim=1), expected)


def test_the_latency_is_the_largest_shortfall(engine, mel):
    state, shortfall = StreamState.zeros(engine.layout, 1), 0
    given = 0
    for frame in range(FRAMES):
        given += engine.generate(state, mel[:1, :, frame : frame + 1]).shape[1]
        shortfall = max(shortfall, (frame + 1) * HOP - given)

    assert engine.latency_samples == shortfall > 0


def test_one_that_is_finished_says_so(engine, mel):
    state = StreamState.zeros(engine.layout, 1)
    streamed(engine, state, mel[:1])

    with pytest.raises(StateError, match="is finished"):
        engine.generate(state, mel[:1])


def test_a_nan_is_named_and_the_state_is_left(engine, mel):
    state, mel = StreamState.zeros(engine.layout, 3), mel.clone()
    mel[1, 2, 3] = float("nan")
    engine.generate(state, mel[:, :, :1])  # so that row 1 runs in another group than row 0
    state.reset(torch.tensor([True, False, False]))
    before = state.buffer.clone()

    with pytest.raises(EngineError, match="row 1"):
        engine.generate(state, mel[:, :, 1:])
    assert torch.equal(state.buffer, before)


def test_a_bundle_holds_it(model, mel, tmp_path):
    save_bundle(tmp_path / "voice", model, SPEC)

    bundle = load_bundle(tmp_path / "voice")

    assert bundle.model.settings == SETTINGS
    levels = torch.zeros(3, FRAMES * HOP)
    torch.testing.assert_close(bundle.model(levels, mel), model(levels, mel), rtol=0, atol=0)
    assert "of stretched and smoothed mels" in (tmp_path / "voice/README.md").read_text()


@pytest.mark.parametrize(
    ("condition", "rates", "message"),
    [
        (Condition(4, 1, 3, 2), (4, 3), "look ahead by no frame"),
        (NETWORK.condition, (), "upsample_rates"),
        (NETWORK.condition, (4, 0), "upsample_rates"),
    ],
)
def test_settings_that_cannot_be_are_refused(condition, rates, message):
    network = WaveNetConfig(condition=condition)

    with pytest.raises(ConfigError, match=message):
        SmoothedWaveNetConfig(network, upsample_rates=rates)


@pytest.mark.parametrize("more", [{"band_taps": 2, "condition_context": 0}, {"band_taps": 3}])
def test_rectified_stretching_takes_an_odd_number_of_bands_and_no_context(more):
    with pytest.raises(ConfigError, match="band_taps is"):
        SmoothedWaveNetConfig(NETWORK, **more)


def test_its_flow_is_not_taken_for_audio(model):
    with pytest.raises(EngineError, match="gives no audio but 5 channels"):
        OnePassEngine(model)


@torch.no_grad()
def test_its_precisions_are_judged_by_its_network(model, mel, tmp_path):
    save_bundle(tmp_path / "voice", model, SPEC)
    bundle = load_bundle(tmp_path / "voice")
    random = torch.Generator().manual_seed(6)
    pieces = [Piece(torch.rand(1, FRAMES * HOP, generator=random) - 0.5, row[None]) for row in mel]

    verdict, calibration = measure_precisions(bundle, pieces)
    save_bundle(tmp_path / "judged", model, SPEC, verdict=verdict, calibration=calibration)

    assert set(verdict) == {"float32", "float16", "int8"}
    judged = load_bundle(tmp_path / "judged")
    found = calibration_of(judged.config)
    assert found == calibration
    if not available():
        assert make_engine(model, "native", "int8", calibration=found).precision == "int8"


def test_a_precision_that_it_lacks_is_refused(model):
    with pytest.raises(EngineError, match="bfloat16"):
        make_engine(model, "auto", "bfloat16")
