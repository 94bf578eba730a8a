"""results/report.html: one file without scripts or network that a newcomer understands."""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jinja2
from markupsafe import Markup

from palimpsest.artefacts import atomic_file
from palimpsest.attacks.table import texts as attack_texts
from palimpsest.audit import battery, reach
from palimpsest.audit.cautions import (
    NAMES,
    cautions,
    is_over_forgotten,
    meaning_of_a_minus,
    not_asked,
    privleak_cautions,
)
from palimpsest.audit.deployed import about_files
from palimpsest.audit.form import form_cautions
from palimpsest.audit.groups import TITLES
from palimpsest.audit.shapes import Audit, ModelEntry
from palimpsest.errors import PalimpsestError
from palimpsest.report import figures as charts
from palimpsest.report.known_answers import texts
from palimpsest.verdict.decide import worst
from palimpsest.verdict.page import COLOURS, SIGNS
from palimpsest.verdict.records import MEANINGS
from palimpsest.vocabulary import (
    BROUGHT,
    CONSTRAINED,
    CONTRAST,
    EXTRACTION,
    FORGET_METRICS,
    FULL,
    HEADLINE,
    KNOWMEM,
    MEMORIZATION,
    NOT_STATED,
    PERPLEXITY,
    PRIVLEAK,
    PROBABILITY,
    RETRAIN,
    TARGET,
    UNLEARNED,
    UTILITY,
    VERBMEM,
)

METRICS = {
    VERBMEM: (NAMES[VERBMEM], "forget set, lower is forgotten"),
    KNOWMEM: (NAMES[KNOWMEM], "forget set, lower is forgotten"),
    PRIVLEAK: (NAMES[PRIVLEAK], "near 0 is forgotten"),
    UTILITY: (NAMES[UTILITY], "retain set, higher is better"),
    PERPLEXITY: (NAMES[PERPLEXITY], "lower is better, no percentage"),
    PROBABILITY: (NAMES[PROBABILITY], "of the true answers, lower is forgotten"),
    EXTRACTION: (NAMES[EXTRACTION], "of the true answers, lower is forgotten"),
    MEMORIZATION: (NAMES[MEMORIZATION], "of the true answers, lower is forgotten"),
}
LABELS = {
    CONSTRAINED: "retain loss, bfloat16",
    BROUGHT: "brought as they are",
    CONTRAST: "more precise weights",
}
"""Of the groups that are averaged."""
MISSING = "–"
BELOW_MARK = " ‡"
UNEVEN = 50
"""Points between VerMem and KnowMem retained in full precision from which the page says
that their mean hides something."""


