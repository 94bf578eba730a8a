"""The formats table: how dead zones are printed, the rows of the files,
and differences between formats with paired intervals."""

import json
from pathlib import Path
from typing import Any

import pytest
from made_study import CONSTRAINED, PRECISIONS, find, make_study, pages

from palimpsest.audit.table import collect
from palimpsest.errors import PalimpsestError
from palimpsest.quantizers import make_quantizer
from palimpsest.quantizers.grids.levels import zero_bin
from palimpsest.report.page import render
from palimpsest.tables.formats import _zone, difference_lines, differences, files

PROOF = {
    "backend": "llmcompressor",
    "backend_version": "0.14.0.1",
    "bits_per_weight": 4.125,
    "skipped_layers": ["lm_head"],
    "codes_sha256": "cd" * 32,
    "bytes": 1234567,
}
MANIFEST = {"model": "ga_gdr", "seed": 0, "precision": "rtn-int4", "device": "cpu", "proof": PROOF}
COST = {"seconds": 3.21, "peak_mib": 586, "device_peak_mib": None}


@pytest.mark.parametrize(
    ("settings", "printed"),
    [
        ({"backend": "rtn", "bits": 4, "group_size": 128, "symmetric": True}, "±0.067"),
        ({"backend": "rtn", "bits": 4, "group_size": 128, "symmetric": False}, "±0.033 to 0.067"),
        ({"backend": "microscale", "format": "mxfp4"}, "±0.036 to 0.071"),
        ({"backend": "microscale", "format": "nvfp4"}, "±0.039 to 0.044"),
        ({"backend": "w8a8", "format": "fp8"}, "±0.0000022"),
        ({"backend": "bnb-4bit", "levels": "nf4", "double_quantization": False}, "−0.046 +0.040"),
    ],
)
def test_dead_zones_are_printed_with_two_digits_and_from_lowest_to_highest(settings, printed):
    quantizer = make_quantizer(settings)
    assert _zone(quantizer.dead_zone(), quantizer.dead_zone_range()) == printed


def test_a_file_of_two_grids_has_a_table_for_each():
    tables = make_quantizer({"backend": "gguf", "format": "q4_k_m", "outer": "bfloat16"}).level_tables()
    assert [(kind, len(levels)) for kind, levels in tables.items()] == [("Q4_K", 16), ("Q6_K", 64)]
    assert zero_bin(tables["Q6_K"]) == (1 / 64, 1 / 64)


def test_the_page_shows_the_files_in_a_collapsed_section(study, audit, tmp_path):
    plain = pages(study, audit, tmp_path).read_text()
    assert "The files" not in plain
    figures = {name: tmp_path / f"{name}.svg" for name in ("retained", "survival")}
    rows = files([MANIFEST, MANIFEST | {"device": "cuda"}], [COST, COST | {"device_peak_mib": 61.5}])
    render(audit, figures, [], tmp_path / "with.html", quantized_files=rows)
    page = (tmp_path / "with.html").read_text()
    section = page[page.index("<summary>The files") :]
    for text in (
        "ga_gdr/seed0/rtn-int4",
        "llmcompressor 0.14.0.1",
        "4.12",
        "lm_head",
        "1234567",
        "3.2",
        "586",
        "cd" * 32,
        "cuda",
    ):
        assert text in section
    assert "<details open" not in page and section.count("<tr>") == 3


def write_results(folder: Path, records: dict[str, Any]) -> Path:
    """What `differences` reads of a results folder."""
    written = [("audit.json", collect(**records))]
    for record in records["scores"]:
        place = f"{record['model']}/seed{record['seed']}/{record['precision']}"
        written.append((f"scores/{place}/{record['metric']}.json", record))
    for record in records["survival"]:
        written.append((f"survival/{record['model']}/seed{record['seed']}/{record['precision']}.json", record))
    for name, content in written:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder in which `same` is a copy of rtn-int4."""
    records = make_study(tmp_path_factory.mktemp("inference"))["records"]
    for key in ("scores", "survival"):
        records[key] += [each | {"precision": "same"} for each in records[key] if each["precision"] == "rtn-int4"]
    return write_results(tmp_path_factory.mktemp("results"), records)


def test_a_difference_is_that_of_the_recoveries_and_none_between_equal_formats(results):
    found = differences(results, "rtn-int4")
    table = json.loads((results / "audit.json").read_text())
    rows = table["averages"]["utility_constrained"]["rows"]
    reference = find(rows, precision="rtn-int4")["recovery"]["value"]
    mean = {record["precision"]: record["difference"] for record in found[: len(PRECISIONS) - 1]}
    for precision in ("bnb-int8", "bnb-nf4", "bnb-fp4"):
        expected = find(rows, precision=precision)["recovery"]["value"] - reference
        assert mean[precision]["value"] == pytest.approx(expected, abs=1e-9)
        assert mean[precision]["ci"][0] < expected < mean[precision]["ci"][1]
    assert mean["same"]["value"] == 0 and mean["same"]["ci"] == [0, 0]
    assert mean["bnb-int8"]["ci"][1] < 0  # int8 brings nothing back where round-to-nearest int4 does


def test_pairing_narrows_the_interval(results):
    """Two formats whose scores rise and fall with the same examples:
    the interval of each is wider than that of their difference."""
    table = json.loads((results / "audit.json").read_text())
    fp4 = next(r for r in differences(results, "rtn-int4") if r["precision"] == "bnb-fp4")["difference"]["ci"]
    alone = find(table["averages"]["utility_constrained"]["rows"], precision="bnb-fp4")["recovery"]["ci"]
    assert fp4[1] - fp4[0] < 0.8 * (alone[1] - alone[0])


def test_the_differences_are_a_table_with_a_column_for_each_method(results):
    printed = difference_lines(differences(results, "rtn-int4"), "rtn-int4").splitlines()
    assert printed[0].startswith("| recovery minus that of rtn-int4 (points) | mean of the bfloat16 methods |")
    assert all(method in printed[0] for method in CONSTRAINED) and len(printed) == 2 + len(PRECISIONS) - 1
    with pytest.raises(PalimpsestError, match="Did you mean 'rtn-int4'"):
        differences(results, "rtn-int-4")


def test_the_differences_of_several_seeds_show_their_spread(tmp_path):
    made = make_study(tmp_path / "inference", models=("target", "retrain", "ga_gdr"), seeds=(1, 2))["records"]
    found = differences(write_results(tmp_path, made | {"constrained": ["ga_gdr"]}), "rtn-int4")
    rows = json.loads((tmp_path / "audit.json").read_text())["rows"]
    gains = {
        (row["precision"], row["seed"]): row["recovery"]["value"]
        for row in rows
        if row["model"] == "ga_gdr" and row["precision"] != "bf16"
    }
    apart = find(found, models="ga_gdr", precision="bnb-nf4")
    expected = [gains["bnb-nf4", seed] - gains["rtn-int4", seed] for seed in (1, 2)]
    assert apart["by_seed"] == pytest.approx(expected) and max(expected) < -10
    assert apart["difference"]["value"] == pytest.approx(sum(expected) / 2)
    low, high = sorted(round(value) for value in expected)
    assert f"[{low} to {high}]" in difference_lines(found, "rtn-int4")
