"""`wavewn quickstart`: the main job from end to end, in a few minutes on any machine.

It fine-tunes the shipped model on the embedded corpus, copies a held-out sentence with both models
and with Griffin-Lim, and leaves in one folder

    recording.wav, shipped.wav, fine-tuned.wav, griffin-lim.wav
    spectrograms.png    all four, one below the other
    metrics.json, .csv  how near each comes to the recording
    fine-tuned/         the bundle; `wavewn synth` takes it
    training/           the run, for TensorBoard

Run again, an interrupted quickstart goes on where it was.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wavewn.evaluation.compare import Clip, System
    from wavewn.training.recipe import Recipe
    from wavewn.vocoder import Vocoder

MODEL = "spectral-ru-16k"
STEPS = 100
MAX_TIME = "00:00:01:15"  # days:hours:minutes:seconds; slow machines make fewer steps
CHECKPOINT_EVERY = 5  # so that there is one when the time is up


def add_quickstart(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare `wavewn quickstart`."""
    verb = verbs.add_parser(
        "quickstart",
        help="fine-tune the shipped model and hear a held-out sentence",
        description="About a minute of fine-tuning on the embedded corpus, then copy-synthesis of "
        "a held-out sentence by the shipped model, the fine-tuned one and Griffin-Lim: wavs, "
        "spectrograms and metrics in one folder.",
    )
    verb.add_argument("--out", type=Path, default=Path("quickstart"), help="folder (quickstart)")
    verb.add_argument("--model", default=MODEL, help=f"bundle or name to start from ({MODEL})")
    verb.add_argument(
        "--steps", type=int, default=STEPS, help=f"of fine-tuning, for at most 75 s ({STEPS})"
    )
    verb.add_argument("--seconds", type=float, default=3.0, help="of the sentence (3)")
    verb.set_defaults(run=run_quickstart)


def run_quickstart(args: argparse.Namespace) -> None:
    """Fine-tune, copy, judge, draw, and print the table."""
    import time

    import wavewn
    from wavewn.errors import ConfigError, DataError

    if args.steps < 1 or not args.seconds >= 0.5:
        raise ConfigError("--steps must be at least 1 and --seconds at least 0.5")
    if (args.out / "metrics.json").exists():
        raise DataError(f"{args.out} holds a finished quickstart; choose another --out")
    began = time.perf_counter()
    shipped = wavewn.load(args.model)
    print(f"fine-tuning {args.model} for {args.steps} steps or 75 s", flush=True)
    bundle = fine_tune(args.model, shipped, args.steps, args.out)
    print("copying a held-out sentence", flush=True)
    judge(shipped, wavewn.load(bundle), args.seconds, args.out)
    print(
        f"{args.out}: wavs, spectrograms.png, metrics.json and the fine-tuned model, after "
        f"{time.perf_counter() - began:.0f} s; next: wavewn synth {bundle} YOUR.wav -o out"
    )


def make_recipe(vocoder: "Vocoder", steps: int) -> "Recipe":
    """Fit the recipe `quickstart` to the model that is fine-tuned and to one minute.

    A generator learns alone: discriminators that know nothing would teach it nothing in a minute.
    """
    import dataclasses

    from wavewn.config import AdversarialConfig, WaveNetConfig, model_config
    from wavewn.shipped import shipped
    from wavewn.training.recipe import load_recipe
    from wavewn.training.settings import ClipsConfig, OptimiserConfig

    recipe = load_recipe(shipped("recipes", "quickstart"))
    model = model_config(vocoder.config["model"])
    alone = dataclasses.replace(recipe.adversarial or AdversarialConfig(), warmup_steps=steps)
    return dataclasses.replace(
        recipe,
        mel=vocoder.mel_spec,
        model=model,
        adversarial=None if isinstance(model, WaveNetConfig) else alone,
        optimiser=OptimiserConfig(lr=2e-4, warmup_steps=10),
        clips=ClipsConfig(count=0),
        trainer={
            **recipe.trainer,
            "max_steps": steps,
            "max_time": MAX_TIME,
            "limit_val_batches": 0,
            "enable_model_summary": False,
        },
        ema_decay=0.95,
        checkpoint_every=min(CHECKPOINT_EVERY, steps),
    )


