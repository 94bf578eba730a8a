"""TOFU's metrics and membership attacks as entries of params.yaml, of what inference wrote.

The formulas are in palimpsest.metrics.tofu and palimpsest.metrics.membership. What a study cannot give, for want of
wrong answers, of a holdout set or of a retrained model, has a status that says so.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from palimpsest.corpus.words import TOKENIZERS
from palimpsest.errors import PalimpsestError, choose
from palimpsest.inference.files import AnswerTokens, InferenceFiles, read_answers, read_responses
from palimpsest.metrics import tofu
from palimpsest.metrics.answers import counted
from palimpsest.metrics.membership import ATTACKS, Observed, relative_auc
from palimpsest.metrics.privleak import leak_interval, membership_auc
from palimpsest.metrics.records import MembershipScore, Outcome, Score, UtilityScore
from palimpsest.metrics.rouge import rouge_l
from palimpsest.metrics.statistics import Float64, mean_score, percentile_interval, resample_counts
from palimpsest.vocabulary import (
    FORGET,
    HOLDOUT,
    KNOWMEM_FORGET,
    KNOWMEM_RETAIN,
    NO_RETRAIN,
    OK,
    REAL_AUTHORS,
    WORLD_FACTS,
    paraphrased_task,
    undefined,
    wrong_task,
)

TASKS = {"retain": KNOWMEM_RETAIN, REAL_AUTHORS: REAL_AUTHORS, WORLD_FACTS: WORLD_FACTS}
"""By tofu.SPLITS, what is asked of them."""

NO_HOLDOUT = "no question stands for what no model saw (corpus.settings.holdout_split or holdout_authors)"


class Likelihoods(NamedTuple):
    """Nats per token of the answers to the questions of a task. ids, true: of all; ratio_ids, right, wrong: of those
    with wrong answers, right being the paraphrased answer, or the true one where there is no other."""

    ids: list[int]
    true: list[float]
    ratio_ids: list[int]
    right: list[float]
    wrong: list[list[float]]

    def truth_ratios(self) -> Float64:
        return tofu.truth_ratio(self.right, self.wrong)


def read_likelihoods(path: Path, task: str, ending: bool) -> Likelihoods:
    """ending: whether the token that ends an answer counts as one of it, as in TOFU. Empty where nothing was asked."""
    true = _losses(path, task, ending)
    paraphrased = _losses(path, paraphrased_task(task), ending)
    wrong: dict[int, list[float]] = {}
    number = 0
    while found := _losses(path, wrong_task(task, number), ending):
        for place, value in found.items():
            wrong.setdefault(place, []).append(value)
        number += 1
    ids = sorted(wrong)
    right = [paraphrased.get(place, true[place]) for place in ids]
    return Likelihoods(list(true), list(true.values()), ids, right, [wrong[place] for place in ids])


def _losses(path: Path, task: str, ending: bool) -> dict[int, float]:
    return {each.id: -float(np.mean(counted(each, ending).log_probs)) for each in read_answers(path, task)}


def truth_ratio(files: InferenceFiles, *, ending: bool, resamples: int, confidence: float, seed: int) -> Score:
    """The forget truth ratio in percent: the mean of min(t, 1 / t), 100 for a model that finds wrong answers as likely
    as right ones. `per_example` are those of the records in the order of `ids`, shares of 1."""
    found = read_likelihoods(files.answers, KNOWMEM_FORGET, ending)
    if not found.ratio_ids:
        return _undefined(f"no forget record has wrong answers{REMEDY}")
    values = [tofu.forget_truth_ratio([ratio]) for ratio in found.truth_ratios()]
    return mean_score(found.ratio_ids, values, resamples, confidence, seed)


def forget_quality(files: InferenceFiles, *, ending: bool) -> Score:
    """The p-value, no percentage, of the test that the truth ratios on the forget set are distributed as the retrained
    model's at the same precision. `per_example` are the truth ratios in the order of `ids`."""
    found = read_likelihoods(files.answers, KNOWMEM_FORGET, ending)
    if files.retrain_answers is None:
        return _undefined(NO_RETRAIN)
    if len(found.ratio_ids) < 2:
        return _undefined(f"fewer than two forget records have wrong answers{REMEDY}")
    control = read_likelihoods(files.retrain_answers, KNOWMEM_FORGET, ending)
    if control.ratio_ids != found.ratio_ids:
        raise _other_questions(files, KNOWMEM_FORGET)
    ratios = found.truth_ratios()
    return {
        "n": len(ratios),
        "score": tofu.forget_quality(ratios, control.truth_ratios()),
        "status": OK,
        "ci": None,
        "ci_note": "a p-value has no interval",
        "ids": found.ratio_ids,
        "per_example": ratios.tolist(),
    }


