"""Chat models: what is asked is the same next year, and of every model."""

import json
from pathlib import Path

import pytest

from palimpsest.audit.prompts import check_asked_alike
from palimpsest.corpus.prompts import make_template, prompts_record
from palimpsest.errors import PalimpsestError
from palimpsest.models.chat import chat_template_of
from palimpsest.study.checks import check_prompt


def tokenizer(folder: Path, template: object = None, config: object = None) -> str:
    folder.mkdir()
    (folder / "tokenizer_config.json").write_text(json.dumps(config or {}))
    if template:
        (folder / "chat_template.jinja").write_text(str(template))
    return str(folder)


def params(target: str, retrain: str | None) -> dict:
    models = {"target": target, "retrain": retrain, "base": "scratch"}
    return {"models": models, "prompt": {"template": "chat"}, "methods": {}}


def test_a_template_is_found_where_versions_of_transformers_put_it(tmp_path):
    assert chat_template_of(Path(tokenizer(tmp_path / "a", "{{ a }}"))) == "{{ a }}"
    assert chat_template_of(Path(tokenizer(tmp_path / "b", config={"chat_template": "{{ b }}"}))) == "{{ b }}"
    named = [{"name": "tools", "template": "t"}, {"name": "default", "template": "{{ c }}"}]
    assert chat_template_of(Path(tokenizer(tmp_path / "c", config={"chat_template": named}))) == "{{ c }}"
    assert chat_template_of(Path(tokenizer(tmp_path / "d"))) is None
    assert chat_template_of(tmp_path / "nowhere") is None


def test_planning_refuses_a_tokenizer_without_a_template_and_two_that_differ(tmp_path):
    chat, same = tokenizer(tmp_path / "chat", "{{ a }}\n"), tokenizer(tmp_path / "same", "{{ a }}")
    other, none = tokenizer(tmp_path / "other", "{{ b }}"), tokenizer(tmp_path / "none")
    check_prompt(params(chat, same))
    check_prompt(params(chat, "org/on-a-hub"))
    check_prompt(params(chat, None))
    with pytest.raises(PalimpsestError, match=r"the tokenizer of .*none \(models.target\) has no chat template"):
        check_prompt(params(none, chat))
    with pytest.raises(PalimpsestError, match=r"of .*other \(models.retrain\) is another than that of models.target"):
        check_prompt(params(chat, other))


def test_models_that_were_asked_otherwise_are_not_compared():
    def score(model, *prompts):
        return {"model": model, "template": prompts_record(make_template({"template": "chat"}), prompts)}

    check_asked_alike([score("target", "a", "b"), score("retrain", "a", "b"), {"model": "old"}])
    with pytest.raises(PalimpsestError, match="retrain was asked otherwise than target"):
        check_asked_alike([score("target", "a", "b"), score("retrain", "ab", "")])
    assert prompts_record(make_template({"template": "tofu"}), ["a"]) == {}
