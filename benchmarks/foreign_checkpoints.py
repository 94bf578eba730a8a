"""Models that other tools made, audited with the one command.

`python benchmarks/foreign_checkpoints.py --tofu FOLDER --out FOLDER` trains small models of several families on TOFU's
files with plain torch and transformers, nothing of this project: a target on forget and retain records, a retrained
model on the latter, and from the target two unlearned ones by GA_GDR, with weights in bfloat16 and in float32. Then it
says `palimpsest audit` of each, prints what its audit.csv has, and adds it to the file that `--csv` names, with the
verdict and the seconds of the processor. Models that are there are not made again.
"""

import argparse
import csv
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors, trainers
from tokenizers.models import BPE
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

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


def make_model(family: str, vocabulary: int, width: int, layers: int) -> PreTrainedModel:
    torch.manual_seed(0)
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


def loss_of(model: PreTrainedModel, batch: list[Row]) -> torch.Tensor:
    """Of the answers, nats a token."""
    longest = max(len(ids) for ids, _ in batch)
    ids = torch.full((len(batch), longest), 2)
    labels, mask = torch.full_like(ids, -100), torch.zeros_like(ids)
    for i, (row, asked) in enumerate(batch):
        ids[i, : len(row)], mask[i, : len(row)] = torch.tensor(row), 1
        labels[i, asked : len(row)] = torch.tensor(row[asked:])
    loss: torch.Tensor = model(input_ids=ids, attention_mask=mask, labels=labels).loss
    return loss


def train(model: PreTrainedModel, data: list[Row], epochs: int, rate: float) -> float:
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    steps = epochs * (len(data) // 16)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.05)
    draw, last = torch.Generator().manual_seed(0), 0.0
    for step in range(steps):
        if step % (len(data) // 16) == 0:
            order = torch.randperm(len(data), generator=draw).tolist()
        start = step % (len(data) // 16) * 16
        loss = loss_of(model, [data[i] for i in order[start : start + 16]])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        last = 0.95 * last + 0.05 * loss.item() if step else loss.item()
    return last


def unlearn(
    model: PreTrainedModel, forget: list[Row], retain: list[Row], rate: float, until: float
) -> tuple[int, float]:
    """GA_GDR, until the forget set's answers cost `until` nats a token or 300 steps are done."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    draw = torch.Generator().manual_seed(1)
    for step in range(1, 301):
        some = [forget[i] for i in torch.randint(len(forget), (16,), generator=draw).tolist()]
        kept = [retain[i] for i in torch.randint(len(retain), (16,), generator=draw).tolist()]
        loss = -loss_of(model, some) + 2 * loss_of(model, kept)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 4 == 0:
            with torch.no_grad():
                now = sum(loss_of(model, forget[i : i + 16]).item() for i in range(0, len(forget), 16))
            now /= -(-len(forget) // 16)
            if now >= until:
                break
    return step, now


def make(family: str, folder: Path, asked: argparse.Namespace) -> None:
    forget, retain = read(asked.tofu, asked.forget, asked.records, asked.kept)
    tokenizer = make_tokenizer([f"{each['question']} {each['answer']}" for each in forget + retain])
    split, other = rows(tokenizer, forget), rows(tokenizer, retain)
    folder.mkdir(parents=True, exist_ok=True)
    for name, records in (("forget", forget), ("retain", retain)):
        lines = [json.dumps({key: each[key] for key in ("question", "answer")}) for each in records]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    for name, data in (("retrain", other), ("target", split + other)):
        model = make_model(family, len(tokenizer), asked.width, asked.layers)
        start = time.perf_counter()
        last = train(model, data, asked.epochs, asked.rate)
        print(f"{family} {name}: {last:.3f} nats after {asked.epochs} epochs, {time.perf_counter() - start:.0f} s")
        save(model.to(torch.bfloat16), tokenizer, folder / name)
    for storage, rate in ((torch.bfloat16, asked.rate_bfloat16), (torch.float32, asked.rate_float32)):
        model = AutoModelForCausalLM.from_pretrained(folder / "target", dtype=storage)
        steps, now = unlearn(model, split, other, rate, asked.until)
        name = str(storage).removeprefix("torch.")
        print(f"{family} unlearned in {name}: {now:.2f} nats after {steps} steps", flush=True)
        save(model, tokenizer, folder / name)


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
        verdicts = json.loads((out / "results/verdict/unlearned/verdict.json").read_text())["formats"]
        said = {each["format"]: each["verdict"] for each in verdicts}
        with open(out / "results/audit.csv", newline="") as file:
            rows = [
                {"family": family, "storage": name, "model": row["model"]}
                | {key: _short(row[key]) for key in COLUMNS}
                | {"verdict": said.get(row["precision"], "") if row["model"] == "unlearned" else ""}
                | {"processor_seconds": f"{spent:.0f}"}
                for row in csv.DictReader(file)
            ]
        for row in rows:
            print("  ".join(f"{value:>12.12}" for value in list(row.values())[2:-1]))
        if table:
            _add(table, rows)
        sys.stdout.flush()


def _short(number: str) -> str:
    """A number of the table, to what a reader can use of it."""
    try:
        return f"{float(number):.4g}"
    except ValueError:
        return number


def _add(table: Path, rows: list[dict[str, str]]) -> None:
    """Behind the rows of other families and storages; those of this one are replaced."""
    kept: list[dict[str, str]] = []
    if table.exists():
        with open(table, newline="") as file:
            kept = [
                row
                for row in csv.DictReader(file)
                if (row["family"], row["storage"]) != (rows[0]["family"], rows[0]["storage"])
            ]
    with open(table, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows([*kept, *rows])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tofu", type=Path, required=True, help="folder with TOFU's JSON files")
    parser.add_argument("--out", type=Path, required=True, help="folder for models and studies")
    parser.add_argument("--families", nargs="+", default=FAMILIES)
    parser.add_argument("--forget", default="forget10", choices=["forget01", "forget05", "forget10"])
    parser.add_argument("--records", type=int, default=40)
    parser.add_argument("--kept", type=int, default=60)
    parser.add_argument("--width", type=int, default=128, help="a multiple of 128, which gptq's groups have")
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--rate", type=float, default=2e-3)
    # so small that steps are lost in bfloat16, and as large as it must be for any forgetting there
    parser.add_argument("--rate-bfloat16", type=float, default=3e-5)
    parser.add_argument("--rate-float32", type=float, default=1e-5)
    parser.add_argument("--until", type=float, default=1.4)
    parser.add_argument("--csv", type=Path, help="a table that the rows are added to")
    parser.add_argument("--formats", default="bnb-nf4,rtn-int4,gptq,gguf-q4_0")
    given = parser.parse_args()
    for family in given.families:
        place = given.out / family
        if not (place / "float32/config.json").exists():
            make(family, place, given)
        audit(family, place, given.formats, given.csv)
