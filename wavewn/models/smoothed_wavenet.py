"""A WaveNet whose samples hear mels that a network of its own stretched, rate by rate.

    mel [B, M, F] -> upsampling -> condition [B, M, F * hop]
    levels, condition -> WaveNet with a hop of one sample -> parameters of the head

The upsampling is one of two, both of r9y9's wavenet_vocoder, whose models this kind holds:

    smoothed   conv_in -> for each rate: repeat -> smooth over time
    rectified  for each rate: transposed convolution over bands and the rate -> ReLU  (2018)

The first is Parallel WaveGAN's, too: five frames reach a sample, ends are repeated before the first
convolution and silent after it; it is linear and looks ahead. In the second each frame is stretched
by itself. Both run as a flow of rows, like a generator; the network itself then takes a condition
for each sample as if it were a frame.

A model of this kind is read and run, not trained here.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from wavewn.config import ParallelWaveGANConfig, SmoothedWaveNetConfig
from wavewn.models.parallel_wavegan import ConditionNetwork
from wavewn.models.wavenet import WaveNet
from wavewn.nn.flow import Flow, Rows, mel_rows


class RectifiedStretching(nn.Module):
    """Gives each frame as many rows as the product of the rates, which no other frame reaches.

    With x [bands, 1] of one frame, a step is y[m, k] = max(0, b + sum_j w[j, k] x[m + p - j]), for
    `rate` rows k; j goes over `taps` bands, p is their middle.

    Args:
        rates: Of the steps.
        taps: Bands that a step mixes, an odd number.
    """

    def __init__(self, rates: tuple[int, ...], taps: int) -> None:
        super().__init__()
        self.rates = rates
        self.steps = nn.ModuleList(
            nn.ConvTranspose2d(1, 1, (taps, rate), (1, rate), (taps // 2, 0)) for rate in rates
        )

    def forward(self, run: Flow, x: Rows) -> Rows:
        """Stretch rows; nothing is remembered."""
        for rate, step in zip(self.rates, self.steps, strict=True):
            data = x.data
            if data is not None and data.shape[2]:
                data = F.relu(step(data[:, None])[:, 0])
            x = Rows(data, x.channels, x.start * rate, x.end * rate, x.ended)
        return x


class SmoothedWaveNet(nn.Module):
    """The network; how it is run is another room's business.

    Args:
        settings: Sizes.
        n_mels: Mel bands.
    """

    noise_channels = 0  # of the flow

    def __init__(self, settings: SmoothedWaveNetConfig, n_mels: int) -> None:
        super().__init__()
        self.settings = settings
        self.n_mels = n_mels
        self.hop_length = settings.hop_length
        self.upsample_net: nn.Module
        if settings.band_taps:
            self.upsample_net = RectifiedStretching(settings.upsample_rates, settings.band_taps)
        else:
            smoothing = ParallelWaveGANConfig(
                condition_context=settings.condition_context, upsample_rates=settings.upsample_rates
            )
            self.upsample_net = ConditionNetwork(smoothing, n_mels)
        self.network = WaveNet(settings.network, n_mels, 1, 0.0)

    def flow(self, run: Flow, mel: Rows, noise: Rows | None = None) -> Rows:
        """Give the condition of each sample, `n_mels` channels: what the engine feeds `network`."""
        rows: Rows = self.upsample_net(run, mel)
        return rows

    def condition(self, mel: Tensor) -> Tensor:
        """Give [batch, bands, frames * hop_length] of [batch, bands, frames]: `network`'s mel."""
        return self.flow(Flow(), mel_rows(mel, self.n_mels)).whole

    def forward(self, levels: Tensor, mel: Tensor, speaker: Tensor | None = None) -> Tensor:
        """Teacher-forced parameters of every sample, given the true ones before it.

        Args:
            levels: [batch, frames * hop_length].
            mel: [batch, bands, frames].
            speaker: int64 [batch] where the network knows speakers.

        Returns:
            [batch, frames * hop_length, parameters of the head].

        Raises:
            ShapeError: Samples and frames do not fit together, or the speaker is missing.
        """
        parameters: Tensor = self.network(levels, self.condition(mel), speaker)
        return parameters
