"""One convolutional network: its training, and experiments E1 to E5 on it.

Losses are nats a sample over the scored rows, in three manners of evaluation: "eval" with running
statistics, "batch" with the statistics of the held-out batch itself, as while training, and
"precise" with running statistics measured anew. They differ for batch norms alone.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import asdict
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wavewn.audio.companding import mu_law_decode
from wavewn.nn.norms import (
    NORMS,
    CausalStack,
    batch_norms,
    freeze,
    make_stack,
    measure_flags,
    set_precise_statistics,
)
from wavewn.studies.weight_norm.settings import Cell, StudySettings
from wavewn.studies.weight_norm.speech import Speech, crops, encode

HELD_OUT, CHANGED, INIT, PROMPT = 1_000_001, 1_000_002, 1_000_003, 1_000_004  # keys of crops
PRECISE_BATCHES = 40
BINS = 16  # of the time around a change of speaker
VOICES = 4  # free-running samples
SILENT_RMS = 1e-3
SILENT_FRAME_S = 0.02

Losses = dict[str, float | None]


def row_losses(model: CausalStack, classes: Tensor, skip: int) -> Tensor:
    """Cross entropy of each scored row, [batch, scored], in the model's mode."""
    logits = model(classes[:, :-1])[:, skip:]
    target = classes[:, 1 + skip :]
    losses = F.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none")
    return losses.view_as(target)


def train(
    settings: StudySettings,
    speech: Speech,
    cell: Cell,
    milestone: Callable[[CausalStack], None],
) -> CausalStack:
    """Train one network.

    Args:
        settings: Of the study.
        speech: To learn from.
        cell: What to train.
        milestone: Called after `settings.steps`, and once more at the end if that is later.
    """
    s, norm = settings, NORMS[cell.norm]
    first = encode(crops(speech.train, s.batches[-1], s.crop, (cell.seed, INIT)), s.classes)
    model = make_stack(
        norm,
        s.classes,
        s.residual_channels,
        s.skip_channels,
        2,
        s.dilations,
        seed=cell.seed,
        batch=first,
    ).train()
    optimiser = torch.optim.Adam(model.parameters(), cell.rate)
    last = s.steps * s.batches[-1] // cell.batch
    freeze_at = None if norm.frozen_after is None else round(norm.frozen_after * last)
    for step in range(1, last + 1):
        if step == freeze_at:
            freeze(model)
        optimiser.param_groups[0]["lr"] = s.rate_of(step, cell.rate)
        audio = crops(speech.train, cell.batch, s.crop, (cell.seed, step))
        loss = row_losses(model, encode(audio, s.classes), s.receptive_field - 1).mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        if step in (s.steps, last):
            milestone(model)
    return model


