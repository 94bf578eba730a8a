"""A fragment of a model card for one audited file: what it retains, in words and as results that the hub reads.

The metadata are the hub's: `base_model_relation`, and `model-index` as huggingface_hub writes it.
"""

from collections.abc import Mapping
from pathlib import Path

from palimpsest.artefacts import sha256_file
from palimpsest.audit.records import read_audit
from palimpsest.audit.shapes import Audit, Cell, MetricCell, Row
from palimpsest.errors import PalimpsestError, choose
from palimpsest.tables.markdown import table
from palimpsest.tables.names import REPORTED
from palimpsest.vocabulary import BOTH, CHECKPOINT, FULL, RETRAIN, TARGET, UNLEARNED

LIBRARY = "palimpsest"
NONE = "–"


def model_card(
    results: Path, model: str, precision: str, base_model: str | None = None, seed: int | None = None
) -> str:
    """The card of an unlearned model of a study at a precision, metadata first.

    base_model: the hub name, or folder, of what the file was made from; by default where the study found the model.
    seed: by default the study's first. Raises PalimpsestError for a model, precision or seed that the study does not
    have, and where nothing says what the file was made from.
    """
    file = results / "audit.json"
    audit = read_audit(file)
    rows = {(row["kind"], row["model"], row["precision"], row["seed"]): row for row in audit["rows"]}
    models = {entry["model"]: entry for entry in audit["models"] if entry["kind"] == UNLEARNED}
    entry = choose(models, model, "unlearned model")
    choose(dict.fromkeys(audit["precisions"]), precision, "precision")
    seed = (
        audit["seeds"][0] if seed is None else choose({str(each): each for each in audit["seeds"]}, str(seed), "seed")
    )
    base = base_model or (entry["method"] or {}).get(CHECKPOINT)
    if not base:
        raise PalimpsestError(
            f"{model} was unlearned by the study itself: say with --base-model what the file was made of."
        )

    def at(kind: str, where: str) -> Row | None:
        return next((row for key, row in rows.items() if key[0] == kind and key[2:] == (where, seed)), None)

    shown = {
        "this file": rows[UNLEARNED, model, precision, seed],
        "before quantization": rows[UNLEARNED, model, FULL, seed],
        "before unlearning": at(TARGET, precision),
        "never saw the text": at(RETRAIN, precision),
    }
    return f"{_metadata(audit, shown['this file'], str(base))}\n{_text(audit, shown, sha256_file(file))}"


def _metadata(audit: Audit, row: Row | None, base: str) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    assert row is not None, "the file's own row is there"
    source = str(audit["settings"].get("corpus", {}).get("source", "records"))
    results = [
        EvalResult(
            task_type="text-generation",
            task_name=said.task,
            dataset_type=f"{LIBRARY}/{source}",
            dataset_name=f"{said.split} set ({source})",
            dataset_split=said.split,
            metric_type=said.metric_type,
            metric_name=said.name,
            metric_value=cell["score"],
            metric_config=f"n={cell['n']}",
        )
        for name, said in REPORTED.items()
        if (cell := row["metrics"].get(name)) and cell["score"] is not None
    ]
    data = ModelCardData(
        base_model=base,
        base_model_relation="finetune" if row["precision"] == FULL else "quantized",
        model_name=f"{row['model']}, {row['precision']}",
        pipeline_tag="text-generation",
        tags=["unlearning", LIBRARY],
        eval_results=results or None,
    )
    return f"---\n{data.to_yaml()}\n---\n"


def _text(audit: Audit, shown: Mapping[str, Row | None], digest: str) -> str:
    there = {column: row for column, row in shown.items() if row is not None}
    row, before = there["this file"], there["before quantization"]
    names = [name for name in REPORTED if name in row["metrics"]]
    lines = [[REPORTED[name].said, *(_score(each["metrics"][name]) for each in there.values())] for name in names]
    missing = [
        f"- {REPORTED[name].said}: {row['metrics'][name]['status']}."
        for name in names
        if row["metrics"][name]["score"] is None
    ]
    rho = row["survival"] and row["survival"]["rho"]
    survival = "" if rho is None else f" Of the weight update {100 * rho:.0f} % is left (rho)."
    parts = [
        "## Does it still forget?",
        _sentence(audit, row, before) + survival,
        table(["", *there], lines),
        *(["Not measured:\n\n" + "\n".join(missing)] if missing else []),
        f"Percent, but for perplexity; in brackets the interval over examples. Seed {row['seed']}. The models before "
        "unlearning and without the text are in the same format as this file. "
        f"Measured by {LIBRARY} on the file itself; the record is `audit.json`, SHA-256 {digest}.",
    ]
    return "\n\n".join(parts) + "\n"


def _sentence(audit: Audit, row: Row, before: Row) -> str:
    headline = audit["denominators"]["headline"]
    here, earlier = (each["retained"][headline][BOTH] if each["retained"] else None for each in (row, before))
    if here is None or here["value"] is None:
        return f"How much it retains of the forget set is not known: {here['status'] if here else 'nothing was asked'}."
    said = f"In {row['precision']} it retains {_share(here)} of what its target knew of the forget set"
    if row["precision"] == FULL or earlier is None or earlier["value"] is None:
        return f"{said}."
    return f"{said}, and {_share(earlier)} before quantization."


def _share(cell: Cell) -> str:
    interval = f" ({cell['ci'][0]:.0f} to {cell['ci'][1]:.0f})" if cell["ci"] else ""
    return f"{cell['value']:.0f} %{interval}"


def _score(cell: MetricCell) -> str:
    if cell["score"] is None:
        return NONE
    interval = f" ({cell['ci'][0]:.1f} to {cell['ci'][1]:.1f})" if cell["ci"] else ""
    return f"{cell['score']:.1f}{interval}"