def fine_tune(model: str, vocoder: "Vocoder", steps: int, out: Path) -> Path:
    """Train on the embedded corpus and return the folder of the bundle."""
    import logging
    import warnings

    from wavewn.bundle import load_checkpoint, save_bundle
    from wavewn.errors import TrainingError
    from wavewn.shipped import shipped
    from wavewn.training.callbacks import Interrupted
    from wavewn.training.run import train

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)  # it counts GPUs and the like
    warnings.filterwarnings("ignore", ".*LeafSpec.*")  # Lightning's own affair with torch
    recipe, folder = make_recipe(vocoder, steps), shipped("recipes", "corpus").parent
    try:
        checkpoint = train(recipe, out / "training", folder=folder, resume="auto", init_from=model)
    except Interrupted:
        raise KeyboardInterrupt from None
    if not checkpoint.is_file():
        raise TrainingError(
            f"not even {recipe.checkpoint_every} steps fitted into 75 s; free the machine and "
            f"try again, or use the shipped model: wavewn synth {model} YOUR.wav -o out"
        )
    tuned = load_checkpoint(checkpoint)
    save_bundle(
        out / "fine-tuned",
        tuned.model,
        tuned.mel,
        speakers=tuned.speakers,
        licence=tuned.config["licence"],
        provenance={**tuned.config["provenance"], "fine_tuned_from": Path(model).name},
        levellings=vocoder.config.get("levellings", 0),
        force=True,
    )
    return out / "fine-tuned"


def held_out_clip(vocoder: "Vocoder", seconds: float) -> "Clip":
    """Read the beginning of the first test recording of the embedded corpus."""
    from wavewn.audio.io import read_audio
    from wavewn.audio.mel import prepare_audio
    from wavewn.data.manifest import load_manifest
    from wavewn.evaluation.compare import Clip
    from wavewn.shipped import shipped

    first = load_manifest(shipped("recipes", "corpus/festvox-ru"), "test")[0]
    audio = read_audio(first.path, vocoder.sample_rate)[: round(seconds * vocoder.sample_rate)]
    return Clip(first.path.stem, prepare_audio(audio, vocoder.mel_spec))


def judge(shipped: "Vocoder", tuned: "Vocoder", seconds: float, out: Path) -> None:
    """Copy the held-out sentence by all systems; write wavs, picture and metrics."""
    from wavewn.audio.io import write_audio
    from wavewn.evaluation.compare import compare, format_table, write_csv, write_json
    from wavewn.evaluation.figures import save_spectrograms
    from wavewn.evaluation.systems import griffin_lim_system

    clip = held_out_clip(shipped, seconds)
    spec = shipped.mel_spec
    sounds = {"recording": clip.audio}
    result = compare(
        [clip],
        {
            "shipped": system_with_bar("shipped", shipped),
            "fine-tuned": system_with_bar("fine-tuned", tuned),
            "griffin-lim": griffin_lim_system(spec),
        },
        spec,
        on_copy=lambda system, _, copy: sounds.__setitem__(system, copy),
    )
    for name, audio in sounds.items():
        write_audio(out / f"{name}.wav", audio, spec.sample_rate)
    save_spectrograms(out / "spectrograms.png", sounds, spec.sample_rate)
    write_csv(out / "metrics.csv", result)
    write_json(out / "metrics.json", result, {"clip": clip.name, "seconds": seconds, "seed": 0})
    print(format_table(result))


def system_with_bar(name: str, vocoder: "Vocoder") -> "System":
    """Copy recordings one by one and show how far that is: a sentence may take a minute."""
    from torch import Tensor
    from tqdm import tqdm

    from wavewn.audio.mel import mel_spectrogram

    speaker = 0 if vocoder.speakers else None

    def copy(recordings: list[Tensor]) -> list[Tensor]:
        copies = []
        for recording in recordings:
            mel = mel_spectrogram(recording, vocoder.mel_spec)
            with tqdm(total=mel.shape[2], desc=name, unit="frame", leave=False) as bar:
                copies.append(vocoder.synthesize(mel, speaker=speaker, progress=bar.update)[0])
        return copies

    return copy
