"""What a step ran on is noted, beside its record and not in it: what is the same has the same hash on every machine."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from dvc.repo import Repo

from palimpsest import artefacts, machine
from palimpsest.artefacts import (
    MANIFEST,
    Origin,
    atomic_directory,
    forget_provenance_of_gone,
    provenance_of,
    read_provenance,
    read_record,
    write_manifest,
    write_record,
)
from palimpsest.errors import PalimpsestError

ONE = {"processor": "One", "architecture": "x86_64", "instructions": ["avx2"], "limits": {}}
OTHER = ONE | {"processor": "Other", "instructions": ["avx2", "avx512f"], "torch": {"capability": "AVX512", "gpus": []}}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs two steps, a folder and a record, as on a machine with these packages and that processor."""
    results = tmp_path / "results"

    def steps(version: str, facts: dict, text: str = "weights") -> Path:
        monkeypatch.setattr("importlib.metadata.version", lambda package: f"{version} of {package}")
        monkeypatch.setattr(artefacts.platform, "python_version", lambda: version)
        monkeypatch.setattr(artefacts, "facts", lambda: facts)
        with atomic_directory(results / "models/ga/seed0") as draft:
            (draft / "model.safetensors").write_text(text)
            write_manifest(draft, Origin({"model": "ga", "seed": 0}), device="cpu", versions={"elsewhere": version})
        inputs = [results / "models/ga/seed0" / MANIFEST]
        write_record(results / "scores/ga/seed0/bf16/utility.json", Origin(inputs=inputs), {"score": 1}, ("numpy",))
        return results

    return steps


def test_other_versions_and_another_processor_give_the_same_records(run):
    def contents(results: Path) -> dict[str, bytes]:
        files = (path for part in ("models", "scores") for path in (results / part).rglob("*") if path.is_file())
        return {str(path): path.read_bytes() for path in files}

    results = run("1.0", ONE)
    first, noted = contents(results), read_provenance([results / "models/ga/seed0" / MANIFEST])
    assert contents(run("2.0", OTHER)) == first
    (before,), (after,) = noted, read_provenance([results / "models/ga/seed0" / MANIFEST])
    assert before["machine"] == ONE and after["machine"] == OTHER
    assert before["versions"] == {
        "python": "1.0",
        **{package: f"1.0 of {package}" for package in ("palimpsest", "torch", "transformers")},
        "elsewhere": "1.0",
    }
    assert before["sha256"] == after["sha256"] and before["record"] == "models/ga/seed0/manifest.json"
    assert contents(run("2.0", OTHER, "other weights")) != first


def test_dvc_says_what_is_identical_to_the_published_results(run, tmp_path, monkeypatch):
    """DVC's own hashes and status, of the outputs that the project's dvc.yaml lists."""
    run("1.0", ONE)
    monkeypatch.chdir(tmp_path)
    committed = yaml.safe_load((artefacts.REPOSITORY / "dvc.yaml").read_text())["stages"]
    outs = {name: {out for each in committed[name].get("outs", []) for out in each} for name in committed}
    assert "results/models" in outs["models"] and "results/scores" in outs["report"]
    assert {"results/cost", "results/provenance", "results/report.html"} <= outs["page"]  # what differs, alone
    stages = {
        name: {"cmd": "true", "outs": [{out: {"persist": True}}]}
        for name, out in (("models", "results/models"), ("report", "results/scores"), ("page", "results/provenance"))
    }
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    with Repo.init(no_scm=True) as repo:
        repo.commit(force=True)
        lock = (tmp_path / "dvc.lock").read_text()
        run("2.0", OTHER)
        assert list(repo.status()) == ["page"]
        repo.commit(force=True)
    one, other = (yaml.safe_load(text)["stages"] for text in (lock, (tmp_path / "dvc.lock").read_text()))
    assert [name for name in one if one[name] != other[name]] == ["page"]


def test_facts_are_of_this_machine():
    """In a process of its own, with torch and without."""
    code = "import json, sys; {}; from palimpsest.machine import facts; print(json.dumps(facts()))"
    plain, with_torch = (
        json.loads(subprocess.check_output([sys.executable, "-c", code.format(first)], text=True))
        for first in ("pass", "import torch; torch.set_num_threads(1)")
    )
    assert plain["processor"] and plain["architecture"] and "torch" not in plain
    assert with_torch["torch"]["threads"] == 1 and with_torch["torch"]["capability"]
    if with_torch["torch"]["capability"] == "AVX2":
        assert "avx2" in plain["instructions"]
    assert {key: with_torch[key] for key in plain} == plain


def test_what_holds_kernels_to_fewer_instructions_is_noted(monkeypatch, tmp_path):
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert machine.facts()["limits"]["ONEDNN_MAX_CPU_ISA"] == "AVX2"
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(
        "processor\t: 0\nBogoMIPS\t: 50\nFeatures\t: fp asimd i8mm sve\nCPU part\t: 0xd40\n\nprocessor: 1\n"
    )
    monkeypatch.setattr(machine, "CPUINFO", cpuinfo)
    machine._processor.cache_clear()
    assert machine.facts()["instructions"] == ["asimd", "i8mm", "sve"]
    machine._processor.cache_clear()


def test_notes_of_what_is_gone_go_and_edited_ones_are_refused(run):
    results = run("1.0", ONE)
    kept = provenance_of(results / "scores/ga/seed0/bf16/utility.json")
    assert kept == results / "provenance/scores/ga/seed0/bf16/utility.json" and kept.exists()
    shutil.rmtree(results / "models")
    forget_provenance_of_gone(results)
    assert [path for path in (results / "provenance").rglob("*") if path.is_file()] == [kept]
    assert not (results / "provenance/models").exists()
    kept.write_text(kept.read_text().replace("1.0", "3.0"))
    with pytest.raises(PalimpsestError, match="was altered after its step wrote it"):
        read_record(kept)
    assert provenance_of(results.parent / "elsewhere/manifest.json") is None
