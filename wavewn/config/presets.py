"""The generators that wavewn knows by name.

The product of a generator's upsampling rates is the hop length of its mel, so one family has a
preset for each hop in use. `hifigan-v1`, `-v2` and `-v3` are the published ones, for a hop of 256
at 22.05 kHz; they serve any mel with that hop, as there are at 16 and 24 kHz. The others keep their
widths and residual blocks and upsample by other rates, with kernels of twice the rate as there.
"""

from dataclasses import replace

from wavewn.config.generators import (
    HiFiGANConfig,
    MelGANConfig,
    ParallelWaveGANConfig,
    SpectralConfig,
)
from wavewn.config.reading import GeneratorConfig
from wavewn.errors import ConfigError

V1 = HiFiGANConfig()
V2 = replace(V1, channels=128)
V3 = HiFiGANConfig(
    channels=256,
    upsample_rates=(8, 8, 4),
    upsample_kernel_sizes=(16, 16, 8),
    resblock="2",
    resblock_kernel_sizes=(3, 5, 7),
    resblock_dilations=((1, 2), (2, 6), (3, 12)),
)


def _by(model: HiFiGANConfig, *rates: int) -> HiFiGANConfig:
    kernels = tuple(2 * rate for rate in rates)
    return replace(model, upsample_rates=rates, upsample_kernel_sizes=kernels)


PRESETS: dict[str, GeneratorConfig] = {
    # 22.05 kHz, hop 256: as published.
    "hifigan-v1": V1,
    "hifigan-v2": V2,
    "hifigan-v3": V3,
    # 16 kHz, hop 200 (12.5 ms), the mel "wavewn-16k".
    "hifigan-v1-16k": _by(V1, 5, 5, 4, 2),
    "hifigan-v2-16k": _by(V2, 5, 5, 4, 2),
    "hifigan-v3-16k": _by(V3, 5, 5, 8),
    # 16 kHz, hop 256 (16 ms), the mels "speechbrain-16k", "speecht5-16k", "parallel-wavegan-16k".
    "hifigan-v1-16k-hop256": V1,
    "hifigan-v2-16k-hop256": V2,
    "hifigan-v3-16k-hop256": V3,
    # 24 kHz, hop 300 (12.5 ms), the mel "parallel-wavegan-24k".
    "hifigan-v1-24k": _by(V1, 5, 5, 4, 3),
    "hifigan-v2-24k": _by(V2, 5, 5, 4, 3),
    "hifigan-v3-24k": _by(V3, 10, 6, 5),
    # 24 kHz, hop 256 (10.7 ms), the mels "bigvgan-24k", "univnet-24k", "vocos-24k".
    "hifigan-v1-24k-hop256": V1,
    "hifigan-v2-24k-hop256": V2,
    "hifigan-v3-24k-hop256": V3,
    # 44.1 kHz, hop 512 (11.6 ms), the mel "bigvgan-44k".
    "hifigan-v1-44k": _by(V1, 8, 8, 2, 2, 2),
    "hifigan-v2-44k": _by(V2, 8, 8, 2, 2, 2),
    "hifigan-v3-44k": _by(V3, 8, 8, 8),
    # 48 kHz, hop 480 (10 ms).
    "hifigan-v1-48k": _by(V1, 8, 5, 4, 3),
    "hifigan-v2-48k": _by(V2, 8, 5, 4, 3),
    "hifigan-v3-48k": _by(V3, 10, 8, 6),
    # 48 kHz, hop 512 (10.7 ms).
    "hifigan-v1-48k-hop512": _by(V1, 8, 8, 2, 2, 2),
    "hifigan-v2-48k-hop512": _by(V2, 8, 8, 2, 2, 2),
    "hifigan-v3-48k-hop512": _by(V3, 8, 8, 8),
    # 22.05 kHz, hop 256, the mel "melgan-22k".
    "melgan": MelGANConfig(),
    # 22.05 kHz, hop 256, the mel "parallel-wavegan-22k".
    "parallel-wavegan": ParallelWaveGANConfig(),
    # 16 kHz, hop 200, the mel "wavewn-16k".
    "spectral": SpectralConfig(),
}


def preset_config(name: str) -> GeneratorConfig:
    """Give the settings of a generator by its name.

    Raises:
        ConfigError: No preset has this name.
    """
    if name not in PRESETS:
        raise ConfigError(f"no model preset is called {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name]
