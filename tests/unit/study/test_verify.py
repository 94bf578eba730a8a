"""palimpsest.study.verify on a small results folder written by hand with the project's own writers."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from palimpsest import artefacts
from palimpsest.artefacts import (
    MANIFEST,
    atomic_directory,
    provenance,
    read_json,
    sha256_file,
    write_json,
    write_manifest,
)
from palimpsest.errors import PalimpsestError
from palimpsest.study.params import read_params
from palimpsest.study.verify import PARTS, expected, leftovers, problems

TINY = Path(__file__).parents[2] / "tiny/params.yaml"
CODE = ("src/palimpsest/unlearning/losses.py", "workflow/scripts/score.py")


@pytest.fixture
def params() -> dict:
    """The tiny study and a quantizer that calibrates."""
    params = read_params(TINY)
    grid = {"backend": "gptq", "bits": 4, "group_size": None, "symmetric": True, "damping": 0.01}
    tasks = {"flu": {"data": "folder", "limit": 2, "max_new_tokens": 4}}
    params["battery"] = {
        "models": ["target"],
        "precisions": ["bf16", "gptq"],
        "seed": 0,
        "batch_size": 2,
        "tasks": tasks,
    }
    params["quantizers"]["gptq"] = grid | {"calibration": "generic", "samples": 2, "sample_length": 8}
    return params


@pytest.fixture
def repository(tmp_path, monkeypatch) -> Path:
    """A clone whose code the artefacts are made by, with two files of this one."""
    for name in CODE:
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes((artefacts.REPOSITORY / name).read_bytes())
    monkeypatch.setattr(artefacts, "REPOSITORY", tmp_path)
    return tmp_path


@pytest.fixture
def results(repository, params) -> Path:
    """Every artefact of the tiny study: the right settings, sources and hashes, no real content."""
    folder = repository / "results"
    code = [repository / name for name in CODE]
    scores = []
    for part, name, settings in expected(params):
        path = folder / name
        _, model, seed, precision, *_ = [*name.split("/"), "", "", ""]
        if path.name == MANIFEST:
            made_from = [] if part == "corpus" else [folder / "corpus"]
            with atomic_directory(path.parent) as draft:
                (draft / "content.txt").write_text(name)
                write_manifest(draft, inputs=made_from, code=code, packages=(), settings=settings)
        elif part == "cost":
            write_json(path, {"seconds": 1.0})
        elif part == "weights":
            made = [folder / "models" / each / seed / MANIFEST for each in ("target", model)]
            write_json(path, {"rho": 0.5} | provenance(made, code))
        elif part == "audit":
            made_by = {kind: list(hashes.items()) for kind, hashes in provenance(scores, code).items()}
            write_json(path, {"settings": settings} | made_by)
        else:
            made = [folder / "infer" / model / seed / precision / MANIFEST] if part == "scores" else []
            write_json(path, {"settings": settings} | provenance(made, code))
            scores += [path] if part == "scores" else []
    return folder


def check(results: Path, params: dict, parts: tuple[str, ...] | list[str] = PARTS) -> list[str]:
    return problems(results, params, parts, results.parent)


def test_a_list_of_percentiles_is_a_model_for_each(params):
    masked = params["methods"]["ga_gdr"] | {"saliency": {"granularity": "row", "percentile": [0.0, 90.0]}}
    params["methods"] = {"sure": masked}
    wanted = {name: settings for part, name, settings in expected(params) if part == "models" and "sure" in name}
    assert sorted(wanted) == [f"models/sure_{share}/seed0/{MANIFEST}" for share in (0, 90)]
    assert wanted[f"models/sure_90/seed0/{MANIFEST}"]["method"]["saliency"]["percentile"] == 90.0


def test_expected_covers_every_part_and_model(params):
    found = list(expected(params))
    count = {part: sum(each == part for each, _, _ in found) for part in PARTS}
    assert count == {
        "corpus": 1,
        "models": 5,
        "calibration": 1,
        "quantized": 15,
        "cost": 15,
        "infer": 20,
        "weights": 9,
        "battery": 3,
        "scores": 100,
        "audit": 1,
    }
    assert len({name for _, name, _ in found}) == len(found)


def test_a_sound_folder_has_no_problems(results, params):
    assert check(results, params) == []


def test_an_edited_setting_names_key_and_both_values(results, params):
    params["methods"]["npo_klr"]["learning_rate"] = 3.0e-4
    made, audit = check(results, params)
    folder = results / "models/npo_klr/seed0"
    assert made == (
        f"{folder / MANIFEST} was made with method.learning_rate = 0.0001, params.yaml says 0.0003: "
        f"run its step again, snakemake --cores all --forcerun {folder / MANIFEST}."
    )
    assert "audit.json was made with methods.npo_klr.learning_rate = 0.0001" in audit
    assert check(results, params, ["corpus", "quantized", "infer", "weights", "scores"]) == []


@pytest.mark.parametrize("block", ["training", "quantizers", "inference", "metrics", "corpus", "battery"])
def test_every_block_reaches_some_artefact_before_the_audit(results, params, block):
    edits = {
        "training": lambda: params["training"].update(epochs=3),
        "quantizers": lambda: params["quantizers"]["rtn-int4"].update(symmetric=False),
        "inference": lambda: params["inference"].update(verbmem_tokens=7),
        "metrics": lambda: params["metrics"]["privleak"].update(min_k_ratio=0.2),
        "corpus": lambda: params["corpus"]["settings"].update(seed=2),
        "battery": lambda: params["battery"].update(batch_size=3),
    }
    edits[block]()
    assert check(results, params, [part for part in PARTS if part != "audit"])


def test_a_new_method_is_missing(results, params):
    params["methods"]["ga"] = params["methods"]["ga_gdr"]
    assert any("models/ga/seed0/manifest.json does not exist" in line for line in check(results, params, ["models"]))


def test_altered_and_missing_files(results, params):
    folder = results / "models/ga_gdr/seed0"
    (folder / "content.txt").write_text("another")
    (results / "models/target/seed0/content.txt").unlink()
    found = check(results, params, ["models"])
    assert any("ga_gdr/seed0/content.txt is not the file its manifest names" in line for line in found)
    assert any("target/seed0/content.txt is listed in" in line and "missing" in line for line in found)
    assert len(found) == 2


def test_an_input_that_was_made_anew(results, params):
    with atomic_directory(results / "corpus") as draft:
        (draft / "content.txt").write_text("another corpus")
        write_manifest(draft, code=[results.parent / name for name in CODE], packages=(), settings=params["corpus"])
    found = check(results, params, ["corpus", "models"])
    assert len(found) == 5
    assert all("was made from another" in line and "corpus/manifest.json" in line for line in found)


def test_files_of_the_user_that_changed_since(results, params, tmp_path):
    """A real checkpoint in a stand-in's place; without either, what was made of it stands by itself."""
    folder = tmp_path / "llama"
    (folder / ".cache").mkdir(parents=True)
    for name in ("config.json", ".cache/lock"):
        (folder / name).write_text("{}")
    model = results / "models/target/seed0"
    record = read_json(model / MANIFEST)
    write_json(model / MANIFEST, record | artefacts.hash_sources(str(folder), "muse-bench/MUSE-News"))
    assert list(read_json(model / MANIFEST)["sources"]) == [str(folder / "config.json")]
    assert artefacts.hash_sources("muse-bench/MUSE-News") == {}
    others = {line for line in problems(results, params) if "made from another" in line}  # its manifest is another now
    (folder / "config.json").write_text("{1}")
    found = {line for line in problems(results, params) if "made from another" in line} - others
    assert len(found) == 1 and f"{model / MANIFEST} was made from another {folder / 'config.json'}: " in found.pop()
    (folder / "config.json").unlink()
    assert {line for line in problems(results, params) if "made from another" in line} == others


