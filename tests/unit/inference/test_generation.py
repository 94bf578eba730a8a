"""Inference: a response depends on its prompt alone, and log-probabilities are the model's."""

import copy
import json
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.nn.attention import sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from palimpsest.corpus.prompts import STOP_STRINGS, question_prompt
from palimpsest.errors import PalimpsestError
from palimpsest.inference import generation as inference
from palimpsest.inference.files import read_logprobs, write_log_probs
from palimpsest.inference.generation import KERNELS, end_tokens, generate
from palimpsest.inference.likelihood import split_log_probs, token_log_probs
from palimpsest.inference.requests import Request, corpus_requests, encode
from palimpsest.models.checkpoint import load_model
from palimpsest.models.sequences import corpus_sequences
from palimpsest.training.schedule import Schedule
from palimpsest.training.trainer import train


@pytest.fixture(scope="module")
def speaker(tiny):
    """The tiny model after some epochs, so that its responses differ from prompt to prompt."""
    model, tokenizer, corpus = tiny
    model = copy.deepcopy(model)
    train(model, corpus_sequences(corpus, "forget", tokenizer, 64, True), tokenizer.pad_token_id, Schedule(3e-3, 40))
    return model.eval(), tokenizer, corpus


def ask(model, tokenizer, requests, batch_size):
    return {(each.task, each.id): each.response for each in generate(model, tokenizer, requests, batch_size)}


def test_padding_batch_size_and_order_change_no_response(speaker):
    model, tokenizer, corpus = speaker
    requests = corpus_requests(corpus, tokenizer, 16, 8, 1)
    alone = ask(model, tokenizer, requests, 1)
    assert len(set(alone.values())) > 4
    shuffled = random.Random(0).sample(requests, len(requests))
    for batch_size, order in ((3, requests), (64, requests), (5, shuffled)):
        assert ask(model, tokenizer, order, batch_size) == alone


def test_responses_and_log_probabilities_show_their_progress(speaker, capsys):
    model, tokenizer, corpus = speaker
    requests = corpus_requests(corpus, tokenizer, 4, 4, 0)[:2]
    list(generate(model, tokenizer, requests, 1))
    assert "responses: 100%" in capsys.readouterr().err
    split_log_probs(model, tokenizer, {"forget": corpus.privleak_forget[:2]}, 16, 1)
    assert "log-probabilities: 100%" in capsys.readouterr().err


def test_a_start_that_all_questions_share_is_run_once_and_changes_no_response(speaker, monkeypatch):
    """With their in-context examples, and without the model's cache of them."""
    model, tokenizer, corpus = speaker
    requests = corpus_requests(corpus, tokenizer, 16, 8, 2)
    seen = []
    hook = model.register_forward_pre_hook(
        lambda _, args, inputs: seen.append(inputs["input_ids"].numel()), with_kwargs=True
    )
    shared, tokens = ask(model, tokenizer, requests, 4), sum(seen)
    monkeypatch.setattr(inference, "SHARED", 10**6)
    seen.clear()
    assert ask(model, tokenizer, requests, 4) == shared
    assert tokens < 0.6 * sum(seen)
    hook.remove()


def test_generation_is_greedy(speaker):
    model, tokenizer, _ = speaker
    prompt = "The town"
    (response,) = generate(model, tokenizer, [Request("verbmem", 0, prompt, "", 6)], 1)
    ids = encode(tokenizer, prompt)
    with torch.no_grad():
        for _ in range(6):
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] == tokenizer.eos_token_id:
                break
    expected = tokenizer.decode(ids[len(encode(tokenizer, prompt)) :], skip_special_tokens=True)
    assert response.response == expected.strip()


OTHERS = {
    "penalty": {"repetition_penalty": 3.0, "encoder_repetition_penalty": 2.0},
    "no repetition": {"no_repeat_ngram_size": 1},
    "sampling": {"do_sample": True, "temperature": 9.0, "top_k": 3, "top_p": 0.5, "typical_p": 0.5},
    "forbidden": {"suppress_tokens": list(range(60, 200)), "begin_suppress_tokens": list(range(200, 330))},
    "words": {"bad_words_ids": [[token] for token in range(60, 200)], "sequence_bias": [[[70], 40.0]]},
    "forced": {"forced_bos_token_id": 77, "forced_eos_token_id": 78},
    "lengths": {"min_length": 300, "min_new_tokens": 12, "max_length": 3, "max_new_tokens": 2, "max_time": 0.0},
    "beams": {"num_beams": 3, "length_penalty": 9.0, "early_stopping": True, "num_return_sequences": 2},
    "stopping": {"stop_strings": ["e", "a", " "]},
    "cache": {"use_cache": False, "cache_implementation": "static", "return_dict_in_generate": True},
    "drafts": {"prompt_lookup_num_tokens": 3},
}


