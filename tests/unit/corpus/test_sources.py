"""One loader for all sources, the subset of a big corpus, and the checks every corpus passes."""

import json
import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from palimpsest.artefacts import Origin, read_manifest, verify_files
from palimpsest.corpus.checks import check_corpus
from palimpsest.corpus.corpus import Corpus, Prompt, Question
from palimpsest.corpus.embedded.generator import generate_corpus
from palimpsest.corpus.layout import read_corpus, write_corpus
from palimpsest.corpus.sources import load_corpus
from palimpsest.corpus.subset import find_articles, windows
from palimpsest.errors import PalimpsestError
from palimpsest.study.params import read_params

EMBEDDED = {
    "seed": 5,
    "forget_documents": 10,
    "retain_documents": 20,
    "holdout_documents": 10,
    "questions_per_document": 2,
    "icl_examples": 3,
}
SUBSET = {
    "forget_documents": 3,
    "retain_documents": 6,
    "holdout_documents": 2,
    "max_words": 60,
    "prompt_words": 12,
    "answer_words": 8,
    "prompts_per_document": 2,
    "passage_words": 20,
    "passages_per_document": 2,
}


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return generate_corpus(**EMBEDDED)


@pytest.fixture
def folder(corpus, tmp_path) -> Path:
    write_corpus(corpus, tmp_path / "corpus", Origin(), source="embedded", seed=5)
    return tmp_path / "corpus"


def test_embedded_is_the_generator(corpus):
    assert load_corpus("embedded", EMBEDDED) == corpus


def test_round_trip(corpus, folder):
    assert read_corpus(folder) == corpus
    assert read_manifest(folder)["seed"] == 5
    verify_files(folder)


def test_folder_with_another_retain_name_and_plain_text(corpus, folder):
    (folder / "raw" / "retain.json").rename(folder / "raw" / "other.json")
    (folder / "raw" / "forget.json").unlink()
    (folder / "raw" / "forget.txt").write_text("\n\n".join(corpus.forget), encoding="utf-8")
    loaded = load_corpus("folder", {"path": str(folder), "retain_split": "other"})
    assert loaded.retain == corpus.retain and loaded.forget == ["\n\n".join(corpus.forget)]


def test_folder_without_holdout_documents_takes_those_of_privleak(corpus, folder):
    (folder / "raw" / "holdout.json").unlink()
    assert read_corpus(folder).holdout == corpus.privleak_holdout


def test_blank_documents_are_left_out(corpus, folder):
    (folder / "raw" / "forget.json").write_text(json.dumps([*corpus.forget, " \n"]), encoding="utf-8")
    assert read_corpus(folder).forget == corpus.forget


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("raw/retain.json", None, r"raw/retain.json is missing.*set retain_split, now 'retain'"),
        ("raw/forget.json", {"a": 1}, r"raw/forget.json holds a dict: it must be a list"),
        ("raw/forget.json", ["a", 3], r"row 1 of raw/forget is not a text"),
        (
            "knowmem/forget_qa.json",
            [{"question": "?"}],
            r"row 0 of knowmem/forget_qa needs the texts question and answer",
        ),
        ("verbmem/forget.json", ["?"], r"row 0 of verbmem/forget needs the texts prompt and gt"),
    ],
)
def test_malformed_folders_are_named(folder, file, content, message):
    (folder / file).unlink() if content is None else (folder / file).write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(PalimpsestError, match=message):
        read_corpus(folder)


@pytest.mark.parametrize(
    ("source", "settings", "message"),
    [
        ("foldr", {}, "unknown corpus source 'foldr'. Did you mean 'folder'"),
        ("folder", {"path": "nowhere", "retain_split": "retain"}, "corpus folder nowhere does not exist"),
        ("folder", {"path": "nowhere"}, "corpus source 'folder': missing a required argument: 'retain_split'"),
        ("embedded", {"sed": 3}, "corpus source 'embedded'.*Its settings: seed, forget_documents"),
    ],
)
def test_wrong_settings_are_named(source, settings, message):
    with pytest.raises(PalimpsestError, match=message):
        load_corpus(source, settings)


