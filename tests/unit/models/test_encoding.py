"""Texts start and end as the tokenizer of the model has it, whichever special tokens it has."""

import copy
import math

import pytest
import torch
from tokenizers import processors
from tokenizers_of_families import FAMILIES, byte_level, parts, sentencepiece_like
from transformers import LlamaTokenizer, PreTrainedTokenizerFast

from palimpsest.errors import PalimpsestError
from palimpsest.inference.files import write_log_probs, write_responses
from palimpsest.inference.generation import generate
from palimpsest.inference.likelihood import split_log_probs, token_log_probs
from palimpsest.inference.requests import Request, corpus_requests, encode
from palimpsest.metrics import score
from palimpsest.models.checkpoint import load_model, load_tokenizer, save_checkpoint
from palimpsest.models.encoding import end_token, padding_token, start_tokens
from palimpsest.models.sequences import chunk, corpus_sequences, question_sequence
from palimpsest.training.schedule import Schedule
from palimpsest.training.trainer import train
from palimpsest.unlearning.objective import Objective
from palimpsest.unlearning.unlearn import unlearn
from palimpsest.vocabulary import SPLITS

STARTS = {"qwen2": [], "gpt2": [], "llama": [1], "bare": [], "bos_alone": [0]}
ENDS = {"qwen2": [0], "gpt2": [0], "llama": [2], "bare": [], "bos_alone": []}
PADDING = {"qwen2": 0, "gpt2": 0, "llama": 2, "bare": 0, "bos_alone": 0}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tiny, tmp_path_factory):
    """(its name, a checkpoint of it that knows the tiny corpus, the corpus)."""
    corpus = tiny[2]
    torch.manual_seed(0)
    model, tokenizer = FAMILIES[request.param]([*corpus.forget, *corpus.retain])
    folder = tmp_path_factory.mktemp(request.param)
    save_checkpoint(model.float(), tokenizer, folder)
    model, tokenizer = load_model(folder, torch.float32), load_tokenizer(folder)
    sequences = corpus_sequences(corpus, "forget", tokenizer, 64, True)
    train(model, sequences, padding_token(tokenizer), Schedule(6e-3, 25, storage="float32"))
    save_checkpoint(model, tokenizer, folder)
    return request.param, folder, corpus


def test_texts_start_and_end_as_the_tokenizer_has_it(family):
    name, folder, corpus = family
    tokenizer = load_tokenizer(folder)
    assert start_tokens(tokenizer) == STARTS[name]
    assert end_token(tokenizer) == ENDS[name]
    assert padding_token(tokenizer) == PADDING[name]
    text = corpus.forget[0]
    assert encode(tokenizer, text) == tokenizer(text)["input_ids"], "the tokenizer's own"
    assert tokenizer.decode(encode(tokenizer, text), skip_special_tokens=True) == text
    chunks = chunk(corpus.retain, tokenizer, 32)
    start = STARTS[name]
    assert all(each[: len(start)] == start for each in chunks)
    assert {len(each) for each in chunks[:-1]} == {32}
    joined = tokenizer("\n\n".join(corpus.retain), add_special_tokens=False)["input_ids"]
    assert [token for each in chunks for token in each[len(start) :]] == joined
    asked = corpus.forget_qa[0]
    sequence = question_sequence(tokenizer, asked.question, asked.answer)
    assert sequence[: len(start)] == start and sequence[len(sequence) - len(ENDS[name]) :] == ENDS[name]


def test_log_probabilities_leave_out_only_what_nothing_predicts(family):
    _, folder, corpus = family
    model, tokenizer = load_model(folder, torch.float32), load_tokenizer(folder)
    texts = [*corpus.forget[:2], corpus.holdout[0][:20]]
    rows = token_log_probs(model, tokenizer, texts, 100, 8)
    for text, row in zip(texts, rows, strict=True):
        ids = tokenizer(text)["input_ids"][:100]
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        assert row == pytest.approx([float(logits[i - 1, ids[i]]) for i in range(1, len(ids))], abs=2e-4)
        assert len(row) == len(ids) - 1


def test_responses_are_greedy_and_end_where_they_may(family):
    name, folder, corpus = family
    model, tokenizer = load_model(folder, torch.float32), load_tokenizer(folder)
    requests = corpus_requests(corpus, tokenizer, 12, 8, 1)
    alone = [generate(model, tokenizer, [request], 1)[0].response for request in requests]
    assert [each.response for each in generate(model, tokenizer, requests, 16)] == alone
    prompt = Request("verbmem", 0, corpus.verbmem[0].prompt, "", 12)
    ids = tokenizer(prompt.prompt)["input_ids"]
    start = len(ids)
    with torch.no_grad():
        while len(ids) < start + 12 and ids[-1] not in ENDS[name]:
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    expected = tokenizer.decode(ids[start:], skip_special_tokens=True).strip()
    assert generate(model, tokenizer, [prompt], 1)[0].response == expected != ""


