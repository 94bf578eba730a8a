"""The tiny study end to end, as users run it: snakemake, dvc, make."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

from palimpsest.study.params import read_params
from palimpsest.study.verify import problems
from palimpsest.tables.formats import formats, lines

pytestmark = (
    pytest.mark.slow
)  # with pytest-xdist: --dist loadfile, so that one worker makes the study for all tests of this file

SNAKEMAKE = ("snakemake", "--cores", "all")
MODELS = ("target", "retrain", "ga_gdr", "npo_klr", "ga_gdr_float32")
QUANTIZERS = ("bnb-fp4", "rtn-int4")
METRICS = ("verbmem", "knowmem", "privleak", "utility", "perplexity")
REPORT = {"Collecting the audit table", "Drawing the figures", "Writing results/report.html"}
OF_NPO_KLR = {
    "Unlearning with npo_klr (seed 0)",
    *(f"Quantizing npo_klr (seed 0) to {precision}" for precision in QUANTIZERS),
    *(f"Asking npo_klr (seed 0) at {precision}" for precision in ("bf16", *QUANTIZERS)),
    *(f"How much of the update of npo_klr (seed 0) survives {precision}" for precision in QUANTIZERS),
    *(f"Scoring {metric} of npo_klr (seed 0) at every precision" for metric in METRICS),
}
LEARNING_RATE = ("methods", "npo_klr", "learning_rate")


def test_every_kind_of_artefact_is_there(study):
    params = yaml.safe_load((study.folder / "params.yaml").read_text())
    assert problems(study.results, params) == []
    for model in MODELS:
        for precision in ("bf16", *QUANTIZERS):
            folder = study.results / "infer" / model / "seed0" / precision
            assert (folder / "responses.jsonl").stat().st_size and (folder / "logprobs.parquet").stat().st_size
        for precision in QUANTIZERS:
            manifest = json.loads(
                (study.results / "quantized" / model / "seed0" / precision / "manifest.json").read_text()
            )
            assert manifest["proof"], f"{model} at {precision} has no proof of quantization"
            assert manifest["device"] in ("cpu", "cuda")
            cost = json.loads((study.results / manifest["cost"]).read_text())
            assert cost["seconds"] > 0 and cost["peak_mib"] > 100
    rows = json.loads((study.results / "audit.json").read_text())["rows"]
    assert len(rows) == len(MODELS) * 3
    page = (study.results / "report.html").read_text()
    assert "<svg" in page and "The files" in page
    assert {path.name for path in (study.results / "figures").iterdir()} == {"retained.svg", "survival.svg"}


def test_runs_that_find_a_warm_process_start_none(study):
    assert (study.results / "logs/corpus.log").exists() and not (study.results / "logs/warm.log").exists()


def test_the_formats_table_has_a_line_for_each_precision(study):
    records = formats(study.results)
    assert [record["precision"] for record in records] == ["bf16", *QUANTIZERS]
    for record in records[1:]:
        assert 4 < record["bits_per_weight"] < 5 and record["seconds"] > 0 and record["peak_mib"] > 100
        assert record["perplexity"] > 1
    assert len(lines(records).splitlines()) == 2 + len(records)


def test_a_second_run_has_nothing_to_do(study, read_steps):
    assert "Nothing to be done" in study.run(*SNAKEMAKE, "--dry-run")
    output = study.run("dvc", "repro")
    assert "Data and pipelines are up to date" in output
    assert not read_steps(output)


def test_snakemake_report_has_the_captions(study, tmp_path):
    page = tmp_path / "report.html"
    study.run("snakemake", "--report", str(page))
    text = page.read_text()
    for phrase in (
        "what is retained against each denominator",
        "The whole audit for readers",
        "known from the weights alone",
    ):
        assert phrase in text


def test_dvc_shows_metrics_and_plots(study, tmp_path):
    assert "answer.text" in study.run("dvc", "metrics", "show")
    study.run("dvc", "plots", "show", "--out", str(tmp_path / "plots"))
    assert len(list((tmp_path / "plots").rglob("*.svg"))) == 2


def test_an_experiment_of_dvc_is_run_compared_and_undone(copy, read_steps, tmp_path):
    """As docs/how-to/experiments.md says."""
    output = copy.run("dvc", "exp", "run", "--name", "stricter", "--set-param", "audit.negligible=5.0")
    assert read_steps(output) == REPORT and "Ran experiment(s): stricter" in output
    for command in ("exp", "metrics", "params"):
        assert re.search(r"audit\.negligible +10\S* +5", copy.run("dvc", command, "diff")), command
    assert "stricter" in copy.run("dvc", "exp", "show", "--no-pager", "--only-changed", "--md")
    copy.run("dvc", "plots", "diff", "--out", str(tmp_path / "plots"))
    assert (tmp_path / "plots/index.html").is_file()
    copy.run("git", "checkout", "params.yaml", "dvc.lock")
    copy.run("dvc", "checkout")
    copy.run("palimpsest", "verify")
    copy.run(*SNAKEMAKE, "--forceall", "--touch")
    assert "Nothing to be done" in copy.run(*SNAKEMAKE, "--dry-run")


def test_a_small_number_that_dvc_writes_as_text_is_one_line(copy):
    output = copy.run("dvc", "exp", "run", "--set-param", f"{'.'.join(LEARNING_RATE)}=5.0e-5", code=None)
    assert f"{'.'.join(LEARNING_RATE)} is the text '5e-05', not a number" in output


def test_an_edit_of_a_metric_loads_no_model(copy, read_steps):
    copy.edit("metrics", "privleak", "min_k_ratio", value=0.2)
    output = copy.run("dvc", "repro")
    assert (
        read_steps(output) == {f"Scoring privleak of {model} (seed 0) at every precision" for model in MODELS} | REPORT
    )
    for stage in ("corpus", "models", "deploy"):
        assert f"Stage '{stage}' didn't change, skipping" in output


def test_a_restored_clone_reruns_just_what_an_edit_concerns(clone, read_steps):
    clone.run("dvc", "remote", "default")
    clone.make("restore")
    assert "Nothing to be done" in clone.run(*SNAKEMAKE, "--dry-run")
    assert "Data and pipelines are up to date" in clone.run("dvc", "repro")
    clone.edit(*LEARNING_RATE, value=2.0e-4)
    output = clone.make("repro")
    assert read_steps(output) == OF_NPO_KLR | REPORT
    assert "Stage 'corpus' didn't change, skipping" in output
    assert "Data and pipelines are up to date" in clone.run("dvc", "status")


def test_a_second_machine_restores_from_s3_and_continues(copy, s3, tmp_path, read_steps):
    """Through a server that speaks S3 over HTTP."""
    copy.environment |= s3.environment
    copy.run("dvc", "remote", "add", "--default", "cloud", f"s3://{s3.bucket}/study")
    copy.run("dvc", "remote", "modify", "cloud", "endpointurl", s3.address)
    copy.run("dvc", "push")
    copy.run("git", "commit", "--quiet", "--all", "--message", "outputs go to the cloud")
    second = copy.clone(tmp_path / "second")
    second.environment |= s3.environment
    second.run("dvc", "remote", "remove", "store")  # of the first machine
    second.make("restore")
    assert "Nothing to be done" in second.run(*SNAKEMAKE, "--dry-run")
    second.edit(*LEARNING_RATE, value=2.0e-4)
    assert read_steps(second.run(*SNAKEMAKE, "--dry-run")) == OF_NPO_KLR | REPORT


def test_a_second_machine_goes_on_with_an_unfinished_study(copy, tmp_path, read_steps):
    """One of `studies/`, as docs/how-to/second-machine.md says; npo_klr was not asked yet, and nothing scored."""
    results = copy.folder / "studies/mine/results"
    undone = shutil.ignore_patterns("audit.*", "report.*", "figures*", "page*", "scores")
    shutil.copytree(copy.results, results, ignore=undone)
    shutil.rmtree(results / "infer/npo_klr")
    shutil.copy2(copy.folder / "params.yaml", results.parent)
    copy.run("dvc", "add", "studies/mine/results")
    copy.run("dvc", "push")
    copy.run("git", "add", "--all")
    copy.run("git", "commit", "--quiet", "--message", "so far")
    second = copy.clone(tmp_path / "second")
    second.run("dvc", "pull", "studies/mine/results.dvc")
    there = second.folder / "studies/mine"
    wrong = problems(there / "results", read_params(there / "params.yaml"), repository=second.folder)
    assert wrong and all("missing" in line or "does not exist" in line for line in wrong)
    snakemake = (*SNAKEMAKE, "--directory", "studies/mine")
    second.run(*snakemake, "--forceall", "--touch")
    assert read_steps(second.run(*snakemake, "--dry-run")) == REPORT | {
        *(f"Asking npo_klr (seed 0) at {precision}" for precision in ("bf16", *QUANTIZERS)),
        *(f"Scoring {metric} of {model} (seed 0) at every precision" for metric in METRICS for model in MODELS),
    }


def test_exchanged_folders_and_edited_records_reach_no_report(copy):
    """Plain `snakemake`, which goes by time stamps: what it reads anew it refuses. Of what no time stamp shows,
    `palimpsest verify` tells."""
    page = (copy.results / "report.html").read_bytes()
    target, method = (copy.results / "quantized" / name for name in ("target", "npo_klr"))

    def exchange():
        target.rename(copy.results / "away")
        method.rename(target)
        (copy.results / "away").rename(method)

    exchange()
    belongs_elsewhere = "is an artefact of model '(npo_klr|target)', which belongs elsewhere"
    assert re.search(belongs_elsewhere, copy.run("palimpsest", "verify", code=1))
    manifest = target / "seed0/rtn-int4/manifest.json"
    made = manifest.stat()
    os.utime(manifest)  # which of the steps of two models came first is the scheduler's choice
    assert re.search(belongs_elsewhere, copy.run(*SNAKEMAKE, code=1))
    os.utime(manifest, ns=(made.st_atime_ns, made.st_mtime_ns))
    exchange()
    assert "Nothing to be done" in copy.run(*SNAKEMAKE, "--dry-run")
    rho = copy.results / "survival/npo_klr/seed0/rtn-int4.json"
    text = rho.read_text()
    record = json.loads(text)
    rho.write_text(json.dumps(record | {"all": record["all"] | {"rho": 0.5}}))
    assert f"{rho.relative_to(copy.folder)} was altered after its step wrote it" in copy.run(*SNAKEMAKE, code=1)
    rho.write_text(text)
    chart = copy.results / "figures/retained.svg"
    chart.write_text(chart.read_text() + "<script/>")
    assert "retained.svg is not the file results/figures.json names" in copy.run(*SNAKEMAKE, code=1)
    assert (copy.results / "report.html").read_bytes() == page


def recorded(tree):
    """What dvc.lock says of the stages that make something."""
    stages = yaml.safe_load((tree.folder / "dvc.lock").read_text())["stages"]
    return {name: stage for name, stage in stages.items() if name != "check"}


def test_dvc_records_no_new_params_beside_old_outputs(clone, read_steps):
    """Outputs persist and Snakemake knows nothing of files that `dvc pull` brought:
    palimpsest.study.verify must stop the stage."""
    clone.run("dvc", "pull")
    now = time.time_ns()
    for path in clone.results.rglob("*"):
        os.utime(path, ns=(now, now))  # nothing newer than anything else: Snakemake sees no reason to rerun
    clone.edit(*LEARNING_RATE, value=2.0e-4)
    before = recorded(clone)
    output = clone.run("dvc", "repro", code=None)
    assert not read_steps(output)
    manifest = "results/models/npo_klr/seed0/manifest.json"
    remedy = f"snakemake --cores all --forcerun {manifest}"
    said = (
        f"{manifest} was made with methods.npo_klr.learning_rate = 0.0001, params.yaml says "
        f"0.0002: run its step again, {remedy}."
    )
    assert said in output
    assert recorded(clone) == before
    assert read_steps(clone.run(*remedy.split(), "--dry-run")) == OF_NPO_KLR | REPORT


def test_dvc_records_no_new_code_beside_old_outputs(clone, read_steps):
    """As above: Snakemake takes the models that `dvc pull` brought for up to date, whatever the library says now."""
    clone.run("dvc", "pull")
    library = clone.folder / "src/palimpsest/unlearning/losses.py"
    library.write_text(library.read_text() + "# edited\n")
    now = time.time_ns()
    for path in (*clone.results.rglob("*"), library):
        os.utime(path, ns=(now, now))
    before = recorded(clone)
    output = clone.run("dvc", "repro", "--no-run-cache", "models", code=None)
    assert "Nothing to be done" in output and not read_steps(output)
    manifest = "results/models/npo_klr/seed0/manifest.json"
    remedy = f"snakemake --cores all --forcerun {manifest}"
    assert (
        f"{manifest} was made by another src/palimpsest/unlearning/losses.py: run its step again, {remedy}." in output
    )
    assert recorded(clone) == before
    assert read_steps(clone.run(*remedy.split(), "--dry-run")) == OF_NPO_KLR | REPORT


def test_an_edit_of_one_backend_requantizes_with_that_one_alone(copy, read_steps):
    library = copy.folder / "src/palimpsest/quantizers/compressed/integers.py"
    library.write_text(library.read_text() + "# edited\n")
    planned = read_steps(copy.run(*SNAKEMAKE, "--dry-run"))
    assert planned == REPORT | {
        *(f"Quantizing {model} (seed 0) to rtn-int4" for model in MODELS),
        *(f"Asking {model} (seed 0) at rtn-int4" for model in MODELS),
        *(f"How much of the update of {model} (seed 0) survives rtn-int4" for model in MODELS[2:]),
        *(f"Scoring {metric} of {model} (seed 0) at every precision" for metric in METRICS for model in MODELS),
    }


def test_a_model_of_the_study_brought_back_as_a_checkpoint_has_the_same_scores(copy, read_steps):
    """As if another tool had made it. What is left to do is what its own steps are."""
    name, made = "npo_klr", copy.folder.parent / "made"
    parts = ("models", "quantized", "infer", "scores", "survival")
    before = {
        path.relative_to(copy.results): path for part in parts for path in (copy.results / part / name).rglob("*")
    }
    before = {str(place): path.read_bytes() for place, path in before.items() if path.is_file()}
    shutil.move(copy.results / "models" / name / "seed0", made)
    for part in parts:
        shutil.rmtree(copy.results / part / name)
    copy.edit("methods", name, value={"checkpoint": str(made)})
    copy.make("dvc-params")
    assert str(made) in yaml.safe_load((copy.folder / "dvc.yaml").read_text())["stages"]["models"]["deps"]
    done = read_steps(copy.run(*SNAKEMAKE))
    bringing = f"Bringing {name} (seed 0), which was unlearned elsewhere"
    assert done == OF_NPO_KLR - {f"Unlearning with {name} (seed 0)"} | {bringing} | REPORT
    for place, content in before.items():
        now = (copy.results / place).read_bytes()
        if place.startswith(("scores", "survival")):
            assert said(now) == said(content), place
        elif not place.endswith("manifest.json"):
            assert now == content, place
    assert problems(copy.results, read_params(copy.folder / "params.yaml"), repository=copy.folder) == []
    manifest = json.loads((copy.results / f"models/{name}/seed0/manifest.json").read_text())
    assert manifest["training"] is None and manifest["storage"] == "not stated"
    page = (copy.results / "report.html").read_text()
    assert f"Brought as it is from {made} (SHA-256 of what lay there " in page
    os.utime(made / "model.safetensors")
    assert "Nothing to be done" in copy.run(*SNAKEMAKE, "--dry-run")
    (made / "config.json").write_text((made / "config.json").read_text() + "\n")
    assert bringing in read_steps(copy.run(*SNAKEMAKE, "--dry-run"))
    assert "was made from another" in copy.make("verify", code=None)


def test_a_study_without_a_retrained_model_scores_and_reports_anew_and_makes_none(copy, read_steps):
    copy.edit("models", "retrain", value=None)
    models = [name for name in MODELS if name != "retrain"]
    assert read_steps(copy.run(*SNAKEMAKE, "--dry-run")) == REPORT | {
        f"Scoring {metric} of {model} (seed 0) at every precision" for metric in METRICS for model in models
    }
    place = "results/scores/npo_klr/seed0/bf16/privleak.json"
    copy.run(*SNAKEMAKE, place)
    score = json.loads((copy.folder / place).read_text())
    assert score["score"] is None and score["status"].endswith("no retrained model (models.retrain is null)")
    assert score["inputs"].keys() == {"infer/npo_klr/seed0/bf16/manifest.json"}


def said(record):
    """What a score or survival record says, without what made it."""
    return {key: value for key, value in json.loads(record).items() if key not in ("inputs", "code", "seal")}


def test_restore_refuses_an_edited_study_and_a_missing_remote(clone):
    clone.edit(*LEARNING_RATE, value=2.0e-4)
    assert "the outputs do not belong to this params.yaml and code" in clone.make("restore", code=None)
    assert not (clone.folder / ".snakemake").exists()
    clone.run("dvc", "remote", "remove", "store")
    assert "no DVC remote to restore from" in clone.make("restore", code=None)


def test_a_mistyped_key_stops_everything(fresh):
    fresh.edit("methods", "npo_klr", "learning_rat", value=1.0e-4)
    output = fresh.run(*SNAKEMAKE, code=1)
    assert "params.yaml: unknown key 'learning_rat' in methods.npo_klr. Did you mean 'learning_rate'?" in output
    assert not fresh.results.exists()


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (("training", "optimiser"), "params.yaml: unknown key 'optimiser' in training."),
        (("trainning",), "params.yaml: unknown key 'trainning'. Did you mean 'training'?"),
    ],
)
def test_a_key_that_no_list_of_dvc_has_stops_dvc_too(copy, read_steps, path, message):
    copy.edit(*path, value="adam")
    lock = (copy.folder / "dvc.lock").read_bytes()
    output = copy.run("dvc", "repro", "--no-run-cache", code=None)
    assert message in output and not read_steps(output)
    assert (copy.folder / "dvc.lock").read_bytes() == lock


def test_added_and_removed_entries_are_noticed(copy, read_steps):
    nf4 = {"backend": "bnb-4bit", "levels": "nf4", "double_quantization": False}
    copy.edit("quantizers", "bnb-nf4", value=nf4)
    output = copy.make("repro", code=None)
    assert "dvc.yaml: stage deploy lacks quantizers.bnb-nf4.backend." in output and "make dvc-params" in output
    assert "quantizers" in copy.run("dvc", "status", "deploy")
    params = yaml.safe_load((copy.folder / "params.yaml").read_text())
    del params["quantizers"]["bnb-nf4"], params["methods"]["ga_gdr_float32"]
    (copy.folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    assert "methods.ga_gdr_float32.learning_rate" in copy.run("dvc", "repro", code=None)
    copy.make("dvc-params")
    output = copy.make("repro", code=None)
    places = [
        f"results/{part}/ga_gdr_float32" for part in ("cost", "infer", "models", "quantized", "scores", "survival")
    ]
    assert f"rm -r {' '.join(places)}" in output
    for place in places:
        shutil.rmtree(copy.folder / place)
    assert read_steps(copy.make("repro")) == REPORT


def test_a_truncated_model_is_refused(copy):
    model = copy.results / "models/npo_klr/seed0/model.safetensors"
    with open(model, "r+b") as file:
        file.truncate(model.stat().st_size // 2)
    wanted = "results/quantized/npo_klr/seed0/bnb-fp4/manifest.json"
    output = copy.run(*SNAKEMAKE, "--forcerun", wanted, "--", wanted, code=1)
    assert "model.safetensors is not the file its manifest names (truncated or altered): run its step" in output
    assert "results/models/npo_klr/seed0/model.safetensors" in copy.make("verify", code=None)


def test_responses_cut_at_the_end_of_a_line_are_refused(copy):
    """What is left are sound rows: only the hash in the manifest tells."""
    responses = copy.results / "infer/npo_klr/seed0/bnb-fp4/responses.jsonl"
    responses.write_text("".join(responses.read_text().splitlines(keepends=True)[:-1]))
    wanted = "results/scores/npo_klr/seed0/bnb-fp4/verbmem.json"
    output = copy.run(*SNAKEMAKE, "--allowed-rules", "score", "--forcerun", wanted, "--", wanted, code=1)
    assert "responses.jsonl is not the file its manifest names (truncated or altered): run its step" in output
    assert "results/infer/npo_klr/seed0/bnb-fp4/responses.jsonl" in copy.make("verify", code=None)


def test_a_killed_run_resumes_and_gives_the_same_numbers(study, fresh, read_steps):
    """SIGKILL of Snakemake's own process, in the middle of a step, which would go on by itself and then put a model of
    a setting that is no longer asked for in the place of the next run's. It leaves Snakemake no time to clean up; the
    user types the command as before, and Snakemake's lock is gone. Of that run the warm process is killed.

    One method, from the corpus to its scores: that runs every rule up to the audit a second time.
    """
    made = [study.results / "scores/npo_klr", study.results / "survival/npo_klr"]
    records = [str(path.relative_to(study.folder)) for folder in made for path in folder.rglob("*.json")]
    assert len(records) == 3 * len(METRICS) + len(QUANTIZERS)
    users = fresh.with_programs_of_its_own()
    command = (*SNAKEMAKE, "--", *records)
    params = (fresh.folder / "params.yaml").read_bytes()
    fresh.edit("training", "learning_rate", value=2.0e-3)
    process, said = begin(users, command, "Training target")
    wait_for(lambda: any("train.py" in line for line in of_session(process.pid).values()))
    process.kill()
    process.wait()
    wait_for(lambda: not of_session(process.pid))
    assert not (fresh.results / "models/target/seed0/manifest.json").exists()
    (fresh.folder / "params.yaml").write_bytes(params)
    assert list((fresh.folder / ".snakemake/locks").iterdir())
    command = ("snakemake", "--cores", "1", "--", *records)  # a second step would import for itself, too
    process, said = begin(users, command, "Scoring ")
    warm = next(pid for pid, line in of_session(process.pid).items() if "palimpsest.runtime.warm" in line)
    os.kill(warm, signal.SIGKILL)
    said += process.communicate()[0]
    assert process.returncode == 0, said
    resumed = read_steps(said)
    assert "Training target (seed 0)" in resumed
    assert not any(step.startswith("Preparing the corpus") for step in resumed)
    for name in records:
        assert (fresh.folder / name).read_bytes() == (study.folder / name).read_bytes(), name
    for folder in ("corpus", "models", "quantized/npo_klr", "infer/npo_klr"):
        for path in (fresh.results / folder).rglob("manifest.json"):
            assert (study.folder / path.relative_to(fresh.folder)).read_bytes() == path.read_bytes(), path


def begin(tree, command, until):
    """The process of a command, which leads a session of its own, and what it said up to a line."""
    process = subprocess.Popen(
        command,
        cwd=tree.folder,
        env=tree.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    said = ""
    for line in process.stdout:
        said += line
        if until in line:
            return process, said
    raise AssertionError(said)


def of_session(leader):
    """The command lines of a session's processes, without those that wait to be buried."""
    found = {}
    for folder in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            after = (folder / "stat").read_text().rpartition(")")[2].split()
            if after[0] != "Z" and int(after[3]) == leader:
                found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    return found


