"""Planning a large study: every step is in the plan once, and the plan is quick
(benchmarks/plan.py times five seeds and three corpora)."""

import sys
from pathlib import Path

import pytest

from palimpsest.study.params import read_params

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_study_of_twenty_methods_and_fifteen_formats_is_planned_in_seconds(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    from plan import copies, plan

    params = read_params(ROOT / "params.yaml")
    methods = copies(params["methods"], 20)
    formats = copies({"rtn-int4": params["quantizers"]["rtn-int4"]}, 15)
    params |= {"methods": methods, "quantizers": {"bf16": params["quantizers"]["bf16"]} | formats}
    params["report"] |= {"method": "ga", "precision": "rtn-int4"}
    seconds, jobs = plan(params, tmp_path)
    models = 2 + len(methods)
    steps_of_a_model = 1 + len(formats) + (1 + len(formats)) + len(params["metrics"])  # train, quantize, infer, score
    survival = len(methods) * len(formats)
    once = 5  # corpus, audit, figures, page, all
    assert jobs == models * steps_of_a_model + survival + once
    assert (
        seconds < 20
    )  # an eighth of the plan of five seeds and three corpora, which is to take a minute, on a busy machine
