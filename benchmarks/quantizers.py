"""What each quantizer costs on a random Llama: seconds, memory, bytes, and what `prove` says of the result.

`python benchmarks/quantizers.py 54m` runs those of studies/all-quantizers,
`python benchmarks/quantizers.py 1b hqq-int4 rtn-int4` the named ones. The checkpoint is written to a temporary folder,
shard by shard; each quantizer runs in a process of its own.

Columns: `all` and `quantize` are seconds of the process and of the call in it; `prove` those of reading the file
back with NumPy. Memory in MiB is sampled from /proc: `peak` is the process's own (anonymous) memory, `above` how
much of it came after the imports, `mapped` the peak of file-backed pages (libraries and the mapped checkpoint),
which the system can drop. `disk` in MiB is the whole quantized folder, `bits` those of codes, scales and zero points
for each quantized weight.
"""

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import psutil
from safetensors.numpy import save_file

from palimpsest.quantizers import make_quantizer, prove
from palimpsest.quantizers.environments import VARIABLE
from palimpsest.runtime.startup import import_transformers
from palimpsest.study.params import read_params

PRESETS = {
    "54m": {"hidden": 1024, "mlp": 2816, "layers": 4, "heads": 16, "kv_heads": 16, "vocabulary": 1024},
    "1b": {"hidden": 2048, "mlp": 8192, "layers": 16, "heads": 32, "kv_heads": 8, "vocabulary": 32000},
}
ROOT = Path(__file__).parents[1]
SETTINGS = read_params(ROOT / "studies/all-quantizers/params.yaml")["quantizers"]
os.environ.setdefault(VARIABLE, str(ROOT / ".environments"))
INTERVAL = 0.02  # seconds between two looks at a process's memory
MIB = 2**20


class Memory(NamedTuple):
    """Bytes of anonymous and of file-backed pages; shared ones count in proportion."""

    anonymous: int
    mapped: int

    def largest(self, other: "Memory") -> "Memory":
        return Memory(max(self.anonymous, other.anonymous), max(self.mapped, other.mapped))


def memory(process: psutil.Process) -> Memory:
    """What a process and its descendants hold now."""
    total = {"Pss_Anon": 0, "Pss_File": 0}
    try:
        for each in [process, *process.children(recursive=True)]:
            for line in Path(f"/proc/{each.pid}/smaps_rollup").read_text().splitlines()[1:]:
                key, value = line.split(":")
                if key in total:
                    total[key] += int(value.split()[0]) * 1024
    except (FileNotFoundError, ProcessLookupError, psutil.NoSuchProcess):  # it has just ended
        pass
    return Memory(total["Pss_Anon"], total["Pss_File"])


def tensors(preset: dict[str, int]) -> dict[str, dict[str, tuple[int, ...]]]:
    """Shapes by tensor name by shard: one for each layer, one for embeddings, last norm and output head."""
    hidden, mlp = preset["hidden"], preset["mlp"]
    keys = hidden // preset["heads"] * preset["kv_heads"]
    layer = {
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (keys, hidden),
        "self_attn.v_proj": (keys, hidden),
        "self_attn.o_proj": (hidden, hidden),
        "mlp.gate_proj": (mlp, hidden),
        "mlp.up_proj": (mlp, hidden),
        "mlp.down_proj": (hidden, mlp),
        "input_layernorm": (hidden,),
        "post_attention_layernorm": (hidden,),
    }
    ends = {"model.embed_tokens": (preset["vocabulary"], hidden), "model.norm": (hidden,)}
    ends["lm_head"] = ends["model.embed_tokens"]
    shards: list[dict[str, tuple[int, ...]]] = [
        {f"model.layers.{i}.{name}": shape for name, shape in layer.items()} for i in range(preset["layers"])
    ]
    shards.append(ends)
    return {
        f"model-{i:05}-of-{len(shards):05}.safetensors": {f"{name}.weight": shape for name, shape in shard.items()}
        for i, shard in enumerate(shards, 1)
    }


def write_checkpoint(folder: Path, preset: dict[str, int]) -> None:
    """A Llama with bfloat16 weights N(0, 0.02) and norms of 1; one shard in memory at a time."""
    random, weight_map, total = np.random.default_rng(0), {}, 0
    for file, shapes in tensors(preset).items():
        shard = {}
        for name, shape in shapes.items():
            values = np.ones(shape, np.float32)
            if len(shape) > 1:
                random.standard_normal(out=values, dtype=np.float32)
                values *= 0.02
            shard[name] = values.astype(ml_dtypes.bfloat16)
            total += shard[name].nbytes
        save_file(shard, folder / file, {"format": "pt"})
        weight_map |= dict.fromkeys(shard, file)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": preset["hidden"],
        "intermediate_size": preset["mlp"],
        "num_hidden_layers": preset["layers"],
        "num_attention_heads": preset["heads"],
        "num_key_value_heads": preset["kv_heads"],
        "vocab_size": preset["vocabulary"],
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "dtype": "bfloat16",
        "bos_token_id": 0,
        "eos_token_id": 1,
    }
    (folder / "config.json").write_text(json.dumps(config))


