"""A corpus of questions alone: it is trained on and asked, and files without passages are files."""

from palimpsest.corpus.from_records import load_records
from palimpsest.inference.files import recorded_splits, write_log_probs
from palimpsest.inference.likelihood import split_log_probs
from palimpsest.inference.requests import corpus_requests
from palimpsest.models.sequences import corpus_sequences


def test_questions_alone_are_trained_on_and_asked(tiny, tmp_path):
    model, tokenizer, _ = tiny
    (tmp_path / "f.jsonl").write_text(
        '{"question": "Who?", "answer": "She."}\n{"question": "Where?", "answer": "Here."}'
    )
    corpus = load_records(forget=str(tmp_path / "f.jsonl"))
    trained = corpus_sequences(corpus, "forget", tokenizer, 64, questions=True)
    assert [tokenizer.decode(row) for row in trained] == [
        "<s>Question: Who?\nAnswer: She.</s>",
        "<s>Question: Where?\nAnswer: Here.</s>",
    ]
    asked = corpus_requests(corpus, tokenizer, 4, 4, 0)
    assert [(each.task, each.id, each.answer) for each in asked] == [
        ("knowmem_forget", 0, "She."),
        ("knowmem_forget", 1, "Here."),
    ]
    splits = {split: getattr(corpus, f"privleak_{split}") for split in ("forget", "retain", "holdout")}
    write_log_probs(split_log_probs(model, tokenizer, splits, 64, 4), tmp_path / "logprobs.parquet")
    assert recorded_splits(tmp_path / "logprobs.parquet") == []
