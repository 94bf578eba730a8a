"""Which attacks a study makes, on which models at which precisions, and where their artefacts lie."""

from collections.abc import Mapping
from functools import cached_property
from itertools import product
from typing import Any

from palimpsest.attacks import ASKED, WEIGHTS
from palimpsest.attacks.kinds import AFTER, BEFORE
from palimpsest.vocabulary import FULL, RETRAIN, TARGET


class Plan:
    """Of the params after `expanded`. An attacked model is named MODEL+ATTACK where it is quantized after the attack,
    and MODEL+PRECISION+ATTACK where the attack was on its dequantized weights; it is then a model like any other.

    before, after: those names; asked: attacks that only ask otherwise; everyone: the models that are attacked, the
    target and the retrained model among them, for each attack's ceiling and floor.
    """

    def __init__(self, params: Mapping[str, Any]) -> None:
        self.block: Mapping[str, Any] = params.get("attacks") or {"each": {}, "models": [], "precisions": []}
        self.attacks: Mapping[str, Mapping[str, Any]] = self.block["each"]
        controls = [TARGET] if params["models"][RETRAIN] is None else [TARGET, RETRAIN]
        chosen = params["methods"] if self.block["models"] is None else self.block["models"]
        self.everyone = [*controls, *(name for name in chosen if name not in controls)] if self.attacks else []
        named = params["quantizers"] if self.block["precisions"] is None else self.block["precisions"]
        self.precisions = list(named)
        self.seeds = list(params["seeds"])

    def _of(self, kinds: tuple[str, ...], when: str | None = None) -> list[str]:
        return [
            name
            for name, attack in self.attacks.items()
            if attack["kind"] in kinds and (when is None or attack["when"] == when)
        ]

    @cached_property
    def asked(self) -> list[str]:
        return self._of(ASKED)

    @cached_property
    def before(self) -> list[str]:
        return [f"{model}+{attack}" for model, attack in product(self.everyone, self._of(WEIGHTS, BEFORE))]

    @cached_property
    def after(self) -> list[str]:
        precisions = [name for name in self.precisions if name != FULL]
        return [f"{model}+{at}+{a}" for model, at, a in product(self.everyone, precisions, self._of(WEIGHTS, AFTER))]

    def names(self, when: str) -> list[str]:
        """Of the attacks on the weights."""
        return self._of(WEIGHTS, when) or ["none"]

    def runs(self) -> list[dict[str, Any]]:
        """Every attack on every model at every precision: attack, model, precision (of the stack), when, and `folder`,
        the pattern of where its responses lie, or of its record."""
        found = []
        for (name, attack), model, precision in product(self.attacks.items(), self.everyone, self.precisions):
            when = attack.get("when")
            if when == AFTER and precision == FULL:
                continue
            about = {"attack": name, "model": model, "precision": precision, "when": when}
            if when is None:
                place = f"results/attacked-asked/{model}/seed{{seed}}/{precision}/{name}"
            elif when == BEFORE:
                place = f"results/attacked-infer/{model}+{name}/seed{{seed}}/{precision}"
            else:
                place = f"results/attacked-infer/{model}+{precision}+{name}/seed{{seed}}/{FULL}"
            found.append(about | {"folder": place})
        return found

    @cached_property
    def manifests(self) -> list[str]:
        """Of all that was asked of attacked models."""
        return [f"{run['folder']}/manifest.json".format(seed=seed) for run in self.runs() for seed in self.seeds]

    @cached_property
    def plain(self) -> list[str]:
        """Of what the same models say without an attack, at the same precisions."""
        places = product(self.everyone, self.seeds, self.precisions)
        return [f"results/infer/{model}/seed{seed}/{precision}/manifest.json" for model, seed, precision in places]

    @property
    def table(self) -> list[str]:
        return ["results/attacks/attacks.json"] if self.attacks else []
