"""The engine of levelled WaveNets: the core's stream, brought nearer to its mel.

What the contract (test_contract*.py) asks of WaveNet's engines is asked here of this one, but for
parameters, which it has none of.
"""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from wavewn.audio.mel import mel_spectrogram
from wavewn.audio.mel_spec import MelSpec
from wavewn.config import Condition, LogisticMixture, SmoothedWaveNetConfig, WaveNetConfig
from wavewn.engine.choice import make_engine
from wavewn.engine.native import available
from wavewn.engine.weights import pack_wavenet
from wavewn.errors import EngineError, ShapeError, StateError
from wavewn.models.levelled import Levels
from wavewn.models.smoothed_wavenet import SmoothedWaveNet
from wavewn.models.wavenet import WaveNet
from wavewn.nn.flow import Flow, Rows
from wavewn.state import StreamState

BANDS, FRAMES, HOP = 6, 26, 20
SPEC = MelSpec(n_mels=BANDS, hop_length=HOP, win_length=80, n_fft=128)
SIZES = {"residual_channels": 8, "skip_channels": 8, "head_channels": 8, "layers_per_cycle": 3}
NATIVE = pytest.mark.skipif(bool(available()), reason="not compiled")
ATOL = 1e-5  # float32; sums in another order


def wavenet(speakers=0):
    condition = Condition(10, look_ahead=2, upsampling="linear")
    settings = WaveNetConfig(
        **SIZES, cycles=1, head=LogisticMixture(2), condition=condition, speakers=speakers
    )
    return WaveNet(settings, BANDS, HOP, SPEC.log_floor)


def smoothed():
    condition = Condition(2 * BANDS, 1, 1, 0, "nearest")
    network = WaveNetConfig(**SIZES, cycles=1, head=LogisticMixture(2), condition=condition)
    settings = SmoothedWaveNetConfig(network, condition_context=2, upsample_rates=(5, 4))
    return SmoothedWaveNet(settings, BANDS)


def packed(make):
    torch.manual_seed(0)
    model = make().eval().requires_grad_(False)
    return pack_wavenet(model) if isinstance(model, WaveNet) else model


VARIANTS = {  # model, engine, levellings
    "reference": (wavenet, "reference", 2),
    "native": (wavenet, "native", 2),
    "smoothed": (smoothed, "native", 1),
}


@pytest.fixture(
    params=[pytest.param(n, marks=() if n == "reference" else NATIVE) for n in VARIANTS]
)
def engine(request):
    make, name, count = VARIANTS[request.param]
    return make_engine(packed(make), name, levels=Levels(SPEC, count))


@pytest.fixture
def mel():
    generator = torch.Generator().manual_seed(2)
    return torch.randn(3, BANDS, FRAMES, generator=generator).cumsum(dim=2) * 0.3 - 5


def streamed(engine, state, mel, cuts=None, **options):
    parts = mel.split(list(cuts or [mel.shape[2]]), dim=2)
    said = [engine.generate(state, part, **options) for part in parts]
    return torch.cat([*said, engine.finish(state, **options)], dim=1)


def zeros(engine, batch=1, **options):
    return StreamState.zeros(engine.layout, batch, **options)


@pytest.mark.parametrize("cuts", [(1,) * FRAMES, (0, 2, 3, 0, 20, 1), (25, 1)])
def test_chunks_equal_the_whole_to_the_last_bit(engine, mel, cuts):
    whole, parts = zeros(engine, 3, seed=4), zeros(engine, 3, seed=4)

    expected = streamed(engine, whole, mel)

    assert expected.shape == (3, FRAMES * HOP)
    assert torch.equal(streamed(engine, parts, mel, cuts), expected)
    assert torch.equal(parts.buffer, whole.buffer)
    assert torch.equal(parts.clock, whole.clock)
    assert expected.std() > 0.01


def test_a_row_is_what_it_is_alone(engine, mel):
    mel = torch.cat([mel] * 6)
    together = streamed(engine, zeros(engine, 18, seed=range(18)), mel)

    for row in (0, 7, 17):
        alone = zeros(engine, 1, seed=row, streams=[row])
        assert torch.equal(streamed(engine, alone, mel[row : row + 1])[0], together[row])


def test_rows_that_began_at_different_times_do_not_disturb_each_other(engine, mel):
    """Rows 0 and 2 are steady together at different frames; row 1 begins."""
    state = zeros(engine, 3)
    engine.generate(state, mel[:, :, :3])
    state.reset(torch.tensor([False, False, True]))
    engine.generate(state, mel[:, :, 3:17])
    state.reset(torch.tensor([False, True, False]))
    alone = [state.select([row]) for row in range(3)]

    together = streamed(engine, state, mel[:, :, 17:], (4, 5))

    for row, one in enumerate(alone):
        said = streamed(engine, one, mel[row : row + 1, :, 17:])
        assert torch.equal(together[row, together.shape[1] - said.shape[1] :], said[0])
        assert not together[row, : together.shape[1] - said.shape[1]].any()


def test_it_levels_what_the_core_says(engine, mel):
    core = engine._core
    said = streamed(core, StreamState.zeros(core.layout, 3, seed=1), mel)

    levelled = streamed(engine, zeros(engine, 3, seed=1), mel)

    levels, audio = Levels(SPEC, engine._model.count), said[:, None]
    expected = levels.flow(Flow(), Rows.of(mel), Rows.of(audio)).whole[:, 0].clamp(-1, 1)
    torch.testing.assert_close(levelled, expected, rtol=0, atol=ATOL)
    before, after = ((mel - mel_spectrogram(x, SPEC)).abs().mean() for x in (said, levelled))
    assert after < 0.6 * before


