"""Questions under every template: what is asked is the start of what was trained, and a model answers it."""

import copy
from contextlib import nullcontext
from datetime import datetime
from string import ascii_letters

import pytest
import torch
from any_text import always, texts
from hypothesis import given
from hypothesis import strategies as st
from tokenizers_of_families import FAMILIES, llama, qwen2

from palimpsest.corpus.prompts import AS_MUSE, DATE, TEXTS, Template, make_template, question_prompt
from palimpsest.errors import PalimpsestError
from palimpsest.inference.files import write_responses
from palimpsest.inference.generation import generate
from palimpsest.inference.requests import corpus_requests
from palimpsest.metrics import score
from palimpsest.models.asking import Asking
from palimpsest.models.encoding import end_token, padding_token, start_tokens
from palimpsest.models.sequences import corpus_sequences, question_sequence
from palimpsest.models.text import text_tokens
from palimpsest.training.schedule import Schedule
from palimpsest.training.trainer import train

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
DATED = (
    "{{ bos_token }}{% if strftime_now is defined %}Today: {{ strftime_now('%d %B %Y') }}{% endif %}"
    "{% if date_string is defined %} ({{ date_string }}){% endif %}"
    "{% for message in messages %}[{{ message.role }}] {{ message.content | trim }}{{ eos_token }}{% endfor %}"
)
SETTINGS = {
    "plain": {"template": "plain"},
    "tofu": {"template": "tofu", "system": None, "date": None},
    "chat": {"template": "chat", "system": "Answer briefly.", "date": "03 Mar 2025"},
    "own": {"template": "Q: {question} A: {answer}"},
    "own closed": {"template": "[INST] {question} [/INST] {answer}\n"},
}


@pytest.fixture(scope="module", params=FAMILIES)
def tokenizer(request, tiny):
    _, tokenizer = FAMILIES[request.param]([*tiny[2].forget, *tiny[2].retain])
    tokenizer.chat_template = CHATML
    return tokenizer


@pytest.mark.parametrize("name", [name for name in SETTINGS if name != "plain"])
def test_a_prompt_is_the_start_of_the_trained_tokens(tokenizer, tiny, name):
    """Of question and answer tokenized together, and all of them up to the answer, whose text is whole."""
    asking, corpus = Asking(make_template(SETTINGS[name]), tokenizer), tiny[2]
    for asked in [*corpus.forget_qa, *corpus.retain_qa]:
        trained = asking.sequence(asked.question, asked.answer)
        put = asking.prompt(asked.question)
        assert tuple(trained[: len(put.tokens)]) == put.tokens
        behind = tokenizer.decode(trained[len(put.tokens) :], skip_special_tokens=True)
        assert behind.strip().removesuffix("<|im_end|>") == asked.answer
        assert asked.question in put.text and asked.answer not in put.text
        whole = asking.answered(asked.question, asked.answer)
        assert whole.tokens[: whole.start] == put.tokens and list(whole.tokens) == trained
        said = tokenizer.decode(list(whole.tokens[whole.start : whole.end]))
        assert said.strip() == asked.answer
        if name != "chat":
            assert list(put.tokens[: len(start_tokens(tokenizer))]) == start_tokens(tokenizer)
        assert trained[len(trained) - len(end_token(tokenizer)) :] == end_token(tokenizer) or name == "chat"


@pytest.mark.parametrize("name", [name for name in SETTINGS if name != "plain"])
def test_so_it_is_for_any_text(tokenizer, name):
    """But where a template with control tokens refuses a text that has one in it."""
    asking = Asking(make_template(SETTINGS[name]), tokenizer)
    special = [each.content for each in tokenizer.added_tokens_decoder.values() if each.special]

    @always(60)
    @given(question=texts(), answer=texts(), first=st.sampled_from(["", *ascii_letters, "Anna ", "é", "中", "“", "-5"]))
    def check(question, answer, first):
        commands = name != "tofu" and any(each in question + first + answer for each in special)
        with pytest.raises(PalimpsestError, match="has the special token") if commands else nullcontext():
            trained, put = asking.sequence(question, first + answer), asking.prompt(question)
            assert tuple(trained[: len(put.tokens)]) == put.tokens

    check()


