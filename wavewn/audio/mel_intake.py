"""Mels from anywhere, read as the mel that a model reads: checked, converted, or refused.

`check_mel` refuses what no microphone could have recorded. A mel that a user gives to a model is
held to more than that: values that rest where the model's silence is not, padding, and bands that
were each normalised do not come from audio either, though every single value might.
"""

import dataclasses
import logging
import os

from torch import Tensor

from wavewn.audio.diagnosis import Diagnosis, diagnose, floor_of, measure
from wavewn.audio.mel import MelSpec, judge_mel, without_affine
from wavewn.audio.mel_convert import bands_first, obstacles
from wavewn.audio.mel_files import load_mel
from wavewn.audio.mel_presets import PRESETS
from wavewn.errors import MelError

logger = logging.getLogger(__name__)

ABOVE_FLOOR = 0.05  # in the unit of the logarithm; NeMo pads 0.007 beside the floor
RESTING_SHARE = 0.002  # fewer equal values than these may be chance in float16


def read_mel(path: str | os.PathLike[str], spec: MelSpec, preset: str | None = None) -> Tensor:
    """Read a mel file as `spec` says mels are.

    Args:
        path: As in `load_mel`.
        spec: The mel that is wanted.
        preset: Name of the definition that the file has, if it is another than `spec`. Its mels
            may then lie as [frames, bands], and the mel is converted. Differences that are
            confined (`Obstacle.bounded`) are accepted with a warning; a model that reads such a
            mel of another grid speaks late or early, and `shift_audio` puts that right.

    Returns:
        [bands, frames], float32.

    Raises:
        ConfigError: No preset has this name.
        MelError: The file cannot be read, cannot be what it claims to be (the message tells what
            it looks like), or does not convert exactly.
    """
    source = None if preset is None else MelSpec.preset(preset)
    mel = load_mel(path)
    try:
        if source is None:
            refuse_unlike(mel, spec)
            return mel
        mel = bands_first(mel, source.n_mels).contiguous()
        refuse_unlike(mel, source)
        return accepting(source, spec).convert(mel, to=spec)
    except MelError as error:
        claim = f" as a mel of {preset}" if preset else ""
        raise MelError(f"{path}{claim}: {error}") from None


def accepting(source: MelSpec, spec: MelSpec) -> MelSpec:
    """Take from `spec` what differs in a confined way, if nothing else stands in the way."""
    found = obstacles(source, spec)
    if not all(one.bounded for one in found):
        return source
    for one in found:
        if one.field != "grid":  # the audio will be moved
            logger.warning("converted all the same: %s differs, %s", one.field, one.reason)
    return dataclasses.replace(source, **{one.field: getattr(spec, one.field) for one in found})


def refuse_unlike(mel: Tensor, spec: MelSpec) -> None:
    """Refuse what cannot be a mel of `spec`, telling what it looks like.

    What is only suspicious is logged as a warning.

    Args:
        mel: [bands, frames].
        spec: What it claims to be.

    Raises:
        MelError: `check_mel` refuses it, or its values give it away.
    """
    try:
        suspicion = judge_mel(mel, spec)
        problem = _unlike(mel, spec)
        if problem:
            raise MelError(problem)
    except MelError as error:
        raise MelError(f"{error}{_advice(mel, spec)}") from None
    if suspicion:
        logger.warning("%s", suspicion)


def convertible(diagnosis: Diagnosis, spec: MelSpec) -> list[str]:
    """Name the presets, other than `spec`, that a mel fits and whose definition converts to it.

    Values that lie under a floor may still stand in the way; `MelSpec.convert` says so.
    """
    others = [name for name in diagnosis.fitting() if PRESETS[name] != spec]
    return [name for name in others if not obstacles(PRESETS[name], spec)]


def _unlike(mel: Tensor, spec: MelSpec) -> str | None:
    """Find what `judge_mel` lets pass and audio does not give, before the affine of `spec`."""
    values = without_affine(mel.detach().float(), spec)
    figures = measure(values.numpy())
    if spec.log_base is None:
        return None
    floor, rest, last = floor_of(spec), figures.resting_at, float(values[0, -1])
    if rest is not None and rest > floor + ABOVE_FLOOR and figures.resting_share > RESTING_SHARE:
        return (
            f"{100 * figures.resting_share:.3g} % of the values rest at {rest:.5g}, and silence is "
            f"{floor:.5g}: the mel was clipped or normalised in another way"
        )
    flat = (values - last).abs().amax(dim=0) < 1e-6
    if bool(flat[-1]) and last > floor + ABOVE_FLOOR:
        count = int(flat.flip(0).int().cumprod(0).sum())
        return (
            f"the last {count} of {len(flat)} frames hold nothing but {float(mel[0, -1]):.4g}, and "
            f"silence is {floor:.5g}: they are padding; cut the mel to its length"
        )
    means, deviations = values.mean(dim=1), values.std(dim=1, correction=0)
    if mel.shape[1] > 1 and means.abs().max() < 1e-3 and (deviations - 1).abs().max() < 2e-2:
        return "each band has mean 0 and deviation 1: the file was normalised by its own statistics"
    return None


def _advice(mel: Tensor, spec: MelSpec) -> str:
    """Tell what a refused mel looks like; empty where the refusal has said it all."""
    diagnosis = diagnose(mel, spec.n_mels)
    if diagnosis.bands != spec.n_mels or diagnosis.figures is None:
        return ""
    text = ""
    if diagnosis.scale != "unknown":
        text = f"; {dataclasses.replace(diagnosis.findings[0], remedy='')}"
    names = convertible(diagnosis, spec)
    if names:
        text += f"; mels of {' or '.join(names[:3])} look so and can be converted"
    return text
