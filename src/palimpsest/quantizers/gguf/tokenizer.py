"""A checkpoint's tokenizer in the fields of a GGUF file, in the two kinds that these models have and llama.cpp runs.

llama.cpp tokenizes with code of its own. What it would do otherwise than the checkpoint's tokenizer is an error here,
with two exceptions: llama.cpp, as SentencePiece itself, puts a space before a text (and after a special token) that
starts with one already, and transformers' Metaspace pre-tokenizer does not; and where a tokenizer composes letters and
accents that a text has apart (NFC: Qwen, GPT-NeoX), llama.cpp takes the text as it is.
"""

import json
from pathlib import Path
from typing import Any

from palimpsest.errors import PalimpsestError
from palimpsest.models.gguf_words import GPT2, LLAMA3, QWEN2, SMOLLM, WORDS

SPACE = "▁"
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def add_tokenizer(writer: Any, checkpoint: Path, rows: int) -> None:
    """Add the tokenizer to a GGUF writer. rows: of the embedding; those without a token become unused tokens.

    Raises PalimpsestError when the tokenizer is neither byte-level BPE with a known way to cut words, nor BPE over text
    with spaces as ▁ and a fallback to bytes (SentencePiece), or does not fit the embedding.
    """
    from gguf import TokenType
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint, local_files_only=True, trust_remote_code=False)
    settings = json.loads(tokenizer.backend_tokenizer.to_str())
    added = {token["id"]: token for token in settings["added_tokens"]}
    texts = {index: text for text, index in settings["model"]["vocab"].items()}
    texts |= {index: token["content"] for index, token in added.items()}
    if max(texts) >= rows:
        raise PalimpsestError(f"the tokenizer of {checkpoint} has {max(texts) + 1} tokens, the embedding {rows} rows.")
    kinds = dict.fromkeys(texts, TokenType.NORMAL)
    kinds |= {
        index: TokenType.CONTROL if token["special"] else TokenType.USER_DEFINED for index, token in added.items()
    }

    model = settings["model"]
    if model["type"] == "BPE" and not model.get("byte_fallback"):
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(_word_splitter(settings, checkpoint))
        writer.add_token_merges([" ".join(pair) for pair in model["merges"]])
    elif model["type"] == "BPE" and set(BYTES) <= set(model["vocab"]):
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        writer.add_add_space_prefix(_starts_with_space(settings, checkpoint))
        ranks = _ranks(model, {token["content"] for token in added.values()}, checkpoint)
        writer.add_token_scores([-float(ranks.get(texts.get(index, ""), 0)) for index in range(rows)])
        kinds |= {model["vocab"][text]: TokenType.BYTE for text in BYTES}
        if model["unk_token"] is not None:
            kinds[model["vocab"][model["unk_token"]]] = TokenType.UNKNOWN
            writer.add_unk_token_id(model["vocab"][model["unk_token"]])
    else:
        raise _unknown(checkpoint, f"a {model['type']} model that is not BPE over bytes or with a fallback to them")

    writer.add_token_list([texts.get(index, f"[PAD{index}]") for index in range(rows)])
    writer.add_token_types([kinds.get(index, TokenType.UNUSED) for index in range(rows)])
    if tokenizer.eos_token_id is None:  # llama.cpp would take token 11 or 2 for it
        raise PalimpsestError(f"the tokenizer of {checkpoint} has no eos_token: set one in tokenizer_config.json.")
    around = tokenizer("")["input_ids"]
    if tokenizer.bos_token_id is None and around:  # llama.cpp starts texts with nothing but BOS
        raise PalimpsestError(f"the tokenizer of {checkpoint} has no bos_token: set one in tokenizer_config.json.")
    # where there is no BOS, none is ever added; without a number for it llama.cpp would take token 11 or 1
    writer.add_bos_token_id(tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    if tokenizer.pad_token_id is not None:
        writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_add_bos_token(tokenizer.bos_token_id is not None and around[:1] == [tokenizer.bos_token_id])
    writer.add_add_eos_token(around[-1:] == [tokenizer.eos_token_id])
    if tokenizer.chat_template is not None:
        writer.add_chat_template(tokenizer.chat_template)


def _word_splitter(settings: dict[str, Any], checkpoint: Path) -> str:
    """llama.cpp's name for how a byte-level tokenizer cuts text before merging."""
    steps = settings["pre_tokenizer"] or {"type": "none"}
    steps = steps["pretokenizers"] if steps["type"] == "Sequence" else [steps]
    cuts = []
    for step in steps:
        match step:
            case {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}:
                cuts += [WORDS[0], "bytes"]
            case {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}:
                cuts += ["bytes"]
            case {"type": "Digits", "individual_digits": True}:
                cuts += ["digits"]
            case {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}:
                cuts += [pattern]
            case _:
                raise _unknown(checkpoint, f"the pre-tokenizer {step}")
    known = {
        (WORDS[0], "bytes"): GPT2,
        ("digits", WORDS[0], "bytes"): SMOLLM,
        (WORDS[1], "bytes"): LLAMA3,
        (WORDS[2], "bytes"): QWEN2,
    }
    name = known.get(tuple(cuts))
    if name is None:
        raise _unknown(checkpoint, f"the pre-tokenizers {cuts}")
    if settings["normalizer"] not in (None, {"type": "NFC"}, {"type": "Sequence", "normalizers": []}):
        raise _unknown(checkpoint, f"the normalizer {settings['normalizer']}")
    _reject_options(settings["model"], {"ignore_merges": name == LLAMA3}, checkpoint)
    return name


def _starts_with_space(settings: dict[str, Any], checkpoint: Path) -> bool:
    """Whether a SentencePiece-like tokenizer puts a space before the text."""
    _reject_options(settings["model"], {"ignore_merges": False}, checkpoint)
    match settings["normalizer"], settings["pre_tokenizer"]:
        case (
            {
                "type": "Sequence",
                "normalizers": [
                    {"type": "Prepend", "prepend": "▁"},
                    {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
                ],
            },
            None,
        ):
            return True
        case None, {"type": "Metaspace", "replacement": "▁", "split": False, "prepend_scheme": scheme}:
            return scheme != "never"
        case (
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
            None | {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False},
        ):  # Gemma's: the spaces that it would split at are gone by then
            return False
    raise _unknown(
        checkpoint, f"the normalizer {settings['normalizer']} with the pre-tokenizer {settings['pre_tokenizer']}"
    )


def _ranks(model: dict[str, Any], added: set[str], checkpoint: Path) -> dict[str, int]:
    """When each token is merged: the rank of the first merge that makes it.

    llama.cpp merges any two neighbours whose joined text is a token, the best score first. That is what the merges of
    the tokenizer say only if they hold every such pair, and all pairs of one token before those of the next.
    """
    ranks: dict[str, int] = {}
    pairs, previous = set(), None
    for rank, (left, right) in enumerate(model["merges"]):
        token = left + right
        if token != previous and token in ranks:
            raise _unknown(checkpoint, f"merges that make {token!r} at several ranks")
        ranks.setdefault(token, rank)
        pairs.add((left, right))
        previous = token
    for token in model["vocab"].keys() - added - set(BYTES):
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in model["vocab"] and right in model["vocab"] and (left, right) not in pairs:
                raise _unknown(checkpoint, f"no merge of {left!r} and {right!r}, which llama.cpp would make")
    return ranks


def _reject_options(model: dict[str, Any], wanted: dict[str, Any], checkpoint: Path) -> None:
    for key, value in (wanted | {"dropout": None}).items():
        if (model.get(key) or None) != (value or None):
            raise _unknown(checkpoint, f"{key} {model.get(key)}")
    for key in ("continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key):
            raise _unknown(checkpoint, f"{key} {model[key]!r}")


def _unknown(checkpoint: Path, what: str) -> PalimpsestError:
    return PalimpsestError(
        f"the tokenizer of {checkpoint} has {what}: llama.cpp has no such tokenizer for Llama models. "
        "Take a checkpoint with the tokenizer of GPT-2, SmolLM, Llama 2 or 3, Qwen2 or Gemma, or another backend."
    )
