"""palimpsest.study.verify on a small results folder written by hand with the project's own writers."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from palimpsest import artefacts
from palimpsest.artefacts import (
    MANIFEST,
    Origin,
    atomic_directory,
    check_files,
    files_of,
    provenance_of,
    read_json,
    write_json,
    write_manifest,
    write_record,
)
from palimpsest.cli import main
from palimpsest.errors import PalimpsestError
from palimpsest.study.params import expanded, read_params, setting
from palimpsest.study.sources import marked
from palimpsest.study.verify import parts_of, problems

TINY = Path(__file__).parents[2] / "tiny/params.yaml"
CODE = ("src/palimpsest/unlearning/losses.py", "workflow/scripts/score.py")
UNLEARNED = ("ga_gdr", "npo_klr")


@pytest.fixture
def params() -> dict:
    """The tiny study with two methods, a quantizer that calibrates, and a battery."""
    params = read_params(TINY)
    params["methods"] = {name: params["methods"][name] for name in UNLEARNED}
    grid = {"backend": "gptq", "bits": 4, "group_size": None, "symmetric": True, "damping": 0.01}
    tasks = {"flu": {"data": "folder", "limit": 2, "max_new_tokens": 4}}
    params["battery"] = {"models": None, "precisions": None, "seed": 0, "batch_size": 2, "tasks": tasks}
    params["quantizers"] = {
        "bf16": {"backend": "none"},
        "gptq": grid | {"calibration": "generic", "samples": 2, "sample_length": 8},
    }
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
    """Every artefact of the study: the right settings, sources and hashes, no real content."""
    folder = repository / "results"

    def origin(inputs: list[str], *keys: str, **key: str | int) -> Origin:
        settings = {path: setting(params, path) for path in keys}
        return Origin(key, settings, [folder / name for name in inputs], [repository / name for name in CODE])

    def manifest(name: str, made_by: Origin) -> str:
        with atomic_directory(folder / name) as draft:
            (draft / "content.txt").write_text(name)
            write_manifest(draft, made_by, packages=())
        return f"{name}/{MANIFEST}"

    def record(name: str, made_by: Origin) -> str:
        write_record(folder / name, made_by, {"score": 1.0})
        return name

    corpus = manifest("corpus", origin([], "corpus"))
    manifest("calibration/generic", origin([corpus], "calibration/generic"))
    questions = record("battery/questions.json", origin([], "battery/tasks", "battery/seed"))
    last = []
    for model in ("target", "retrain", *UNLEARNED):
        keys = [f"methods/{model}"] if model in UNLEARNED else [f"models/{model}", "training"]
        key = {"model": model, "seed": 0}
        made = manifest(f"models/{model}/seed0", origin([corpus], *keys, **key))
        for precision in params["quantizers"]:
            key["precision"], place = precision, f"{model}/seed0/{precision}"
            quantizer = f"quantizers/{precision}"
            deployed = made
            if precision != "bf16":
                deployed = manifest(f"quantized/{place}", origin([made], quantizer, **key))
                record(f"cost/{place}.json", origin([made], quantizer, **key))
                if model in UNLEARNED:
                    four = [made, f"models/target/seed0/{MANIFEST}", deployed]
                    last.append(record(f"survival/{place}.json", origin(four, quantizer, **key)))
            inferred = manifest(f"infer/{place}", origin([corpus, deployed], quantizer, "inference", **key))
            asked = origin([questions, deployed], quantizer, "battery/batch_size", **key)
            last.append(record(f"battery/{place}.json", asked))
            for metric in ("verbmem", "utility", "privleak"):
                score = origin([inferred], f"metrics/{metric}", **key)
                last.append(record(f"scores/{place}/{metric}.json", score))
    write_report(folder, origin, last, params)
    return folder


def write_report(folder: Path, origin: Callable[..., Origin], scores: list[str], params: dict) -> None:
    """What the last steps write, and files that have no record."""
    for name in ("audit.csv", "figures/retained.svg", "logs/audit.log", "benchmarks/audit.tsv", "report.html"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    files = {"audit.json": "audit.csv", "figures.json": "figures/retained.svg", "report.json": "report.html"}
    for name, made_by in (
        ("audit.json", origin(scores, *params)),
        ("figures.json", origin(["audit.json"])),
        ("report.json", origin(["audit.json", "figures.json"], "report")),
    ):
        hashes = files_of(folder / name, [folder / files[name]])
        write_record(folder / name, made_by, {"score": 1.0, "files": list(hashes.items())})


def check(results: Path, params: dict, parts: list[str] | None = None) -> list[str]:
    return problems(results, params, parts, results.parent)


def test_a_sound_folder_has_no_problems(results, params):
    assert check(results, params) == []
    assert parts_of(results) == [
        *("battery", "calibration", "corpus", "cost", "infer", "models", "quantized", "scores", "survival"),
        *("audit.json", "figures.json", "report.json"),
    ]


def test_a_list_of_percentiles_is_a_model_for_each(results, params):
    masked = params["methods"]["ga_gdr"] | {"saliency": {"granularity": "row", "percentile": [0.0, 90.0]}}
    params["methods"] = {"sure": masked}
    assert list(expanded(params)["methods"]) == ["sure_0", "sure_90"]
    assert any("audit.json was made with methods" in line for line in check(results, params))


def test_an_edited_setting_names_key_and_both_values(results, params):
    params["methods"]["npo_klr"]["learning_rate"] = 3.0e-4
    made, audit = check(results, params, ["models", "audit.json"])
    folder = results / "models/npo_klr/seed0"
    assert made == (
        f"{folder / MANIFEST} was made with methods.npo_klr.learning_rate = 0.0001, params.yaml says 0.0003: "
        f"run its step again, snakemake --cores all --forcerun {folder / MANIFEST}."
    )
    assert "audit.json was made with methods.npo_klr.learning_rate = 0.0001" in audit
    assert check(results, params, ["corpus", "quantized", "infer", "survival", "scores"]) == []


@pytest.mark.parametrize(
    "block", ["training", "quantizers", "inference", "metrics", "corpus", "battery", "calibration"]
)
def test_every_block_reaches_some_artefact_before_the_audit(results, params, block):
    edits = {
        "training": lambda: params["training"].update(epochs=3),
        "quantizers": lambda: params["quantizers"]["gptq"].update(symmetric=False),
        "inference": lambda: params["inference"].update(verbmem_tokens=7),
        "metrics": lambda: params["metrics"]["privleak"].update(min_k_ratio=0.2),
        "corpus": lambda: params["corpus"]["settings"].update(seed=2),
        "battery": lambda: params["battery"].update(batch_size=3),
        "calibration": lambda: params["calibration"]["generic"].update(source="file"),
    }
    edits[block]()
    assert check(results, params, [part for part in parts_of(results) if part != "audit.json"])


def test_what_the_study_gained_shows_in_the_audit(results, params):
    for block, name in (("methods", "ga"), ("quantizers", "nf4")):
        more = params | {block: params[block] | {name: {}}}
        assert any(f"audit.json was made with {block}.{name} = None" in line for line in check(results, more))
    assert any("was made with seeds = [0]" in line for line in check(results, params | {"seeds": [0, 1]}))
    assert any("audit.json was made without extra" in line for line in check(results, params | {"extra": 1}))


def test_what_the_study_lost_is_named(results, params):
    del params["methods"]["ga_gdr"]
    gone = [results / part / "ga_gdr" for part in sorted(parts_of(results)) if (results / part / "ga_gdr").exists()]
    assert [path.parts[-2] for path in gone] == [
        "battery",
        "cost",
        "infer",
        "models",
        "quantized",
        "scores",
        "survival",
    ]
    (line,) = check(results, params, ["corpus"])
    listed = " ".join(map(str, gone))
    assert line == f"no artefact of this params.yaml (an earlier study's, or a killed run's): rm -r {listed}"
    for path in gone:
        shutil.rmtree(path)
    assert check(results, params, ["models"]) == []
    del params["quantizers"]["gptq"]
    (line,) = check(results, params, ["corpus"])
    assert f"{results}/infer/npo_klr/seed0/gptq " in line and f"{results}/quantized/npo_klr " in line


def test_a_part_that_is_missing(results, params):
    shutil.rmtree(results / "scores")
    assert any("scores does not exist: run the step" in line for line in check(results, params, ["scores"]))
    (results / "audit.json").unlink()
    assert any("audit.json does not exist: run the step" in line for line in check(results, params))


def test_names_of_earlier_versions_are_todays(results, params):
    old = json.loads(json.dumps(params))
    del old["quantizers"]["bf16"]
    for block in (old["training"], *old["methods"].values()):
        block["weights"] = block.pop("storage")
    assert check(results, old) == []


def test_altered_and_missing_files(results, params):
    folder = results / "models/ga_gdr/seed0"
    (folder / "content.txt").write_text("another")
    (results / "models/target/seed0/content.txt").unlink()
    found = check(results, params, ["models"])
    assert any("ga_gdr/seed0/content.txt is not the file its manifest names" in line for line in found)
    assert any("target/seed0/content.txt is listed in" in line and "missing" in line for line in found)
    assert len(found) == 2


def test_a_file_that_no_manifest_lists(results, params):
    stray = results / "models/ga_gdr/seed0/model.safetensors.index.json"
    stray.write_text("{}")
    (found,) = check(results, params, ["models"])
    assert found.startswith(f"{stray} is not listed in ")


def test_folders_that_were_exchanged(results, params):
    """Every file is sound, and of another model."""
    one, two = (results / "quantized" / name for name in ("target", "npo_klr"))
    one.rename(results / "quantized/away")
    two.rename(one)
    (results / "quantized/away").rename(two)
    found = check(results, params, ["quantized"])
    assert len(found) == 2
    assert any(
        f"{one}/seed0/gptq/{MANIFEST} is an artefact of model 'npo_klr', which belongs elsewhere" in each
        for each in found
    )


def test_an_input_that_was_made_anew(results, params):
    made_by = Origin(settings={"corpus": params["corpus"]}, code=[results.parent / name for name in CODE])
    with atomic_directory(results / "corpus") as draft:
        (draft / "content.txt").write_text("another corpus")
        write_manifest(draft, made_by, packages=())
    found = check(results, params, ["corpus", "models"])
    assert len(found) == 4
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
    others = {line for line in check(results, params) if "made from another" in line}  # its manifest is another now
    (folder / "config.json").write_text("{1}")
    found = {line for line in check(results, params) if "made from another" in line} - others
    assert len(found) == 1 and f"{model / MANIFEST} was made from another {folder / 'config.json'}: " in found.pop()
    (folder / "config.json").unlink()
    assert {line for line in check(results, params) if "made from another" in line} == others


def test_a_source_that_was_moved_is_the_same_and_an_edited_one_is_named(results, params, tmp_path):
    folder, moved = tmp_path / "texts", tmp_path / "moved"
    folder.mkdir()
    (folder / "forget.json").write_text("[]")
    corpus = {"source": "folder", "settings": {"path": "texts", "retain_split": "retain1"}}
    study = marked(params | {"corpus": corpus}, tmp_path)
    code = [results.parent / name for name in CODE]
    with atomic_directory(results / "corpus") as draft:
        write_manifest(draft, Origin({}, {"corpus": study["corpus"]}, [], code), packages=())
    assert check(results, study, ["corpus"]) == check(results, params | {"corpus": corpus}, ["corpus"]) == []
    folder.rename(moved)
    assert check(results, params | {"corpus": corpus}, ["corpus"]) == []  # what was made from it stands
    corpus["settings"]["path"] = "moved"
    assert check(results, params | {"corpus": corpus}, ["corpus"]) == []
    (moved / "more.json").touch()
    (found,) = check(results, params | {"corpus": corpus}, ["corpus"])
    assert found.startswith(
        f"{results / 'corpus' / MANIFEST} was made from another content of moved (corpus.settings.p"
    )
    moved.rename(folder)
    corpus["settings"]["path"] = "texts"
    (found,) = check(results, params | {"corpus": corpus}, ["corpus"])
    assert "manifest.json was made from another content of texts (corpus.settings.path): run its step" in found


def test_battery_records_of_other_questions(results, params):
    questions = results / "battery/questions.json"
    write_json(questions, read_json(questions) | {"questions": {"flu": []}})
    found = check(results, params, ["battery"])
    assert len(found) == 8 and all("was made from another" in line and "questions.json" in line for line in found)
    params["battery"]["seed"] = 1
    assert any(
        "questions.json was made with battery.seed = 0, params.yaml says 1" in line for line in check(results, params)
    )


def test_a_record_that_says_nothing_of_its_origin(results, params):
    path = results / "scores/target/seed0/bf16/verbmem.json"
    record = read_json(path)
    for what in ("settings", "inputs", "code"):
        write_json(path, {key: value for key, value in record.items() if key != what})
        (found,) = check(results, params, ["scores"])
        assert f"{path} does not say which {what} made it: run its step again" in found


def test_edited_and_missing_code_names_file_artefact_and_remedy(results, params):
    (results.parent / CODE[0]).write_text("edited")
    found = check(results, params)
    audit = results / "audit.json"
    records = [path for path in results.rglob("*.json") if path.relative_to(results).parts[0] != "provenance"]
    assert len(found) == len(records)
    assert found[-3] == (
        f"{audit} was made by another {CODE[0]}: run its step again, snakemake --cores all --forcerun {audit}."
    )
    (results.parent / CODE[1]).unlink()
    assert any(f"verbmem.json was made by another {CODE[1]}: run" in line for line in check(results, params))


@pytest.mark.parametrize(
    ("source", "part", "made"),
    [
        ("infer/npo_klr/seed0/gptq/manifest.json", "scores", 3),
        ("models/npo_klr/seed0/manifest.json", "survival", 1),
        ("models/target/seed0/manifest.json", "survival", 2),
        ("scores/npo_klr/seed0/bf16/utility.json", "audit.json", 1),
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
        Origin(code=[stranger]).record()


def test_what_belongs_to_no_artefact(results, params):
    strays = [
        results / name for name in ("models/target/.seed0.0123abcd", "models/empty", "scores/target/seed0/notes.txt")
    ]
    for stray in strays[:2]:
        stray.mkdir()
    strays[2].touch()
    (line,) = check(results, params)
    assert line.startswith("no artefact of this params.yaml") and all(str(stray) in line for stray in strays)


def test_a_folder_whose_step_failed(results, params):
    """Snakemake takes its manifest away, and the files of a tokenizer may name a model too."""
    folder = results / "quantized/npo_klr/seed0/gptq"
    (folder / MANIFEST).unlink()
    write_json(folder / "tokenizer.json", {"model": {"type": "BPE"}})
    found = check(results, params, ["quantized"])
    assert found == [
        f"no artefact of this params.yaml (an earlier study's, or a killed run's): rm -r {folder.parents[1]}"
    ]


UNREADABLE = {
    "not UTF-8": lambda text: text.encode().replace(b"1.0", b'"\xff"'),
    "nested": lambda text: b'{"settings": ' + b"[" * 100_000,
    "digits": lambda text: text.replace("1.0", "1" * 10_000).encode(),
    "not finite": lambda text: text.replace("1.0", "NaN").encode(),
    "a surrogate": lambda text: text.replace("1.0", r'"\ud800"').encode(),
    "a list": lambda text: json.dumps(json.loads(text) | {"inputs": [1, 2]}).encode(),
    "a number": lambda text: json.dumps(json.loads(text) | {"settings": 3}).encode(),
    "a list as precision": lambda text: json.dumps(json.loads(text) | {"precision": []}).encode(),
    "no seal": lambda text: json.dumps({k: v for k, v in json.loads(text).items() if k != "seal"}).encode(),
    "half a seal": lambda text: json.dumps(json.loads(text) | {"seal": {"place": 3}}).encode(),
    "another score": lambda text: text.replace("1.0", "0.5").encode(),
}


@pytest.mark.parametrize("break_", UNREADABLE.values(), ids=UNREADABLE)
def test_an_unreadable_record_is_one_finding_and_the_others_are_checked(results, params, break_):
    one, other = (results / f"scores/target/seed0/bf16/{metric}.json" for metric in ("privleak", "verbmem"))
    one.write_bytes(break_(one.read_text()))
    write_json(other, read_json(other) | {"settings": {"metrics/verbmem": {}}})
    found = check(results, params, ["scores"])
    named = [line for line in found if str(one) in line]
    assert len(named) == 1 and any(f"{other} was made with metrics.verbmem.rouge" in line for line in found)
    assert len(found) == 2
    "".join(found).encode()  # what is printed


@pytest.mark.parametrize("place", ["survival/npo_klr/seed0/gptq.json", "cost/target/seed0/gptq.json", "audit.json"])
def test_an_edited_record_is_named(results, params, place):
    path = results / place
    path.write_text(path.read_text().replace('"score": 1.0', '"score": 0.9'))
    assert f"{path} was altered after its step wrote it: run its step again" in check(results, params)[0]


@pytest.mark.parametrize(
    ("name", "record"),
    [("audit.csv", "audit.json"), ("figures/retained.svg", "figures.json"), ("report.html", "report.json")],
)
def test_an_edited_table_chart_or_page_is_named(results, params, name, record):
    file = results / name
    file.write_text("<svg><script/></svg>")
    (found,) = check(results, params)
    assert found.startswith(f"{file} is not the file {results / record} names (truncated or altered): run its step")
    with pytest.raises(PalimpsestError, match="is not the file"):
        check_files(results / record)
    file.unlink()
    (found,) = check(results, params, [record])
    assert found.startswith(f"{file} is listed in {results / record} but missing: run its step")


def test_what_lies_among_the_charts_and_is_none(results, params):
    draft = results / f"figures/.retained.svg.{'0a' * 16}"
    draft.touch()
    (found,) = check(results, params)
    assert found.startswith(f"{draft} is not listed in {results / 'figures.json'}")


def test_a_folder_says_what_it_was_made_with(results, params):
    manifest = results / "models/npo_klr/seed0" / MANIFEST
    note = provenance_of(manifest)
    text = note.read_text()
    note.write_text(text.replace('"palimpsest"', '"another"'))
    assert f"{note} was altered after its step wrote it" in check(results, params, ["models"])[0]
    note.unlink()
    (found,) = check(results, params, ["models"])
    assert found.startswith(f"{manifest} does not say what it was made with: {note} is missing, restore it or run its")
    (results / "provenance/models/target/seed0.json").rename(note)
    assert f"{note} is an artefact of provenance/models/target/seed0.json" in "".join(
        check(results, params, ["models"])
    )
    note.write_text(text)
    write_json(manifest, read_json(manifest) | {"note": "of another machine"})
    assert f"{note} tells of another {manifest}: run its step again" in "".join(check(results, params, ["models"]))


@pytest.mark.parametrize("name", ["figures.json", "report.json"])
def test_charts_and_page_have_records(results, params, name):
    (results / name).unlink()
    assert f"{results / name} does not exist: run the step that writes it, snakemake --cores all." in check(
        results, params
    )


def test_an_abandoned_draft_goes_when_its_step_runs_again(tmp_path):
    folder = tmp_path / "seed0"
    drafts = [tmp_path / f".{name}.{'0a' * 16}" for name in ("seed0", "seed00")]
    for each in drafts:
        each.mkdir()
    with atomic_directory(folder) as draft:
        (draft / "file").touch()
    assert sorted(tmp_path.iterdir()) == [drafts[1], folder]


def test_exit_codes(results, params, tmp_path, capsys):
    def verify(*arguments: str | Path) -> int:
        return main(["verify", *map(str, arguments)])

    file = tmp_path / "params.yaml"
    file.write_text(yaml.safe_dump(params))
    assert verify(results, file) == 0
    assert "every artefact matches" in capsys.readouterr().out
    file.write_text(json.dumps(params | {"inference": params["inference"] | {"batch_size": 1}}))
    assert verify(results, file, "infer") == 1
    assert "inference.batch_size = 64, params.yaml says 1" in capsys.readouterr().err
    for arguments in ((results, file, "model"), (results, tmp_path / "none.yaml")):
        with pytest.raises(SystemExit, match="1"):
            verify(*arguments)
        said = capsys.readouterr().err
        assert said.startswith("palimpsest: ") and said.count("\n") == 1
