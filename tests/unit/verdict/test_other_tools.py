"""Verdicts on files that OpenUnlearning and lm-eval write, through the command, with its exit codes."""

import csv
import json
import shlex
from pathlib import Path

import pytest

from palimpsest.cli import main
from palimpsest.verdict.controls import SHUFFLED
from palimpsest.verdict.policy import default_policy

N = 60
PUBLISHED = [2, 30, 42, 44, 105, 121, 128, 202, 208, 232, 257, 261, 266, 267, 271, 286, 309, 357, 362]
"""Records of the published run whose probability rises by more than 0.1 in 4 bits."""


@pytest.fixture
def published(shared: Path) -> list[str]:
    """The command on a real NPO run, in bf16 and in 4 bits, with the retained control."""
    folder = shared / "oracle/tofu"
    files = [f"{folder}/openunlearning-npo.json", f"4bit={folder}/openunlearning-npo-4bit.json"]
    return ["verdict", "--from", "openunlearning", *files, "--retain", f"{folder}/openunlearning-retain90.json"]


def test_the_published_run_never_forgot_and_its_records_are_named(published, tmp_path, capsys):
    assert main([*published, "--records-per-subject", "20", "--out", str(tmp_path)]) == 2
    said = capsys.readouterr().out
    assert said.startswith("NEVER FORGOT (4bit, probability)")
    record = json.loads((tmp_path / "verdict.json").read_text())
    (one,) = record["formats"]
    assert sorted(int(back["id"]) for back in one["relapsed"]) == PUBLISHED
    assert one["rise"]["value"] < 0 < max(back["rise"] for back in one["relapsed"])
    assert max(back["rise"] for back in one["relapsed"]) == pytest.approx(0.3186, abs=1e-4)
    assert one["subjects"] == 20 and one["records"] == 400
    rows = list(csv.DictReader((tmp_path / "records.csv").open()))
    assert [int(row["id"]) for row in rows if row["came_back"] == "yes"] == PUBLISHED
    assert sum(float(row["before"]) for row in rows) / 400 == pytest.approx(0.421463737487793, abs=1e-5)
    assert "paraphras" in " ".join(record["notes"]).lower()
    assert any("1.1e-09 at bf16, 3.9e-08 at 4bit" in note for note in record["notes"])
    shuffled = record["controls"][-1]
    assert shuffled["control"] == SHUFFLED and shuffled["passed"], "the files have 400 retain records, too"


def test_one_subject_is_answered(published, capsys):
    assert main([*published, "--records-per-subject", "20", "--subject", "13"]) == 2
    lines = [line for line in capsys.readouterr().out.splitlines() if ", record " in line]
    assert len(lines) == 20 and sum("; came back" in line for line in lines) == 4


def evaluation(path: Path, probabilities: list[float], utility: float | None = 0.6, **metrics: dict) -> Path:
    rows = {str(i): {"prob": p, "avg_loss": 1.0} for i, p in enumerate(probabilities)}
    content: dict = {"forget_Q_A_Prob": {"agg_value": 0.1, "value_by_index": rows}, **metrics}
    if utility is not None:
        content["model_utility"] = {"agg_value": utility}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def spread(mean: float, step: float = 0.002) -> list[float]:
    """Probabilities around a mean, a little apart."""
    return [mean + step * (i % 7 - 3) for i in range(N)]


@pytest.mark.parametrize(
    ("after", "utility", "code", "word"),
    [
        (spread(0.11), 0.6, 0, "FORGETS"),
        (spread(0.7), 0.6, 2, "RELAPSES"),
        (spread(0.11), 0.1, 2, "COLLAPSED"),
    ],
)
def test_exit_codes(tmp_path, capsys, after, utility, code, word):
    before = evaluation(tmp_path / "before.json", spread(0.1))
    retain = evaluation(tmp_path / "retain.json", spread(0.1))
    deployed = evaluation(tmp_path / "int4/TOFU_EVAL.json", after, utility)
    assert main(["verdict", "--from", "openunlearning", str(before), str(deployed), "--retain", str(retain)]) == code
    assert capsys.readouterr().out.startswith(f"{word} (int4, probability)")


