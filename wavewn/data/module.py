"""A manifest as Lightning wants it: endless crops for training, fixed ones for validation."""

from dataclasses import dataclass
from math import ceil
from pathlib import Path

from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from wavewn.audio.mel import MelSpec
from wavewn.config import check_at_least
from wavewn.data.crops import Batch, Crops, PredictedMel, samples_at
from wavewn.data.manifest import Utterance, load_manifest, load_summary
from wavewn.data.predicted import pair_mels
from wavewn.errors import ConfigError, DataError


@dataclass(frozen=True)
class DataConfig:
    """What is fed to a training.

    Attributes:
        manifest: Folder that `wavewn prepare` made.
        mels: Folder with the mel that an acoustic model predicted for each recording, in a file of
            the same name, from the current folder on; "" for the recordings' own mels.
        frames: Mel frames a crop.
        batch_size: Crops a batch, on each device.
        workers: Processes that read; 0 reads in the training process.
        noise: Largest deviation of the noise on the history that the model is fed in training; in
            companded levels, which span -1 to 1, or with linear prediction in logarithms of the
            residual, which are of the order of one. 0 for none.
        dropout: Mean share of that history that is dropped, in spans.
        valid_frames: Mel frames of a validation crop; shorter where the corpus is.
        valid_batch_size: Crops of a validation batch.
        valid_batches: Validation batches, the same ones every time; all ranks share them.
    """

    manifest: str
    frames: int = 40
    batch_size: int = 2
    workers: int = 1
    noise: float = 0.0
    dropout: float = 0.0
    valid_frames: int = 80
    valid_batch_size: int = 4
    valid_batches: int = 5
    mels: str = ""

    def __post_init__(self) -> None:
        check_at_least(self, 1, "frames", "batch_size", "valid_frames", "valid_batch_size")
        check_at_least(self, 1, "valid_batches")
        check_at_least(self, 0, "workers", "noise", "dropout")


class FixedBatches(Dataset[Batch]):
    """A rank's share of the first batches of `Crops`, the same at every validation.

    All ranks get equally many, so `batches` is rounded up to a multiple of the ranks: they wait
    for each other when the loss is averaged, and one without a batch would never come.
    """

    def __init__(self, crops: Crops, batches: int) -> None:
        self.crops = crops
        self.steps = range(crops.start, ceil(batches / crops.stride) * crops.stride, crops.stride)

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, index: int) -> Batch:
        return self.crops.batch(self.steps[index])


class CropsModule(LightningDataModule):
    """Serves crops of a manifest to Lightning.

    Ranks interleave: at step s of n ranks, rank r takes batch s * n + r. A resumed training goes
    on with the batch after the last one that was used.

    Args:
        settings: Which manifest, how much at once.
        folder: What a relative manifest path starts from.
        spec: The mel contract.
        lead: Frames before a crop that the model wants.
        look_ahead: Frames after it.
        seed: Of the training crops; validation uses the next one, initialisation the one after.

    Raises:
        ConfigError: `spec` asks for audio that went through a chain of its own.
        DataError: The manifest is missing, broken or has nothing for training or validation, or
            predicted mels do not belong to its recordings.
        MelError: A predicted mel is none by `spec`.
    """

    def __init__(
        self,
        settings: DataConfig,
        folder: Path,
        spec: MelSpec,
        *,
        lead: int,
        look_ahead: int,
        seed: int,
    ) -> None:
        super().__init__()
        if spec != spec.without_chain():
            raise ConfigError(
                "training reads audio as it lies in the files: mel.peak, mel.high_pass_hz, "
                "mel.pre_emphasis and mel.gain must be off (--mel.high_pass_hz null); process the "
                "corpus beforehand"
            )
        manifest = folder / settings.manifest
        self.settings, self.spec, self.seed = settings, spec, seed
        self.lead, self.look_ahead = lead, look_ahead
        summary = load_summary(manifest)
        self.speakers, self.licence = list(summary.speakers), summary.licence
        self.train, self.valid = (load_manifest(manifest, split) for split in ("train", "valid"))
        for split, found in (("train", self.train), ("valid", self.valid)):
            if not found:
                raise DataError(
                    f"{manifest} has no {split} utterances; run wavewn prepare again, "
                    "with more recordings or other --valid and --test"
                )
        self.predicted: dict[Path, PredictedMel] = {}
        if settings.mels:
            self.predicted = pair_mels([*self.train, *self.valid], Path(settings.mels), spec)

    def _crops(
        self,
        utterances: list[Utterance],
        frames: int,
        batch_size: int,
        seed: int,
        *,
        noise: float = 0.0,
        dropout: float = 0.0,
        start: int = 0,
        stride: int = 1,
    ) -> Crops:
        return Crops(
            utterances,
            self.speakers,
            self.spec,
            frames=frames,
            batch_size=batch_size,
            lead=self.lead,
            look_ahead=self.look_ahead,
            seed=seed,
            noise=noise,
            dropout=dropout,
            predicted=self.predicted,
            start=start,
            stride=stride,
        )

    def training_crops(self, start: int = 0, stride: int = 1) -> Crops:
        """Crops for training, from batch `start` on."""
        settings = self.settings
        return self._crops(
            self.train,
            settings.frames,
            settings.batch_size,
            self.seed,
            noise=settings.noise,
            dropout=settings.dropout,
            start=start,
            stride=stride,
        )

    def first_batch(self, batch_size: int = 8) -> Batch:
        """A batch of longer crops for data-dependent initialisation; never trained on as such."""
        frames = self._at_most(self.train, self.settings.valid_frames)
        return self._crops(self.train, frames, batch_size, self.seed + 2).batch(0)

    @property
    def valid_frames(self) -> int:
        """Mel frames of a validation crop."""
        return self._at_most(self.valid, self.settings.valid_frames)

    def _at_most(self, utterances: list[Utterance], frames: int) -> int:
        hop = self.spec.hop_length
        lengths = {u.path: samples_at(u, self.spec.sample_rate) // hop for u in utterances}
        lengths |= {p: self.predicted[p].frames for p in lengths if p in self.predicted}
        return max(min(frames, max(lengths.values())), 1)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Endless batches from the trainer's step on."""
        trainer = self.trainer
        assert trainer is not None
        used = trainer.global_step * trainer.accumulate_grad_batches * trainer.world_size
        crops = self.training_crops(used + trainer.global_rank, trainer.world_size)
        cuda = trainer.strategy.root_device.type == "cuda"
        workers = self.settings.workers
        return DataLoader(crops, batch_size=None, num_workers=workers, pin_memory=cuda)

    def val_dataloader(self) -> DataLoader[Batch]:
        """The fixed validation batches of this rank."""
        trainer, settings = self.trainer, self.settings
        assert trainer is not None
        crops = self._crops(
            self.valid,
            self.valid_frames,
            settings.valid_batch_size,
            self.seed + 1,
            start=trainer.global_rank,
            stride=trainer.world_size,
        )
        return DataLoader(FixedBatches(crops, settings.valid_batches), batch_size=None)
