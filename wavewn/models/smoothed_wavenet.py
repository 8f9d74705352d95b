"""A WaveNet whose samples hear mels that were stretched and smoothed, rate by rate.

    mel [B, M, F] -> conv_in -> for each rate: repeat -> smooth -> condition [B, M, F * hop]
    levels, condition -> WaveNet with a hop of one sample -> parameters of the head

The condition network is Parallel WaveGAN's, which had it from r9y9's wavenet_vocoder, whose models
this kind holds: five frames reach a sample, ends are repeated before the first convolution and
silent after it. It is linear and looks ahead, so that it runs as a flow of rows, like a generator;
the network itself then takes a condition for each sample as if it were a frame.

A model of this kind is read and run, not trained here.
"""

from torch import Tensor, nn

from wavewn.config import ParallelWaveGANConfig, SmoothedWaveNetConfig
from wavewn.models.parallel_wavegan import ConditionNetwork
from wavewn.models.wavenet import WaveNet
from wavewn.nn.flow import Flow, Rows, mel_rows


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

    def forward(self, levels: Tensor, mel: Tensor) -> Tensor:
        """Teacher-forced parameters of every sample, given the true ones before it.

        Args:
            levels: [batch, frames * hop_length].
            mel: [batch, bands, frames].

        Returns:
            [batch, frames * hop_length, parameters of the head].

        Raises:
            ShapeError: Samples and frames do not fit together.
        """
        parameters: Tensor = self.network(levels, self.condition(mel))
        return parameters