def test_few_records_are_inconclusive_and_a_blind_test_gives_no_verdict(tmp_path, capsys):
    few = [str(evaluation(tmp_path / f"{name}.json", [0.1, 0.11, 0.12])) for name in ("a", "b", "c")]
    assert main(["verdict", "--from", "openunlearning", *few[:2], "--retain", few[2]]) == 3
    full = [str(evaluation(tmp_path / f"{name}.json", spread(0.1))) for name in ("d", "e", "f", "g")]
    command = ["verdict", "--from", "openunlearning", *full[:2], "--retain", full[2], "--target", full[3]]
    assert main(command) == 4
    assert "do not tell a model that knows from one that does not" in capsys.readouterr().out


def test_a_wrong_command_line_is_not_a_failed_model(tmp_path, capsys):
    assert main(["verdict", "--from", "nothing", "a", "b"]) == 64
    with pytest.raises(SystemExit) as end:
        main(["verdict", "--from", "openunlearning", str(tmp_path / "a"), str(tmp_path / "b")])
    assert end.value.code == 1
    assert "does not exist" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["forget_Q_A_Prob"]["value_by_index"].pop("3"), "has other records of forget_Q_A_Prob"),
        (
            lambda d: d["forget_Q_A_Prob"]["value_by_index"]["3"].pop("prob"),
            "record 3 of forget_Q_A_Prob has no number",
        ),
        (
            lambda d: d["forget_Q_A_Prob"]["value_by_index"]["3"].update(prob=float("nan")),
            "record 3 of forget_Q_A_Prob has no",
        ),
        (
            lambda d: d["forget_Q_A_Prob"]["value_by_index"]["3"].update(prob=10**400),
            "record 3 of forget_Q_A_Prob has no number",
        ),
        (lambda d: d["forget_Q_A_Prob"]["value_by_index"]["3"].update(prob=1.5), "no number from 0 to 1"),
        (lambda d: d["forget_Q_A_Prob"].update(value_by_index=[1]), "forget_Q_A_Prob is no metric with rows by index"),
        (lambda d: d.update(forget_Q_A_ROUGE="x"), "forget_Q_A_ROUGE is no metric with rows by index"),
        (lambda d: d.update(model_utility={"agg_value": "0.5"}), "the agg_value of model_utility is no finite number"),
        (lambda d: d.update(model_utility={"agg_value": float("inf")}), "the agg_value of model_utility is no finite"),
        (lambda d: d.pop("forget_Q_A_Prob"), "has no rows of forget_Q_A_Prob"),
        (lambda d: d.clear(), "is no result of OpenUnlearning"),
    ],
)
def test_files_that_cannot_be_read_are_named(tmp_path, capsys, change, message):
    before, after = (evaluation(tmp_path / f"{name}.json", spread(0.1)) for name in ("before", "after"))
    content = json.loads(after.read_text())
    change(content)
    after.write_text(json.dumps(content))
    with pytest.raises(SystemExit) as end:
        main(["verdict", "--from", "openunlearning", str(before), str(after)])
    told = capsys.readouterr().err
    assert end.value.code == 1 and message in told and len(told.splitlines()) == 1


def samples(path: Path, right: list[int]) -> Path:
    """As lm-eval writes them with --log_samples."""
    lines = [
        {"doc_id": i, "doc": {"question": "?"}, "target": 0, "filtered_resps": [f"answer {i}"], "acc": float(value)}
        for i, value in enumerate(right)
    ]
    path.write_text("\n".join(map(json.dumps, lines)) + "\n")
    return path