def render(
    audit: Audit,
    figures: Mapping[str, Path | str],
    samples: Sequence[Mapping[str, Any]],
    path: Path | str,
    known: Mapping[str, Any] | None = None,
    quantized_files: Sequence[Mapping[str, Any]] = (),
    made_with: Sequence[Mapping[str, Any]] = (),
    verdicts: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
    attacks: Mapping[str, Any] | None = None,
) -> None:
    """Write the page. figures: {"retained": svg, "survival": svg}; samples: of
    palimpsest.report.samples.select_samples; known: of palimpsest.report.known_answers.compare, where the study repeats
    a published one; quantized_files: of palimpsest.tables.formats.files; made_with: what palimpsest.artefacts.
    write_provenance noted of each model; verdicts: the verdict.json of each model that was judged, by its name;
    attacks: what palimpsest.attacks.collect found, where the study makes any."""
    for name in ("retained", "survival"):
        if name not in figures:
            raise PalimpsestError(f"the report lacks the figure {name!r}: draw it first.")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "number": _number,
        "percent": _percent,
        "heat": _heat,
        "interval": _interval,
        "unbroken": _unbroken,
        "beside": _beside,
        "below": partial(_below, audit["rules"]["negligible"]),
    }
    source = files("palimpsest.report").joinpath("template.html.j2").read_text(encoding="utf-8")
    page = environment.from_string(source).render(
        audit=audit,
        verdicts=_verdicts(verdicts, [name for name in audit["precisions"] if name != FULL]),
        answer=audit["answer"],
        groups=_groups(audit),
        cells={(row["model"], row["precision"]): row for row in audit["over_seeds"]},
        parts=(parts := _parts(audit)),
        uneven=_uneven(parts),
        minus=_minus(audit, parts),
        damaged=cautions(audit, [model["model"] for model in audit["models"] if model["kind"] == UNLEARNED]),
        doubts=privleak_cautions(audit),
        form=form_cautions(audit),
        not_asked=not_asked(audit),
        files_brought=about_files(audit),
        unreached=reach.sentences(audit.get("reach", {})),
        sizes=_sizes(audit),
        targets=_targets(audit),
        averages=audit["averages"],
        labels=LABELS,
        brought=[_brought(model) for model in audit["models"] if "brought" in model],
        trained_here=any("brought" not in model for model in audit["models"] if model["kind"] == UNLEARNED),
        metrics={name: about for name, about in METRICS.items() if name in audit["rows"][0]["metrics"]},
        headline=audit["denominators"]["headline"],
        control=any(model["kind"] == RETRAIN for model in audit["models"]),
        full=FULL,
        same_codes=_same_codes(audit),
        quantized=[name for name in audit["precisions"] if name != FULL],
        denominators={k: v for k, v in audit["denominators"].items() if k != "headline"},
        figures={name: _inline(Path(svg), name) for name, svg in figures.items()},
        samples=samples,
        known=known,
        quantized_files=quantized_files,
        battery=battery.texts(audit),
        attacks=attack_texts(attacks["rows"]) if attacks else None,
        recoveries=attacks["steps_to_recovery"] if attacks else (),
        settings={name: _flatten(value) for name, value in audit["settings"].items()},
        provenance=_provenance(audit),
        versions=_versions(audit, made_with),
        machines=_machines(made_with),
    )
    with atomic_file(path) as draft:
        draft.write_text(page, encoding="utf-8")


def _verdicts(verdicts: Mapping[str, Mapping[str, Any]], formats: Sequence[str]) -> dict[str, Any]:
    """The table of verdicts, a line for each model: of the metrics the worst decides. Empty where nothing was
    judged."""
    if not verdicts:
        return {}
    lines, found = [], set()
    for model, record in verdicts.items():
        cells = []
        for name in formats:
            asked = [one for one in record["formats"] if one["format"] == name]
            one = worst(asked) if asked else None
            word = one["verdict"] if one else ""
            found.add(word)
            cells.append(
                {
                    "word": word,
                    "sign": SIGNS.get(word, ""),
                    "colour": COLOURS.get(word, ""),
                    "reason": one["reason"] if one else "",
                }
            )
        lines.append({"model": model, "formats": cells})
    return {
        "policy": next(iter(verdicts.values()))["policy"]["hash"],
        "formats": list(formats),
        "lines": lines,
        "meanings": {word: meaning for word, meaning in MEANINGS.items() if word in found},
    }


def _groups(audit: Audit) -> list[dict[str, Any]]:
    """The unlearned models in the order of the main table: averaged, brought, contrast, others."""
    averages = audit["averages"]
    unlearned = [model["model"] for model in audit["models"] if model["kind"] == UNLEARNED]
    groups = [
        {"title": title, "models": averages[name]["models"], "average": averages[name]}
        for name, title in TITLES.items()
        if name in averages
    ]
    other = [name for name in unlearned if not any(name in group["models"] for group in groups)]
    return [*groups, {"title": "Other methods", "models": other, "average": None}] if other else groups


def _brought(model: ModelEntry) -> dict[str, str]:
    """Where a model that was unlearned elsewhere comes from, in words."""
    facts = model["brought"]
    hashes = [f"SHA-256 of what lay there {facts['sha256']}"] if facts["sha256"] else []
    hashes += [f"commit {facts['revision']}"] if facts.get("revision") else []
    how = [f"weights stored as {' and '.join(facts['stored'])}, read as bfloat16"] if facts.get("stored") else []
    if facts["as"] == "adapter":
        base = "the target" if facts["base"] == TARGET else facts["base"]
        how.append(f"an adapter ({facts['kind']}, rank {facts['rank']}), merged into {base} here")
    note = (model["method"] or {}).get("note")
    return {
        "model": model["model"],
        "source": f"{facts['source']} ({'; '.join([*hashes, *how])})",
        "storage": "" if model["storage"] == NOT_STATED else model["storage"],
        "tokenizer": facts["tokenizer"],
        "note": note or "",
    }


