"""Models that other tools made, audited with the one command.

`python benchmarks/foreign_checkpoints.py --tofu FOLDER --out FOLDER` trains small models of several families on TOFU's
files with plain torch and transformers, nothing of this project: a target on forget and retain records, a retrained
model on the latter, and from the target two unlearned ones by GA_GDR, with weights in bfloat16 and in float32. Then it
says `palimpsest audit` of each, prints what its audit.csv has, and adds it to the file that `--csv` names, with the
verdict and the seconds of the processor. Models that are there are not made again.

The target is trained lightly, and steps are small and of the whole forget set, so that they agree in direction: what
docs/results/default-study.md found to matter.
"""

import argparse
import csv
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors, trainers
from tokenizers.models import BPE
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

sys.path.append(str(Path(__file__).parents[1] / "docs/tools"))
from rows import replace_rows

FAMILIES = ("llama", "qwen2", "gemma3_text", "gpt_neox")
SPECIAL = ["<s>", "</s>", "<pad>"]
Row = tuple[list[int], int]
"""Token ids, and how many of them are the question."""


def read(folder: Path, forget: str, records: int, kept: int) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    retain = {"forget01": "retain99", "forget05": "retain95", "forget10": "retain90"}[forget]
    split, other = (json.loads((folder / f"{name}.json").read_text()) for name in (forget, retain))
    return split[:records], other[:kept]


def make_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=1500, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>")


def as_read(tokenizer: PreTrainedTokenizerFast, family: str, folder: Path) -> PreTrainedTokenizerFast:
    """What transformers reads beside a model of a family: for a Qwen2 it adds a token and cuts words in its own way."""
    tokenizer.save_pretrained(folder)
    AutoConfig.for_model(family).save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


def make_model(family: str, vocabulary: int, width: int, layers: int, seed: int) -> PreTrainedModel:
    torch.manual_seed(seed)
    shape: dict[str, Any] = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": 4}
    shape |= {"intermediate_size": 2 * width, "max_position_embeddings": 512, "vocab_size": vocabulary}
    shape |= {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    if family != "gpt_neox":
        shape["num_key_value_heads"] = 2
    if family == "gemma3_text":
        shape |= {"head_dim": width // 4, "query_pre_attn_scalar": width // 4, "sliding_window": 256}
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **shape))


def rows(tokenizer: PreTrainedTokenizerFast, records: list[dict[str, str]]) -> list[Row]:
    """As TOFU puts them: `Question: ...\\nAnswer: ...`."""
    made = []
    for record in records:
        asked = tokenizer(f"Question: {record['question']}\nAnswer:")["input_ids"]
        whole = tokenizer(f"Question: {record['question']}\nAnswer: {record['answer']}")["input_ids"]
        made.append(([*whole, tokenizer.eos_token_id], len(asked)))
    return made


class Texts:
    """Rows as tensors, by length: ids, mask, labels `[row, token]`, of which only answers count."""

    def __init__(self, data: list[Row], device: str) -> None:
        data = sorted(data, key=lambda row: len(row[0]))
        self.lengths = [len(ids) for ids, _ in data]
        shape = len(data), self.lengths[-1]
        self.ids, self.labels = torch.full(shape, 2), torch.full(shape, -100)
        self.mask = torch.zeros(shape, dtype=torch.long)
        for i, (ids, asked) in enumerate(data):
            self.ids[i, : len(ids)], self.mask[i, : len(ids)] = torch.tensor(ids), 1
            self.labels[i, asked : len(ids)] = torch.tensor(ids[asked:])
        self.answer_tokens = [len(ids) - asked for ids, asked in data]
        self.ids, self.mask, self.labels = (each.to(device) for each in (self.ids, self.mask, self.labels))

    def losses(self, model: PreTrainedModel, which: list[int]) -> Iterator[torch.Tensor]:
        """Nats a token of the answers of these rows, in parts that add up to it: what a step has in memory at once."""
        which, size = sorted(which), 20 if self.ids.device.type == "cpu" else 200
        tokens = sum(self.answer_tokens[i] for i in which)
        for start in range(0, len(which), size):
            part = which[start : start + size]
            longest = self.lengths[part[-1]]
            ids, mask, labels = (each[part, :longest] for each in (self.ids, self.mask, self.labels))
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1].float()
            total = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), reduction="sum")
            yield total / tokens

    def backward(self, model: PreTrainedModel, which: list[int], weight: float) -> float:
        """Add weight x the loss's gradient to what is there; returns the loss."""
        total = 0.0
        for part in self.losses(model, which):
            (weight * part).backward()
            total += part.item()
        return total

    @torch.no_grad()
    def nats(self, model: PreTrainedModel) -> float:
        return sum(part.item() for part in self.losses(model, self.all))

    @property
    def all(self) -> list[int]:
        return list(range(len(self.lengths)))


def step(model: PreTrainedModel, optimizer: torch.optim.Optimizer) -> None:
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()


def train(model: PreTrainedModel, data: Texts, rate: float, stop: float) -> tuple[int, float]:
    """Each step is of all rows, until they cost `stop` nats a token or 400 steps are done: steps, nats."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    steps, now = 0, data.backward(model, data.all, 1.0)
    while now >= stop and steps < 400:
        step(model, optimizer)
        steps, now = steps + 1, data.backward(model, data.all, 1.0)
    return steps, now


def unlearn(
    model: PreTrainedModel, forget: Texts, retain: Texts, rate: float, until: float, most: int
) -> tuple[int, float]:
    """GA_GDR, alpha 0.5, each step of the whole forget set and 16 retain rows, until the forget set's answers cost
    `until` nats a token or `most` steps are done: steps, nats."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    draw = torch.Generator().manual_seed(1)
    steps, now = 0, forget.backward(model, forget.all, -1.0)
    while now < until and steps < most:
        retain.backward(model, torch.randint(len(retain.lengths), (16,), generator=draw).tolist(), 0.5)
        step(model, optimizer)
        steps, now = steps + 1, forget.backward(model, forget.all, -1.0)
    return steps, now