def test_every_metric_scores_it_and_unlearning_runs(family, tmp_path):
    """The forget text is known, its passages are likelier than the holdout's; less so after gradient ascent."""
    _, folder, corpus = family
    tokenizer = load_tokenizer(folder)
    forget, retain = (corpus_sequences(corpus, split, tokenizer, 64, True) for split in ("forget", "retain"))
    unlearned = load_model(folder, torch.float32)
    method, schedule = Objective("ga", "gdr"), Schedule(1e-3, 3, storage="float32")
    unlearn(unlearned, forget, retain, padding_token(tokenizer), method, schedule)
    scores = {}
    for what, model in {"known": load_model(folder, torch.float32), "unlearned": unlearned}.items():
        responses, logprobs = tmp_path / f"{what}.jsonl", tmp_path / f"{what}.parquet"
        write_responses(generate(model, tokenizer, corpus_requests(corpus, tokenizer, 12, 8, 1), 16), responses)
        splits = {split: getattr(corpus, f"privleak_{split}") for split in SPLITS}
        write_log_probs(split_log_probs(model, tokenizer, splits, 64, 16), logprobs)
        drawn = {"resamples": 50, "confidence": 0.95, "seed": 0}
        settings = {
            "verbmem": {"rouge": "rougeL_f1"} | drawn,
            "knowmem": {"rouge": "rougeL_f1"} | drawn,
            "privleak": {"min_k_ratio": 0.4, "reference": "news"} | drawn,
            "perplexity": {"split": "forget"} | drawn,
        }
        known = tmp_path / "known.parquet"
        scores[what] = {metric: score(metric, each, responses, logprobs, known) for metric, each in settings.items()}
    known, after = scores["known"], scores["unlearned"]
    assert all(math.isfinite(each["score"]) for each in [*known.values(), *after.values()])
    nats = known["perplexity"]["nats_per_token"]
    assert nats["forget"] < nats["holdout"] - 1 and known["privleak"]["auc"] < 0.1
    assert after["perplexity"]["nats_per_token"]["forget"] > nats["forget"] + 0.1


def test_a_tokenizer_that_names_a_bos_and_does_not_put_it_has_none_before_its_texts(tiny, tmp_path):
    """BLOOM and Phi-3 are such: their models never saw one there. Those of ours say in their file that it was put."""
    texts = tiny[2].forget
    bloom = byte_level(texts, ["<unk>", "<s>", "</s>"])
    bloom.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizers = {
        "bloom": PreTrainedTokenizerFast(tokenizer_object=bloom, bos_token="<s>", eos_token="</s>"),
        "phi3": LlamaTokenizer(**parts(sentencepiece_like(texts)), add_bos_token=False),
        "ours": tiny[1],
    }
    for name, tokenizer in tokenizers.items():
        tokenizer.save_pretrained(tmp_path / name)
        for each in (tokenizer, copy.deepcopy(tokenizer), load_tokenizer(tmp_path / name)):
            assert start_tokens(each) == ([tiny[1].bos_token_id] if name == "ours" else [])
            assert each("a")["input_ids"] == each("a", add_special_tokens=False)["input_ids"]


def test_several_tokens_and_an_eos_behind_the_text(tiny):
    """Texts start with all that the tokenizer puts first; the EOS that it puts last is no part of the start."""
    backend = byte_level(tiny[2].forget, ["[gMASK]", "<sop>", "</s>"])
    backend.post_processor = processors.TemplateProcessing(
        single="[gMASK] <sop> $A </s>", special_tokens=[("[gMASK]", 0), ("<sop>", 1), ("</s>", 2)]
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>")
    assert start_tokens(tokenizer) == [0, 1] and encode(tokenizer, "the town")[-1] != 2
    assert {len(each) for each in chunk(tiny[2].retain, tokenizer, 32)[:-1]} == {32}


def test_a_text_without_a_predicted_token_is_named(family):
    name, folder, corpus = family
    model, tokenizer = load_model(folder, torch.float32), load_tokenizer(folder)
    empty = "" if STARTS[name] else "a"
    with pytest.raises(PalimpsestError, match=rf"text 1 of privleak/retain \('{empty}'\) has no token that follows"):
        split_log_probs(model, tokenizer, {"forget": corpus.forget, "retain": ["The town.", empty]}, 64, 2)
