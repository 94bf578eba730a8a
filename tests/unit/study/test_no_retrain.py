"""models.retrain: null, in params.yaml and in verify."""

from pathlib import Path

import pytest

from palimpsest.errors import PalimpsestError
from palimpsest.study.dvc import stage_params
from palimpsest.study.params import check_params, read_params
from palimpsest.study.stages import read_stages
from palimpsest.study.verify import problems

REPOSITORY = Path(__file__).parents[3]
SCHEMA = REPOSITORY / "workflow/schemas/params.schema.yaml"


@pytest.fixture
def params() -> dict:
    found = read_params(REPOSITORY / "tests/tiny/params.yaml")
    found["models"]["retrain"] = None
    return found


def test_a_study_may_have_none(params: dict) -> None:
    check_params(params, SCHEMA, "params.yaml")
    params["models"] |= {"target": "some/model", "base": "scratch"}
    check_params(params, SCHEMA, "params.yaml")
    assert "models.retrain" in stage_params(params, read_stages(REPOSITORY / "dvc.yaml"))["models"]


def test_a_study_has_a_target_and_asks_no_model_that_it_lacks(params: dict) -> None:
    battery = {"precisions": None, "seed": 0, "batch_size": 1, "tasks": {"tru": {"data": "a", "limit": None}}}
    params["battery"] = battery | {"models": ["target", "retrain"]}
    with pytest.raises(PalimpsestError, match=r"battery\.models has 'retrain', which is none of target, ga_gdr"):
        check_params(params, SCHEMA, "params.yaml")
    params["battery"]["models"] = None
    params["models"]["target"] = None
    with pytest.raises(PalimpsestError, match=r"models\.target is None: None is not of type 'string', 'object'"):
        check_params(params, SCHEMA, "params.yaml")


def test_what_was_made_of_one_is_no_artefact_of_the_study(params: dict, tmp_path: Path) -> None:
    made = tmp_path / "results/models/retrain/seed0/manifest.json"
    made.parent.mkdir(parents=True)
    made.write_text('{"model": "retrain", "seed": 0, "settings": {}, "inputs": {}, "code": {}}')
    assert any(str(made.parents[1]) in line and "rm -r" in line for line in problems(tmp_path / "results", params))
    params["models"]["retrain"] = "train"
    assert not any("rm -r" in line for line in problems(tmp_path / "results", params))
