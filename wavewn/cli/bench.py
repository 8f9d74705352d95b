"""`wavewn bench`: how fast the engines are here, beside what else there is and beside the bound."""

import argparse
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from wavewn.errors import ConfigError, EngineError

if TYPE_CHECKING:
    from wavewn.bench.latency import Latency
    from wavewn.bench.lineup import Wish
    from wavewn.bench.race import Course, Result
    from wavewn.engine.call import Engine

UPSAMPLINGS = ("nearest", "linear")
BASELINES = ("reference", "numba", "onnxruntime", "torch", "torch.compile")
COLUMNS = ("shape", "engine", "precision", "set", "threads", "streams")


def add_bench(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare `wavewn bench`."""
    verb = verbs.add_parser(
        "bench",
        help="measure how fast the engines are on this machine",
        description="Run engines side by side, warm and in turns, from mel frames to samples, and "
        "print the median of the rounds beside the bound that reading the weights sets. Where an "
        "option takes several values, separate them by commas: every combination is measured. "
        "Close other programs first: the machine's load is part of the output.",
    )
    verb.add_argument("model", nargs="?", help="bundle, checkpoint or name; or else an option")
    verb.add_argument(
        "--model",
        dest="models",
        metavar="NAME",
        type=words,
        help="hifigan-v1, hifigan-v2, hifigan-v3, melgan, parallel-wavegan or spectral with random "
        "weights, beside eager torch and ONNX Runtime; or a bundle; several by commas",
    )
    verb.add_argument(
        "--shape",
        type=words,
        help="S (16 layers, 32 channels), M (20, 64) or L (30, 128) with random weights, 200 "
        "samples a frame; several by commas (M)",
    )
    verb.add_argument(
        "--upsampling",
        choices=UPSAMPLINGS,
        default="linear",
        help="of a shape's condition, from frames to samples (linear)",
    )
    verb.add_argument(
        "--engine",
        type=words,
        default=["auto"],
        help="auto, native, cuda, graph, reference, onepass (auto)",
    )
    verb.add_argument(
        "--precision",
        type=words,
        default=[],
        help="float32, float16, int8; bfloat16 of one-pass models (all that the model has)",
    )
    verb.add_argument(
        "--instruction-set",
        type=words,
        default=["auto"],
        help="auto takes the best, all takes each that runs here; or names (auto)",
    )
    verb.add_argument("--device", default="cpu", help="such as cuda (cpu)")
    verb.add_argument("--threads", type=numbers, default=[1], help="numbers of threads (1)")
    verb.add_argument("--streams", type=numbers, default=[1], help="streams in one batch (1)")
    verb.add_argument("--seconds", type=float, default=1.0, help="length of one run (1)")
    verb.add_argument("--repeats", type=int, default=5, help="runs that count (5)")
    verb.add_argument(
        "--baselines",
        action="store_true",
        help="also the reference engine, a loop in Numba and ONNX Runtime (pip install "
        "'wavewn[bench]'), one stream on one thread; one-pass models always have theirs",
    )
    verb.add_argument(
        "--compile", action="store_true", help="also torch.compile of a one-pass model (a minute)"
    )
    verb.add_argument(
        "--latency", action="store_true", help="time pushes of one frame instead, one by one"
    )
    verb.add_argument("--calls", type=int, default=10_000, help="pushes for --latency (10000)")
    verb.add_argument("--json", action="store_true", help="print one JSON object a line")
    verb.set_defaults(run=run_bench)


def run_bench(args: argparse.Namespace) -> None:
    """Measure every subject and print its figures as soon as they are there.

    Raises:
        ConfigError: An option makes no sense.
        EngineError: Nothing that was asked for can run here.
    """
    from wavewn.bench.lineup import Wish
    from wavewn.bench.machine import describe_machine
    from wavewn.vocoder import usable_device

    if sum(map(bool, (args.model, args.models, args.shape))) > 1:
        raise ConfigError("measure a model or --shape, not both at once")
    if not args.seconds > 0 or args.repeats < 1 or args.calls < 1:
        raise ConfigError("--seconds must be above 0, --repeats and --calls at least 1")
    if args.baselines and args.device != "cpu":
        raise ConfigError("--baselines run on the CPU; leave --device out")
    if args.latency and args.baselines:
        raise ConfigError("--latency times engines; leave --baselines out")
    wish = Wish(
        tuple(args.engine),
        tuple(args.precision),
        tuple(args.instruction_set),
        tuple(args.threads),
        tuple(args.streams),
        str(usable_device(args.device)),
    )
    machine = describe_machine(usable_device(args.device))
    if not args.json:
        print(", ".join(f"{name} {value}" for name, value in machine.items()), flush=True)
    for subject in subjects(args):
        if args.latency:
            timed = latencies(args, subject, wish)
            text = json_lines(timed, machine) if args.json else latency_table(timed)
        else:
            raced = results(args, subject, wish)
            text = json_lines(raced, machine) if args.json else race_table(raced)
        print(text, flush=True)


def subjects(args: argparse.Namespace) -> "Iterable[Course]":
    """Load the user's models, or make what is known by name."""
    import wavewn
    from wavewn.bench.generators import MEL_OF, generator_subject_of, make_generator_subject
    from wavewn.bench.subject import make_subject, subject_of
    from wavewn.models.smoothed_wavenet import SmoothedWaveNet
    from wavewn.models.wavenet import WaveNet

    named = args.models or ([args.model] if args.model else [])
    for name in named:
        if name in MEL_OF:
            yield make_generator_subject(name)
            continue
        vocoder = wavewn.load(name)
        wavenet = isinstance(vocoder.model, WaveNet | SmoothedWaveNet)
        yield subject_of(vocoder, name) if wavenet else generator_subject_of(vocoder, name)
    if not named:
        yield from (make_subject(shape, args.upsampling) for shape in args.shape or ["M"])


def results(args: argparse.Namespace, subject: "Course", wish: "Wish") -> "list[Result]":
    """Race what was asked for."""
    from wavewn.bench.generator_lineup import generator_contenders
    from wavewn.bench.generators import GeneratorSubject
    from wavewn.bench.lineup import baselines, contenders
    from wavewn.bench.race import race
    from wavewn.bench.subject import Subject

    if isinstance(subject, GeneratorSubject):
        entries = generator_contenders(subject, wish, args.compile)
        return race(subject, entries, args.seconds, args.repeats)
    assert isinstance(subject, Subject), "a model of a third kind"
    entries = contenders(subject, wish)
    check_found(entries, wish)
    if args.baselines:
        entries += baselines(subject)
    return race(subject, entries, args.seconds, args.repeats)


def latencies(args: argparse.Namespace, subject: "Course", wish: "Wish") -> "list[Latency]":
    """Time pushes of each engine that was asked for."""
    from wavewn.bench.generator_lineup import generator_engines
    from wavewn.bench.generators import GeneratorSubject
    from wavewn.bench.latency import measure_latency
    from wavewn.bench.lineup import engines
    from wavewn.bench.subject import Subject

    if isinstance(subject, GeneratorSubject):
        made: Iterable[tuple[Engine, int]] = generator_engines(subject, wish)
    else:
        assert isinstance(subject, Subject), "a model of a third kind"
        made = engines(subject, wish)
    found = [
        measure_latency(engine, subject, threads, streams, args.calls)
        for engine, threads in made
        for streams in wish.streams
    ]
    check_found(found, wish)
    return found


def check_found(found: "Sequence[object]", wish: "Wish") -> None:
    """Raise EngineError where nothing is left to measure."""
    if not found:
        raise EngineError(f"nothing to measure: of {', '.join(wish.engines)} none can run so here")


def json_lines(rows: "Sequence[Result | Latency]", machine: dict[str, object]) -> str:
    """Write one object a line, the machine in each."""
    import dataclasses
    import json

    return "\n".join(json.dumps(dataclasses.asdict(row) | machine) for row in rows)


def who(row: "Result | Latency") -> tuple[str, ...]:
    """Name what was measured, under `COLUMNS`."""
    return (
        row.shape,
        row.engine,
        row.precision,
        row.instruction_set or "-",
        str(row.threads),
        str(row.streams),
    )


def race_table(rows: "Sequence[Result]") -> str:
    """Write results for people; real time is at the model's own rate, of the shapes 16 kHz."""
    baselines = [row for row in rows if row.engine in BASELINES]
    best = max((row.samples_per_s for row in baselines), default=None)
    head = [*COLUMNS, "samples/s", "real time", "24 kHz", "of bound", "spread", "baseline"]
    lines = [
        (
            *who(row),
            f"{row.samples_per_s:,.0f}",
            f"x {1 / row.rtf:.2f}",
            "-" if row.rtf_24k is None else f"x {1 / row.rtf_24k:.2f}",
            "-" if row.share_of_bound is None else f"{100 * row.share_of_bound:.0f} %",
            f"{100 * row.spread:.0f} %",
            "-" if best is None else f"x {row.samples_per_s / best:.2f}",
        )
        for row in rows
    ]
    return table(head, lines)


def latency_table(rows: "Sequence[Latency]") -> str:
    """Write latencies for people, in milliseconds."""
    head = [*COLUMNS, "frame ms", "call ms", "worst", "kernel ms", "worst", "calls"]
    lines = [
        (
            *who(row),
            f"{row.frame_ms:.2f}",
            f"{row.call_ms:.3f}",
            f"{row.call_worst_ms:.3f}",
            "-" if row.kernel_ms is None else f"{row.kernel_ms:.3f}",
            "-" if row.kernel_worst_ms is None else f"{row.kernel_worst_ms:.3f}",
            f"{row.calls:,}",
        )
        for row in rows
    ]
    return table(head, lines)


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Align columns: the first four, which are words, to the left, and figures to the right."""
    columns = list(zip(head, *lines, strict=True))
    widths = [max(map(len, column)) for column in columns]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < 4 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in (head, *lines)
    )


def words(text: str) -> list[str]:
    """Split an option's value at its commas."""
    return [word.strip() for word in text.split(",")]


def numbers(text: str) -> list[int]:
    """Split an option's value into whole numbers."""
    return [int(word) for word in text.split(",")]
