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
    """

    shapes: dict[str, tuple[int, int]]
    latency_samples: int


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
    latency, steady, before = 0, 0, -1
    for frame in range(1, 10_000):
        flow = Flow(shapes=shapes)
        mel = Rows(None, bands, frame - 1, frame, False)
        noise = Rows(None, 1, (frame - 1) * hop_length, frame * hop_length, False)
        known = dict(shapes)
        audio = run(flow, mel, noise)
        behind = frame * hop_length - audio.end
        latency = max(latency, behind)
        steady = steady + 1 if audio.end and behind == before and known == shapes else 0
        before = behind
        if steady == 3:
            used = {name: shape for name, shape in shapes.items() if shape[0]}
            return Measured(used, latency)
    raise EngineError("the generator gives no whole hop for each frame; check its upsampling")