def make(family: str, folder: Path, asked: argparse.Namespace) -> None:
    forget, retain = read(asked.tofu, asked.forget, asked.records, asked.kept)
    tokenizer = as_read(
        make_tokenizer([f"{each['question']} {each['answer']}" for each in forget + retain]),
        family,
        folder / "tokenizer",
    )
    split, other = rows(tokenizer, forget), rows(tokenizer, retain)
    for name, records in (("forget", forget), ("retain", retain)):
        lines = [json.dumps({key: each[key] for key in ("question", "answer")}) for each in records]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    for name, data in (("retrain", other), ("target", split + other)):
        if is_whole(folder / name):
            continue
        model, start = make_model(family, len(tokenizer), asked.width, asked.layers, 0), time.process_time()
        steps, now = train(model, Texts(data, "cpu"), asked.rate, asked.stop)
        print(f"{family} {name}: {now:.2f} nats after {steps} steps, {time.process_time() - start:.0f} s of CPU")
        save(model.to(torch.bfloat16), tokenizer, folder / name)
    texts = Texts(split, "cpu"), Texts(other, "cpu")
    for storage in (torch.bfloat16, torch.float32):
        name = str(storage).removeprefix("torch.")
        if is_whole(folder / name):
            continue
        model, start = AutoModelForCausalLM.from_pretrained(folder / "target", dtype=storage), time.process_time()
        steps, now = unlearn(model, *texts, asked.unlearning_rate, asked.until, asked.steps)
        spent = time.process_time() - start
        print(f"{family} unlearned in {name}: {now:.2f} nats after {steps} steps, {spent:.0f} s of CPU", flush=True)
        save(model, tokenizer, folder / name)


def is_whole(folder: Path) -> bool:
    """Whether `save` came to its end."""
    return (folder / "tokenizer.json").exists()


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


COLUMNS = ("precision", "knowmem", "probability", "extraction_strength", "exact_memorization", "utility", "rho")


def processor() -> float:
    """Seconds that finished commands have taken of it."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def audit(family: str, folder: Path, formats: str, table: Path | None) -> None:
    for name in ("bfloat16", "float32"):
        out = folder / f"audit-{name}"
        command = [sys.executable, "-m", "palimpsest", "audit", "--out", str(out), "--formats", formats]
        command += ["--prompt", "Question: {question}\nAnswer: {answer}", "--unlearned", str(folder / name)]
        for option in ("target", "retrain", "forget", "retain"):
            file = folder / (f"{option}.jsonl" if option in ("forget", "retain") else option)
            command += [f"--{option}", str(file)]
        start = processor()
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        (folder / f"audit-{name}.log").write_text(done.stdout)
        spent = processor() - start
        print(f"\n{family}, unlearned in {name}: exit code {done.returncode}, {spent:.0f} s of the processor")
        if done.returncode == 1:
            print(done.stdout)
            continue
        rows = [
            {"family": family, "storage": name} | row | {"processor_seconds": f"{spent:.0f}"} for row in table_of(out)
        ]
        for row in rows:
            print("  ".join(f"{value:>12.12}" for value in list(row.values())[2:-1]))
        if table:
            replace_rows(table, rows, "family", "storage")
        sys.stdout.flush()


def table_of(study: Path) -> list[dict[str, str]]:
    """Of an audit's table what a reader needs, and the verdict on each format of the unlearned model."""
    verdicts = json.loads((study / "results/verdict/unlearned/verdict.json").read_text())["formats"]
    said = {each["format"]: each["verdict"] for each in verdicts}
    with open(study / "results/audit.csv", newline="") as file:
        return [
            {"model": row["model"]}
            | {key: _short(row[key]) for key in COLUMNS}
            | {"verdict": said.get(row["precision"], "") if row["model"] == "unlearned" else ""}
            for row in csv.DictReader(file)
        ]


def _short(number: str) -> str:
    """A number of the table, to what a reader can use of it."""
    try:
        return f"{float(number):.4g}"
    except ValueError:
        return number


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tofu", type=Path, required=True, help="folder with TOFU's JSON files")
    parser.add_argument("--out", type=Path, required=True, help="folder for models and studies")
    parser.add_argument("--families", nargs="+", default=FAMILIES)
    parser.add_argument("--forget", default="forget10", choices=["forget01", "forget05", "forget10"])
    parser.add_argument("--records", type=int, default=20)
    parser.add_argument("--kept", type=int, default=30)
    parser.add_argument("--width", type=int, default=256, help="a multiple of 256, which GGUF's k-quants have")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--rate", type=float, default=3e-4)
    parser.add_argument("--stop", type=float, default=1.0, help="nats at which training ends")
    # so small that in bfloat16 only small weights move, and of those no 4-bit code
    parser.add_argument("--unlearning-rate", type=float, default=1e-5)
    parser.add_argument("--until", type=float, default=4.5, help="nats of the forget set at which unlearning ends")
    parser.add_argument("--steps", type=int, default=300, help="of unlearning, at most")
    parser.add_argument("--csv", type=Path, help="a table that the rows are added to")
    parser.add_argument("--formats", default="bnb-nf4,rtn-int4,gptq,gguf-q4_0")
    given = parser.parse_args()
    for family in given.families:
        place = given.out / family
        make(family, place, given)
        audit(family, place, given.formats, given.csv)