def _parts(audit: Audit) -> dict[tuple[str, str], dict[str, float | None]]:
    """What a model retains at a precision by metric, means over the seeds: the two that the headline averages."""
    headline = audit["denominators"]["headline"]
    found: dict[tuple[str, str], dict[str, list[float | None]]] = {}
    for row in audit["rows"]:
        if row["retained"]:
            lists = found.setdefault((row["model"], row["precision"]), {metric: [] for metric in FORGET_METRICS})
            for metric in FORGET_METRICS:
                lists[metric].append(row["retained"][headline][metric]["value"])
    return {key: {metric: _mean(values) for metric, values in lists.items()} for key, lists in found.items()}


def _minus(audit: Audit, parts: Mapping[tuple[str, str], Mapping[str, float | None]]) -> str:
    """What a negative number of the main table says, where it has one."""
    cells = [row["retained"][HEADLINE]["value"] for row in audit["over_seeds"] if row["retained"]]
    means = [row["retained"][HEADLINE]["value"] for group in audit["averages"].values() for row in group["rows"]]
    shown = [*cells, *means]
    # a part may lie far below 0 by chance where the gap that it is a share of is small: damage shows in the mean
    shown += [-1.0 for values in parts.values() for value in values.values() if value is not None and round(value) < 0]
    return meaning_of_a_minus(shown, audit["rules"]["negligible"], BELOW_MARK.lstrip() + " ")


def _below(negligible: float, value: float | None) -> str:
    """What marks a cell far below the retrained model."""
    return BELOW_MARK if is_over_forgotten(value, negligible) else ""


def _mean(values: Sequence[float | None]) -> float | None:
    """None as soon as one is: a mean over the others would hide it."""
    return None if None in values else sum(value for value in values if value is not None) / len(values)


def _uneven(parts: Mapping[tuple[str, str], Mapping[str, float | None]]) -> list[dict[str, Any]]:
    """Models that keep one kind of knowledge and not the other in full precision."""
    found = []
    for (model, precision), values in parts.items():
        verbmem, knowmem = values[VERBMEM], values[KNOWMEM]
        if precision == FULL and verbmem is not None and knowmem is not None and abs(verbmem - knowmem) >= UNEVEN:
            found.append({"model": model, "verbmem": verbmem, "knowmem": knowmem})
    return found


def _sizes(audit: Audit) -> dict[str, Any]:
    """How much the numbers of the page rest on."""
    target = next(model for model in audit["models"] if model["kind"] == TARGET)
    metrics = next(row for row in audit["rows"] if row["model"] == target["model"])["metrics"]
    models = audit["settings"].get("models", {})
    scratch = models.get("target") == "train" and models.get("base") == "scratch"
    return {
        "prompts": metrics[VERBMEM]["n"],
        "questions": metrics[KNOWMEM]["n"],
        "kept_questions": metrics[UTILITY]["n"],
        "seeds": len(audit["seeds"]),
        "kind": "Llama" if scratch else "model",
        "parameters": target["parameters"],
    }


def _targets(audit: Audit) -> list[str]:
    """For each seed, how the training of the target ended."""
    target = next(model for model in audit["models"] if model["kind"] == TARGET)
    goal = audit["settings"].get("training", {}).get("stop_at_loss")
    return [_ending(outcome, goal) for outcome in target["training"]]


def _ending(outcome: Mapping[str, Any] | None, goal: float | None) -> str:
    if outcome is None:
        return "a checkpoint that was not trained here"
    after = f"{outcome['steps']} steps, loss of the last one {outcome['final_loss']:.2f} nats per token"
    if outcome["reached_stop_loss"] is None:
        return f"trained for {after}"
    return (
        f"{'reached' if outcome['reached_stop_loss'] else 'did not reach'} stop_at_loss, "
        f"{goal} nats per token ({after})"
    )


