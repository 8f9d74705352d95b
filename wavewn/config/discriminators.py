"""Settings of the discriminators that an adversarial training listens with."""

from dataclasses import dataclass

from wavewn.config.checks import check_at_least
from wavewn.errors import ConfigError


@dataclass(frozen=True)
class DiscriminatorsConfig:
    """Which discriminators there are, and how wide. The defaults are HiFi-GAN's.

    Attributes:
        periods: One discriminator for each; it sees every period-th sample beside the next.
        scales: Discriminators of the waveform, each at half the rate of the one before.
        resolutions: (n_fft, hop_length, win_length) of one discriminator each, which sees the
            complex spectrogram; n_fft is a multiple of 16.
        channels: Width of a period's first layer; half of a spectrogram's, a quarter of a scale's.
        max_channels: No layer is wider.

    Source: Kong et al. 2020, arXiv:2010.05646, section 2.3.
    """

    periods: tuple[int, ...] = (2, 3, 5, 7, 11)
    scales: int = 3
    resolutions: tuple[tuple[int, int, int], ...] = ()
    channels: int = 32
    max_channels: int = 1024

    def __post_init__(self) -> None:
        check_at_least(self, 1, "channels", "max_channels")
        check_at_least(self, 0, "scales")
        if not (self.periods or self.scales or self.resolutions):
            raise ConfigError(
                "DiscriminatorsConfig names no discriminator: give it periods, scales or "
                "resolutions"
            )
        if any(period < 1 for period in self.periods):
            raise ConfigError(
                f"DiscriminatorsConfig.periods must be whole numbers from 1 on, got {self.periods}"
            )
        for resolution in self.resolutions:
            right = len(resolution) == 3 and resolution[0] % 16 == 0
            if not (right and 1 <= resolution[1] <= resolution[2] <= resolution[0]):
                raise ConfigError(
                    "each of DiscriminatorsConfig.resolutions must be (n_fft, hop_length, "
                    "win_length) with 1 <= hop_length <= win_length <= n_fft and n_fft a multiple "
                    f"of 16, got {tuple(resolution)}"
                )
        if self.scales and (self.channels % 4 or self.max_channels % 16):
            raise ConfigError(
                "DiscriminatorsConfig: the grouped layers of the scales need channels that 4 "
                f"divides and max_channels that 16 divides, got {self.channels} and "
                f"{self.max_channels}"
            )


DISCRIMINATORS = {
    "hifigan": DiscriminatorsConfig(),
    # For training on a CPU: models/discriminators.py says what a step costs.
    "light": DiscriminatorsConfig(
        periods=(2, 3, 5, 7, 11),
        scales=0,
        resolutions=((1024, 256, 1024), (512, 128, 512), (256, 64, 256)),
        channels=8,
        max_channels=64,
    ),
}
