"""How the byte-level tokenizer of a GGUF file cuts text into words before merging, in the tokenizers library.

transformers reads a tokenizer's vocabulary and merges from such a file, and not in every case how it cuts text: of
SmolLM2's it leaves out that numbers are cut into digits, and adds a fallback to bytes that the model does not have.
"""

from pathlib import Path
from typing import Any

from palimpsest.errors import PalimpsestError

WORDS = (
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
)
"""How GPT-2, Llama 3 and Qwen2 cut text into words."""
GPT2, SMOLLM, LLAMA3, QWEN2 = "gpt-2", "smollm", "llama-bpe", "qwen2"
"""llama.cpp's names for them, and for GPT-2's way with single digits."""
MODEL, PRE = "tokenizer.ggml.model", "tokenizer.ggml.pre"


def cut_as_the_file_says(tokenizer: Any, path: Path) -> None:
    """Have a tokenizer that transformers made of a GGUF file cut text as that file says; one that is not byte-level
    BPE stays as it is. Raises PalimpsestError for a way that is not known here."""
    from gguf import GGUFReader
    from tokenizers import decoders, pre_tokenizers

    fields = GGUFReader(path).fields
    if MODEL not in fields or fields[MODEL].contents() != "gpt2":
        return
    name = fields[PRE].contents() if PRE in fields else None
    steps = _steps().get(str(name))
    if steps is None:
        raise PalimpsestError(
            f"{path} cuts text as {name!r} ({PRE}), which is not known here: give the checkpoint as a folder of "
            f"safetensors. Known are {', '.join(_steps())}."
        )
    whole = tokenizer.backend_tokenizer
    whole.pre_tokenizer = steps[0] if len(steps) == 1 else pre_tokenizers.Sequence(steps)
    whole.decoder = decoders.ByteLevel()
    whole.model.byte_fallback = whole.model.fuse_unk = False
    whole.model.ignore_merges = name == LLAMA3


def _steps() -> dict[str, list[Any]]:
    from tokenizers import Regex
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Split

    words = ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=True)
    letters = ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    return {
        GPT2: [words],
        SMOLLM: [Digits(individual_digits=True), words],
        LLAMA3: [Split(Regex(WORDS[1]), "isolated"), letters],
        QWEN2: [Split(Regex(WORDS[2]), "isolated"), letters],
    }
