"""A small vocoder at frame rate: a source, filters that a network draws, an inverse STFT.

    mel [B, M, F] -> pitch network -> F0 -> phase (summed) -> harmonics of equal height --+
    mel [B, M, F] -> dilated stack -> log magnitude and phase of a filter for them -------* -+
                                   -> log magnitude of a filter for noise ----* ------------ + -> y
    noise [B, 1, F * hop] ----------------------------------------------------+

A mel holds no phase, and a network at frame rate would have to invent one that fits from frame to
frame: it would have to integrate. Here the integration is done for it: the phase of the voice is
the running sum of F0, so that harmonics stay in step, and the network draws envelopes, which vary
slowly. It was the phase that held back a pilot without a source.

At the end the audio is levelled to its mel (nn/levelling.py), as often as the settings say. Trained
through one levelling, with nothing else to hold the envelopes, they drifted by 1.6 nats: PESQ 2.89
with one, 3.40 with two and 3.49 with four of them. Hence `learn` also asks for little to mend.

The network draws no envelope from nothing either: it corrects the one that the mel states, which
is interpolated between the centres of its bands. So the first step of a training sounds like
speech already.

All of it happens at the rate of sub-frames, `subframes` to a mel frame. Each is a window of
n_fft samples, in which F0 stands still; the harmonics in it are one closed formula, the noise is
the newest n_fft samples of what is passed in. Both are transformed, filtered, transformed back and
overlapped; with a squared Hann window at a quarter of its length they sum to a constant.

The source is nn/harmonics.py, which learns F0 from recordings; the rest learns from the audio.

The layers look back only, but for `look_ahead` frames that the first ones see.

Source: the source filtered in the STFT domain as in Li et al. 2023, arXiv:2309.09493; the inverse
STFT at frame rate as in Siuzdak 2023, arXiv:2306.00814; the stack is WaveNet's, nn/wn.py.
"""

import math
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from wavewn.audio.mel_spec import MelSpec
from wavewn.config import SpectralConfig
from wavewn.errors import ConfigError
from wavewn.models.wavenet import MEL_SCALE
from wavewn.nn.flow import Flow, Rows
from wavewn.nn.fourier import Fourier
from wavewn.nn.harmonics import PitchNetwork, harmonics
from wavewn.nn.levelling import Levelling, band_edges, between_bands
from wavewn.nn.padded import PaddedConv1d
from wavewn.nn.wn import gated_activation

INLET_TAPS = 7
VOICE = -2.0  # what a band of harmonics of height 2 needs less than one of noise of variance 1
LEVEL_WEIGHT = 5.0  # of what levelling has to mend, in the loss
OVERLAP = 1.5  # what squared windows at a quarter of their length sum to
LOUD = 6.0  # the logarithms of the filters go no higher


class Block(nn.Module):
    """A gated dilated convolution that adds to what goes through."""

    def __init__(
        self, channels: int, hidden: int, kernel_size: int, dilation: int, right: int
    ) -> None:
        super().__init__()
        self.gate = PaddedConv1d(channels, 2 * hidden, kernel_size, dilation, right=right)
        self.out = PaddedConv1d(hidden, channels, 1)

    def flow(self, run: Flow, x: Rows) -> Rows:
        """Give rows of the same width."""
        hidden = run.conv(self.gate, x).map(partial(gated_activation, dim=1), self.out.in_channels)
        return run.add(x, run.conv(self.out, hidden))


