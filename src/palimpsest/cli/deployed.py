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

    found = recognise(file)
    asked = read_prompts(prompts) if prompts else [Asked(each) for each in PROMPTS]
    record = _examine(found, of, asked, tokens, (endpoint, model, key_variable))
    record |= {"file": str(found.path), "format": found.format}  # type: ignore[assignment,operator]
    if json:
        write_json(json, record)
    print("\n".join(map(printable, _lines(record))))
    raise Outcome(CODES[record["verdict"]])


def _examine(
    found: "Deployed", of: Path | None, asked: "list[Asked]", tokens: int, server: tuple[str, str, str]
) -> "EngineRecord":
    """server: its address, the model's name there, and the variable with its key."""
    from palimpsest.runtime.startup import import_transformers

    import_transformers()
    from tqdm import tqdm

    from palimpsest.inference.agreement import Rounding
    from palimpsest.metrics.engine import examine
    from palimpsest.models.checkpoint import load_tokenizer

    tokenizer = load_tokenizer(of or found.path)
    running = _engine(found, tokenizer, [each.prompt + each.answer for each in asked], tokens, server)
    quantized = frozenset(name for name, _ in found.matrices()) if found.block else frozenset()
    with tqdm(total=len(asked), unit=" prompts", leave=False, disable=None) as bar:
        return examine(
            running,
            lambda: (found.load(of, "cpu", "float32"), tokenizer),
            asked,
            Rounding(found.block, quantized),
            tokens,
            bar.update,
        )


def _engine(found: "Deployed", tokenizer: Any, texts: list[str], tokens: int, server: tuple[str, str, str]) -> "Engine":
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
    from palimpsest.models.encoding import encode

    return LlamaCpp(found.path, max(len(encode(tokenizer, text)) for text in texts) + tokens + 8)


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
