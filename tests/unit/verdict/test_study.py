"""Verdicts on the results of a study, from score records as the pipeline leaves them."""

import json
from pathlib import Path

import pytest
from made_study import BOOTSTRAP, make_study

from palimpsest.artefacts import write_json
from palimpsest.audit.table import collect
from palimpsest.cli import main
from palimpsest.metrics import score


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study in which rounding undoes what most methods forgot."""
    folder = tmp_path_factory.mktemp("results")
    study = make_study(tmp_path_factory.mktemp("study"), seeds=(1, 2))
    settings = {"ending": False, **BOOTSTRAP}
    study["records"]["scores"] += [
        {"model": model, "seed": seed, "precision": at} | score("probability", settings, **files, retrain_logprobs=None)
        for (model, seed, at), files in study["files"].items()
    ]
    for record in study["records"]["scores"]:
        place = f"scores/{record['model']}/seed{record['seed']}/{record['precision']}/{record['metric']}.json"
        write_json(folder / place, record)
    audit = collect(**study["records"])
    for model in audit["models"]:
        if model["kind"] == "unlearned":
            model["method"] = {"storage": model["storage"]}
    write_json(folder / "audit.json", audit)
    return folder


def judged(results: Path, out: Path, model: str, policy: str) -> dict:
    file = out / "policy.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(policy)
    code = main(["verdict", str(results), "--model", model, "--policy", str(file), "--out", str(out)])
    return json.loads((out / model / "verdict.json").read_text()) | {"code": code}


def test_a_method_whose_forgetting_rounding_undoes_relapses(results, tmp_path, capsys):
    main(["policy"])
    policy = (
        capsys.readouterr()
        .out.replace("minimum: 20", "minimum: 8")
        .replace("forgotten_below: 25", "forgotten_below: 45")
    )
    broken = judged(results, tmp_path / "a", "ga_gdr", policy)
    assert broken["verdict"] in ("RELAPSES", "NEVER FORGOT") and broken["code"] == 2
    assert {one["metric"] for one in broken["formats"]} == {"verbmem", "knowmem"}
    int4 = next(one for one in broken["formats"] if one["format"] == "rtn-int4" and one["metric"] == "verbmem")
    assert int4["rise"]["value"] > 30 and int4["relapsed"]
    page = (tmp_path / "a/ga_gdr/verdict.html").read_text()
    assert "RELAPSES" in page and "rtn-int4" in page


def test_the_probability_of_the_true_answers_judges_where_the_policy_says_so(results, tmp_path, capsys):
    main(["policy"])
    policy = capsys.readouterr().out.replace("study: [verbmem, knowmem]", "study: [probability]")
    broken = judged(results, tmp_path / "a", "ga_gdr", policy)
    assert {one["metric"] for one in broken["formats"]} == {"probability"}
    int4 = next(one for one in broken["formats"] if one["format"] == "rtn-int4")
    assert int4["verdict"] == "RELAPSES" and int4["rise"]["value"] > 50 and len(int4["relapsed"]) == 40
    int8 = next(one for one in broken["formats"] if one["format"] == "bnb-int8")
    assert int8["retained"]["value"] < 10 and not int8["relapsed"]
    shuffled = next(each for each in broken["controls"] if "shuffled" in each["control"])
    assert shuffled["passed"] is not None  # the retain records have probabilities, too
    (tmp_path / "policy.yaml").write_text(policy.replace("[probability]", "[extraction_strength]"))
    with pytest.raises(SystemExit):
        main(["verdict", str(results), "--policy", str(tmp_path / "policy.yaml")])
    assert "does not measure extraction_strength, a metric of the policy" in capsys.readouterr().err


def test_all_models_are_judged_and_the_worst_decides(results, capsys):
    code = main(["verdict", str(results)])
    said = capsys.readouterr().out
    assert code in (2, 4) and said.count("Policy: sha256") == said.count("== ") // 1 > 1


def test_unknown_models_and_other_tools_files_are_refused(results, capsys):
    with pytest.raises(SystemExit):
        main(["verdict", str(results), "--model", "ga_gd"])
    assert "Did you mean 'ga_gdr'?" in capsys.readouterr().err
    assert main(["verdict", str(results), "b.json"]) == 64
    assert "give its folder alone" in capsys.readouterr().err
