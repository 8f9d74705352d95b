"""What wavewn raises when the outside world is not as expected.

Every message says what was expected, what came, and what to do. The command line turns a
`WavewnError` into one line and exit code 2; any other exception is a bug and keeps its traceback.
"""


class WavewnError(Exception):
    """A user's mistake or a broken input; never a bug of ours."""


class ConfigError(WavewnError):
    """A setting is impossible."""


class ShapeError(WavewnError):
    """A tensor has the wrong shape, dtype or device."""


class AudioError(WavewnError):
    """An audio file cannot be read or written."""


class MelError(WavewnError):
    """A mel spectrogram cannot be what it claims to be."""


class DataError(WavewnError):
    """A corpus, a manifest or a batch is not usable."""


class BundleError(WavewnError):
    """A model on disk is missing, broken or of another kind."""


class FormatError(BundleError):
    """A checkpoint of another program is unknown, broken, or of a kind that cannot be converted."""


class EngineError(WavewnError):
    """An engine cannot run this model here."""


class StateError(WavewnError):
    """A stream state does not belong to the model or is already in use."""


class TrainingError(WavewnError):
    """Training cannot start or go on."""