class Spectral(nn.Module):
    """The generator.

    Args:
        settings: Sizes.
        spec: The mels that it reads.

    Raises:
        ConfigError: The sizes do not go with the mel.
    """

    noise_channels = 1
    window: Tensor
    envelope: Tensor
    envelope_level: Tensor

    def __init__(self, settings: SpectralConfig, spec: MelSpec) -> None:
        super().__init__()
        subframes, hop_length, n_mels = settings.subframes, spec.hop_length, spec.n_mels
        if (
            hop_length % subframes
            or settings.n_fft % 4
            or 4 * hop_length != settings.n_fft * subframes
        ):
            raise ConfigError(
                f"SpectralConfig: {subframes} sub-frames and an n_fft of {settings.n_fft} do not "
                f"go with a hop of {hop_length} samples: n_fft must be four hops of a sub-frame"
            )
        self.settings, self.n_mels, self.hop_length = settings, n_mels, hop_length
        self.step = hop_length // subframes
        channels, ahead = settings.channels, settings.look_ahead
        right = min(ahead, INLET_TAPS // 2)
        self.inlet = PaddedConv1d(n_mels, channels, INLET_TAPS, right=right)
        ahead -= right
        self.blocks = nn.ModuleList()
        for dilation in settings.dilations:
            context = (settings.kernel_size - 1) * dilation
            right = min(ahead, context // 2)
            ahead -= right
            sizes = (channels, settings.hidden_channels, settings.kernel_size, dilation, right)
            self.blocks.append(Block(*sizes))
        if ahead:
            raise ConfigError(
                f"SpectralConfig.look_ahead is {settings.look_ahead} frames, {ahead} more than the "
                "layers can see; add taps or blocks"
            )
        self.bins = settings.n_fft // 2 + 1
        self.outlet = PaddedConv1d(channels, subframes * 3 * self.bins, 1)
        self.pitch = PitchNetwork(
            n_mels, subframes, settings.look_ahead, spec.sample_rate, self.step
        )
        self.silence = spec.log_floor
        self.fourier = Fourier()
        with torch.device("cpu"):  # they are computed, whatever the parameters are made on
            self.levelling = Levelling(spec)
            self._add_constants(spec)

    def forward(self, mel: Tensor, noise: Tensor) -> Tensor:
        """Turn whole mels into audio.

        Args:
            mel: [batch, bands, frames].
            noise: [batch, 1, frames * hop_length], normal.

        Returns:
            [batch, frames * hop_length].
        """
        return self.flow(Flow(), Rows.of(mel), Rows.of(noise)).whole[:, 0]

    def flow(self, run: Flow, mel: Rows, noise: Rows) -> Rows:
        """See `forward`; rows in, one channel of samples out."""
        audio = self._unlevelled(run, mel, noise)
        return self.levelling.often(run, mel, audio, self.settings.levellings)

    def learn(
        self, mel: Tensor, noise: Tensor, audio: Tensor
    ) -> tuple[Tensor, dict[str, tuple[float, Tensor]]]:
        """Turn mels into audio for a training step, levelled once.

        Args:
            mel: [batch, bands, frames].
            noise: [batch, 1, frames * hop_length], normal.
            audio: [batch, samples], the recording of the middle frames of the mel.

        Returns:
            The audio, [batch, frames * hop_length], and losses of the model's own, with their
            weights: of the pitch, and of what levelling had to mend. Without the second one the
            envelopes drift, since nothing else hears them; float32.
        """
        run, rows = Flow(), Rows.of(mel)
        made = self._unlevelled(run, rows, Rows.of(noise))
        levelled, lack = self.levelling.flow(run, rows, made)
        frames = audio.shape[1] // self.hop_length
        begin = (mel.shape[2] - frames) // 2
        heard = mel[:, :, begin : begin + frames]
        own = {
            "pitch": (1.0, self.pitch.loss(self._normalised(heard), audio)),
            "level": (LEVEL_WEIGHT, lack[:, begin : begin + frames].abs().mean()),
        }
        return levelled.whole[:, 0], own

    def _unlevelled(self, run: Flow, mel: Rows, noise: Rows) -> Rows:
        """What source and filters give."""
        x = mel.map(self._normalised)
        logits, envelopes = self.pitch.convolved(run, x), self.envelopes(run, x)
        return self.filtered(run, mel, logits, envelopes, noise)

    def filtered(self, run: Flow, mel: Rows, logits: Rows, envelopes: Rows, noise: Rows) -> Rows:
        """Run the source, its F0 given by logits, and noise through the filters."""
        count = self.settings.subframes
        cycles = logits.interleave(count).map(self.pitch.cycles, 1)
        phase = run.accumulate(cycles)
        newest = run.frames(noise, self.settings.n_fft, self.step)
        parts = run.align(envelopes.interleave(count), mel.repeat(count), cycles, phase, newest)
        spectra, data = parts[0], None
        if spectra.data is not None:
            data = self._synthesize(*(part.whole for part in parts))
        length = self.settings.n_fft
        frames = Rows(data, length, spectra.start, spectra.end, spectra.ended)
        return run.overlap_add(frames, self.step, (length - self.step) // 2)

    def initial_scale(self, name: str, channels: int) -> float:
        """Wanted deviation of a layer's output at the start: small where it adds or decides."""
        if name.endswith(".out"):
            return float((2 * len(self.blocks)) ** -0.5)
        return 0.3 if name in ("outlet", f"pitch.{len(self.pitch) - 1}") else 1.0

    def _add_constants(self, spec: MelSpec) -> None:
        """Register what follows from the settings and is not saved."""
        edges = band_edges(spec)
        share = between_bands(spec, np.linspace(0, spec.sample_rate / 2, self.bins))
        width = 1.0 if spec.norm == "slaney" else (edges[2:] - edges[:-2]) / 2  # Hz
        bins_a_band = np.broadcast_to(width * spec.n_fft / spec.sample_rate, (spec.n_mels,))
        window = np.hanning(spec.win_length)
        level = share @ np.log(bins_a_band) / spec.power + math.log((window**2).sum()) / 2
        for name, value in {
            "window": torch.hann_window(self.settings.n_fft),
            "envelope": torch.from_numpy(share.astype(np.float32)),
            "envelope_level": torch.from_numpy(level.astype(np.float32))[:, None],
        }.items():
            self.register_buffer(name, value, persistent=False)

    def _normalised(self, mel: Tensor) -> Tensor:
        return (mel - self.silence) / MEL_SCALE

    def _envelope(self, mel: Tensor) -> Tensor:
        """Log magnitudes that the mel states: of a filter for noise of variance 1, by bins."""
        with torch.autocast(mel.device.type, enabled=False):
            return self.envelope @ self.levelling.log_magnitudes(mel) - self.envelope_level

    def envelopes(self, run: Flow, mel: Rows) -> Rows:
        """What the network adds to the envelopes of a frame's sub-frames, one after another."""
        x = run.conv(self.inlet, mel)
        for block in self.blocks:
            x = block.flow(run, x)  # type: ignore[operator]
        return run.conv(self.outlet, x)

    def _synthesize(
        self, spectra: Tensor, mel: Tensor, cycles: Tensor, phase: Tensor, noise: Tensor
    ) -> Tensor:
        """Filter the sources of each sub-frame; [batch, n_fft, sub-frames], float32."""
        length = self.settings.n_fft
        if not spectra.shape[2]:
            return spectra.new_zeros(spectra.shape[0], length, 0, dtype=torch.float32)
        with torch.autocast(spectra.device.type, enabled=False):
            harmonic, turn, breath = spectra.float().transpose(1, 2).chunk(3, dim=2)
            stated = self._envelope(mel).transpose(1, 2)
            source = harmonics(cycles.transpose(1, 2), phase.transpose(1, 2), length, self.step)
            voice = self.fourier.rfft(source * self.window, length)
            air = self.fourier.rfft(noise.float().transpose(1, 2) * self.window, length)
            gain = (stated + harmonic + VOICE).clamp(max=LOUD).exp()
            filtered = self.fourier.turned(voice, gain, turn)
            filtered = filtered + air * (stated + breath).clamp(max=LOUD).exp()
            frames = self.fourier.irfft(filtered, length) * (self.window / OVERLAP)
            return frames.transpose(1, 2)
