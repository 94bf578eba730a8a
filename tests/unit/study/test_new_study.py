"""The study folder of an audit: what it says, what is refused before it is written, and one more format in it."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file

from palimpsest.cli.audit import FORMATS
from palimpsest.errors import PalimpsestError
from palimpsest.models.outline import write_outline
from palimpsest.study.new_study import (
    Wanted,
    add_formats,
    default_formats,
    differences,
    with_entries,
    write_default,
    write_study,
)

REPOSITORY = Path(__file__).parents[3]


def rows(start, count, **more):
    return [
        {"question": f"Where was person {i} born?", "answer": f"In town number {i}."} | more
        for i in range(start, start + count)
    ]


@pytest.fixture
def wanted(tmp_path):
    """Of models that are not here, and records that are."""
    for name, records in (("forget", rows(0, 4)), ("retain", rows(100, 150))):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    files = {name: str(tmp_path / f"{name}.jsonl") for name in ("forget", "retain")}

    def made(**more):
        given = {"target": "org/target", "unlearned": "org/unlearned", "retrain": "org/retrain", **files}
        return Wanted(**{**given, "formats": ["bnb-nf4", "gptq", "gguf-q4_k_m"], **more})

    return made


def test_an_audit_is_a_params_file_that_says_what_was_given(wanted, tmp_path):
    file = write_study(tmp_path / "study", wanted(note="by hand: 3 epochs"), "audit")
    params = yaml.safe_load(file.read_text())
    assert params["models"]["target"] == "org/target" and params["models"]["retrain"] == "org/retrain"
    assert params["methods"] == {"unlearned": {"checkpoint": "org/unlearned", "note": "by hand: 3 epochs"}}
    assert params["corpus"]["settings"] == {
        "forget": str(tmp_path / "forget.jsonl"),
        "retain": str(tmp_path / "retain.jsonl"),
        "retain_records": 100,
    }
    assert list(params["quantizers"]) == ["bf16", "bnb-nf4", "gptq", "gguf-q4_k_m"]
    assert params["quantizers"]["gptq"]["calibration"] == "generic"
    assert params["prompt"] == {"template": "tofu", "system": None, "date": None}
    assert params["inference"]["knowmem_tokens"] == 16 and params["report"]["precision"] == "bnb-nf4"
    lines = file.read_text().splitlines()
    assert sum("#" in line for line in lines) > 30, "a person is to go on editing it"
    assert (tmp_path / "study/policy.yaml").read_text().startswith("# What counts as forgotten")


def test_a_chat_model_is_asked_through_its_template_on_a_fixed_day(wanted, tmp_path):
    (tmp_path / "chat").mkdir()
    (tmp_path / "chat/tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
    (tmp_path / "chat/config.json").write_text('{"model_type": "llama"}')
    save_file({"lm_head.weight": np.ones((2, 2), "f4")}, tmp_path / "chat/model.safetensors")
    target = str(tmp_path / "chat")
    file = write_study(tmp_path / "study", wanted(target=target, system='Be brief: say "no".'), "new")
    assert yaml.safe_load(file.read_text())["prompt"] == {
        "template": "chat",
        "system": 'Be brief: say "no".',
        "date": "26 Jul 2024",
    }
    file = write_study(tmp_path / "other", wanted(target=target, template="Q: {question} A: {answer}"), "new")
    assert yaml.safe_load(file.read_text())["prompt"]["template"] == "Q: {question} A: {answer}"


def test_texts_say_how_they_are_cut_and_other_scripts_how_they_are_read(wanted, tmp_path):
    words = " ".join(f"слово{i}" for i in range(40))
    (tmp_path / "forget.jsonl").write_text(json.dumps({"text": words}), encoding="utf-8")
    params = yaml.safe_load(write_study(tmp_path / "study", wanted(), "audit").read_text())
    settings = params["corpus"]["settings"]
    assert (settings["prompt_words"], settings["answer_words"]) == (20, 20)
    assert params["inference"]["verbmem_tokens"] == 40
    assert params["metrics"]["verbmem"]["tokenizer"] == params["metrics"]["knowmem"]["tokenizer"] == "unicode"


def test_tofu_is_known_by_its_files(wanted, tmp_path):
    (tmp_path / "forget.jsonl").write_text("\n".join(map(json.dumps, rows(0, 40, perturbed_subject="x", subject="y"))))
    params = yaml.safe_load(write_study(tmp_path / "study", wanted(), "audit").read_text())
    assert params["corpus"]["settings"]["records_per_subject"] == 20


def test_a_question_may_stand_twice_in_the_retain_set_and_in_no_other(wanted, tmp_path):
    def checks(forget, retain, study):
        for name, records in (("forget", forget), ("retain", retain)):
            (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, records)))
        return yaml.safe_load(write_study(tmp_path / study, wanted(), "audit").read_text())["corpus"]["checks"]

    assert checks(rows(0, 2), [*rows(5, 3), *rows(5, 1)], "a")["repeats_at_most"] == 1
    with pytest.raises(PalimpsestError, match=r"retain.jsonl, line 4 is also .*forget.jsonl, line 1"):
        checks(rows(0, 2), [*rows(5, 3), *rows(0, 1)], "b")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"formats": ["bnb-nf5"]}, "unknown format 'bnb-nf5'. Did you mean 'bnb-nf4'"),
        ({"target": "./nowhere"}, "--target: ./nowhere does not exist"),
        ({"unlearned": "model.gguf"}, "--unlearned: model.gguf does not exist"),
        ({"deployed": {"phone": "phone.gguf"}}, "phone.gguf does not exist: give the quantized file or folder"),
        ({"forget": "nothing.jsonl"}, "--forget: nothing.jsonl does not exist"),
        ({"template": "Q: {question}"}, "prompt.template is 'Q: {question}'"),
        ({"system": "Be brief."}, "prompt.system belongs to the template chat alone"),
        ({"template": "chat", "date": "yesterday"}, "prompt.date is 'yesterday'"),
        ({"formats": []}, "--formats names no format: name one"),
        ({"unlearned": __file__}, "--unlearned: .* is a file and no GGUF file: give the folder of the checkpoint"),
        (
            {"target": str(REPOSITORY / "docs")},
            "--target is .*docs', a folder without config.json: give the folder of a",
        ),
        ({"target": "org/model", "unlearned": "org/model"}, "--target and --unlearned are both org/model"),
    ],
)
def test_what_cannot_be_audited_is_refused_and_nothing_is_written(wanted, tmp_path, edit, message):
    with pytest.raises(PalimpsestError, match=message):
        write_study(tmp_path / "study", wanted(**edit), "audit")
    assert not (tmp_path / "study").exists()


def test_a_study_does_not_lie_in_what_it_is_made_from(wanted, tmp_path):
    for study in (tmp_path, tmp_path / "in/it"):
        with pytest.raises(PalimpsestError, match="the folder of --forget, and what the study writes would"):
            write_study(study, wanted(forget=str(tmp_path)), "audit")
    assert not (tmp_path / "params.yaml").exists() and not (tmp_path / "in").exists()


def test_a_study_is_no_file_and_its_forget_set_is_not_kept(wanted, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(PalimpsestError, match="file is a file: give a folder for the study"):
        write_study(tmp_path / "file", wanted(), "audit")
    both = wanted(retain=str(tmp_path / "forget.jsonl"))
    with pytest.raises(PalimpsestError, match=r"line 1, in knowmem/retain_qa, is also .*line 1: .* forgotten and kept"):
        write_study(tmp_path / "study", both, "audit")


def test_a_format_is_added_and_the_rest_stays_as_a_person_left_it(wanted, tmp_path):
    file = write_study(tmp_path / "study", wanted(), "audit")
    edited = file.read_text().replace("negligible: 10.0", "negligible: 7.5")
    file.write_text(edited)
    assert add_formats(file, Wanted("", "", "", ["gptq", "rtn-int4"])) == ["rtn-int4"]
    params = yaml.safe_load(file.read_text())
    assert list(params["quantizers"]) == ["bf16", "bnb-nf4", "gptq", "gguf-q4_k_m", "rtn-int4"]
    assert set(edited.splitlines()) <= set(file.read_text().splitlines())
    before = file.read_text()
    assert add_formats(file, Wanted("", "", "", ["rtn-int4"])) == [] and file.read_text() == before


@pytest.mark.parametrize(
    ("width", "formats"),
    [(256, ["bnb-nf4", "gptq", "gguf-q4_k_m"]), (576, ["bnb-nf4", "hqq-int4", "gguf-q4_0"])],
)
def test_formats_that_nobody_named_fit_the_target(tmp_path, width, formats):
    """576 is the width of SmolLM2-135M: no whole groups of 128, and no K-quants."""
    config = {"model_type": "llama", "vocab_size": 64, "hidden_size": width, "intermediate_size": 2 * width}
    config |= {"num_hidden_layers": 1, "num_attention_heads": 4, "max_position_embeddings": 512}
    (tmp_path / "config.json").write_text(json.dumps(config))
    write_outline(tmp_path, config)
    assert default_formats(str(tmp_path)) == formats
    assert default_formats("org/target") == default_formats("") == ["bnb-nf4", "gptq", "gguf-q4_k_m"]
    assert ",".join(default_formats("")) == FORMATS


def test_entries_are_added_to_a_block_in_any_place():
    text = "a: 1\nquantizers: # these\n  bf16:\n    backend: none\n\n# next\nb: 2\n"
    entry = "  x:\n    backend: y\n"
    assert with_entries(text, "quantizers", entry, "f") == text.replace("none\n", "none\n" + entry)
    assert with_entries(text, "deployed", entry, "f") == text + "\ndeployed:\n" + entry
    with pytest.raises(PalimpsestError, match="f: the block quantizers is not written line by line"):
        with_entries("quantizers: {bf16: {backend: none}}\n", "quantizers", entry, "f")


def test_another_model_is_no_rerun(wanted, tmp_path):
    file = write_study(tmp_path / "study", wanted(), "audit")
    assert differences(file, wanted()) == []
    assert differences(file, Wanted("", "", "", [])) == []
    assert differences(file, wanted(target="org/other", template="plain")) == [
        f"{file}: models.target is 'org/target', and --target is 'org/other'",
        f"{file}: prompt.template is 'tofu', and --prompt is 'plain'",
    ]


def test_without_models_it_is_the_default_study(tmp_path):
    file = write_default(tmp_path / "study")
    for name in ("params.yaml", "policy.yaml"):
        assert (file.parent / name).read_bytes() == (REPOSITORY / name).read_bytes()
    with pytest.raises(PalimpsestError, match=r"params.yaml exists: give another folder, or edit it"):
        write_default(tmp_path / "study")
