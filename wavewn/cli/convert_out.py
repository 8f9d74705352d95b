"""`wavewn convert MODEL --to PROGRAM`: from a bundle to the files of another program."""

import argparse

# Spelt here, so that --help loads no torch.
FAMILIES = ("hifigan", "parallel-wavegan", "wavenet_vocoder")


def run_convert_out(args: argparse.Namespace) -> None:
    """Write the files, read them back, and say what they are."""
    from typing import cast

    from torch import nn

    from wavewn.errors import ConfigError
    from wavewn.formats.writing import write_foreign
    from wavewn.source import open_source

    if args.calibrate or args.force or args.dtype != "float32" or args.licence is not None:
        raise ConfigError(
            "--calibrate, --dtype, --licence and --force belong to bundles; --to writes none"
        )
    bundle = open_source(args.source)
    state = cast("nn.Module", bundle.model).state_dict()
    files = write_foreign(bundle.model.settings, bundle.mel, state, args.to, args.out)
    print(f"{args.out}: {', '.join(files)}; read back, they are the same model")
    if bundle.levellings:
        print(f"its {bundle.levellings} levellings stay behind: other programs know none")