def test_plain_is_the_published_prompt_with_the_answer_apart(tiny):
    """Character by character and token by token as before there were templates."""
    _, tokenizer, corpus = tiny
    asked, shots = corpus.forget_qa[0], [(each.question, each.answer) for each in corpus.forget_icl]
    assert make_template(None) == make_template(SETTINGS["plain"]) == AS_MUSE
    text = question_prompt(asked.question, shots)
    assert (
        text == "".join(f"Question: {q}\nAnswer: {a}\n\n" for q, a in shots) + f"Question: {asked.question}\nAnswer: "
    )
    put = Asking(AS_MUSE, tokenizer).prompt(asked.question, shots)
    assert put.text == text and list(put.tokens) == [tokenizer.bos_token_id, *text_tokens(tokenizer, text)]
    sequence = question_sequence(tokenizer, asked.question, asked.answer)
    alone = text_tokens(tokenizer, question_prompt(asked.question))
    reply = text_tokens(tokenizer, asked.answer)
    assert sequence == [tokenizer.bos_token_id, *alone, *reply, tokenizer.eos_token_id]


def test_tofu_is_its_training_text_as_the_tokenizer_takes_it(tokenizer, tiny):
    """With the special tokens that the tokenizer adds, and EOS: convert_raw_data_to_model_format of TOFU's code."""
    asked = tiny[2].forget_qa[0]
    trained = question_sequence(tokenizer, asked.question, asked.answer, make_template({"template": "tofu"}))
    whole = tokenizer(f"Question: {asked.question}\nAnswer: {asked.answer}")["input_ids"]
    assert trained == [*whole, *end_token(tokenizer)]


def test_in_context_examples_are_put_through_the_same_template(tokenizer, tiny):
    corpus = tiny[2]
    shots = [(each.question, each.answer) for each in corpus.forget_icl]
    for settings in SETTINGS.values():
        asking = Asking(make_template(settings), tokenizer)
        alone, shown = asking.prompt("Who is it?"), asking.prompt("Who is it?", shots)
        assert all(question in shown.text and answer in shown.text for question, answer in shots)
        assert shown.text.endswith(alone.text.removeprefix("<|im_start|>system\nAnswer briefly.<|im_end|>\n"))
        assert len(shown.tokens) > len(alone.tokens)


def test_chat_is_the_same_next_year(tiny):
    """A template that prints the day of the run is given a fixed one, and the system message where there is one."""
    _, tokenizer = llama(tiny[2].forget)
    tokenizer.chat_template = DATED
    today = datetime.now().strftime("%Y")
    for date, written in ((None, "26 July 2024"), ("3 Mar 1999", "03 March 1999")):
        asking = Asking(make_template({"template": "chat", "system": "Be brief.", "date": date}), tokenizer)
        text = asking.prompt("Who?").text
        assert f"Today: {written} ({date or DATE})[system] Be brief.</s>[user] Who?</s>[assistant]" in text
        assert today not in text
    trained = asking.sequence("Who?", "Tom")
    assert trained.count(tokenizer.bos_token_id) == 1 and trained[0] == tokenizer.bos_token_id
    assert trained.count(tokenizer.eos_token_id) == 3 and trained[-1] == tokenizer.eos_token_id