REMEDY = " (corpus.settings.wrong_answers)"


def model_utility(
    files: InferenceFiles, *, ending: bool, tokenizer: str, resamples: int, confidence: float, seed: int
) -> UtilityScore:
    """Model utility in percent: the harmonic mean of probability, ROUGE-L recall and truth ratio on the retain set, on
    real authors and on world facts.

    tokenizer: of ROUGE, as in palimpsest.corpus.words; TOFU has stems. The interval resamples the records of each set.
    """
    choose(dict.fromkeys(TOKENIZERS), tokenizer, "setting tokenizer of metric model_utility")
    rows: dict[str, Float64] = {}
    for split, task in TASKS.items():
        found = read_likelihoods(files.answers, task, ending)
        if not found.ids or not found.ratio_ids:
            what = "questions" if not found.ids else "questions with wrong answers"
            setting = REMEDY if split == "retain" or found.ids else " (corpus.settings.world)"
            return {**_undefined(f"there are no {what} on {split.replace('_', ' ')}{setting}"), "parts": {}}
        rows[split] = _three(files, task, found, normalised=split != "retain", tokenizer=tokenizer)
    parts = {split: dict(zip(PARTS, values.mean(0).tolist(), strict=True)) for split, values in rows.items()}
    drawn = [
        resample_counts(len(values), resamples, seed + number) @ values / len(values)
        for number, values in enumerate(rows.values())
    ]
    nine = np.concatenate(drawn, axis=1)  # [resamples, 9]
    means = np.where((nine > 0).all(1), 9 / np.where(nine > 0, 1 / np.maximum(nine, 1e-300), 1.0).sum(1), 0.0)
    low, high = percentile_interval(means, confidence)
    return {
        "n": sum(map(len, rows.values())),
        "score": 100 * tofu.model_utility(parts),
        "status": OK,
        "ci": [100 * low, 100 * high],
        "ci_note": "",
        "ids": list(range(9)),
        "per_example": [parts[split][name] for split in tofu.SPLITS for name in PARTS],
        "parts": parts,
    }


PARTS = ("probability", "rouge", "truth_ratio")


def _three(files: InferenceFiles, task: str, found: Likelihoods, normalised: bool, tokenizer: str) -> Float64:
    """[records, PARTS] of the records that have wrong answers."""
    responses = {row["id"]: row for row in read_responses(files.responses, task)}
    nats = dict(zip(found.ids, found.true, strict=True))
    true = tofu.probability([nats[place] for place in found.ratio_ids])
    if normalised:
        true = tofu.normalised_probability(true, [tofu.probability(each) for each in found.wrong])
    rouge = [
        rouge_l(responses[place]["answer"], responses[place]["response"], tokenizer).recall for place in found.ratio_ids
    ]
    ratios = np.maximum(0.0, 1 - found.truth_ratios())
    return np.column_stack([true, rouge, ratios])


def membership(
    files: InferenceFiles,
    *,
    attack: str,
    resamples: int,
    confidence: float,
    seed: int,
) -> MembershipScore:
    """How much better than on the retrained model an attack (of membership.ATTACKS) parts the answers of the forget set
    from those of the holdout set: percent, as PrivLeak, negative for what is known.

    The token that ends an answer does not count. `per_example` has the attack's numbers of both sets in the order of
    `ids`; of the reference attack the reference is the retrained model.
    """
    return _membership(files, attack, partial(choose(ATTACKS, attack, "attack")), resamples, confidence, seed)