@pytest.fixture
def hub_like(corpus, tmp_path, monkeypatch, write_hub_layout) -> Path:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    return write_hub_layout(corpus, tmp_path / "hub")


def test_hub_layout(corpus, hub_like):
    assert load_corpus("hub", {"path": str(hub_like), "retain_split": "retain1"}) == corpus


def test_another_folder_of_the_same_name_is_not_taken_from_the_cache(corpus, hub_like, tmp_path, write_hub_layout):
    settings = {"path": str(hub_like), "retain_split": "retain1"}
    assert load_corpus("hub", settings) == corpus
    other = replace(corpus, forget=[text.upper() for text in corpus.forget])
    write_hub_layout(other, tmp_path / "elsewhere/hub")
    assert load_corpus("hub", settings | {"path": str(tmp_path / "elsewhere/hub")}) == other
    assert load_corpus("hub", settings) == corpus


def test_an_edited_folder_is_read_anew(corpus, hub_like, write_hub_layout):
    settings = {"path": str(hub_like), "retain_split": "retain1"}
    assert load_corpus("hub", settings) == corpus
    edited = replace(corpus, retain=corpus.retain[1:], forget_qa=[Question("Who?", "Ann"), *corpus.forget_qa])
    write_hub_layout(edited, hub_like)
    assert load_corpus("hub", settings) == edited


def test_a_folder_with_the_name_of_a_loader_is_a_folder(corpus, tmp_path, monkeypatch, hub_like):
    hub_like.rename(tmp_path / "json")
    monkeypatch.chdir(tmp_path)
    assert load_corpus("hub", {"path": "json", "retain_split": "retain1"}) == corpus


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("raw/retain2.jsonl", b'{"text": "a"}\n{"text": oops', "JSON parse error: .* in row 1"),
        ("raw/retain2.jsonl", b'{"text": "a", "more": 1}', "Couldn't cast .* column names don't match"),
        ("raw/forget.jsonl", b'{"text": "\xff"}', ".*Invalid UTF8"),
        ("raw/forget.jsonl", b"", "a file is empty"),
        ("README.md", b"---\nconfigs: [\n---\n", "while parsing a flow node"),
        ("README.md", b"\xff", "'utf-8' codec can't decode"),
        ("hub.py", b"", "Dataset scripts are no longer supported"),
    ],
)
def test_files_that_cannot_be_read_are_one_message(hub_like, file, content, reason):
    (hub_like / file).write_bytes(content)
    start = rf"^corpus.settings.path: the files of dataset '{hub_like}' \(config 'raw'\) cannot be read: "
    with pytest.raises(PalimpsestError, match=start + reason + ".*Correct them") as caught:
        load_corpus("hub", {"path": str(hub_like), "retain_split": "retain1"})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", ["", "/"])
def test_a_path_that_names_nothing_is_an_error(path):
    with pytest.raises(PalimpsestError, match=f"^corpus.settings.path is '{path}': give the name of a hub dataset or"):
        load_corpus("hub", {"path": path, "retain_split": "retain1"})


def test_a_folder_that_lacks_a_file_is_not_sought_on_the_hub(hub_like):
    (hub_like / "raw/forget.jsonl").unlink()
    with pytest.raises(
        PalimpsestError, match=r"cannot be loaded: .*raw/forget.jsonl.* Correct the path or the files in it, or set"
    ):
        load_corpus("hub", {"path": str(hub_like), "retain_split": "retain1"})


def test_unknown_hub_split_is_named(hub_like):
    with pytest.raises(PalimpsestError, match=r"has no split 'retain9' in config 'raw'.*retain_split"):
        load_corpus("hub", {"path": str(hub_like), "retain_split": "retain9"})


def test_unreachable_hub_dataset_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path))
    with pytest.raises(PalimpsestError, match=r"datasets/muse-bench/MUSE-News .* or set corpus.source to folder"):
        load_corpus("hub", {"path": "muse-bench/MUSE-News", "retain_split": "retain1"})