def test_the_latency_is_the_largest_shortfall(engine, mel):
    state, given, shortfall = zeros(engine), 0, 0
    for frame in range(FRAMES):
        due = engine.due_samples(state, 1)
        said = engine.generate(state, mel[:1, :, frame : frame + 1])
        assert said.shape[1] == due
        given += due
        shortfall = max(shortfall, (frame + 1) * HOP - given)

    assert engine.latency_samples == shortfall > engine._core.latency_samples
    assert engine.rest_samples(state) == FRAMES * HOP - given


def test_audio_that_was_given_heard_no_later_frame_and_what_comes_next_does(engine, mel):
    """The tails of windows let little of it through at first, hence some hops."""
    changed = mel[:1].clone()
    changed[:, :, 18:] += 2.0
    one, other = (streamed(engine, zeros(engine), x, (18, 8)) for x in (mel[:1], changed))
    given = engine.due_samples(zeros(engine), 18)

    assert torch.equal(one[:, :given], other[:, :given])
    after = slice(given, given + 3 * HOP)
    assert not torch.equal(one[:, after], other[:, after])


def test_a_saved_state_and_a_clone_go_on(engine, mel):
    state = zeros(engine, 3)
    expected = streamed(engine, state.clone(), mel, temperature=0.6)

    first = engine.generate(state, mel[:, :, :15], temperature=0.6)
    state = StreamState.from_state_dict(engine.layout, state.state_dict())
    rest = streamed(engine, state, mel[:, :, 15:], temperature=0.6)

    assert torch.equal(torch.cat([first, rest], dim=1), expected)


def test_short_utterances_have_all_their_samples(engine, mel):
    for frames in (0, 1, 2, 5):
        state = zeros(engine, 3)
        audio = streamed(engine, state, mel[:, :, :frames])
        assert audio.shape == (3, frames * HOP)
        assert audio.isfinite().all()
        with pytest.raises(StateError, match="is finished"):
            engine.generate(state, mel)


def test_progress_counts_frames_of_audio_and_out_receives_it(engine, mel):
    told, state, other = [], zeros(engine, 3), zeros(engine, 3)
    expected = engine.generate(other, mel)

    out = torch.full(expected.shape, 7.0)
    audio = engine.generate(state, mel, progress=told.append, out=out)

    assert audio is out and torch.equal(out, expected)
    assert len(told) > 1
    engine.finish(state, progress=told.append)
    assert sum(told) == FRAMES
    with pytest.raises(ShapeError, match="out must be"):
        engine.finish(other, out=out)


def test_audio_depends_neither_on_threads_nor_on_the_order_of_memory(engine, mel):
    expected, before = streamed(engine, zeros(engine, 3), mel), torch.get_num_threads()
    turned = mel.transpose(1, 2).contiguous().transpose(1, 2)

    torch.set_num_threads(2)
    try:
        engine.threads = 2
        assert torch.equal(streamed(engine, zeros(engine, 3), mel), expected)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(streamed(engine, zeros(engine, 3), turned), expected)


def test_streams_in_two_threads_do_not_disturb_each_other(engine, mel):
    def run(row):
        state = zeros(engine, 1, seed=row)
        return streamed(engine, state, mel[row : row + 1, :, :12], (1,) * 12)

    expected = [run(row) for row in range(3)]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(run, range(3)))

    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_a_state_in_use_is_refused(engine, mel):
    state = zeros(engine, 3)

    def reenter(frames):
        engine.generate(state, mel)

    with pytest.raises(StateError, match="already in use"):
        engine.generate(state, mel, progress=reenter)
    assert not state.clock.any() and not state.buffer.any()


def test_nan_is_named_and_the_state_is_left(engine, mel):
    state, bad = zeros(engine, 3), mel.clone()
    engine.generate(state, mel[:, :, :9])
    state.reset(torch.tensor([True, False, False]))
    before = state.buffer.clone()
    bad[1, 2, 3] = float("nan")

    with pytest.raises(EngineError, match="row 1, frame 3"):
        engine.generate(state, bad)
    bad[1, 2, 3] = 1e38  # a number, and none after the first products
    try:
        engine.generate(state.clone(), bad)
    except EngineError as error:
        assert "row 1" in str(error)
    assert torch.equal(state.buffer, before)
    for name in ("core.level", "flow.0"):
        entry = [e.name for e in engine.layout.entries if e.name.endswith(name)][0]
        state = zeros(engine, 3)
        state.view(entry)[2, -1, 0] = float("nan")
        with pytest.raises(EngineError, match=f"row 2, {entry};"):
            engine.generate(state, mel)


def test_a_state_that_contradicts_itself_is_refused(engine, mel):
    state = zeros(engine, 3)
    engine.generate(state, mel)
    state.clock += 1

    with pytest.raises(StateError, match="contradict each other"):
        engine.generate(state, mel)


@pytest.mark.parametrize("name", ["reference", pytest.param("native", marks=NATIVE)])
def test_speakers_and_names_are_the_cores(name, mel):
    engine = make_engine(packed(lambda: wavenet(3)), name, levels=Levels(SPEC, 1))
    who = torch.tensor([0, 1, 2])

    audio = streamed(
        engine, zeros(engine, 3, streams=[0] * 3), mel[:1].repeat(3, 1, 1), speaker=who
    )

    assert (engine.name, engine.precision, engine.speakers) == (name, "float32", 3)
    assert not torch.equal(audio[0], audio[1])
    with pytest.raises(ShapeError, match="knows 3 speakers"):
        engine.generate(zeros(engine, 3), mel)
    with pytest.raises(EngineError, match="temperature"):
        engine.generate(zeros(engine, 3), mel, speaker=who, temperature=-1.0)
