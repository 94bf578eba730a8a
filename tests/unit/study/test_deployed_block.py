"""Quantized files that exist, as precisions of a study: known or refused before anything runs."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from palimpsest.errors import PalimpsestError
from palimpsest.study.deployed import check_files, pairs_of, with_files
from palimpsest.study.dvc import stage_params
from palimpsest.study.params import check_params, expanded, read_params
from palimpsest.study.run_checks import one_of_pairs
from palimpsest.study.sources import marked
from palimpsest.study.stages import read_stages

REPOSITORY = Path(__file__).parents[3]
TINY = REPOSITORY / "tests/tiny/params.yaml"
SCHEMA = REPOSITORY / "workflow/schemas/params.schema.yaml"
FILE = REPOSITORY / "tests/data/torchao-int4/quantized"
SETTINGS = {"backend": "torchao-int4", "group_size": 32}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a study, with a file that was quantized elsewhere."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(FILE, tmp_path / "phone")
    return tmp_path


def study(**entry: Any) -> dict[str, Any]:
    return read_params(TINY) | {"deployed": {"phone": {"of": "ga_gdr", "path": "phone"} | entry}}


def test_a_file_is_a_precision_with_the_settings_that_it_states(folder):
    params = study()
    whole = expanded(params)
    assert whole["quantizers"] == params["quantizers"] | {"phone": SETTINGS} and expanded(whole) == whole
    assert pairs_of(whole) == [("ga_gdr", "phone")]
    check_params(params, SCHEMA, "params.yaml")
    assert expanded(params, folder.parent / folder.name) == whole


def test_a_study_without_files_is_as_it_was():
    params = read_params(TINY)
    assert with_files(params) == params and "deployed" not in expanded(params) and pairs_of(params) == []


def test_a_file_is_seen_by_its_content(folder):
    first = marked(expanded(study()), folder)["deployed"]["phone"]["path"]
    (folder / "phone" / "more.txt").write_text("x")
    again = marked(expanded(study()), folder)["deployed"]["phone"]["path"]
    assert first == again == "phone" and first.digest != again.digest


def test_what_was_made_of_a_file_stands_when_that_is_gone(folder):
    shutil.rmtree(folder / "phone")
    with pytest.raises(PalimpsestError, match=r"^deployed.phone.path: .*does not exist"):
        expanded(study())
    made = folder / "results/quantized/ga_gdr/seed0/phone/manifest.json"
    made.parent.mkdir(parents=True)
    made.write_text(json.dumps({"settings": {"quantizers/phone": SETTINGS}}))
    whole = expanded(study())
    assert whole["quantizers"]["phone"] == SETTINGS
    check_files(whole)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"of": "ga_gdrr"}, "unknown model of deployed.phone.of 'ga_gdrr'. Did you mean 'ga_gdr'?"),
        ({"like": "rtn"}, "unknown quantizer of deployed.phone.like 'rtn'."),
        ({"like": "rtn-int4"}, "deployed.phone.path does not hold what deployed.phone.like says: "),
        ({"like": "rtn-int4", "path": "nowhere"}, "deployed.phone.path is 'nowhere', and nothing is there"),
        ({"paths": "phone"}, "unknown key 'paths' in deployed.phone. Did you mean 'path'?"),
    ],
)
def test_a_wrong_entry_is_one_line(change, message, folder):
    with pytest.raises(PalimpsestError) as error:
        check_params(study(**change), SCHEMA, "params.yaml")
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_file_is_of_one_seed_and_has_a_name_of_its_own(folder):
    with pytest.raises(PalimpsestError, match="is the file of one model, and seeds lists 2: set seeds to one"):
        check_params(study() | {"seeds": [0, 1]}, SCHEMA, "params.yaml")
    params = study()
    params["deployed"]["rtn-int4"] = params["deployed"].pop("phone")
    with pytest.raises(PalimpsestError, match=r"deployed\.rtn-int4 has the name of a quantizer"):
        expanded(params)


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        (
            {"quant_method": "quanto"},
            r"cannot be loaded here: palimpsest has no reader of quanto\. `palimpsest",
        ),
        (None, "is not quantized: it is a checkpoint"),
    ],
)
def test_a_file_that_cannot_be_compared_is_refused(stated, message, folder):
    (folder / "odd").mkdir()
    (folder / "odd" / "config.json").write_text(json.dumps({"model_type": "llama", "quantization_config": stated}))
    with pytest.raises(PalimpsestError, match=message):
        expanded(study(path="odd"))


def test_a_format_that_needs_calibration_has_to_be_named(folder, monkeypatch):
    from palimpsest.quantizers import make_quantizer
    from palimpsest.quantizers.deployed import Deployed

    settings = {"backend": "gptq", "bits": 4, "group_size": None, "symmetric": True, "damping": 0.01}
    settings |= {"calibration": "retain", "samples": 1, "sample_length": 8}
    found = Deployed(folder / "phone", "gptq", make_quantizer(settings), settings)
    monkeypatch.setattr("palimpsest.study.deployed.recognise", lambda path: found)
    with pytest.raises(PalimpsestError, match=r"needs calibration: add it to quantizers, .* in deployed.phone.like"):
        expanded(study())
    assert expanded(study(like="rtn-int4"))["quantizers"]["phone"] == read_params(TINY)["quantizers"]["rtn-int4"]


def test_codes_without_a_reader_need_a_format_to_be_held_to(folder, monkeypatch):
    from palimpsest.quantizers.archived.backends import AutoAWQ
    from palimpsest.quantizers.deployed import UNKNOWN, Deployed

    factored = AutoAWQ(**UNKNOWN, bits=4, group_size=32, zero_point=True)
    found = Deployed(folder / "phone", "awq", None, {}, "the factors are not in the folder", factored)
    monkeypatch.setattr("palimpsest.study.deployed.recognise", lambda path: found)
    with pytest.raises(PalimpsestError, match=r"cannot be proven here: the factors .* name under deployed.phone.like"):
        expanded(study())
    whole = expanded(study(like="rtn-int4"))
    assert whole["quantizers"]["phone"] == {"backend": "as-it-is", "like": whole["quantizers"]["rtn-int4"]}
    check_params(study(like="rtn-int4"), SCHEMA, "params.yaml")


def test_the_pattern_of_a_model_looks_at_the_precision_behind_it():
    pattern = re.compile(rf"results/quantized/(?P<model>{one_of_pairs([('ga', 'phone'), ('npo', 'a.b')])})/seed0/.*")
    for path, model in (("ga/seed0/phone/m", "ga"), ("npo/seed0/a.b/m", "npo"), ("npo/seed0/a.b.json", "npo")):
        assert pattern.fullmatch(f"results/quantized/{path}")["model"] == model
    for path in ("ga/seed0/a.b/m", "ga/seed0/phones/m", "npo/seed0/axb/m"):
        assert not pattern.fullmatch(f"results/quantized/{path}")
    assert not re.fullmatch(one_of_pairs([]), "")


def test_dvc_gives_the_block_to_the_stage_that_uses_it():
    stages = read_stages(REPOSITORY / "dvc.yaml")
    keys = ["deployed", "deployed.phone.of", "deployed.phone.path"]
    assert [key for key in stage_params(study(), stages)["deploy"] if key.startswith("deployed")] == keys
    without = stage_params(yaml.safe_load(TINY.read_text()), stages)
    assert not any(key.startswith("deployed") for keys in without.values() for key in keys)