def _inline(svg: Path, prefix: str) -> Markup:
    """The drawing as part of the page: ids made unique, colours and fonts handed to the style sheet for dark mode."""
    if not svg.exists():
        raise PalimpsestError(f"{svg} does not exist: draw the figure first.")
    text = svg.read_text(encoding="utf-8")
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r'href="#', f'href="#{prefix}-', text)
    text = text.replace("url(#", f"url(#{prefix}-")
    for name in ("INK", "MUTED", "GRID", "BLUE", "VERMILION", "GREEN", "PURPLE", "ORANGE", "SKY"):
        text = text.replace(getattr(charts, name), f"var(--{name.lower()})")
    text = re.sub(r"font: ([^;\"]*?)(\d+(?:\.\d+)?px) 'DejaVu Sans'[^;\"]*", _font, text)
    text = re.sub(r'width="[\d.]+pt"|height="[\d.]+pt"', "", text, count=2)
    return Markup(text)


def _font(match: re.Match[str]) -> str:
    style = "".join(
        f"{name}: {value}; "
        for value, name in (("bold", "font-weight"), ("italic", "font-style"))
        if value in match.group(1)
    )
    return f"{style}font-size: {match.group(2)}"


def _flatten(value: Any, prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as (dotted key, text) pairs."""
    if isinstance(value, Mapping) and value:
        pairs = []
        for key, inner in value.items():
            pairs += _flatten(inner, f"{prefix}.{key}" if prefix else str(key))
        return pairs
    if isinstance(value, (list, tuple)):
        return [(prefix, ", ".join(str(item) for item in value))]
    return [(prefix, "none" if value is None else str(value))]


def _provenance(audit: Audit) -> list[dict[str, str]]:
    """One line per model and seed with the hashes of its weight files."""
    lines = []
    for model in audit["models"]:
        for seed, hashes in model["files"].items():
            weights = {name: digest for name, digest in hashes.items() if name.endswith(".safetensors")}
            for name, digest in weights.items() or {MISSING: MISSING}.items():
                line = {"model": model["model"], "seed": seed, "storage": model["storage"]}
                lines.append(line | {"file": name, "sha256": digest})
    return lines


def _same_codes(audit: Audit) -> dict[tuple[str, str], str]:
    """Mean share of equal codes over the seeds, as text."""
    shares: dict[tuple[str, str], list[float | None]] = {}
    for row in audit["rows"]:
        if row["survival"]:
            shares.setdefault((row["model"], row["precision"]), []).append(row["survival"]["same_code_share"])
    return {
        key: "not read"
        if None in values
        else f"{100 * sum(v for v in values if v is not None) / len(values):.1f} % same"
        for key, values in shares.items()
    }


def _versions(audit: Audit, made_with: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Versions that made the models; where they differ all are listed."""
    found: dict[str, list[str]] = {}
    for made in [*audit["models"], *made_with]:
        for name, version in made["versions"].items():
            if version not in found.setdefault(name, []):
                found[name].append(version)
    return {name: ", ".join(versions) for name, versions in sorted(found.items())}


def _machines(made_with: Sequence[Mapping[str, Any]]) -> list[str]:
    """What made the models, each kind of machine once: GPUs where they were used, else the processor and what torch
    uses of its instructions."""
    lines = []
    for made in made_with:
        machine = made["machine"]
        kernels = machine.get("torch", {})
        gpus = ", ".join(dict.fromkeys(kernels.get("gpus", [])))
        name = gpus or machine["processor"] or machine["architecture"]
        lines.append(name if gpus or not kernels else f"{name} (kernels: {kernels['capability']})")
    return list(dict.fromkeys(lines))


def _number(value: float | None, digits: int = 1) -> str:
    return MISSING if value is None else f"{value:z.{digits}f}".replace("-", "−")


def _percent(value: float | None) -> str:
    return MISSING if value is None else f"{value:z.0f}".replace("-", "−")


def _interval(ci: Sequence[float] | None) -> str:
    return "" if ci is None else f"{_percent(ci[0])} to {_percent(ci[1])}"


def _beside(cell: Mapping[str, float | None]) -> str:
    """Paper / ours / difference."""
    return " / ".join(texts(cell)).replace("-", "−")


def _unbroken(text: str) -> str:
    """Keep a number and its percent sign on one line."""
    return text.replace(" %", "\u00a0%")


def _heat(value: float | None) -> str:
    """The strength of a cell's colour, 0 to 1."""
    return "0" if value is None else f"{min(max(value, 0), 100) / 100:.3f}"
