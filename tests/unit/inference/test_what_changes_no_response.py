"""What must not change a response, a log-probability or a score: tests that need no right value.

Through files, as a study has it: a checkpoint folder is loaded, asked, and scored. Batch size and order are in
test_generation and, for windows, test_batches.
"""

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from palimpsest.corpus.corpus import Prompt, Question
from palimpsest.inference.files import read_logprobs, write_log_probs, write_responses
from palimpsest.inference.generation import generate
from palimpsest.inference.likelihood import split_log_probs
from palimpsest.inference.requests import corpus_requests
from palimpsest.metrics import score
from palimpsest.models.checkpoint import load_model, load_tokenizer, save_checkpoint
from palimpsest.models.sequences import corpus_sequences
from palimpsest.training.schedule import Schedule
from palimpsest.training.trainer import train
from palimpsest.vocabulary import SPLITS

DRAWN = {"resamples": 50, "confidence": 0.95, "seed": 0}
METRICS = {
    "verbmem": {"rouge": "rougeL_f1"} | DRAWN,
    "knowmem": {"rouge": "rougeL_f1"} | DRAWN,
    "utility": {"rouge": "rougeL_f1"} | DRAWN,
    "privleak": {"min_k_ratio": 0.4, "reference": "news"} | DRAWN,
    "perplexity": {"split": "retain"} | DRAWN,
}


@pytest.fixture(scope="module")
def checkpoint(tiny, tmp_path_factory):
    """A folder with a model that knows something of the tiny corpus."""
    model, tokenizer, corpus = copy.deepcopy(tiny[0]), *tiny[1:]
    train(model, corpus_sequences(corpus, "forget", tokenizer, 64, True), tokenizer.pad_token_id, Schedule(3e-3, 40))
    folder = tmp_path_factory.mktemp("models") / "target"
    save_checkpoint(model, tokenizer, folder)
    return folder


def infer(checkpoint, corpus, folder, batch_size=8):
    """(lines of responses, log-probabilities by split, scores by metric) of what stands in the files."""
    folder.mkdir(parents=True)
    model, tokenizer = load_model(checkpoint, torch.float32), load_tokenizer(checkpoint)
    responses, logprobs = folder / "responses.jsonl", folder / "logprobs.parquet"
    write_responses(
        generate(model.eval(), tokenizer, corpus_requests(corpus, tokenizer, 8, 8, 2), batch_size), responses
    )
    splits = {split: getattr(corpus, f"privleak_{split}") for split in SPLITS}
    write_log_probs(split_log_probs(model, tokenizer, splits, 64, batch_size), logprobs)
    scores = {name: score(name, settings, responses, logprobs, logprobs) for name, settings in METRICS.items()}
    return responses.read_text(), {split: read_logprobs(logprobs, split).log_probs for split in SPLITS}, scores


@pytest.fixture(scope="module")
def usual(checkpoint, tiny, tmp_path_factory):
    found = infer(checkpoint, tiny[2], tmp_path_factory.mktemp("usual") / "bf16")
    assert len({json.loads(line)["response"] for line in found[0].splitlines()}) > 4
    return found


def check_same(found, usual, exactly=True):
    assert found[0] == usual[0]
    for split, rows in usual[1].items():
        for mine, theirs in zip(found[1][split], rows, strict=True):
            assert np.array_equal(mine, theirs) if exactly else mine == pytest.approx(theirs, abs=2e-4)
    for name, record in usual[2].items():
        assert found[2][name] == record if exactly else found[2][name]["score"] == pytest.approx(record["score"], 1e-4)


def test_batch_size(checkpoint, tiny, usual, tmp_path):
    for size in (1, 3):
        check_same(infer(checkpoint, tiny[2], tmp_path / str(size), size), usual, exactly=False)


def test_padding_side_and_names_on_disk(checkpoint, tiny, usual, tmp_path):
    """Of the tokenizer's file; of the folder of the model; of where results go. Bit by bit."""
    for side in ("left", "right"):
        folder = tmp_path / f"модель {side} 50%"
        save_checkpoint(load_model(checkpoint, torch.bfloat16), load_tokenizer(checkpoint), folder)
        file = folder / "tokenizer_config.json"
        stated = json.loads(file.read_text())
        file.write_text(json.dumps(stated | {"padding_side": side, "truncation_side": side}))
        assert load_tokenizer(folder).padding_side == side
        check_same(infer(folder, tiny[2], tmp_path / f"out {side}" / "b"), usual)


def test_a_lossless_cast_of_the_stored_type(checkpoint, tiny, usual, tmp_path):
    """bfloat16 weights stored as float32, and in shards."""
    folder = tmp_path / "wide"
    model = load_model(checkpoint, torch.float32)
    model.save_pretrained(folder, max_shard_size="200KB")
    load_tokenizer(checkpoint).save_pretrained(folder)
    assert len(list(folder.glob("*.safetensors"))) > 1
    check_same(infer(folder, tiny[2], tmp_path / "out"), usual)


def test_a_record_more_changes_its_own_row_alone(checkpoint, tiny, usual, tmp_path):
    corpus = tiny[2]
    more = replace(
        corpus,
        forget_qa=[*corpus.forget_qa, Question("Who keeps the long list of all the ferries of the town?", "Nobody")],
        verbmem=[*corpus.verbmem, Prompt("A much longer prompt than all the others of the town are", "in it")],
        privleak_forget=[*corpus.privleak_forget, "A passage that stands in no document of the corpus at all."],
    )
    responses, log_probs, scores = infer(checkpoint, more, tmp_path / "out")
    lines = responses.splitlines()
    assert [line for line in lines if line in usual[0].splitlines()] == usual[0].splitlines()
    assert len(lines) == len(usual[0].splitlines()) + 2
    for split, rows in usual[1].items():
        for mine, theirs in zip(log_probs[split], rows, strict=False):
            assert mine == pytest.approx(theirs, abs=2e-4)
    for name in ("verbmem", "knowmem"):
        before = usual[2][name]["per_example"]
        assert scores[name]["per_example"][: len(before)] == before and scores[name]["n"] == len(before) + 1
    assert scores["utility"] == usual[2]["utility"]


def test_the_order_of_records_changes_the_order_of_rows_alone(checkpoint, tiny, usual, tmp_path):
    corpus = tiny[2]
    turned = replace(
        corpus,
        forget_qa=corpus.forget_qa[::-1],
        verbmem=corpus.verbmem[::-1],
        privleak_forget=corpus.privleak_forget[::-1],
        privleak_holdout=corpus.privleak_holdout[::-1],
    )
    responses, log_probs, scores = infer(checkpoint, turned, tmp_path / "out")

    def said(text):
        return sorted((row["task"], row["prompt"], row["response"]) for row in map(json.loads, text.splitlines()))

    assert said(responses) == said(usual[0])
    for mine, theirs in zip(log_probs["forget"][::-1], usual[1]["forget"], strict=True):
        assert mine == pytest.approx(theirs, abs=2e-4)
    for name, record in usual[2].items():
        assert scores[name]["score"] == pytest.approx(record["score"], rel=1e-4)
