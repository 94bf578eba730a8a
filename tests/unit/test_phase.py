"""The phase diagram's cells, its predicted borders and the rank correlation, on made-up audits with known answers."""

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from palimpsest.errors import PalimpsestError
from palimpsest.report.phase import borders, cells, draw_calibration, draw_diagram, rank_correlation


def row(model, precision, retained, rho=None):
    return {
        "model": model,
        "precision": precision,
        "retained": {"same_precision": {"value": retained}},
        "metrics": {"utility": 90.0},
        "rho": rho,
    }


@pytest.fixture
def audit():
    """Two unlearned models: one that forgot and comes back by three quarters in int4, one that never forgot."""
    methods = {name: {"weights": "bfloat16", "learning_rate": rate} for name, rate in (("a", 1e-5), ("b", 1e-4))}
    return {
        "models": [
            {"model": name, "kind": "unlearned", "method": method, "training": [{"steps": 30, "forget_nats": 2.5}]}
            for name, method in methods.items()
        ],
        "over_seeds": [
            row("a", "bf16", 20.0),
            row("a", "rtn-int4", 80.0, 0.1),
            row("b", "bf16", 70.0),
            row("b", "rtn-int4", 75.0, 0.9),
        ],
        "rules": {"forgotten_below": 50.0},
        "settings": {
            "quantizers": {
                "rtn-int4": {"backend": "rtn", "bits": 4, "group_size": None, "symmetric": True},
                "hqq": {"backend": "hqq", "bits": 4, "group_size": 64, "device": "cpu"},
            }
        },
    }


def test_a_cell_has_the_share_that_came_back_unless_nothing_was_forgotten(audit):
    first, second = cells(audit)
    assert first["recovered"] == pytest.approx((80 - 20) / (100 - 20)) and first["rho"] == 0.1
    assert second["recovered"] is None and second["retained"] == 75.0


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
        draw_diagram(cells(audit), {"rtn-int4": 2e-5}, tmp_path / f"d-{name}")
        draw_calibration(pairs, tmp_path / f"c-{name}")
    assert (tmp_path / "d-one.svg").read_bytes() == (tmp_path / "d-two.svg").read_bytes()
    assert (tmp_path / "c-one.svg").read_bytes() == (tmp_path / "c-two.svg").read_bytes()


def test_the_interval_is_over_models_not_over_pairs():
    """Four formats a model that say the same add no certainty: the interval is as wide as with one."""
    rng = np.random.default_rng(0)
    points = [(rho, 1 - rho + rng.normal(0, 0.4)) for rho in np.linspace(0, 1, 12)]

    def pairs(copies):
        return [
            {"study": "s", "unlearned": f"m{place}", "rho": rho, "recovered_share": share}
            for place, (rho, share) in enumerate(points)
            for _ in range(copies)
        ]

    one, four = (rank_correlation(pairs(copies)) for copies in (1, 4))
    assert one["spearman"] < 0 and four["spearman"] == pytest.approx(one["spearman"], abs=0.02)
    width = [found["ci"][1] - found["ci"][0] for found in (one, four)]
    assert width[1] == pytest.approx(width[0], rel=0.15)
    with pytest.raises(PalimpsestError, match="three are needed"):
        rank_correlation(pairs(1)[:2])
