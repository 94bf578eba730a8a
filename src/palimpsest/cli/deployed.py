"""`palimpsest engine` and `palimpsest deployed`: the file that ships, whoever made it."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from palimpsest.cli.verdict import Outcome
from palimpsest.errors import PalimpsestError, printable

if TYPE_CHECKING:
    from palimpsest.inference.agreement import Asked
    from palimpsest.inference.engines import Engine
    from palimpsest.metrics.engine import EngineRecord
    from palimpsest.quantizers.deployed import Deployed
    from palimpsest.quantizers.origin import OriginRecord

KEY_VARIABLE = "OPENAI_API_KEY"
CODES = {"same": 0, "differs": 2, "undecided": 3}
HELP = "Exit code: 0 the same, 2 differs, 3 undecided; 1 and 64 where the command itself is wrong."


def engine(
    file: Annotated[Path, typer.Argument(help="The GGUF file, or the quantized folder, that the engine runs.")],
    of: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="The checkpoint it was made from: its settings and tokenizer.")
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(metavar="FILE", help="JSON lines with a prompt and, if known, its true answer.")
    ] = None,
    tokens: Annotated[int, typer.Option(min=1, metavar="N", help="Tokens of an answer, at most.")] = 24,
    chat: Annotated[bool, typer.Option("--chat", help="Put each prompt in the tokenizer's chat template.")] = False,
    system: Annotated[str | None, typer.Option(metavar="TEXT", help="Of --chat: the message before it.")] = None,
    date: Annotated[str | None, typer.Option(metavar="DAY", help="Of --chat: the date that it may print.")] = None,
    endpoint: Annotated[
        str, typer.Option(metavar="URL", help="A server that runs the file, such as http://127.0.0.1:8080/v1.")
    ] = "",
    model: Annotated[str, typer.Option(metavar="NAME", help="What the server calls the model.")] = "",
    key_variable: Annotated[
        str, typer.Option(metavar="NAME", help="The environment variable that holds the server's key.")
    ] = KEY_VARIABLE,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the whole record to this file.")] = None,
) -> None:
    """Does the engine that ships a file compute what its weights say? llama.cpp in this process, or a server.

    \b
    Example: palimpsest engine model-q4_k_m.gguf --of CHECKPOINT --prompts forget.jsonl
    """
    from palimpsest.artefacts import write_json
    from palimpsest.inference.agreement import PROMPTS, Asked
    from palimpsest.metrics.engine import read_prompts
    from palimpsest.quantizers.deployed import recognise

    if not chat and (system is not None or date is not None):
        raise PalimpsestError("--system and --date belong to a chat template: give --chat too, or leave them out.")
    if chat and endpoint:
        raise PalimpsestError(
            "--chat asks llama.cpp in this process, for a server begins texts in its own way: leave out --endpoint, or "
            "write the whole prompts into the file of --prompts."
        )
    found = recognise(file)
    asked = read_prompts(prompts) if prompts else [Asked(each) for each in PROMPTS]
    record = _examine(found, of, asked, tokens, (endpoint, model, key_variable), (system, date) if chat else None)
    record |= {"file": str(found.path), "format": found.format}  # type: ignore[assignment,operator]
    if json:
        write_json(json, record)
    print("\n".join(map(printable, _lines(record))))
    raise Outcome(CODES[record["verdict"]])


def _examine(
    found: "Deployed",
    of: Path | None,
    asked: "list[Asked]",
    tokens: int,
    server: tuple[str, str, str],
    chat: tuple[str | None, str | None] | None,
) -> "EngineRecord":
    """server: its address, the model's name there, and the variable with its key. chat: the message and the date of the
    chat template; None: prompts are asked as they are."""
    from palimpsest.runtime.startup import import_transformers

    import_transformers()
    from tqdm import tqdm

    from palimpsest.inference.agreement import Rounding
    from palimpsest.metrics.engine import examine, under_chat_template
    from palimpsest.models.checkpoint import current_device, load_tokenizer

    tokenizer = load_tokenizer(of or found.path)
    if chat:
        asked = under_chat_template(asked, tokenizer, of or found.path, *chat)
    running = _engine(found, tokenizer, asked, tokens, server)
    with tqdm(total=len(asked), unit=" prompts", leave=False, disable=None) as bar:
        return examine(
            running,
            lambda: (found.load(of, current_device(), "float32"), tokenizer),
            asked,
            Rounding(found.input_blocks()),
            tokens,
            bar.update,
        )


def _engine(
    found: "Deployed", tokenizer: Any, asked: "list[Asked]", tokens: int, server: tuple[str, str, str]
) -> "Engine":
    url, model, variable = server
    if url:
        from palimpsest.inference.endpoint import Endpoint

        running = Endpoint(url, tokenizer, model, os.environ.get(variable, ""))
        running.check()
        return running
    if not found.is_gguf:
        raise PalimpsestError(
            f"{found.path} ({found.format}) is no GGUF file, and llama.cpp is the engine that runs here: start the "
            "server that ships it, and give its address with --endpoint."
        )
    from palimpsest.inference.llama_cpp import LlamaCpp

    longest = max(len(each.answered(tokenizer).tokens) for each in asked)
    return LlamaCpp(found.path, longest + tokens, begins=not asked[0].tokens)


def _lines(record: "EngineRecord") -> list[str]:
    found = record["agreement"]
    engine = ", ".join(f"{key} {value}" for key, value in record["engine"].items() if value)
    gaps, yardstick, allowed = found["gaps"], found["yardstick"], found["allowed"]
    lines = [
        f"{record['file']} ({record['format']})",
        f"asked through {engine}, beside its dequantized weights in transformers (float32)",
        f"Prompts cut into the same tokens: {found['same_prompts']} of {found['prompts']}.",
        f"Greedy tokens: {found['same_tokens']} of {found['tokens']} the same, {found['near_ties']} near ties.",
        f"Gap of log-probabilities: {gaps['rms']:.4f} nats root mean square, {gaps['largest']:.4f} the largest.",
        f"Allowed: {allowed['rms']:.4f} and {allowed['largest']:.4f}. What {found['rounding']} cost these weights on "
        f"these tokens is {yardstick['rms']:.4f} and {yardstick['largest']:.4f}; twice and three times that may be.",
        f"Whole answers the same, each going on by itself: {record['same_responses']} of {found['prompts']}.",
    ]
    if rouge := record["rouge"]:
        lines.append(f"ROUGE-L recall: {rouge['engine']:.1f} by the engine, {rouge['transformers']:.1f} here.")
    if nats := record["nats"]:
        lines.append(
            f"True answers: {nats['engine']:.4f} nats per token by the engine, {nats['transformers']:.4f} here."
        )
    return [*lines, f"Verdict: {record['verdict']}", *(f"- {reason}." for reason in record["reasons"])]


ORIGIN_HELP = (
    "Exit code: 0 of this checkpoint, 2 not of it or the target's, 3 not proven; 1 and 64 as for every command."
)
ORIGIN_CODES = {"same": 0, "other settings": 0, "not of this checkpoint": 2, "the target's": 2}


def deployed(
    file: Annotated[Path, typer.Argument(help="The quantized file or folder that is deployed.")],
    of: Annotated[Path, typer.Option(metavar="FOLDER", help="The unlearned checkpoint it is said to be made from.")],
    target: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="The model before unlearning, which it must not be.")
    ] = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the whole record to this file.")] = None,
) -> None:
    """Was this quantized file made from this checkpoint? Its codes beside what the same format makes of it.

    \b
    Example: palimpsest deployed model-q4_k_m.gguf --of UNLEARNED --target TARGET
    """
    from palimpsest.artefacts import write_json
    from palimpsest.quantizers.deployed import recognise
    from palimpsest.quantizers.origin import compare_origin

    for folder in (of, target):
        if folder is not None and not folder.is_dir():
            raise PalimpsestError(f"{folder} is no folder: give a checkpoint saved in safetensors format.")
    record = compare_origin(recognise(file), of, target)
    if json:
        write_json(json, record)
    print("\n".join(map(printable, _origin_lines(record))))
    raise Outcome(ORIGIN_CODES.get(record["verdict"], 3))


def _origin_lines(record: "OriginRecord") -> list[str]:
    rest, values = record["unquantized"], record["values"]
    lines = [f"{record['file']} ({record['format']})"]
    if record["not_proven"]:
        lines.append(f"Not proven: {record['not_proven']}.")
    if record["relative_error"] is not None:
        own = f", {record['own_error']:.4f} in our own of the checkpoint" if record["own_error"] else ""
        lines.append(
            f"Rounding error |Q - W| / |W| over {record['matrices']} matrices: {record['relative_error']:.4f} in the "
            f"file{own}."
        )
    if values:
        lines.append(
            f"Weights: {values['weights']:,}, of which {values['of_checkpoint']:,} are what it must make of them."
        )
        if record["target"]:
            lines.append(
                f"Weights in which quantized checkpoint and target differ: {values['decisive']:,}, of which "
                f"{values['decided_checkpoint']:,} are the checkpoint's and {values['decided_target']:,} the target's."
            )
    lines.append(f"Unquantized tensors: {rest['tensors']}, of which {rest['of_checkpoint']} are the checkpoint's.")
    if record["target"]:
        lines.append(
            f"Of the checkpoint alone: {rest['checkpoint_alone']}; of the target alone: {rest['target_alone']}."
        )
    if held := record["held"]:
        lines.append(f"Share of the update in the file: {held['share']:.2f} (standard error {held['error']:.2f}).")
    return [*lines, f"Verdict: {record['verdict']}", *(f"- {reason}." for reason in record["reasons"])]