def test_samples_of_lm_eval(tmp_path, capsys):
    none, all_of_them = [i % 10 == 0 for i in range(60)], [i % 10 != 0 for i in range(60)]
    said = {"before": none, "nf4": none, "int4": all_of_them, "retain": none}
    before, nf4, int4, retain = (str(samples(tmp_path / f"{name}.jsonl", right)) for name, right in said.items())
    command = ["verdict", "--from", "lm-eval", before, nf4, "--retain", retain]
    assert main(command) == 0
    assert main(["verdict", "--from", "lm-eval", before, int4, "--retain", retain]) == 2
    assert "RELAPSES (int4, acc)" in capsys.readouterr().out
    Path(nf4).write_text('{"doc_id": 0, "acc": 1}\nnonsense\n')
    with pytest.raises(SystemExit):
        main(command)
    assert "nf4.jsonl, line 2 is not JSON" in capsys.readouterr().err
    for wrong in ("NaN", "1e999", "1" + "0" * 400, '"1"', "null"):
        Path(nf4).write_text('{"doc_id": 0, "acc": %s}\n' % wrong)  # noqa: UP031 - braces
        with pytest.raises(SystemExit):
            main(command)
        assert len((told := capsys.readouterr().err).splitlines()) == 1 and "nf4.jsonl" in told


def test_a_policy_is_written_before_the_run(tmp_path, capsys):
    before, after = (str(evaluation(tmp_path / f"{name}.json", spread(0.1))) for name in ("before", "after"))
    assert main(["policy"]) == 0
    policy = tmp_path / "policy.yaml"
    policy.write_text(capsys.readouterr().out)
    command = [
        "verdict",
        "--from",
        "openunlearning",
        before,
        after,
        "--policy",
        str(policy),
        "--out",
        str(tmp_path / "out"),
    ]
    assert main(command) == 0
    policy.write_text("# a comment alone is no other policy\n" + policy.read_text())
    assert main(command) == 0
    policy.write_text(policy.read_text().replace("forgotten_below: 25", "forgotten_below: 90"))
    with pytest.raises(SystemExit):
        main(command)
    assert "was decided by another policy" in capsys.readouterr().err
    policy.write_text(policy.read_text().replace("margin: 10", "margins: 10"))
    with pytest.raises(SystemExit):
        main(command)
    assert "policy.yaml" in (told := capsys.readouterr().err) and "margin" in told


def test_what_models_say_is_text_in_the_page_and_in_the_table(tmp_path):
    said = {str(i): {"generation": "<script>document.title='x'</script>"} for i in range(N)}
    rouge = {"forget_Q_A_ROUGE": {"agg_value": 0.1, "value_by_index": said}}
    before = evaluation(tmp_path / "before.json", spread(0.1), **rouge)
    after = evaluation(tmp_path / "=cmd.json", spread(0.1), **rouge)
    main(["verdict", "--from", "openunlearning", str(before), f"=HYPERLINK()={after}", "--out", str(tmp_path / "out")])
    page = (tmp_path / "out/verdict.html").read_text()
    assert "<script>document" not in page and "&lt;script&gt;document" in page
    table = (tmp_path / "out/records.csv").read_text()
    assert all(not cell.startswith("=") for line in table.splitlines() for cell in line.split(","))


@pytest.mark.parametrize("start", ["      - run: palimpsest verdict", "    - palimpsest verdict"])
def test_the_gate_in_the_documents_runs_as_it_is_written(start, tmp_path, monkeypatch):
    """The command of the CI examples, by hand, on files of the names that it gives."""
    text = (Path(__file__).parents[3] / "docs/how-to/gate-in-ci.md").read_text()
    (line,) = (line for line in text.splitlines() if line.startswith(start))
    monkeypatch.chdir(tmp_path)
    for name in ("before", "after", "retain"):
        evaluation(Path(f"{name}.json"), spread(0.1))
    Path("policy.yaml").write_text(default_policy().read_text())
    assert main(shlex.split(line.partition("palimpsest ")[2])) == 0
    evaluation(Path("after.json"), spread(0.6))
    assert main(shlex.split(line.partition("palimpsest ")[2])) == 2