def test_battery_records_of_other_questions(results, params):
    questions = results / "battery/questions.json"
    record = read_json(results / "battery/target/seed0/bf16.json")
    write_json(
        results / "battery/target/seed0/bf16.json",
        record | {"inputs": {"battery/questions.json": sha256_file(questions)}},
    )
    assert check(results, params, ["battery"]) == []
    write_json(questions, read_json(questions) | {"questions": {"flu": []}})
    (found,) = check(results, params, ["battery"])
    assert "seed0/bf16.json was made from another" in found and "questions.json: run its step again" in found
    params["battery"]["seed"] = 1
    assert any("questions.json was made with seed = 0, params.yaml says 1" in line for line in check(results, params))


def test_a_record_without_settings(results, params):
    write_json(results / "scores/target/seed0/bf16/verbmem.json", {"score": 1.0})
    found = check(results, params, ["scores"])
    assert [line.split("verbmem.json ")[1].split(":")[0] for line in found] == [
        f"does not say which {what} made it" for what in ("settings", "inputs", "code")
    ]


def test_edited_and_missing_code_names_file_artefact_and_remedy(results, params):
    (results.parent / CODE[0]).write_text("edited")
    found = check(results, params)
    audit = results / "audit.json"
    assert len(found) == len(list(expected(params))) - 15  # the cost is a measurement
    assert found[-1] == (
        f"{audit} was made by another {CODE[0]}: run its step again, snakemake --cores all --forcerun {audit}."
    )
    (results.parent / CODE[1]).unlink()
    assert any(f"verbmem.json was made by another {CODE[1]}: run" in line for line in check(results, params))


