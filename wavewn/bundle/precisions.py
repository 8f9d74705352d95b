"""What a bundle says about lower precisions: what was calibrated for int8, and the verdicts.

Both are measured at export (engine/verdict.py): int8 and float16 of a WaveNet, bfloat16 of a
one-pass model. The verdicts stand in config.json under `verdict`, the calibration under
`statistics`, where a wavewn that knows no int8 leaves it alone.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from wavewn.config import ModelConfig, SmoothedWaveNetConfig, WaveNetConfig
from wavewn.errors import BundleError, ConfigError

CALIBRATION = "calibration"  # its key under `statistics`
MAGNITUDES = 1e-20, 1e20  # honest ones lie within a few powers of ten of 1


@dataclass(frozen=True)
class Calibration:
    """Largest magnitudes that int8 can represent of what varies; the rest is in the weights.

    Attributes:
        inputs: Of each layer's input, one for each residual channel.
        skip: Of the rectified sum of skips.
        hidden: Of the rectified hidden layer.
        fine: Leading layers whose inputs are given in two whole numbers; see engine/quantise.py.

    Raises:
        ConfigError: A magnitude is not a positive number of sound size, or there are not so many
            layers.
    """

    inputs: tuple[tuple[float, ...], ...]
    skip: float
    hidden: float
    fine: int = 0

    def __post_init__(self) -> None:
        for value in (self.skip, self.hidden, *(one for layer in self.inputs for one in layer)):
            sound = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not sound or not MAGNITUDES[0] <= value <= MAGNITUDES[1]:
                raise ConfigError(
                    f"a magnitude must be a number in {MAGNITUDES[0]:g} to {MAGNITUDES[1]:g}, "
                    f"got {value!r:.60}"
                )
        whole = isinstance(self.fine, int) and not isinstance(self.fine, bool)
        if not whole or not 0 <= self.fine <= len(self.inputs):
            raise ConfigError(
                f"fine must be a number of layers in 0 to {len(self.inputs)}, got {self.fine!r:.60}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON holds."""
        return asdict(self)

    @staticmethod
    def from_dict(stored: Any) -> "Calibration":
        """Read what `to_dict` gave.

        Raises:
            ConfigError: A key is missing or unknown, or a value is of another kind.
        """
        keys = {"inputs", "skip", "hidden", "fine"}
        if not isinstance(stored, Mapping) or set(stored) != keys:
            raise ConfigError(f"expected the keys {', '.join(sorted(keys))}, got {stored!r:.60}")
        inputs = stored["inputs"]
        if not isinstance(inputs, (list, tuple)) or not all(
            isinstance(layer, (list, tuple)) for layer in inputs
        ):
            raise ConfigError(f"inputs must be a list for each layer, got {inputs!r:.60}")
        layers = tuple(tuple(layer) for layer in inputs)
        return Calibration(layers, stored["skip"], stored["hidden"], stored["fine"])


def calibration_of(config: Mapping[str, Any]) -> Calibration | None:
    """Return the calibration in the checked content of config.json, or None."""
    stored = config.get("statistics", {}).get(CALIBRATION)
    return None if stored is None else Calibration.from_dict(stored)


def check_precisions(config: Mapping[str, Any], settings: ModelConfig, where: str) -> None:
    """Check the verdicts and the calibration of a config.

    Raises:
        BundleError: One is not as said above, or they contradict each other or the model.
    """
    for precision, verdict in config["verdict"].items():
        if not isinstance(verdict, dict):
            raise BundleError(f"{where}: verdict must give an object for each precision")
        if not isinstance(verdict.get("usable"), bool):
            raise BundleError(f"{where}: verdict.{precision}.usable must be true or false")
        if not isinstance(verdict.get("reason", ""), str):
            raise BundleError(f"{where}: verdict.{precision}.reason must be a text")
    try:
        calibration = calibration_of(config)
    except ConfigError as error:
        raise BundleError(f"{where}: statistics.{CALIBRATION}: {error}") from None
    if calibration is None:
        if config["verdict"].get("int8", {}).get("usable"):
            raise BundleError(f"{where}: int8 is called usable, but there is no calibration of it")
        return
    if isinstance(settings, SmoothedWaveNetConfig):
        settings = settings.network
    if not isinstance(settings, WaveNetConfig):
        raise BundleError(
            f"{where}: statistics.{CALIBRATION} is for int8, which {settings.kind} does not run in"
        )
    shape = [len(layer) for layer in calibration.inputs]
    if shape != [settings.residual_channels] * len(settings.dilations):
        raise BundleError(
            f"{where}: statistics.{CALIBRATION}.inputs must be {len(settings.dilations)} layers of "
            f"{settings.residual_channels} magnitudes"
        )
