"""WaveNet as a vocoder: p(sample | samples before, mel).

    mel [B, M, F] -> condition network (frame rate) -> upsampling -+
                                                                   v
    levels [B, T] delayed by one -> input 1x1 -> gated stack (nn/wn.py) -> skips
    skips -> ReLU -> 1x1 -> ReLU -> 1x1 -> parameters of the head [B, T, P]

With linear prediction (nn/linear_prediction.py) the frames of the condition network give a
predictor, too, or two; the input 1x1 then hears the residual, and the parameters are moved.

The model is built plain; training attaches weight norm to it (`nn/weight_norm/`). All inner
signals are [batch, time, channels]. Outside the utterance there is silence: a normalised mel is 0
there, levels are 0, and every layer's history before row 0 is 0, which is what a fresh
`StreamState` holds. The mel network is causal over frames delayed by `look_ahead`.

Source: van den Oord et al. 2016, arXiv:1609.03499; conditioning as in Shen et al. 2017,
arXiv:1712.05884, section 2.3.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavewn.audio.companding import pre_emphasis
from wavewn.config import Condition, WaveNetConfig
from wavewn.errors import ShapeError
from wavewn.models.heads import LinearLevels, make_head
from wavewn.nn.conv import CausalConv1d
from wavewn.nn.linear_prediction import (
    FEATURES,
    LinearPredictor,
    PitchPredictor,
    damaged_residual,
    predict,
    residual_features,
    shortest_lag,
)
from wavewn.nn.upsample import TransposedUpsample
from wavewn.nn.wn import WN

MEL_SCALE = 4.0  # nats; brings log mels above the floor to the order of one


class ConditionNetwork(nn.Module):
    """Causal convolutions over mel frames, and a speaker vector; learned upsampling if wanted.

    Args:
        settings: Sizes.
        n_mels: Mel bands.
        hop_length: Samples a frame.
        speakers: Rows of the embedding; 0 for none.
        speaker_channels: Width of the embedding.
    """

    def __init__(
        self,
        settings: Condition,
        n_mels: int,
        hop_length: int,
        speakers: int,
        speaker_channels: int,
    ) -> None:
        super().__init__()
        self.look_ahead, self.lead = settings.look_ahead, settings.lead
        widths = [n_mels] + [settings.channels] * settings.layers
        self.convs = nn.ModuleList(
            CausalConv1d(before, after, settings.kernel_size)
            for before, after in zip(widths[:-1], widths[1:], strict=True)
        )
        self.embedding = nn.Embedding(speakers, speaker_channels) if speakers else None
        self.speaker = nn.Linear(speaker_channels, settings.channels) if speakers else None
        self.upsample = (
            TransposedUpsample(settings.channels, hop_length)
            if settings.upsampling == "transposed"
            else None
        )

    def forward(
        self, mel: Tensor, speaker: Tensor | None, lead: int, starts: Tensor | None = None
    ) -> Tensor:
        """Turn normalised mels into the condition of the stack.

        Args:
            mel: [batch, lead + F + look_ahead, bands], 0 is silence.
            speaker: int64 [batch], or None where the model knows no speakers.
            lead: Real frames before the first; 0 means that the utterance starts here.
            starts: bool [batch], rows that start their utterance though there is a lead; it is
                silent then, and every layer's history is 0 as with a `lead` of 0.

        Returns:
            [batch, 1 + F, channels] with the frame before the first.
        """
        before = torch.arange(mel.shape[1], device=mel.device)[:, None] < lead
        outside = starts[:, None, None] & before if starts is not None and lead else None
        for conv in self.convs:
            mel = F.relu(conv(mel))
            if outside is not None:
                mel = mel.masked_fill(outside, 0)
        if self.embedding is not None and self.speaker is not None:
            mel = mel + self.speaker(self.embedding(speaker))[:, None]
        start = lead + self.look_ahead - 1
        frames = mel[:, start:] if lead else F.pad(mel[:, self.look_ahead :], (0, 0, 1, 0))
        if outside is not None:
            frames = frames.masked_fill(outside[:, lead - 1 : lead - 1 + frames.shape[1]], 0)
        return frames


@dataclass(frozen=True)
class Heard:
    """What the stack goes by, sample by sample, before it has run.

    Attributes:
        features: [batch, F * hop_length, features] of the samples before.
        condition: [batch, 1 + F, channels], frames, the one before the first included.
        location: [batch, F * hop_length], what the linear prediction expects, or None without it.
        scale: Likewise, how far from it the sample may lie.
        lags: [batch, F, lags], weights of the long-term prediction, or None without it.
    """

    features: Tensor
    condition: Tensor
    location: Tensor | None = None
    scale: Tensor | None = None
    lags: Tensor | None = None


class WaveNet(nn.Module):
    """The network; how it is trained and run is other rooms' business.

    Args:
        settings: Sizes, head, conditioning.
        n_mels: Mel bands.
        hop_length: Samples a mel frame.
        mel_silence: Value of a mel bin in digital silence (`MelSpec.log_floor`).
    """

    mel_silence: Tensor

    def __init__(
        self, settings: WaveNetConfig, n_mels: int, hop_length: int, mel_silence: float
    ) -> None:
        super().__init__()
        self.settings = settings
        self.n_mels = n_mels
        self.hop_length = hop_length
        self.head = make_head(settings.head)
        self.register_buffer("mel_silence", torch.tensor(mel_silence))
        self.condition = ConditionNetwork(
            settings.condition, n_mels, hop_length, settings.speakers, settings.speaker_channels
        )
        order = settings.prediction_order
        self.predictor = LinearPredictor(settings.condition.channels, order) if order else None
        longest = settings.longest_lag
        self.pitch = PitchPredictor(settings.condition.channels, longest) if longest else None
        features = FEATURES + bool(longest) if order else self.head.input_features
        self.input = nn.Linear(features, settings.residual_channels)
        self.stack = WN(
            settings.residual_channels,
            settings.skip_channels,
            settings.kernel_size,
            settings.dilations,
            settings.condition.channels,
        )
        self.hidden = nn.Linear(settings.skip_channels, settings.head_channels)
        self.output = nn.Linear(settings.head_channels, self.head.parameters)

    @property
    def receptive_field(self) -> int:
        """Samples before one that its distribution depends on."""
        settings = self.settings
        heard = settings.prediction_order + max(settings.longest_lag, 1)
        return self.stack.receptive_field - 1 + heard

    def normalise(self, mel: Tensor) -> Tensor:
        """Mel [batch, bands, frames] to [batch, frames, bands], 0 in silence.

        Raises:
            ShapeError: Not three axes, or another number of bands.
        """
        if mel.dim() != 3 or mel.shape[1] != self.n_mels:
            raise ShapeError(
                f"mel must be [batch, {self.n_mels} bands, frames], got {list(mel.shape)}"
            )
        return ((mel - self.mel_silence) / MEL_SCALE).transpose(1, 2)

    def levels(self, audio: Tensor) -> Tensor:
        """Audio [batch, samples] to the levels that the network predicts."""
        return self.head.encode(pre_emphasis(audio, self.settings.pre_emphasis))

    def forward(
        self,
        levels: Tensor,
        mel: Tensor,
        speaker: Tensor | None = None,
        lead: int = 0,
        starts: Tensor | None = None,
        damage: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Teacher-forced parameters of every sample, given the true ones before it.

        Args:
            levels: [batch, F * hop_length], from `levels`.
            mel: [batch, bands, lead + F + look_ahead]. Frames after the end of the utterance are
                silence.
            speaker: int64 [batch] where the model has speakers; else it is not looked at.
            lead: Frames before the first one; `self.condition.lead` of them in the middle of an
                utterance, 0 at its start.
            starts: bool [batch], rows of a batch of crops that start their utterance: they come
                out as with a `lead` of 0.
            damage: (keep, noise), both [batch, F * hop_length]: the stack hears `keep` times each
                sample plus `noise`, companded: levels for the mu-law head, the residual's logarithm
                with linear prediction, which itself goes by the true levels.

        Returns:
            [batch, F * hop_length, parameters of the head].

        Raises:
            ShapeError: Samples and frames do not fit together, or the speaker is missing.
        """
        return self.answer(self.hear(levels, mel, speaker, lead, starts, damage))

    def hear(
        self,
        levels: Tensor,
        mel: Tensor,
        speaker: Tensor | None = None,
        lead: int = 0,
        starts: Tensor | None = None,
        damage: tuple[Tensor, Tensor] | None = None,
    ) -> Heard:
        """Make what the stack goes by; arguments as in `forward`."""
        frames = mel.shape[-1] - lead - self.settings.condition.look_ahead
        if frames < 1 or levels.shape != (mel.shape[0], frames * self.hop_length):
            raise ShapeError(
                f"{list(levels.shape)} levels do not fit a mel of {list(mel.shape)}: expected "
                f"[batch, frames * {self.hop_length}] beside [batch, {self.n_mels}, {lead} + "
                f"frames + {self.settings.condition.look_ahead}] (lead, frames, look-ahead)"
            )
        if self.settings.speakers and (speaker is None or speaker.shape != mel.shape[:1]):
            raise ShapeError(
                f"this model has {self.settings.speakers} speakers: expected one number for each "
                f"of {mel.shape[0]} rows, got {None if speaker is None else list(speaker.shape)}"
            )
        condition = self.condition(self.normalise(mel), speaker, lead, starts)
        if self.predictor is None:
            heard = levels if damage is None else self.head.damaged(levels, *damage)
            return Heard(self.head.features(F.pad(heard[:, :-1], (1, 0))), condition)
        coefficients, scale = self.predictor(condition[:, 1:])
        prediction = predict(levels, coefficients)
        scale = scale.expand(-1, -1, self.hop_length).flatten(1)
        residual = (levels - prediction) / scale
        heard = residual if damage is None else damaged_residual(residual, *damage)
        features = residual_features(F.pad(heard[:, :-1], (1, 0)))
        if self.pitch is not None:
            lags, gain = self.pitch(condition[:, 1:])
            repeated = predict(heard, lags, shortest_lag(self.settings.longest_lag))
            gain = gain.expand(-1, -1, self.hop_length).flatten(1)
            prediction = prediction + scale * gain * repeated
            features = torch.cat([features, repeated[..., None]], dim=-1)
            return Heard(features, condition, prediction, scale, lags)
        return Heard(features, condition, prediction, scale)

    def answer(self, heard: Heard) -> Tensor:
        """Give the parameters of every sample, [batch, F * hop_length, parameters of the head]."""
        condition = heard.condition
        if self.condition.upsample is not None:
            condition = self.condition.upsample(condition)
        upsampling = self.settings.condition.upsampling
        skip = self.stack(self.input(heard.features), condition, upsampling)
        parameters = self.output(F.relu(self.hidden(F.relu(skip))))
        if heard.location is None or heard.scale is None:
            return parameters
        assert isinstance(self.head, LinearLevels), "settings allow no other head"
        return self.head.relocate(parameters, heard.location, heard.scale)