def test_subset_takes_the_articles_with_most_questions(corpus, folder):
    questions = [question for number, question in enumerate(corpus.forget_qa) if number // 2 in (1, 4, 8)]
    rows = [vars(question) for question in questions]
    (folder / "knowmem" / "forget_qa.json").write_text(json.dumps(rows), encoding="utf-8")
    settings = {"path": str(folder), "retain_split": "retain"}
    chosen = load_corpus("folder", settings, SUBSET | {"max_words": 200})
    assert chosen.forget == [corpus.forget[number] for number in (1, 4, 8)]
    assert set(chosen.forget_qa) <= set(questions) and len(chosen.forget_qa) >= 3
    assert len(chosen.retain) == 6 and len(chosen.retain_qa) >= 6 and len(chosen.holdout) == 2
    assert len(chosen.verbmem) == 6 and len(chosen.privleak_holdout) == 4
    assert chosen.forget_icl == corpus.forget_icl
    assert check_corpus(chosen)["forget"] == 3
    assert load_corpus("folder", settings, SUBSET | {"max_words": 200}) == chosen


def test_subset_cuts_documents_to_sentences_that_answer(folder):
    chosen = load_corpus("folder", {"path": str(folder), "retain_split": "retain"}, SUBSET)
    for text in chosen.forget + chosen.retain + chosen.holdout:
        assert 20 <= len(text.split()) <= 60
    joined = " ".join(chosen.forget)
    assert chosen.forget_qa and all(question.answer in joined for question in chosen.forget_qa)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"forget_documents": 11}, "subset forget_documents is 11: choose 1 to 10"),
        ({"max_words": 10}, "subset forget_documents is 3: choose 1 to 0"),
        ({"passage_words": 0}, "passage_words is 0"),
        ({"maxwords": 10}, "corpus subset: got an unexpected keyword argument 'maxwords'"),
    ],
)
def test_impossible_subsets_are_named(folder, change, message):
    with pytest.raises(PalimpsestError, match=message):
        load_corpus("folder", {"path": str(folder), "retain_split": "retain"}, SUBSET | change)


def test_windows_are_whole_sentences():
    text = 'One two three. "Four five!" Six seven? Eight nine ten eleven twelve thirteen.'
    assert list(windows(text, 5)) == ['One two three. "Four five!"', '"Four five!" Six seven?', "Six seven?"]
    assert list(windows(text, 50)) == [text]
    assert list(windows("no sentence ends in here at all", 3)) == []


def test_a_question_belongs_where_its_answer_and_its_words_are():
    documents = ["Ann sold 12 goats in Padua.", "Bob sold 12 boats in Ulm.", "Goats of Padua, says Ann, are dear."]
    asked = [Question("How many goats were sold in Padua?", "12"), Question("How many boats were sold in Ulm?", "12")]
    assert find_articles(documents, [*asked, Question("Who is the king of Spain?", "Bob")]) == [0, 1, None]
    assert find_articles(documents, [Question("How many goats were sold in Padua?", "1")]) == [None]


def test_real_folder(shared):
    settings = {"path": str(shared / "data" / "muse-news"), "retain_split": "other"}
    whole = load_corpus("folder", settings)
    counts = check_corpus(whole)
    assert counts["overlap_privleak_holdout_forget"] < 0.01 and counts["overlap_privleak_holdout_retain"] == 0
    assert len(whole.forget) == 888 and len(whole.forget_qa) == 100 and len(whole.verbmem) == 100
    size = {"forget_documents": 15, "retain_documents": 36, "holdout_documents": 15, "max_words": 200}
    chosen = load_corpus("folder", settings, SUBSET | size)
    assert len(chosen.forget_qa) >= 15 and len(chosen.retain_qa) >= 10
    assert check_corpus(chosen)["forget_words"] > 1500


@cache
def check_block(block: str) -> None:
    """A study's block `corpus`, as JSON: several studies have the same one, which takes seconds."""
    params = json.loads(block)
    check_corpus(load_corpus(params["source"], params["settings"], params["subset"]), **params["checks"])


@pytest.mark.parametrize("study", ["muse-news", "muse-news-1024", "muse-news-2048"])
def test_real_text_of_the_studies_passes_every_check(shared, study):
    block = read_params(Path(__file__).parents[3] / f"studies/{study}/params.yaml")["corpus"]
    check_block(json.dumps(block | {"settings": block["settings"] | {"path": str(shared / "data/muse-news")}}))