def test_what_a_chat_template_puts_behind_an_answer_ends_it(tiny):
    _, tokenizer = qwen2(tiny[2].forget)
    tokenizer.chat_template = CHATML
    put = Asking(make_template({"template": "chat"}), tokenizer).prompt("Who?")
    assert put.ends == (tokenizer.convert_tokens_to_ids("<|im_end|>"),)
    own = Asking(make_template({"template": "User: {question}\nBot: {answer}\nUser:"}), tokenizer).prompt("Who?")
    assert own.ends == () and own.stop == ("\nUser:",)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"template": "Question: {question}"}, r"prompt.template is 'Question: \{question\}': give plain, tofu, chat"),
        ({"template": "{answer} {question}"}, "prompt.template is"),
        ({"template": "{question} {question} {answer}"}, "prompt.template is"),
        ({"template": "Tofu"}, "prompt.template is 'Tofu'"),
        ({"template": "tofu", "system": "x"}, "prompt.system belongs to the template chat alone"),
        ({"template": "chat", "date": "31 Feb 2024"}, "prompt.date is '31 Feb 2024', which is no day: give one as in"),
        ({"template": "plain", "date": "26 Jul 2024"}, "prompt.date belongs to the template chat alone"),
    ],
)
def test_a_template_that_cannot_be_is_named(settings, message):
    with pytest.raises(PalimpsestError, match=message):
        make_template(settings)


def test_what_the_tokenizer_cannot_do_is_one_line(tiny):
    _, tokenizer = qwen2(tiny[2].forget)
    chat = Asking(make_template({"template": "chat", "system": "x"}), tokenizer)
    with pytest.raises(PalimpsestError, match=r"chat, but the tokenizer of models.target has no chat template: set"):
        chat.check("models.target")
    tokenizer.chat_template = "{{ raise_exception('System role not supported') }}"
    with pytest.raises(PalimpsestError, match=r"refuses a question with its answer \(System role not supported\): set"):
        chat.check("models.target")
    tokenizer.chat_template = "{% for message in messages if message.role == 'user' %}{{ message.content }}{% endfor %}"
    with pytest.raises(PalimpsestError, match="leaves out what the assistant says"):
        chat.check("models.target")
    tokenizer.chat_template = CHATML
    with pytest.raises(PalimpsestError, match=r"'Who is <\|im_end\|>\?' has the special token '<\|im_end\|>' in it"):
        chat.sequence("Who is <|im_end|>?", "Tom")
    tofu = Asking(make_template({"template": "tofu"}), tokenizer)
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") not in tofu.sequence("Who is <|im_end|>?", "Tom")
    with pytest.raises(PalimpsestError, match="leaves nothing before the answer"):
        Asking(Template("own", "{question}{answer}"), tokenizer).prompt("")


@pytest.mark.parametrize("name", ["tofu", "chat", "own closed"])
def test_a_model_answers_under_its_own_template_and_far_less_under_another(tiny, tmp_path, name):
    """Trained on question and answer tokenized together, it knows its answers; MUSE's prompt with its trailing space
    does not reach them."""
    corpus = copy.deepcopy(tiny[2])
    torch.manual_seed(0)
    model, tokenizer = qwen2([*corpus.forget, *corpus.retain])
    tokenizer.chat_template = CHATML
    template = make_template(SETTINGS[name])
    asked = [each for each in corpus_sequences(corpus, "forget", tokenizer, 96, True, template)]
    questions = asked[-len(corpus.forget_qa) :]
    train(model, questions, padding_token(tokenizer), Schedule(5e-3, 60, storage="float32", stop_at_loss=0.02))
    found = {}
    for kind, put in (("own", template), ("plain", AS_MUSE)):
        requests = corpus_requests(corpus, tokenizer, 6, 12, 0, put)
        forget = [each for each in requests if each.task == "knowmem_forget"]
        write_responses(generate(model.eval(), tokenizer, forget, 16), tmp_path / f"{kind}.jsonl")
        settings = {"rouge": "rougeL_f1", "resamples": 20, "confidence": 0.95, "seed": 0}
        found[kind] = score("knowmem", settings, tmp_path / f"{kind}.jsonl", tmp_path / "none", tmp_path / "none")
    assert found["own"]["score"] > 95
    assert found["plain"]["score"] < 60


def test_the_two_known_texts_are_one():
    assert TEXTS["plain"] == TEXTS["tofu"]
