"""The check of a mel that came from elsewhere."""

from torch import Tensor

from wavewn.audio.mel_spec import MelSpec


def check_mel(mel: Tensor, spec: MelSpec) -> None:
    """Raise MelError unless `mel` may be what `spec` says."""
