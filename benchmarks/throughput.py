"""Evaluation steps per minute of a host with one GPU and with several, through the workflow itself.

`python benchmarks/throughput.py 1b` makes a study whose target and retrained model are one random Llama, with four
seeds, and times Snakemake's eight `infer` steps in bf16, each a process that checks and loads a checkpoint, answers 100
verbatim prompts (200 + 128 tokens) and 2 x 100 questions (10 examples, 32 tokens) and writes the log-probabilities of
200 texts of 2,048 tokens; `--length` shrinks all of these. First on all `--gpus`, then on one, `--abreast` steps at a
time on each; one untimed step before them reads the files. Both runs may use all cores. What Snakemake takes to plan,
once an invocation whatever it runs, is measured by an invocation that has nothing to do; the throughput is printed with
it and without it. Without a GPU (`tiny`) the steps share the CPU, and the ratio says nothing.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
import yaml
from evaluation import EXAMPLES, QUESTIONS, TEXTS, requests_of, word_tokenizer, words
from random_llama import SHAPES, random_llama

from palimpsest.artefacts import Origin
from palimpsest.corpus.corpus import Corpus, Prompt, Question
from palimpsest.corpus.layout import write_corpus
from palimpsest.runtime.devices import visible_gpus
from palimpsest.study.params import read_params

ROOT = Path(__file__).parents[1]
MODELS, SEEDS = ("target", "retrain"), (0, 1, 2, 3)
STEPS = [f"{model}/seed{seed}" for model in MODELS for seed in SEEDS]


def corpus_of(vocabulary: int, length: int) -> Corpus:
    """Random words in the sizes of MUSE."""

    def texts(count: int) -> list[str]:
        return [words(length - 1, vocabulary) for _ in range(count)]

    def questions(count: int) -> list[Question]:
        return [Question(words(12, vocabulary), words(4, vocabulary)) for _ in range(count)]

    prompts = [
        Prompt(each.prompt, words(int(length / 16), vocabulary))
        for each in requests_of(vocabulary, length)
        if each.task == "verbmem"
    ]
    asked = questions(QUESTIONS), questions(QUESTIONS), questions(EXAMPLES), questions(EXAMPLES)
    return Corpus(texts(2), texts(2), texts(2), *asked, prompts, texts(TEXTS), texts(2), texts(TEXTS))


def prepare(shape: str, length: int, folder: Path) -> None:
    """The study's params.yaml, its corpus and the checkpoint of all its models."""
    vocabulary = SHAPES[shape]["vocab_size"]
    write_corpus(corpus_of(vocabulary, length), folder / "corpus", Origin())
    random_llama(shape, device="cpu").save_pretrained(folder / "checkpoint")
    word_tokenizer(vocabulary).save_pretrained(folder / "checkpoint")
    params = read_params(ROOT / "params.yaml")
    corpus = {"source": "folder", "settings": {"path": "corpus", "retain_split": "retain"}}
    checks = {"overlap_at_most": 1.0, "prompts_found_at_least": 0.0, "scored_examples_at_most": 20}
    inference = {
        "compute": "bfloat16",
        "batch_size": 32,
        "verbmem_tokens": length // 16,
        "knowmem_tokens": length // 64,
        "in_context_examples": EXAMPLES,
        "logprob_tokens": length,
        "logprob_splits": ["forget", "holdout"],
    }
    params |= {"seeds": list(SEEDS), "corpus": params["corpus"] | corpus | {"checks": checks}, "inference": inference}
    params["models"] |= dict.fromkeys(MODELS, "checkpoint")
    params["metrics"]["perplexity"]["split"] = "holdout"
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


def snakemake(folder: Path, steps: int, *targets: str, gpus: list[str] | None = None) -> float:
    """Seconds that the targets took, so many steps at a time, on the GPUs named or all."""
    command = [
        sys.executable,
        "-m",
        "snakemake",
        *targets,
        "--snakefile",
        str(ROOT / "Snakefile"),
        "--directory",
        str(folder),
    ]
    limits = ["--cores", str(max(steps, os.cpu_count() or 1)), "--resources", f"gpu={steps}"]
    visible = {"CUDA_VISIBLE_DEVICES": ",".join(gpus)} if gpus else {}
    started = time.monotonic()
    done = subprocess.run(
        [*command, *limits], env=os.environ | visible, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        sys.exit(f"snakemake failed:\n{done.stdout[-3000:]}")
    return time.monotonic() - started


class Load:
    """Mean utilisation of each GPU, in percent, as nvidia-smi samples it, while the block runs."""

    def __enter__(self) -> "Load":
        self.samples: list[list[float]] = []
        self.running = True
        self.pool = ThreadPoolExecutor(1)
        self.pool.submit(self.watch)
        return self

    def watch(self) -> None:
        query = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
        while self.running and shutil.which("nvidia-smi"):
            self.samples.append([float(each) for each in subprocess.check_output(query, text=True).split()])
            time.sleep(0.5)

    def __exit__(self, *_: Any) -> None:
        self.running = False
        self.pool.shutdown()

    def __str__(self) -> str:
        return " ".join(f"{statistics.mean(gpu):.0f}" for gpu in zip(*self.samples, strict=True)) or "-"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("--gpus", type=int, default=torch.cuda.device_count() or 2, help="how many to hold against one")
    parser.add_argument("--abreast", type=int, default=1, help="steps that share a GPU")
    parser.add_argument(
        "--length", type=int, default=2048, help="tokens of a text; prompts and responses shrink with it"
    )
    arguments = parser.parse_args()
    names = visible_gpus()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        prepare(arguments.shape, arguments.length, folder)
        made = [f"results/models/{step}/manifest.json" for step in STEPS]
        steps = [f"results/infer/{step}/bf16/manifest.json" for step in STEPS]
        snakemake(folder, os.cpu_count() or 1, *made)
        snakemake(folder, 1, steps[0])
        name = torch.cuda.get_device_name() if names else "CPU"
        print(
            f"{name}, torch {torch.__version__}, {os.cpu_count()} cores; "
            f"{arguments.shape}, texts of {arguments.length} tokens, {len(steps)} steps"
        )
        seconds = {}
        for gpus in (arguments.gpus, 1):
            shutil.rmtree(folder / "results/infer")
            with Load() as load:
                seconds[gpus] = snakemake(folder, gpus * arguments.abreast, *steps, gpus=names[:gpus])
            logs = "".join(log.read_text() for log in (folder / "results/logs/infer").rglob("*.log"))
            used = sum(gpu in logs for gpu in names)
            print(
                f"  {gpus} GPUs, {arguments.abreast} steps on each: {seconds[gpus]:.1f} s, "
                f"{60 * len(steps) / seconds[gpus]:.1f} steps a minute; GPUs that steps named: {used}, "
                f"busy {load} % of the time"
            )
        planning = snakemake(folder, 1, *steps)
        ratio = seconds[1] / seconds[arguments.gpus]
        net = (seconds[1] - planning) / (seconds[arguments.gpus] - planning)
        print(f"  {ratio:.2f} times the throughput of one; {net:.2f} without the {planning:.1f} s of planning")


if __name__ == "__main__":
    main()