def membership_of_share(
    files: InferenceFiles, *, attack: str, min_k_ratio: float, resamples: int, confidence: float, seed: int
) -> MembershipScore:
    """`membership` by an attack that looks at the least likely share `min_k_ratio` of the tokens."""
    function = partial(choose(ATTACKS, attack, "attack"), ratio=min_k_ratio)
    return _membership(files, attack, function, resamples, confidence, seed)


def _membership(
    files: InferenceFiles,
    attack: str,
    value: Callable[[Observed], float],
    resamples: int,
    confidence: float,
    seed: int,
) -> MembershipScore:
    if files.retrain_answers is None:
        return _no_attack(NO_RETRAIN)
    values: dict[str, Float64] = {}
    retrained: dict[str, Float64] = {}
    ids: dict[str, list[int]] = {}
    for split, task in SETS.items():
        mine, theirs = (_by_id(path, task) for path in (files.answers, files.retrain_answers))
        if not mine:
            return _no_attack(NO_HOLDOUT if split == HOLDOUT else "no forget record has a question")
        if [*mine] != [*theirs]:
            raise _other_questions(files, task)
        field, key = RECORDED.get(attack, ("log_probs", ""))
        if any(getattr(each, field) is None for each in (*mine.values(), *theirs.values())):
            return _no_attack(f"inference recorded no {field} of answers (set inference.{key} to true)")
        ids[split] = [*mine]
        values[split] = np.array([value(_observed(mine[place], theirs[place])) for place in mine])
        retrained[split] = np.array([value(_observed(theirs[place], theirs[place])) for place in mine])
    auc, auc_retrain = membership_auc(**values), membership_auc(**retrained)
    if auc_retrain == 0:
        why = "AUC of the retrained model is 0 (every holdout answer is unlikelier than every forget answer)"
        reason = undefined(why)
        outcome: Outcome = {"score": None, "status": reason, "ci": None, "ci_note": reason}
    else:
        ci, note = leak_interval(values, retrained, auc_retrain, resamples, confidence, seed)
        outcome = {"score": relative_auc(auc, auc_retrain), "status": OK, "ci": ci, "ci_note": note}
    return {
        "n": sum(map(len, ids.values())),
        "auc": auc,
        "auc_retrain": auc_retrain,
        "ids": ids,
        "per_example": {split: array.tolist() for split, array in values.items()},
        **outcome,
    }


SETS = {FORGET: KNOWMEM_FORGET, HOLDOUT: HOLDOUT}
"""The two sets that an attack parts, and the task of each."""
RECORDED = {
    "zlib": ("size", "answer_spread"),
    "min_k_plus_plus": ("variances", "answer_spread"),
    "gradient_norm": ("gradient", "answer_gradients"),
}
"""By attack, what inference records on demand alone, and the key of `inference` that demands it."""


def _by_id(path: Path, task: str) -> dict[int, AnswerTokens]:
    return {each.id: counted(each, ending=False) for each in read_answers(path, task)}


def _observed(answer: AnswerTokens, reference: AnswerTokens) -> Observed:
    return Observed(answer.log_probs, answer.size, answer.means, answer.variances, reference.log_probs, answer.gradient)


def _other_questions(files: InferenceFiles, task: str) -> PalimpsestError:
    return PalimpsestError(
        f"{files.retrain_answers} and {files.answers} hold answers to different questions of {task}: run inference of "
        "both again."
    )


def _undefined(why: str) -> Score:
    reason = undefined(why)
    return {"n": 0, "score": None, "status": reason, "ci": None, "ci_note": reason, "ids": [], "per_example": []}


def _no_attack(why: str) -> MembershipScore:
    return {**_undefined(why), "auc": None, "auc_retrain": None}
