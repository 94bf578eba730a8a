"""The phase diagram's cells, its predicted borders and the rank correlation, on made-up audits with known answers."""

import copy
import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from palimpsest.audit.records import read_audits
from palimpsest.errors import PalimpsestError
from palimpsest.survival.prediction import OUTCOMES, read_table
from palimpsest.tables.by_model import METHOD, NATS, STEPS, outcomes, outcomes_table
from palimpsest.tables.markdown import metrics_table
from palimpsest.tables.phase import (
    borders,
    calibration,
    draw_calibration,
    draw_diagram,
    methods,
    place_of,
    rank_correlation,
)

REPOSITORY = Path(__file__).parents[3]


def row(model, precision, knowmem, verbmem, rho=None, seed=0, broken=False):
    both = None if verbmem is None else (knowmem + verbmem) / 2
    values = {"knowmem": knowmem, "verbmem": verbmem, "mean": both}
    return {
        "model": model,
        "seed": seed,
        "precision": precision,
        "broken": broken,
        "retained": {"same_precision": {name: {"value": value} for name, value in values.items()}},
        "metrics": {"utility": {"score": 90.0 + seed}},
        "survival": {"rho": rho},
    }


@pytest.fixture
def audit():
    """Two unlearned models: one that forgot and comes back by three quarters in int4, one that never forgot."""
    methods = {name: {"storage": "bfloat16", "learning_rate": rate} for name, rate in (("a", 1e-5), ("b", 1e-4))}
    return {
        "models": [
            {"model": name, "kind": "unlearned", "method": method, "training": [{"steps": 30, "forget_nats": 2.5}]}
            for name, method in methods.items()
        ],
        "precisions": ["bf16", "rtn-int4"],
        "rows": [
            row("a", "bf16", 10.0, 30.0),
            row("a", "rtn-int4", 70.0, 90.0, 0.1),
            row("b", "bf16", 70.0, 70.0),
            row("b", "rtn-int4", 75.0, 75.0, 0.9),
        ],
        "rules": {"forgotten_below": 50.0, "minimum_gap": 5.0, "utility_floor": 50.0},
        "settings": {
            "quantizers": {
                "rtn-int4": {"backend": "rtn", "bits": 4, "group_size": None, "symmetric": True},
                "hqq": {"backend": "hqq", "bits": 4, "group_size": 64, "device": "cpu"},
            }
        },
    }


def lines_of(audit):
    """The table's lines as cells, and what stands below it."""
    table, *notes = outcomes_table(outcomes(audit), [METHOD, STEPS, NATS], audit["rules"]).split("\n\n")
    return [line.strip("| ").split(" | ") for line in table.splitlines()], " ".join(notes)


def test_a_cell_has_the_share_that_came_back_unless_nothing_was_forgotten(audit):
    first, second = outcomes(audit)
    assert first.recovered == pytest.approx((80 - 20) / (100 - 20)) and first.rho == [0.1]
    assert second.recovered is None and second.retained == [75.0]
    lines, notes = lines_of(audit)
    assert lines[2] == ["a", "30", "2.5", "20", "90", "80 (0.10)"] and notes == ""


def of_seed(audit, seed, *models):
    """The audit as a run of another seed, of some of the models."""
    return audit | {
        "seeds": [seed],
        "rows": [row | {"seed": seed} for row in audit["rows"] if row["model"] in models],
        "models": [model for model in audit["models"] if model["model"] in models],
    }


@pytest.fixture
def folders(audit, tmp_path):
    """write(audits...): a results folder for each."""

    def write(*audits):
        paths = [tmp_path / str(place) for place in range(len(audits))]
        for path, each in zip(paths, audits, strict=True):
            path.mkdir(exist_ok=True)
            (path / "audit.json").write_text(json.dumps(each))
        return paths

    return write