def wait_for(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_verdict_is_made_on_request_by_a_policy_that_may_not_change(copy, read_steps):
    policy = copy.folder / "policy.yaml"
    policy.write_text(copy.run("palimpsest", "policy").replace("minimum: 20", "minimum: 4"))
    copy.edit("verdict", value={"policy": "policy.yaml", "models": ["npo_klr"]})
    output = copy.run(*SNAKEMAKE, "verdict", code=4)
    assert read_steps(output) == {
        "Fixing the policy of the verdict",
        "Judging npo_klr in every format",
        "May the files of this study ship?",
    }
    assert "Error: NO VERDICT, by npo_klr in " in output.splitlines()[-1]
    verdict = json.loads((copy.results / "verdict/npo_klr/verdict.json").read_text())
    assert "The policy was fixed when scores of this study were there already" in verdict["notes"][0]
    assert set(verdict["deployed"]) == set(QUANTIZERS)
    policy.write_text(policy.read_text().replace("margin: 10", "margin: 90"))
    refused = copy.run(*SNAKEMAKE, "verdict", code=1)
    assert "policy.yaml is not the policy that this run began with" in refused and not read_steps(refused)
    policy.write_text(policy.read_text().replace("margin: 90", "margin: 10"))
    copy.make("dvc-params")
    assert "- policy.yaml" in (copy.folder / "dvc.yaml").read_text()
    assert read_steps(copy.run("dvc", "repro")) == {"Writing results/report.html"}
    assert "Data and pipelines are up to date" in copy.run("dvc", "status")