@torch.no_grad()
def losses_by_row(model: CausalStack, classes: Tensor, batch: int, skip: int) -> dict[str, Tensor]:
    """Losses [crops, scored] with running statistics and with those of batches like training's."""
    live, fixed = copy.deepcopy(model).train(), copy.deepcopy(model).eval()
    parts = classes[: len(classes) // batch * batch].split(batch)
    return {
        "eval": torch.cat([row_losses(fixed, part, skip) for part in parts]),
        "batch": torch.cat([row_losses(live, part, skip) for part in parts]),
    }


def mean_losses(model: CausalStack, classes: Tensor, batch: int, skip: int) -> Losses:
    """Return the means of `losses_by_row`; None where a network has diverged."""
    rows = losses_by_row(model, classes, batch, skip)
    return {name: number(one.mean().item()) for name, one in rows.items()}


def number(value: float) -> float | None:
    """Round for JSON, which knows no NaN."""
    return float(f"{value:.6g}") if math.isfinite(value) else None


def precise_loss(
    model: CausalStack, settings: StudySettings, speech: Speech, cell: Cell, held_out: Tensor
) -> float | None:
    """Loss with statistics averaged over training batches; None where there are none."""
    if not batch_norms(model):
        return None
    s = settings
    precise = copy.deepcopy(model)
    set_precise_statistics(
        precise,
        (
            encode(crops(speech.train, cell.batch, s.crop, (cell.seed, INIT, i)), s.classes)
            for i in range(PRECISE_BATCHES)
        ),
    )
    return mean_losses(precise, held_out, cell.batch, s.receptive_field - 1)["eval"]


@torch.no_grad()
def free_run(model: CausalStack, prompt: Tensor, samples: int, seed: int, streams: bool) -> Tensor:
    """Let a network hear its own samples, in evaluation.

    Args:
        model: Trained.
        prompt: [batch, receptive field] of recorded speech, in classes.
        samples: To draw.
        seed: Of the draws.
        streams: The network remembers; one that cannot looks at its receptive field anew for
            each sample.

    Returns:
        Classes [batch, samples], without the prompt.
    """
    model = copy.deepcopy(model).eval()
    generator = torch.Generator().manual_seed(seed)
    window, memory = prompt, model.memory(len(prompt))
    chunk, drawn = prompt, []
    for _ in range(samples):
        logits = model(chunk, memory) if streams else model(window)
        chunk = torch.multinomial(logits[:, -1].softmax(-1), 1, generator=generator)
        window = torch.cat([window[:, 1:], chunk], dim=1)
        drawn.append(chunk)
    return torch.cat(drawn, dim=1)


def long_term_db(audio: np.ndarray) -> np.ndarray:
    """Long-term spectrum in dB relative to its sum; [samples] or [batch, samples]."""
    frames = np.lib.stride_tricks.sliding_window_view(audio, 256, axis=-1)[..., ::128, :]
    power = np.abs(np.fft.rfft(frames * np.hanning(256))) ** 2
    power = power.reshape(-1, 129).mean(0)
    return 10 * np.log10(power + 1e-9)


def free_figures(audio: np.ndarray, speech: Speech, rate: int) -> dict[str, float | None]:
    """How far free-running samples [batch, samples] are from speech, in level and spectrum."""
    recorded = np.concatenate(speech.held_out)
    distance = long_term_db(audio) - long_term_db(recorded)
    frame = round(SILENT_FRAME_S * rate)
    whole = audio[:, : audio.shape[1] // frame * frame].reshape(-1, frame)
    return {
        "rms_ratio": number(float(np.sqrt((audio**2).mean() / (recorded**2).mean()))),
        "spectral_distance_db": number(float(np.sqrt((distance**2).mean()))),
        "clipped_percent": number(float((np.abs(audio) > 0.99).mean() * 100)),
        "silent_percent": number(float((np.sqrt((whole**2).mean(1)) < SILENT_RMS).mean() * 100)),
    }


def shift_figures(
    model: CausalStack, settings: StudySettings, speech: Speech, batch: int
) -> dict[str, Any]:
    """E5: another level, another speaker, and another speaker in the middle of a crop."""
    s, skip = settings, settings.receptive_field - 1
    own = crops(speech.held_out, s.held_out, s.crop, (HELD_OUT,))
    strange = crops(speech.strange, s.held_out, s.crop, (CHANGED,))
    change = s.receptive_field + s.scored // 2
    joined = torch.cat([own[:, :change], strange[:, change:]], dim=1)
    by_row = losses_by_row(model, encode(joined, s.classes), batch, skip)
    edges = np.linspace(0, s.scored, min(BINS, s.scored) + 1).astype(int)
    return {
        "level": {
            f"{gain:g}": mean_losses(model, encode(own, s.classes, gain), batch, skip)
            for gain in s.levels_db
        },
        "speaker": mean_losses(model, encode(strange, s.classes), batch, skip),
        "quiet_speaker": mean_losses(model, encode(strange, s.classes, -12.0), batch, skip),
        "change": {
            "samples": [int(a + b) // 2 - s.scored // 2 for a, b in pairwise(edges)],
            **{
                name: [number(rows[:, a:b].mean().item()) for a, b in pairwise(edges)]
                for name, rows in by_row.items()
            },
        },
    }


def run_stack_cell(
    settings: StudySettings, speech: Speech, cell: Cell
) -> tuple[dict[str, Any], np.ndarray | None]:
    """Train one network and run experiments E1 to E5 on it.

    The smallest and the largest batch go through all of them, others through E2 alone.

    Returns:
        The figures, and free-running audio [4, samples] where there is some.
    """
    s, skip = settings, settings.receptive_field - 1
    held_out = encode(crops(speech.held_out, s.held_out, s.crop, (HELD_OUT,)), s.classes)
    sweep: list[Losses] = []
    model = train(
        s, speech, cell, lambda m: sweep.append(mean_losses(m, held_out, cell.batch, skip))
    )
    figures: dict[str, Any] = {"equal_steps": sweep[0], "equal_samples": sweep[-1]}
    whole = cell.batch in (s.batches[0], s.batches[-1]) and cell.rate == s.rate
    if sweep[-1]["eval"] is None or not whole:
        return figures, None
    flags = measure_flags(model, held_out[: max(2, cell.batch)])
    figures["precise"] = precise_loss(model, s, speech, cell, held_out)
    figures["flags"] = asdict(flags) | {
        "causal": flags.causal,
        "streams": flags.streams,
        "folds": flags.folds,
    }
    figures["shift"] = shift_figures(model, s, speech, cell.batch)
    prompt = held_out[:VOICES, : s.receptive_field]
    drawn = free_run(model, prompt, s.free_samples, PROMPT + cell.seed, flags.streams)
    audio = mu_law_decode(drawn, s.classes).numpy()
    figures["free"] = free_figures(audio, speech, s.sample_rate)
    return figures, audio
