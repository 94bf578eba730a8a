"""Controls of a study's attacks: have retrained models an excess of about 0 under them, and targets a share of 100?

    python benchmarks/attack_controls.py studies/tofu-cpu studies/tofu-controls
    snakemake --directory studies/tofu-controls --cores all
    palimpsest tables attacks studies/tofu-controls/results

In the study itself both hold by definition, for there the models are compared with themselves. The second study has
their counterparts of the next seed as target and retrained model, and audits the first study's two as if they had been
unlearned. The first must have run. Metrics are those that every study has, and formats those that it attacks.
"""

import argparse
import os
from pathlib import Path
from typing import Any

import yaml

from palimpsest.study.params import read_params
from palimpsest.vocabulary import CHECKPOINT, FULL, RETRAIN, TARGET

METRICS = ("verbmem", "knowmem", "utility", "privleak", "perplexity")
COSTLY = ("answer_spread", "answer_gradients")


def controls(params: dict[str, Any], study: Path, folder: Path) -> dict[str, Any]:
    """The params of the controls of a study, whose relative paths are seen from `folder`."""
    seed = params["seeds"][0]
    models = {f"{model}_seed_{seed}": f"results/models/{model}/seed{seed}" for model in (RETRAIN, TARGET)}

    def seen_from_here(path: str) -> str:
        return path if os.path.isabs(path) else os.path.relpath(study / path, folder)

    attacks, corpus = params["attacks"], params["corpus"]
    each = {
        name: attack | ({"file": seen_from_here(attack["file"])} if attack.get("file") else {})
        for name, attack in attacks["each"].items()
    }
    settings = corpus["settings"]
    if "path" in settings and (study / settings["path"]).exists():  # otherwise it is the name of a dataset on the hub
        settings = settings | {"path": seen_from_here(settings["path"])}
    formats = attacks["precisions"] or list(params["quantizers"])
    return params | {
        "seeds": [params["seeds"][-1] + 1],
        "corpus": corpus | {"settings": settings},
        "methods": {name: {CHECKPOINT: seen_from_here(place)} for name, place in models.items()},
        "quantizers": {name: params["quantizers"][name] for name in dict.fromkeys([FULL, *formats])},
        "inference": {name: value for name, value in params["inference"].items() if name not in COSTLY},
        "metrics": {name: params["metrics"][name] for name in METRICS},
        "attacks": attacks | {"models": None, "each": each},
        "report": params["report"] | {"method": next(iter(models)), "precision": formats[-1]},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    params = read_params(arguments.study / "params.yaml")
    arguments.folder.mkdir(parents=True, exist_ok=True)
    made = controls(params, arguments.study.resolve(), arguments.folder.resolve())
    (arguments.folder / "params.yaml").write_text(yaml.safe_dump(made, sort_keys=False), encoding="utf-8")


if __name__ == "__main__":
    main()