def write_texts(folder: Path, vocabulary: int) -> None:
    """The tokenizer, filled up to the model's vocabulary, and texts.json for the quantizers that calibrate."""
    from palimpsest.corpus.embedded.generator import generate_corpus
    from palimpsest.models.scratch import train_tokenizer

    texts = generate_corpus(0, 2, 12, 2, 3, 2).retain
    tokenizer = train_tokenizer(texts, min(vocabulary, 1000))
    tokenizer.add_tokens([f"<unused{i}>" for i in range(vocabulary - len(tokenizer))])
    tokenizer.save_pretrained(folder)
    (folder / "texts.json").write_text(json.dumps(texts))


def run_child(settings: dict[str, Any], checkpoint: Path, folder: Path) -> None:
    """Quantize in this process; the last line of the output is what the parent wants to know."""
    quantizer = make_quantizer(settings)
    import_transformers(quantizer.packages)  # as the pipeline's step does
    for package in quantizer.packages:
        if importlib.util.find_spec(package.replace("-", "_")):  # not every package is called what its module is
            importlib.import_module(package.replace("-", "_"))
    texts = json.loads((checkpoint / "texts.json").read_text())
    baseline, started = memory(psutil.Process()).anonymous, time.perf_counter()
    held = quantizer.quantize(checkpoint, folder, texts)
    seconds = time.perf_counter() - started
    print("\n" + json.dumps({"baseline": baseline, "seconds": seconds, "held": held}))


def run(settings: dict[str, Any], checkpoint: Path, folder: Path, log_path: Path) -> str:
    """The row of one quantizer; raises RuntimeError with the last line of its output when it fails."""
    folder.mkdir()
    command = [sys.executable, __file__, "--child", json.dumps(settings), str(checkpoint), str(folder)]
    started, peak = time.perf_counter(), Memory(0, 0)
    with open(log_path, "wb") as log:
        process = psutil.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        while process.poll() is None:
            peak = peak.largest(memory(process))
            time.sleep(INTERVAL)
    total, lines = time.perf_counter() - started, log_path.read_text(errors="replace").strip().splitlines()
    if process.returncode:
        raise RuntimeError(lines[-1] if lines else f"exit code {process.returncode}")
    told = json.loads(next(line for line in reversed(lines) if line.startswith('{"baseline"')))
    started = time.perf_counter()
    facts = prove(make_quantizer(settings), checkpoint, folder, told["held"])
    proof = time.perf_counter() - started
    shutil.rmtree(folder)
    above = peak.anonymous - told["baseline"]
    return (
        f"{total:8.1f} {told['seconds']:9.1f} {proof:7.1f} {peak.anonymous / MIB:8.0f} {above / MIB:8.0f} "
        f"{peak.mapped / MIB:8.0f} {facts['bytes'] / MIB:8.1f} {facts['bits_per_weight']:6.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("preset", choices=PRESETS)
    parser.add_argument("names", nargs="*", metavar="quantizer", help=f"of {', '.join(SETTINGS)}")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in SETTINGS]
    if unknown:
        parser.error(f"unknown quantizer {', '.join(unknown)}: give some of {', '.join(SETTINGS)}")
    failed = []
    with tempfile.TemporaryDirectory() as scratch:
        checkpoint = Path(scratch) / "checkpoint"
        checkpoint.mkdir()
        write_checkpoint(checkpoint, PRESETS[arguments.preset])
        write_texts(checkpoint, PRESETS[arguments.preset]["vocabulary"])
        size = sum(path.stat().st_size for path in checkpoint.glob("*.safetensors"))
        threads = os.environ.get("OMP_NUM_THREADS", f"all {os.cpu_count()}")
        print(f"{arguments.preset}: {size / 2 / 1e6:.0f} M parameters, {size / MIB:.0f} MiB; threads: {threads}")
        print(
            f"{'':14s} {'all':>8s} {'quantize':>9s} {'prove':>7s} {'peak':>8s} {'above':>8s} {'mapped':>8s} "
            f"{'disk':>8s} {'bits':>6s}",
            flush=True,
        )
        for name in arguments.names or SETTINGS:
            try:
                row = run(SETTINGS[name], checkpoint, Path(scratch) / name, Path(scratch) / f"{name}.log")
            except RuntimeError as error:
                failed.append(name)
                row = f"failed: {error}"
            print(f"{name:14s} {row}", flush=True)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        run_child(json.loads(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]))
    else:
        main()
