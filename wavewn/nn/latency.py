"""How far a stream of a generator lags, and how much it remembers: interval arithmetic.

A generator's flow (nn/flow.py) also runs on numbers of rows alone, and these tell both.
"""

from collections.abc import Callable
from dataclasses import dataclass

from wavewn.errors import EngineError
from wavewn.nn.flow import Flow, Rows


@dataclass(frozen=True)
class Measured:
    """What the numbers of rows tell about a generator.

    Attributes:
        shapes: Of each entry in which a stream remembers something: (rows, channels).
        latency_samples: The largest shortfall of the audio behind the frames heard.
        first: Frames that give the first audio.
        lag_samples: By which audio falls short from then on.
        steady: Frames after which a chunk differs from the next in the numbers of its rows alone:
            nothing in its work depends any more on how long ago the utterance began.
        channels: Of the audio: 1, where it is audio.
    """

    shapes: dict[str, tuple[int, int]]
    latency_samples: int
    first: int
    lag_samples: int
    steady: int
    channels: int


def measure(run: Callable[[Flow, Rows, Rows], Rows], bands: int, hop_length: int) -> Measured:
    """Run a generator without numbers, one frame at a time, until it gives `hop_length` a frame.

    Args:
        run: Of (flow, mel, noise); gives the audio.
        bands: Of the mel.
        hop_length: Samples a frame.

    Raises:
        EngineError: It never comes to give a hop for a frame.
    """
    shapes: dict[str, tuple[int, int]] = {}
    latency, first, lag, since = 0, 0, 0, 1
    before: object = None
    for frame in range(1, 10_000):
        flow, heard = Flow(shapes=shapes), (frame - 1) * hop_length
        mel = Rows(None, bands, frame - 1, frame, False)
        noise = Rows(None, 1, heard, heard + hop_length, False)
        known = dict(shapes)
        audio = run(flow, mel, noise)
        behind = heard + hop_length - audio.end
        latency = max(latency, behind)
        if audio.end and not first:
            first, lag = frame, behind
        work = flow.taken, audio.start - heard, audio.end - heard
        if not audio.end or work != before or known != shapes:
            since = frame
        before = work
        if frame == since + 3:
            used = {name: shape for name, shape in shapes.items() if shape[0]}
            return Measured(used, latency, first, lag, since - 1, audio.channels)
    raise EngineError("the generator gives no whole hop for each frame; check its upsampling")
