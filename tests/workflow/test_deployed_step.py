"""Quantized files that exist, in the tiny study: a model's own file and a target's under another model's name."""

import json
import shutil

import yaml


def test_files_are_brought_and_the_target_passed_off_is_flagged(copy, tmp_path):
    for name, place in (("phone", "ga_gdr/seed0/bnb-fp4"), ("tablet", "target/seed0/rtn-int4")):
        shutil.copytree(copy.results / "quantized" / place, tmp_path / name)
    params = yaml.safe_load((copy.folder / "params.yaml").read_text())
    params["deployed"] = {
        "phone": {"of": "ga_gdr", "path": str(tmp_path / "phone")},
        "tablet": {"of": "npo_klr", "path": str(tmp_path / "tablet")},
    }
    (copy.folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    places = ["ga_gdr/seed0/phone", "npo_klr/seed0/tablet"]
    wanted = [f"results/quantized/{place}/manifest.json" for place in places]
    said = copy.run("snakemake", "--cores", "1", *wanted)
    own, other = (json.loads((copy.folder / file).read_text()) for file in wanted)
    assert said.count("which was quantized elsewhere") >= 2 and "Quantizing" not in said
    made = json.loads((copy.results / "quantized/ga_gdr/seed0/bnb-fp4/manifest.json").read_text())
    assert own["deployed"]["verdict"] == "same" and own["proof"] == made["proof"] | {"bytes": own["proof"]["bytes"]}
    assert other["deployed"]["verdict"] == "the target's"
    assert (
        "deployed.tablet.path is the target's file"
        in (copy.results / "logs/quantized/npo_klr/seed0/tablet.log").read_text()
    )