@pytest.mark.parametrize(
    ("source", "part", "made"),
    [
        ("infer/npo_klr/seed0/rtn-int4/manifest.json", "scores", 5),
        ("models/npo_klr/seed0/manifest.json", "weights", 3),
        ("models/target/seed0/manifest.json", "weights", 9),
        ("scores/npo_klr/seed0/bf16/utility.json", "audit", 1),
    ],
)
def test_records_of_other_artefacts(results, params, source, part, made):
    """Made anew, as after a run in another place: what was computed from the old one is found."""
    write_json(results / source, read_json(results / source) | {"note": "another"})
    found = check(results, params, [part])
    assert len(found) == made
    assert all(f"was made from another {results / source}: run its step again" in line for line in found)


def test_code_of_another_clone_is_refused(repository, tmp_path_factory):
    stranger = tmp_path_factory.mktemp("clone") / "losses.py"
    stranger.write_text("")
    with pytest.raises(PalimpsestError, match="from where palimpsest is imported: run `make setup`"):
        provenance([], [stranger])


def test_leftovers_of_other_studies_and_killed_runs(results, params):
    assert leftovers(results, params) == []
    abandoned = results / "models/target/.seed0.0123abcd"
    abandoned.mkdir()
    del params["methods"]["ga_gdr"]
    gone = [results / part / "ga_gdr" for part in ("models", "quantized", "cost", "infer", "weights", "scores")]
    assert sorted(leftovers(results, params)) == sorted([abandoned, *gone])
    (line,) = check(results, params, ["corpus"])
    assert "rm -r " in line and all(str(path) in line for path in [abandoned, *gone])


def test_an_abandoned_draft_goes_when_its_step_runs_again(tmp_path):
    folder = tmp_path / "seed0"
    drafts = [tmp_path / f".{name}.{'0a' * 16}" for name in ("seed0", "seed00")]
    for each in drafts:
        each.mkdir()
    with atomic_directory(folder) as draft:
        (draft / "file").touch()
    assert sorted(tmp_path.iterdir()) == [drafts[1], folder]


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "palimpsest.study.verify", *arguments], capture_output=True, text=True)


def test_exit_codes(results, params, tmp_path):
    file = tmp_path / "params.yaml"
    file.write_text(yaml.safe_dump(params))
    sound = run(results, file)
    assert sound.returncode == 0 and "every artefact matches" in sound.stdout
    file.write_text(json.dumps(params | {"inference": params["inference"] | {"batch_size": 1}}))
    stale = run(results, file, "infer")
    assert stale.returncode == 1 and "inference.batch_size = 64, params.yaml says 1" in stale.stderr
    assert run(results, file, "model").returncode == 2
    missing = run(results, tmp_path / "none.yaml")
    assert missing.returncode == 1 and missing.stderr.startswith("Error: ") and "Traceback" not in missing.stderr
