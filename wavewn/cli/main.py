"""The command `wavewn`: finds the verb, runs it, and turns what goes wrong into an exit code.

Exit codes: 0 done, 2 a user's mistake (one line on stderr), 130 interrupted, 141 nobody reads
the output any more. Any other exception is a bug and keeps its traceback.

Verbs are declared before anything heavy is imported, so that `--help` answers at once.
"""

import argparse
import os
import sys
from collections.abc import Sequence

import wavewn
from wavewn.cli.bench import add_bench
from wavewn.cli.convert import add_convert
from wavewn.cli.doctor import add_doctor
from wavewn.cli.evaluate import add_evaluate
from wavewn.cli.export import add_export
from wavewn.cli.inspect import add_inspect
from wavewn.cli.prepare import add_prepare
from wavewn.cli.quickstart import add_quickstart
from wavewn.cli.stream import add_stream
from wavewn.cli.study import add_study
from wavewn.cli.synth import add_synth
from wavewn.cli.train import add_train
from wavewn.errors import WavewnError

VERBS = (
    add_train,
    add_prepare,
    add_export,
    add_convert,
    add_synth,
    add_stream,
    add_inspect,
    add_evaluate,
    add_bench,
    add_quickstart,
    add_study,
    add_doctor,
)

MISTAKE = 2
INTERRUPTED = 128 + 2  # SIGINT
UNREAD = 128 + 13  # SIGPIPE


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit code.

    Args:
        argv: The arguments after the program's name; None takes the process's own.

    Raises:
        SystemExit: argparse has answered itself (`--help`, `--version`, bad usage).
    """
    parser = make_parser()
    args = parse(parser, argv)
    try:
        args.run(args)
        sys.stdout.flush()  # a closed pipe must show here, not while Python shuts down
    except WavewnError as error:
        print(f"wavewn: error: {' '.join(str(error).split())}", file=sys.stderr)
        return MISTAKE
    except KeyboardInterrupt:
        print("wavewn: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Python flushes stdout once more at exit and would complain there.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return UNREAD
    return 0


def make_parser() -> argparse.ArgumentParser:
    """Declare the program and all its verbs."""
    parser = argparse.ArgumentParser(
        prog="wavewn", description="Train, run and stream neural vocoders."
    )
    parser.add_argument("--version", action="version", version=f"wavewn {wavewn.__version__}")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    for add_verb in VERBS:
        add_verb(verbs)
    return parser


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the arguments; what no option knows goes to `overrides` where a verb has that list.

    `train` has it: its recipe's keys are not ours to declare. Every other verb refuses.
    """
    args, unknown = parser.parse_known_args(argv)
    if unknown:
        overrides = getattr(args, "overrides", None)
        if overrides is None:
            parser.error(f"unrecognized arguments: {' '.join(unknown)}")
        args.overrides = [*overrides, *unknown]
    return args


if __name__ == "__main__":
    sys.exit(main())