@pytest.mark.parametrize("file", ["generation_config.json", "config.json"])
@pytest.mark.parametrize("kind", OTHERS)
def test_a_checkpoints_generation_config_changes_no_response(speaker, tmp_path, kind, file):
    """Not what a file of its own says, and not what config.json says, where older checkpoints have it."""
    model, tokenizer, corpus = speaker
    requests = corpus_requests(corpus, tokenizer, 16, 8, 1)
    model.save_pretrained(tmp_path)
    path = tmp_path / file
    if file == "config.json":
        (tmp_path / "generation_config.json").unlink()
    stated = json.loads(path.read_text())
    path.write_text(json.dumps(stated | OTHERS[kind]))
    loaded = load_model(tmp_path, torch.float32)
    before = loaded.generation_config.to_dict()
    assert ask(loaded, tokenizer, requests, 4) == ask(model, tokenizer, requests, 4)
    assert loaded.generation_config.to_dict() == before, "what is saved of it stays the checkpoint's"


def test_every_eos_of_the_checkpoint_ends_a_response(speaker, tmp_path):
    """A list of them, as chat models have it, and the tokenizer's own beside it."""
    model, tokenizer, corpus = speaker
    requests = corpus_requests(corpus, tokenizer, 16, 8, 0)
    free = ask(model, tokenizer, requests, 4)
    said = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in free.values()]
    ends = {said[0][2], said[-1][1]}
    model.save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": sorted(ends)}))
    loaded = load_model(tmp_path, torch.float32)
    assert set(end_tokens(loaded, tokenizer)) == ends | {tokenizer.eos_token_id}
    stopped = ask(loaded, tokenizer, requests, 4)
    for key, text in stopped.items():
        assert free[key].startswith(text)
        assert not ends & set(tokenizer(text, add_special_tokens=False)["input_ids"])
    assert sum(stopped[key] != free[key] for key in free) >= 2


def test_an_eos_that_is_no_token_is_named(speaker):
    model, tokenizer, _ = speaker
    model = copy.deepcopy(model)
    model.generation_config.eos_token_id = ["</s>"]
    with pytest.raises(PalimpsestError, match=r"eos_token_id of the checkpoint's generation_config.json is \['</s>'\]"):
        generate(model, tokenizer, [Request("verbmem", 0, "The town", "", 6)], 1)


def test_stop_strings_end_a_response(speaker):
    model, tokenizer, corpus = speaker
    asked = corpus.forget_qa[0]
    request = Request("knowmem_forget", 0, question_prompt(asked.question), asked.answer, 12)
    (free,) = generate(model, tokenizer, [request], 1)
    stop = free.response[2:4]
    (stopped,) = generate(model, tokenizer, [Request(**vars(request) | {"stop": (stop, *STOP_STRINGS)})], 1)
    assert stopped.response == free.response[: free.response.index(stop)].strip()


def test_no_token_is_computed_behind_a_stop_string(speaker):
    """The text behind it is cut off in any case, so that the model's passes are counted:
    it says an answer, a newline and more."""
    model, tokenizer, corpus = speaker
    script = tokenizer(" the town\n\nQuestion: and so on", add_special_tokens=False)["input_ids"]
    passes = []

    class Head(torch.nn.Module):
        def forward(self, hidden):
            logits = torch.zeros(*hidden.shape[:2], len(tokenizer))
            logits[..., script[len(passes)]] = 9.0
            passes.append(hidden.shape)
            return logits

    said = copy.deepcopy(model)
    said.lm_head = Head()
    prompts = [question_prompt(each.question) for each in corpus.forget_qa[:3]]
    for stop, expected in ((STOP_STRINGS, "the town"), ((), tokenizer.decode(script).strip())):
        passes.clear()
        requests = [Request("knowmem_forget", i, prompt, "", len(script), stop) for i, prompt in enumerate(prompts)]
        assert [each.response for each in generate(said, tokenizer, requests, 3)] == [expected] * 3
        if stop:
            assert len(passes) < len(script), "generation went on behind the stop string"
    assert len(passes) == len(script)


def test_log_probs_are_the_models_in_any_batch(speaker):
    model, tokenizer, corpus = speaker
    texts = [*corpus.forget, "Short one.", *corpus.holdout]
    rows = token_log_probs(model, tokenizer, texts, 200, 8)
    single = [token_log_probs(model, tokenizer, [text], 200, 1)[0] for text in texts]
    for text, row, lone in zip(texts, rows, single, strict=True):
        ids = torch.tensor([encode(tokenizer, text)[:200]])
        with torch.no_grad():
            logits = model(ids).logits[0, :-1].log_softmax(-1)
        direct = logits[torch.arange(ids.shape[1] - 1), ids[0, 1:]].tolist()
        assert row == pytest.approx(direct, abs=2e-4) and lone == pytest.approx(direct, abs=2e-4)


