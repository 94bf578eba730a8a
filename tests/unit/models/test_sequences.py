"""Chunking and batching: every token once, each chunk behind a BOS, padding never counted."""

import pytest

from palimpsest.corpus.prompts import question_prompt
from palimpsest.errors import PalimpsestError
from palimpsest.models.sequences import chunk, corpus_sequences, pad_by_length, question_sequence, training_sequences
from palimpsest.models.tokens import IGNORED


def test_chunks_are_the_joined_text_once(tiny):
    _, tokenizer, corpus = tiny
    chunks = chunk(corpus.retain, tokenizer, 32)
    assert all(each[0] == tokenizer.bos_token_id for each in chunks)
    assert [len(each) for each in chunks[:-1]] == [32] * (len(chunks) - 1)
    assert 1 < len(chunks[-1]) <= 32  # the released code tops it up with the first chunk
    assert tokenizer.decode([token for each in chunks for token in each[1:]]) == "\n\n".join(corpus.retain)


def test_lines_are_sequences_of_their_own(tiny):
    _, tokenizer, _ = tiny
    documents = [
        "Two short lines.\n\n  And another.",
        "A line that is longer than ten tokens, so that it is cut in pieces.",
    ]
    sequences = training_sequences(documents, [], tokenizer, 10, pieces="lines")
    assert all(each[0] == tokenizer.bos_token_id and len(each) <= 10 for each in sequences)
    text = "".join(tokenizer.decode(each[1:]) for each in sequences)
    assert text == "Two short lines.And another." + documents[1]
    whole = training_sequences(documents, [], tokenizer, 99, pieces="lines")
    assert [tokenizer.decode(each[1:]) for each in whole] == ["Two short lines.", "And another.", documents[1]]
    with pytest.raises(PalimpsestError, match=r"training\.pieces"):
        training_sequences(documents, [], tokenizer, 99, pieces="words")
    assert training_sequences(documents, [], tokenizer, 10) == chunk(documents, tokenizer, 10)


def test_a_question_is_trained_as_it_is_asked(tiny):
    _, tokenizer, corpus = tiny
    asked = corpus.forget_qa[0]
    sequence = question_sequence(tokenizer, asked.question, asked.answer)
    assert sequence[0] == tokenizer.bos_token_id and sequence[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(sequence[1:-1]) == question_prompt(asked.question) + asked.answer
    with_questions, without = (corpus_sequences(corpus, "forget", tokenizer, 64, wanted) for wanted in (True, False))
    assert with_questions[: len(without)] == without
    assert len(with_questions) == len(without) + len(corpus.forget_qa)


def test_a_question_that_max_length_cuts_is_warned_of(tiny, caplog):
    _, tokenizer, corpus = tiny
    lengths = [len(question_sequence(tokenizer, each.question, each.answer)) for each in corpus.forget_qa]
    corpus_sequences(corpus, "forget", tokenizer, max(lengths), True)
    assert not caplog.records
    cut = corpus_sequences(corpus, "forget", tokenizer, max(lengths) - 1, True)
    assert max(map(len, cut)) == max(lengths) - 1
    count = lengths.count(max(lengths))
    assert f"{count} of {len(lengths)} questions" in caplog.text and "up to 1 tokens: raise it" in caplog.text
    caplog.clear()
    corpus_sequences(corpus, "forget", tokenizer, max(lengths) - 1, False)
    assert not caplog.records


def test_padding_is_masked_and_groups_lose_nothing():
    sequences = [[1] * length for length in (50, 48, 10, 49, 12, 3)]
    groups = pad_by_length(sequences, list(range(6)), pad_token=7)
    assert sorted(i for group in groups for i in group.index.tolist()) == list(range(6))
    assert len(groups) > 1
    for group in groups:
        assert (group.input_ids[group.mask == 0] == 7).all()
        assert (group.labels[group.mask == 0] == IGNORED).all()
        assert group.mask.sum(1).tolist() == [len(sequences[i]) for i in group.index.tolist()]
        assert group.mask.float().mean() > 0.65


def test_an_empty_split_is_refused(tiny):
    with pytest.raises(PalimpsestError, match="no text to train on"):
        training_sequences([], [], tiny[1], 32)
