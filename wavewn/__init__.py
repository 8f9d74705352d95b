"""wavewn: neural vocoders of weight-normalised dilated causal convolutions.

The public names are loaded on first use: `import wavewn` itself imports no torch, so that the
command line answers at once.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wavewn.audio.io import read_audio, write_audio
    from wavewn.audio.mel import MelSpec
    from wavewn.engine.stream import Stream
    from wavewn.errors import WavewnError
    from wavewn.vocoder import Vocoder, load

__version__ = "0.1.0"

__all__ = [
    "MelSpec",
    "Stream",
    "Vocoder",
    "WavewnError",
    "__version__",
    "load",
    "read_audio",
    "write_audio",
]

_HOMES = {
    "MelSpec": "wavewn.audio.mel",
    "Stream": "wavewn.engine.stream",
    "Vocoder": "wavewn.vocoder",
    "WavewnError": "wavewn.errors",
    "load": "wavewn.vocoder",
    "read_audio": "wavewn.audio.io",
    "write_audio": "wavewn.audio.io",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its home on first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'wavewn' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted({*globals(), *__all__})
