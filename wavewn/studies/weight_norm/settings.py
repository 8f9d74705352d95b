"""What a study runs: every number that a result depends on, but for the speech."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from wavewn.errors import ConfigError
from wavewn.nn.norms import NORMS

SIX = ("none-init", "weight-init", "batch", "mean-only", "layer", "group")
RECURRENT = ("none", "weight", "layer", "batch-input", "batch-step")


@dataclass(frozen=True)
class StudySettings:
    """Settings of a study.

    The learning rate of step n, from 1, is rate * min(1, n / warmup, sqrt(decay_from / n)) for
    all norms and batches. It does not know the end of the training, so that one run is measured
    both after equal steps and after equal samples.

    Attributes:
        name: Of the preset.
        norms: Keys of `NORMS`.
        batches: Batch sizes, ascending.
        seeds: Of weights and crops; crops are the same for all norms.
        rate: Of Adam.
        sweep: Further rates, tried with the first seed, the smallest and the largest batch.
        steps: Equal steps; the largest batch stops there, smaller ones go on to equal samples.
        warmup: Steps.
        decay_from: Step.
        sample_rate: In Hz.
        classes: Of mu-law.
        residual_channels: R of the stack.
        skip_channels: S of the stack.
        dilations: Of the stack, whose kernels have two taps.
        scored: Samples of a crop that count, behind one receptive field.
        held_out: Crops of held-out speech.
        free_samples: Length of each of four free-running samples.
        levels_db: Changes of level in experiment E5.
        recurrent: Variants of the recurrent network.
        hidden: Its units.
        recurrent_steps: Its training.
        recurrent_batch: Its batch size.
        recurrent_length: Samples it is trained on; it is tested on four times as many.

    Raises:
        ConfigError: A setting is impossible.
    """

    name: str = "default"
    norms: tuple[str, ...] = SIX
    batches: tuple[int, ...] = (1, 2, 4, 8)
    seeds: tuple[int, ...] = (0, 1, 2)
    rate: float = 2e-3
    sweep: tuple[float, ...] = ()
    steps: int = 250
    warmup: int = 20
    decay_from: int = 100
    sample_rate: int = 8000
    classes: int = 64
    residual_channels: int = 32
    skip_channels: int = 64
    dilations: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128)
    scored: int = 768
    held_out: int = 32
    free_samples: int = 4000
    levels_db: tuple[float, ...] = (-20.0, -10.0, 0.0, 10.0, 20.0)
    recurrent: tuple[str, ...] = RECURRENT
    hidden: int = 64
    recurrent_steps: int = 250
    recurrent_batch: int = 8
    recurrent_length: int = 256

    def __post_init__(self) -> None:
        unknown = [name for name in self.norms if name not in NORMS]
        unknown += [name for name in self.recurrent if name not in RECURRENT]
        if unknown:
            raise ConfigError(
                f"unknown norms {', '.join(unknown)}; expected some of {', '.join(NORMS)}, and for "
                f"the recurrent network {', '.join(RECURRENT)}"
            )
        if not (self.norms and self.batches and self.seeds):
            raise ConfigError("a study needs at least one norm, one batch size and one seed")
        if list(self.batches) != sorted(set(self.batches)) or self.batches[0] < 1:
            raise ConfigError(f"batches must ascend from 1 on, got {self.batches}")
        if self.held_out < 2 * self.batches[-1]:
            raise ConfigError(
                f"held_out must be at least twice the largest batch, {2 * self.batches[-1]}, got "
                f"{self.held_out}"
            )

    @property
    def receptive_field(self) -> int:
        """Inputs that one output of the stack sees."""
        return 1 + sum(self.dilations)

    @property
    def crop(self) -> int:
        """Samples of a crop: one receptive field to be seen, and the scored ones."""
        return self.receptive_field + self.scored

    def rate_of(self, step: int, rate: float) -> float:
        """Learning rate of a step, which count from 1."""
        return rate * min(1.0, step / self.warmup, (self.decay_from / step) ** 0.5)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as JSON holds them."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
        }


PRESETS = {
    "quick": StudySettings(
        "quick", batches=(1, 8), seeds=(0,), steps=150, free_samples=2000, recurrent_steps=150
    ),
    "default": StudySettings(),
    "full": StudySettings(
        "full",
        norms=tuple(NORMS),
        batches=(1, 2, 4, 8, 16),
        sweep=(5e-4, 1e-3, 4e-3),
        steps=400,
        recurrent_steps=600,
        held_out=64,
    ),
}


@dataclass(frozen=True)
class Cell:
    """One network to train and to measure.

    Attributes:
        kind: "stack" (experiments E1 to E5) or "recurrent" (E6).
        norm: Key of `NORMS`, or one of `RECURRENT`.
        batch: Size.
        seed: Of weights and crops.
        rate: Before warm-up and decay.
    """

    kind: Literal["stack", "recurrent"]
    norm: str
    batch: int
    seed: int
    rate: float

    @property
    def name(self) -> str:
        """A name for files."""
        return f"{self.kind}-{self.norm}-b{self.batch}-s{self.seed}-r{self.rate:g}"


def list_cells(settings: StudySettings) -> list[Cell]:
    """Return all cells of a study, seed by seed; the recurrent ones come last."""
    ends = sorted({settings.batches[0], settings.batches[-1]})
    cells = [
        Cell("stack", norm, batch, seed, settings.rate)
        for seed in settings.seeds
        for norm in settings.norms
        for batch in settings.batches
    ]
    cells += [
        Cell("stack", norm, batch, settings.seeds[0], rate)
        for rate in settings.sweep
        for norm in settings.norms
        for batch in ends
    ]
    cells += [
        Cell("recurrent", norm, settings.recurrent_batch, seed, settings.rate)
        for seed in settings.seeds
        for norm in settings.recurrent
    ]
    return cells