def test_seeds_that_were_run_apart_are_averaged_as_seeds_of_one_study(audit, folders):
    first, second = of_seed(audit, 0, "a", "b"), of_seed(audit, 3, "a")
    second["rows"][1] = row("a", "rtn-int4", 60.0, 80.0, 0.3, seed=3)
    second["models"][0] = second["models"][0] | {"training": [{"steps": 20, "forget_nats": 2.5}]}
    joined = read_audits(folders(first, second))
    assert joined["seeds"] == [0, 3]
    a, b = outcomes(joined)
    assert a.retained == [80.0, 70.0] and a.rho == [0.1, 0.3] and a.steps == [30, 20]
    assert b.retained == [75.0]  # the second folder lacks it
    assert "a | 1e-05 | 25 [20 to 30]" in methods(folders(first, second)).replace("bfloat16 | ", "")


def test_methods_that_were_run_apart_are_joined_and_what_both_have_alike_counts_once(audit, folders):
    joined = read_audits(folders(of_seed(audit, 0, "a", "b"), of_seed(audit, 0, "b"), of_seed(audit, 1, "b")))
    a, b = outcomes(joined)
    assert joined["seeds"] == [0, 1] and a.steps == [30] and b.steps == [30, 30] and b.retained == [75.0, 75.0]


def test_a_seed_with_other_scores_in_another_folder_is_refused(audit, folders):
    other = of_seed(audit, 0, "b")
    other["rows"][0] = row("b", "bf16", 71.0, 70.0)
    with pytest.raises(PalimpsestError, match=r"/1 and a folder before it have other scores of b, seed 0: give one"):
        read_audits(folders(of_seed(audit, 0, "a", "b"), other))


@pytest.mark.parametrize("what", ["precisions", "rules", "settings.quantizers", "the method of a"])
def test_results_of_different_studies_are_not_averaged(audit, folders, what):
    other = copy.deepcopy(of_seed(audit, 1, "a", "b"))
    if what == "precisions":
        other["precisions"].append("gptq")
    elif what == "rules":
        other["rules"]["forgotten_below"] = 40.0
    elif what == "settings.quantizers":
        other["settings"]["quantizers"]["rtn-int4"]["bits"] = 3
    else:
        other["models"][0]["method"]["learning_rate"] = 2e-5
    with pytest.raises(PalimpsestError, match=f"/1 and .*/0 differ in {what}: give results of one study"):
        read_audits(folders(of_seed(audit, 0, "a", "b"), other))


def test_where_one_metric_is_undefined_the_other_is_printed_and_marked(audit):
    audit["rows"][1] = row("a", "rtn-int4", 70.0, None, 0.1)
    first = outcomes(audit)[0]
    assert first.retained == [70.0] and first.recovered == pytest.approx((70 - 10) / (100 - 10))
    lines, notes = lines_of(audit)
    assert lines[2][-3:] == ["20", "90", "70 k (0.10)"]
    assert notes == "k: KnowMem alone, where VerMem is undefined (target and retrain less than 5 points apart)"
    audit["rows"][1]["retained"]["same_precision"]["knowmem"]["value"] = None
    lines, notes = lines_of(audit)
    assert lines[2][-1] == "– (0.10)" and notes == "" and outcomes(audit)[0].recovered is None


def test_the_share_that_came_back_is_of_what_had_been_forgotten(audit):
    """The text was, the answers were not: the mean hides it."""
    audit["rows"][2:] = [row("b", "bf16", 90.0, 20.0), row("b", "rtn-int4", 95.0, 60.0, 0.3)]
    assert outcomes(audit)[1].recovered == pytest.approx((60 - 20) / (100 - 20))


def test_a_broken_model_is_marked(audit):
    audit["rows"][0]["broken"] = True
    audit["rows"][3]["broken"] = True  # by quantization alone
    lines, notes = lines_of(audit)
    assert [line[4] for line in lines[2:]] == ["90 †", "90"]
    assert notes == "†: broken, Utility in bf16 is below 50 % of the target's"


