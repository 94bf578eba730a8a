"""The command line: `palimpsest COMMAND ...`. A mistake of the user's is one line on stderr and exit code 1."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from palimpsest.errors import PalimpsestError, one_line


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        "palimpsest", description="Does an unlearned language model still forget after quantization?"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_survive(commands)
    options = parser.parse_args(arguments)
    with one_line("palimpsest"):
        options.run(options)
    return 0


def _add_survive(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    summary = (
        "what of an unlearning update is left in each format: from two checkpoints, without data, GPU or forward pass"
    )
    parser = commands.add_parser("survive", help=summary, description=summary)
    parser.add_argument("target", type=Path, help="checkpoint folder before unlearning (safetensors)")
    parser.add_argument("unlearned", type=Path, help="checkpoint folder after unlearning")
    formats = parser.add_mutually_exclusive_group()
    formats.add_argument(
        "--quantizer", nargs="+", metavar="NAME", help="formats by name; an unknown one prints the list"
    )
    formats.add_argument(
        "--params", type=Path, metavar="FILE", help="those of a study's params.yaml that weights alone decide"
    )
    parser.add_argument("--layers", action="store_true", help="a table by kind of layer, too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the whole record")
    parser.set_defaults(run=_survive)


def _survive(options: argparse.Namespace) -> None:
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy: the cores are taken by blocks of rows
    from tqdm import tqdm

    from palimpsest.artefacts import write_json
    from palimpsest.survival.checkpoints import DEFAULT_FORMATS, choose_formats, count_weights, formats_of, survive
    from palimpsest.survival.prediction import read_table
    from palimpsest.survival.text import add_predictions, render

    for folder in (options.target, options.unlearned):
        if not folder.is_dir():
            raise PalimpsestError(
                f"{folder} is no folder: give the folder of a checkpoint saved in safetensors format."
            )
    if options.target.samefile(options.unlearned):
        raise PalimpsestError(f"{options.target} is both target and unlearned model: give two checkpoints.")
    if options.params:
        from palimpsest.study.params import read_params

        quantizers, skipped = formats_of(read_params(options.params)["quantizers"])
    else:
        quantizers, skipped = choose_formats(options.quantizer or DEFAULT_FORMATS), {}
    bar = tqdm(
        total=count_weights(options.target),
        unit=" weights",
        unit_scale=True,
        leave=False,
        disable=None,  # where stderr is no terminal
    )
    with bar:
        record = survive(options.target, options.unlearned, quantizers, bar.update) | {"skipped": skipped}
    table = read_table()
    add_predictions(record, table)
    if options.json:
        write_json(options.json, record)
    print(render(record, table, options.layers), end="")


if __name__ == "__main__":
    sys.exit(main())
