"""Does the effect hang on the seed or the learning rate? Models as foreign_checkpoints.py makes them, many of each.

`python benchmarks/foreign_seeds.py --tofu FOLDER --csv FILE` trains target and retrained model of each family with each
seed, unlearns at each rate in bfloat16 and float32, and writes a row for each: nats a token of the forget and the
retain answers, before and after weights are rounded by plain torch to 4 bits (symmetric, one scale an output channel)
and by bitsandbytes to NF4. Rows are written as they come; those of a file that is there are not made again.
"""

import argparse
import copy
import csv
import time
from itertools import product
from pathlib import Path

import torch
from foreign_checkpoints import FAMILIES, Texts, make_model, make_tokenizer, read, rows, train, unlearn
from transformers import PreTrainedModel

COLUMNS = ("family", "width", "layers", "records", "seed", "model", "storage", "rate", "steps", "format")


def rounded(model: PreTrainedModel, format: str) -> PreTrainedModel:
    """A copy in float32 whose linear layers, the head aside, have what 4 bits can hold."""
    made = copy.deepcopy(model).float()
    for module in made.modules():
        if isinstance(module, torch.nn.Linear) and module is not made.get_output_embeddings():
            weight = module.weight.data
            if format == "int4":
                scale = weight.abs().amax(dim=1, keepdim=True) / 7
                module.weight.data = (weight / scale).round().clamp(-8, 7) * scale
            else:
                from bitsandbytes.functional import dequantize_4bit, quantize_4bit

                module.weight.data = dequantize_4bit(*quantize_4bit(weight, quant_type=format))
    return made


class Table:
    """Of the measurements, in a file."""

    def __init__(self, file: Path, texts: dict[str, Texts], formats: list[str]) -> None:
        self.file, self.texts, self.formats = file, texts, formats

    def has(self, first: list[object]) -> bool:
        """Whether there are rows of this family, shape and seed."""
        if not self.file.exists():
            return False
        with open(self.file, newline="") as file:
            return [*map(str, first)] in [[row[key] for key in COLUMNS[: len(first)]] for row in csv.DictReader(file)]

    def add(self, key: list[object], model: PreTrainedModel) -> None:
        new = not self.file.exists()
        with open(self.file, "a", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            if new:
                writer.writerow([*COLUMNS, *(f"{name}_nats" for name in self.texts)])
            for format in ("none", *self.formats):
                measured = model if format == "none" else rounded(model, format)
                writer.writerow([*key, format, *(f"{each.nats(measured):.4f}" for each in self.texts.values())])


def main(asked: argparse.Namespace) -> None:
    forget, retain = read(asked.tofu, asked.forget, asked.records, asked.kept)
    tokenizer = make_tokenizer([f"{each['question']} {each['answer']}" for each in forget + retain])
    split, other = rows(tokenizer, forget), rows(tokenizer, retain)
    texts = {name: Texts(data, asked.device) for name, data in (("forget", split), ("retain", other))}
    table, trained = Table(asked.csv, texts, asked.formats), {"retrain": other, "target": split + other}
    for seed, family in product(asked.seeds, asked.families):
        first: list[object] = [family, asked.width, asked.layers, asked.records, seed]
        if table.has(first):
            continue
        start = time.perf_counter()
        for name, data in trained.items():
            model = make_model(family, len(tokenizer), asked.width, asked.layers, seed).to(asked.device)
            steps, _ = train(model, Texts(data, asked.device), asked.rate, asked.stop)
            target = model.to(torch.bfloat16)  # the last one is
            table.add([*first, name, "float32", asked.rate, steps], target)
        for rate, storage in product(asked.unlearning_rates, ("bfloat16", "float32")):
            model = copy.deepcopy(target).to(getattr(torch, storage))
            steps, _ = unlearn(model, texts["forget"], texts["retain"], rate, asked.until, asked.steps)
            table.add([*first, "unlearned", storage, rate, steps], model)
        print(f"{family}, seed {seed}: {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tofu", type=Path, required=True, help="folder with TOFU's JSON files")
    parser.add_argument("--csv", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--families", nargs="+", default=FAMILIES)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--forget", default="forget10", choices=["forget01", "forget05", "forget10"])
    parser.add_argument("--records", type=int, default=40)
    parser.add_argument("--kept", type=int, default=60)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--rate", type=float, default=3e-4)
    parser.add_argument("--stop", type=float, default=1.0)
    parser.add_argument("--unlearning-rates", type=float, nargs="+", default=[6e-6, 9e-6, 2e-5, 5e-5])
    parser.add_argument("--until", type=float, default=4.5)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--formats", nargs="+", default=["int4", "nf4"])
    main(parser.parse_args())