def test_several_seeds_have_a_mean_and_a_spread(audit):
    audit["rows"] += [
        row("a", "bf16", 20.0, 30.0, seed=2),
        row("a", "rtn-int4", 50.0, 60.0, 0.3, seed=2),
        row("b", "bf16", 70.0, 70.0, seed=2),
        row("b", "rtn-int4", 75.0, None, 0.9, seed=2),
    ]
    for model in audit["models"]:
        model["training"].append({"steps": 60, "forget_nats": 2.9})
    lines, notes = lines_of(audit)
    assert lines[2] == [
        *("a", "45 [30 to 60]", "2.7 [2.5 to 2.9]", "22 [20 to 25]", "91 [90 to 92]"),
        "68 [55 to 80] (0.20 [0.10 to 0.30])",
    ]
    assert lines[3][-1] == "75 k (0.90)"  # one basis for all seeds
    assert notes.endswith("[a to b]: least and greatest of the seeds, after their mean, where they differ")


def test_what_saving_rounds_away_is_a_column_where_the_manifests_say_so(audit):
    assert "saved" not in " ".join(lines_of(audit)[0][0])
    audit["models"][1]["training"][0]["saved"] = {"rho": 0.98, "moved_share": 0.9, "saved_share": 0.123}
    lines, notes = lines_of(audit)
    assert lines[0][5] == "saved: rho (moved, left %)"
    assert [line[5] for line in lines[2:]] == ["–", "0.980 (90, 12)"] and notes.startswith("saved: rho of the one")


def test_the_metrics_are_means_over_seeds_in_the_order_of_the_audit():
    def means(model, precision, *values):
        names = ("verbmem", "knowmem", "privleak", "utility", "perplexity")
        return {"model": model, "precision": precision, "metrics": dict(zip(names, values, strict=True))}

    audit = {
        "precisions": ["bf16", "rtn-int4"],
        "over_seeds": [means("target", "bf16", 90, 80, -99, 70, 2), means("target", "rtn-int4", 60, 50, None, 40, 2)],
    }
    assert metrics_table(audit).splitlines() == [
        "verbmem / knowmem / privleak / utility, percent:",
        "",
        "|  | bf16 | rtn-int4 |",
        "| --- | ---: | ---: |",
        "| target | 90 / 80 / -99 / 70 | 60 / 50 / – / 40 |",
    ]


def test_a_border_outside_the_rates_has_no_place():
    rates = [1e-6, 1e-5, 1e-4]
    assert place_of(1e-5, rates) == pytest.approx(1) and place_of(1e-4, rates) == pytest.approx(2)
    assert place_of(3.16228e-6, rates) == pytest.approx(0.5, abs=1e-5)
    assert place_of(9e-7, rates) is place_of(1.1e-4, rates) is place_of(None, rates) is None


def test_strokes_are_drawn_for_borders_within_the_rates_alone(audit, tmp_path):
    def strokes(limit):
        draw_diagram(outcomes(audit), {"rtn-int4": limit}, tmp_path / "d.svg")
        return (tmp_path / "d.svg").read_text().count("stroke-width: 2.5")

    assert (strokes(2e-5), strokes(9e-6), strokes(2e-4)) == (2, 0, 0)


def test_the_border_is_the_power_of_two_below_the_dead_zone_over_256(audit, tmp_path):
    """Rows whose largest |w| is 0.15: the bin around zero of 4 bits ends at 0.15 / 15 = 0.01, above 2^-7."""
    weights = np.random.default_rng(0).uniform(-0.15, 0.15, (200, 512)).astype(np.float32)
    weights[:, 0] = 0.15
    save_file({"model.layers.0.mlp.up_proj.weight": weights.astype(ml_dtypes.bfloat16)}, tmp_path / "model.safetensors")
    found = borders(audit, tmp_path)
    assert found["rtn-int4"] == 2**-7 / 256
    assert found["hqq"] is None