def test_counts(corpus):
    counts = check_corpus(corpus)
    assert counts["forget"] == 10 and counts["forget_qa"] == 20 and counts["forget_words"] > 600
    assert counts["overlap_forget_retain"] < 0.01 and counts["prompts_found"] == 1.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: {"retain_icl": []}, "corpus split retain_icl is empty"),
        (lambda c: {"retain": [*c.retain, f" {c.forget[2]}\n"]}, "forget document 2 is also retain document 20"),
        (lambda c: {"holdout": [*c.holdout, c.forget[0]]}, "forget document 0 is also holdout document 10"),
        (lambda c: {"holdout": [*c.holdout, c.retain[0]]}, "retain document 0 is also holdout document 10"),
        (
            lambda c: {"retain": [*c.retain, c.forget[1] + " More."]},
            r"of \d+ 13-grams of the forget text .* occur in retain",
        ),
        (
            lambda c: {"holdout": [*c.holdout, c.forget[1] + " More."]},
            r"13-grams of the forget text .* occur in holdout",
        ),
        (
            lambda c: {"privleak_holdout": [*c.privleak_holdout, f" {c.forget[2]}\n"]},
            "privleak_holdout document 10 is also forget document 2: the splits must be disjoint",
        ),
        (
            lambda c: {"privleak_holdout": [*c.privleak_holdout, c.retain[2]]},
            "privleak_holdout document 10 is also retain document 2",
        ),
        (
            lambda c: {"privleak_holdout": [*c.privleak_holdout, c.forget[1] + " More."]},
            r"\d+ of \d+ 13-grams of privleak_holdout .* occur in forget, .* PrivLeak takes for unseen",
        ),
        (
            lambda c: {"privleak_holdout": [*c.privleak_holdout, "More. " + c.retain[1]]},
            r"13-grams of privleak_holdout .* occur in retain",
        ),
        (
            lambda c: {"forget_icl": [*c.forget_icl, Question(f" {c.forget_qa[1].question.upper()}", "x")]},
            "entry 3 of forget_icl is also entry 1 of forget_qa: an in-context example shows its answer",
        ),
        (
            lambda c: {"retain_icl": [c.forget_qa[0]]},
            "entry 0 of retain_icl is also entry 0 of forget_qa",
        ),
        (lambda c: {"forget_qa": [Question("Who?", " ")]}, "entry 0 of corpus split forget_qa has an empty answer"),
        (lambda c: {"forget": [*c.forget, ""]}, "entry 10 of corpus split forget has an empty text"),
        (lambda c: {"verbmem": [*c.verbmem, Prompt("no such", "text")]}, r"1 of 21 verbatim prompts .* entry 20"),
    ],
)
def test_each_broken_promise_has_its_error(corpus, change, message):
    with pytest.raises(PalimpsestError, match=message):
        check_corpus(replace(corpus, **change(corpus)))


def test_missing_prompts_can_be_tolerated(corpus):
    odd = replace(corpus, verbmem=[*corpus.verbmem, Prompt("no such", "text")])
    assert check_corpus(odd, prompts_found_at_least=0.9)["prompts_found"] == pytest.approx(20 / 21)


def test_a_benchmark_may_keep_examples_that_are_scored(corpus):
    shown = replace(corpus, forget_icl=[*corpus.forget_icl, corpus.forget_qa[1]])
    assert check_corpus(shown, scored_examples_at_most=1)["scored_examples"] == 1
    twice = replace(shown, retain_icl=[*corpus.retain_icl, corpus.retain_qa[0]])
    with pytest.raises(
        PalimpsestError, match=r"raise corpus.checks.scored_examples_at_most \(1\) .* \(2 of its examples"
    ):
        check_corpus(twice, scored_examples_at_most=1)


def test_an_interrupted_write_leaves_the_old_corpus(corpus, folder):
    with pytest.raises(TypeError):
        write_corpus(corpus, folder, Origin(), source=object())
    assert read_corpus(folder) == corpus
    assert [path.name for path in folder.parent.iterdir()] == ["corpus"]
    shutil.rmtree(folder)
