"""The attacks of a study, read from what the attacked models said."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from palimpsest.artefacts import read_manifest, verify_files
from palimpsest.attacks.kinds import STRENGTHS
from palimpsest.attacks.table import Values, compare, steps_to_recovery
from palimpsest.inference.files import InferenceFiles
from palimpsest.metrics.rouge import mean_rouge
from palimpsest.vocabulary import KNOWMEM, KNOWMEM_FORGET, VERBMEM

TASKS = {VERBMEM: VERBMEM, KNOWMEM: KNOWMEM_FORGET}


def collect(runs: Sequence[Mapping[str, Any]], seeds: Sequence[int], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Rows of every attack, and how many steps of relearning bring a share back.

    runs: of palimpsest.study.attacked.Plan, whose folders have {seed} in them; settings: the blocks attacks, audit,
    verbmem and knowmem. An attack in asking has its own scores; all others are scored as inference's responses are.
    """
    read = _Reader(seeds, settings)
    attacks, rules, rows = settings["attacks"]["each"], settings["audit"], []
    for run in runs:
        attack = attacks[run["attack"]]
        peers = {
            other["model"]: other["folder"]
            for other in runs
            if all(other[key] == run[key] for key in ("attack", "precision", "when"))
        }
        about = {key: run[key] for key in ("attack", "model", "precision", "when")}
        about |= {"family": attack["family"], "kind": attack["kind"], "strength": _strength(attack)}
        plain = f"results/infer/{run['model']}/seed{{seed}}/{run['precision']}"
        for metric in [KNOWMEM] if run["when"] is None else read.metrics(run["folder"]):
            scores = {model: read.scores(folder, metric) for model, folder in peers.items()}
            before = None if attack["kind"] == "prefix" and attack["words"] else read.scores(plain, metric)
            leaks = read.leaks(run["folder"]) if run["when"] is None else None
            rows.append(compare(about | {"metric": metric, "leak_at": leaks}, scores, before, rules))
    return {"rows": rows, "steps_to_recovery": steps_to_recovery(rows, settings["attacks"]["recovered_at"])}


def _facts(pattern: str, seed: int) -> dict[str, Any]:
    """The manifest of a folder whose files are those that it names."""
    folder = Path(pattern.format(seed=seed))
    verify_files(folder)
    return {**read_manifest(folder)}


def _strength(attack: Mapping[str, Any]) -> float | None:
    key = STRENGTHS.get(attack["kind"])
    return None if key is None else attack[key]


class _Reader:
    """What was said of a folder pattern, and its scores by record, each read once."""

    def __init__(self, seeds: Sequence[int], settings: Mapping[str, Any]) -> None:
        self.seeds, self.settings = seeds, settings
        self.known: dict[tuple[str, str], Values] = {}
        self.facts = cache(_facts)

    def metrics(self, folder: str) -> list[str]:
        absent = self.facts(folder, self.seeds[0]).get("absent", ())
        return [metric for metric, part in ((VERBMEM, VERBMEM), (KNOWMEM, "forget_qa")) if part not in absent]

    def scores(self, folder: str, metric: str) -> Values:
        if (folder, metric) not in self.known:
            self.known[folder, metric] = {seed: self._read(folder, seed, metric) for seed in self.seeds}
        return self.known[folder, metric]

    def _read(self, pattern: str, seed: int, metric: str) -> tuple[list[int], list[float]]:
        facts = self.facts(pattern, seed)
        if "per_example" in facts:
            return facts["ids"], facts["per_example"]
        folder = Path(pattern.format(seed=seed))
        files = InferenceFiles(folder / "responses.jsonl", folder / "logprobs.parquet", None)
        score: dict[str, Any] = {**mean_rouge(files, task=TASKS[metric], **self.settings[metric])}
        return score["ids"], score["per_example"]

    def leaks(self, folder: str) -> dict[str, float] | None:
        """leak@k, the mean over the seeds, of an attack that draws samples."""
        found: list[dict[str, float]] = [self.facts(folder, seed).get("leak_at", {}) for seed in self.seeds]
        return {k: sum(each[k] for each in found) / len(found) for k in found[0]} or None