def test_figures_are_the_same_bytes_each_time(audit, tmp_path):
    pairs = [
        {"study": "s", "unlearned": name, "weights": "bfloat16", "rho": rho, "recovered_share": 1 - rho}
        for name, rho in (("a", 0.1), ("b", 0.5), ("c", 0.9))
    ]
    for name in ("one.svg", "two.svg"):
        draw_diagram(outcomes(audit), {"rtn-int4": 2e-5}, tmp_path / f"d-{name}")
        draw_calibration(pairs, tmp_path / f"c-{name}")
    assert (tmp_path / "d-one.svg").read_bytes() == (tmp_path / "d-two.svg").read_bytes()
    assert (tmp_path / "c-one.svg").read_bytes() == (tmp_path / "c-two.svg").read_bytes()


def test_the_interval_is_over_targets_not_over_pairs():
    """Four pairs a target that say the same add no certainty: the interval is as wide as with one."""
    rng = np.random.default_rng(0)
    points = [(rho, 1 - rho + rng.normal(0, 0.4)) for rho in np.linspace(0, 1, 12)]

    def pairs(copies):
        return [
            {"target": f"t{place}", "unlearned": f"m{place}-{copy}", "rho": rho, "recovered_share": share}
            for place, (rho, share) in enumerate(points)
            for copy in range(copies)
        ]

    one, four = (rank_correlation(pairs(copies)) for copies in (1, 4))
    assert one["spearman"] < 0 and four["spearman"] == pytest.approx(one["spearman"], abs=0.02)
    width = [found["ci"][1] - found["ci"][0] for found in (one, four)]
    assert width[1] == pytest.approx(width[0], rel=0.15)
    with pytest.raises(PalimpsestError, match="three are needed"):
        rank_correlation(pairs(1)[:2])


def test_the_calibration_says_what_is_wrong_beside_the_trivial_answer(tmp_path):
    text = calibration(tmp_path / "c.svg", [REPOSITORY / "src/palimpsest/survival/prediction.json"])
    first, outcomes, table, thresholds, formats = text.split("\n\n")
    packaged = read_table()
    counts = {line.split(" | ")[0].strip("| "): line.strip("| ").split(" | ")[1:] for line in outcomes.splitlines()[2:]}
    assert sum(int(count) for line in counts.values() for count in line) == packaged["pairs"]
    stored = [pair for pair in packaged["measured"] if pair["weights"] == "float32"]
    kept = [sum(map(int, line[2::3])) for name, line in counts.items() if name.endswith(", float32")]
    assert sum(kept) == sum(pair["outcome"] == "kept" for pair in stored)
    assert f"{packaged['pairs']} pairs" in first and "targets)" in first
    limits = [f"{packaged[key]:.2f}" for key in ("restored_below", "kept_from")]
    assert f"| all | {' | '.join(limits)} |" in thresholds and len(thresholds.splitlines()) == 3 + packaged["groups"]
    lines = {line.split(" | ")[0].strip("| "): line.strip("| ").split(" | ")[1:] for line in table.splitlines()[2:]}
    shown = [str(packaged[key]) for key in ("pairs", "errors", "always_kept_errors")]
    assert lines["all"] == [*shown, f"{packaged['auc_returned']:.2f}", f"{packaged['auc_restored']:.2f}"]
    sizes = [line for name, line in lines.items() if "M parameters" in name]
    assert len(sizes) == len(packaged["sizes"]) and sum(int(line[0]) for line in sizes) == packaged["pairs"]
    assert int(lines["bfloat16 weights"][0]) == packaged["bfloat16"]["pairs"] < packaged["pairs"]
    by_format = [[int(number) for number in line.strip("| ").split(" | ")[2:]] for line in formats.splitlines()[2:]]
    assert [sum(column) for column in zip(*by_format, strict=True)][:2] == [packaged["pairs"], packaged["errors"]]
    finer = [pair["outcome"] for pair in packaged["measured"] if pair["weights"] != "bfloat16"]
    assert [sum(line[place] for line in by_format) for place in (2, 3, 4)] == list(map(finer.count, OUTCOMES))