def test_attention_takes_no_kernel_of_cudnn(speaker):
    """Its kernels are planned anew for every length; torch is as it was afterwards."""
    model, tokenizer, corpus = speaker
    allowed = []
    hook = model.register_forward_pre_hook(lambda *_: allowed.append(torch.backends.cuda.cudnn_sdp_enabled()))
    generate(model, tokenizer, corpus_requests(corpus, tokenizer, 4, 4, 0)[:3], 2)
    token_log_probs(model, tokenizer, corpus.privleak_forget[:2], 16, 2)
    hook.remove()
    assert len(allowed) > 5 and not any(allowed)
    assert torch.backends.cuda.cudnn_sdp_enabled()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU: on a CPU the order of a sum is fixed")
@pytest.mark.parametrize("shape", [(32, 32, 201, 128), (32, 32, 256, 128), (32, 8, 333, 96)])
def test_attention_of_one_query_has_the_same_bits_every_time_on_a_gpu(shape):
    """As in a step of generation from prompts of one length. cuDNN's kernels do not."""
    *heads, length, width = shape
    draw = torch.Generator("cuda").manual_seed(0)
    query, keys, values = (
        torch.randn(*heads, tokens, width, generator=draw, device="cuda", dtype=torch.bfloat16)
        for tokens in (1, length, length)
    )
    with sdpa_kernel(KERNELS):
        found = [scaled_dot_product_attention(query, keys, values) for _ in range(30)]
    assert all(torch.equal(found[0], other) for other in found[1:])


def test_splits_get_the_log_probs_of_their_texts(speaker):
    model, tokenizer, corpus = speaker
    splits = {"forget": corpus.forget[:2], "holdout": ["Short one.", *corpus.holdout[:2]]}
    rows = split_log_probs(model, tokenizer, splits, 60, 2)
    for name, texts in splits.items():
        alone = [token_log_probs(model, tokenizer, [text], 60, 1)[0] for text in texts]
        assert [pytest.approx(row, abs=2e-4) for row in alone] == rows[name]


def test_true_continuations_are_as_long_as_generated_ones(tiny):
    _, tokenizer, corpus = tiny
    requests = [each for each in corpus_requests(corpus, tokenizer, 5, 8, 0) if each.task == "verbmem"]
    for request, prompt in zip(requests, corpus.verbmem, strict=True):
        assert prompt.gt.startswith(request.answer)
        assert len(tokenizer(" " + request.answer, add_special_tokens=False)["input_ids"]) <= 6


def test_what_the_model_has_no_positions_for_is_refused(tiny):
    model, tokenizer, corpus = tiny
    request = Request("verbmem", 0, corpus.forget[0], "", 300)
    with pytest.raises(
        PalimpsestError, match=r"a prompt with its response takes .* tokens, the model has room for 256: lower"
    ):
        generate(model, tokenizer, [request], 1)
    with pytest.raises(PalimpsestError, match=r"a text takes 400 tokens, .*: lower inference.logprob_tokens"):
        token_log_probs(model, tokenizer, [" ".join(corpus.forget * 9)], 400, 1)
    with pytest.raises(PalimpsestError, match=r"a training sequence takes 300 tokens, .*: lower training.max_length"):
        train(model, [[3] * 300], tokenizer.pad_token_id, Schedule(1e-3, 1))


def test_too_few_in_context_examples_are_named(tiny):
    with pytest.raises(PalimpsestError, match="in_context_examples is 99"):
        corpus_requests(tiny[2], tiny[1], 5, 8, 99)


def test_log_probs_read_back_as_they_were(tmp_path):
    splits = {"forget": [[-1.5, -0.25], [-3.0]], "holdout": [[-0.125, -7.0, -0.5]]}
    write_log_probs(splits, tmp_path / "logprobs.parquet")
    for split, rows in splits.items():
        read = read_logprobs(tmp_path / "logprobs.parquet", split)
        assert read.ids == list(range(len(rows)))
        assert all(np.array_equal(*pair) for pair in zip(read.log_probs, rows, strict=True))


def test_inference_imports_no_package_that_it_does_not_use(tmp_path):
    """Each of a hundred processes would pay for it."""
    code = f"""
import sys
from palimpsest.runtime.startup import OPTIONAL, import_transformers
import_transformers()
from palimpsest.inference.files import write_log_probs
write_log_probs({{"forget": [[-1.0]]}}, {str(tmp_path / "logprobs.parquet")!r})
print(*(name for name in (*OPTIONAL, "transformers.trainer", "matplotlib") if name in sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not done.stdout.split()
