"""What holds of every text that a model is asked or answers: tokens and files give it back."""

from pathlib import Path

import pytest
from any_text import always, texts
from hypothesis import given
from hypothesis import strategies as st

from palimpsest.corpus.corpus import Corpus, Prompt, Question
from palimpsest.inference.files import Response, read_responses, write_responses
from palimpsest.inference.requests import corpus_requests, encode
from palimpsest.models.sequences import chunk
from palimpsest.models.text import text_tokens


@always(150)
@given(text=texts())
def test_tokens_give_the_text_back(tiny, text: str) -> None:
    _, tokenizer, _ = tiny
    tokens = text_tokens(tokenizer, text)
    assert tokenizer.decode(tokens, skip_special_tokens=True) == text
    assert not set(tokenizer.all_special_ids).intersection(tokens)
    assert encode(tokenizer, text) == [tokenizer.bos_token_id, *tokens]


@always(60)
@given(documents=st.lists(texts(), min_size=1, max_size=3), length=st.integers(2, 30))
def test_chunks_hold_the_documents_once_and_in_order(tiny, documents: list[str], length: int) -> None:
    _, tokenizer, _ = tiny
    chunks = chunk(documents, tokenizer, length)
    assert all(len(each) <= length and each[0] == tokenizer.bos_token_id for each in chunks)
    assert tokenizer.decode([token for each in chunks for token in each[1:]]) == "\n\n".join(documents)


@always(60)
@given(question=texts(), answer=texts(), prompt=texts(), shown=texts())
def test_what_is_asked_is_the_text(tiny, question: str, answer: str, prompt: str, shown: str) -> None:
    _, tokenizer, _ = tiny
    asked, examples = [Question(question, answer)], [Question(shown, shown)]
    corpus = Corpus(
        ["a"], ["a"], ["a"], asked, asked, examples, examples, [Prompt(prompt, answer)], ["a"], ["a"], ["a"]
    )
    verbatim, forget, retain = corpus_requests(corpus, tokenizer, 10_000, 9, 1)
    assert (verbatim.prompt, verbatim.answer) == (prompt, answer.strip())
    assert forget.prompt == retain.prompt and forget.answer == answer
    assert question in forget.prompt and forget.prompt.index(shown) <= forget.prompt.rindex(question)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("responses") / "responses.jsonl"


@always(150)
@given(rows=st.lists(st.tuples(texts(), texts(), texts()), min_size=1, max_size=4))
def test_responses_come_back_from_their_file(file: Path, rows: list[tuple[str, str, str]]) -> None:
    responses = [Response("verbmem", i, *row) for i, row in enumerate(rows)]
    write_responses(responses, file)
    assert read_responses(file, "verbmem") == [vars(each) for each in responses]
