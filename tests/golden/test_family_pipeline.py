"""A model of another family than Llama goes through all that a study does to one: training, unlearning, quantizing,
inference, scores and survival, each step reading what the one before it wrote."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from families import make_model

from palimpsest.artefacts import Origin
from palimpsest.inference.files import write_log_probs, write_responses
from palimpsest.inference.generation import generate
from palimpsest.inference.likelihood import split_log_probs
from palimpsest.inference.requests import corpus_requests
from palimpsest.metrics import score
from palimpsest.models.checkpoint import check_savable, load_model, load_published, load_tokenizer, write_model
from palimpsest.models.sequences import corpus_sequences
from palimpsest.quantizers import make_quantizer, prove
from palimpsest.study.params import read_params
from palimpsest.survival.measure import measure_survival
from palimpsest.training.schedule import Schedule
from palimpsest.training.storage import check_comparable, saved_share
from palimpsest.training.trainer import train
from palimpsest.unlearning.unlearn import settings_of, unlearn
from palimpsest.vocabulary import SPLITS

DEFAULT = read_params(Path(__file__).parents[2] / "params.yaml")
CALIBRATION = {"calibration": "retain", "samples": 4, "sample_length": 32}
FORMATS: dict[str, dict[str, Any]] = {
    "bf16": {"backend": "none"},
    "rtn-int8": {"backend": "rtn", "bits": 8, "group_size": None, "symmetric": True},
    "rtn-int4": {"backend": "rtn", "bits": 4, "group_size": None, "symmetric": True},
    "bnb-nf4": {"backend": "bnb-4bit", "levels": "nf4", "double_quantization": False},
    "gptq": {"backend": "gptq", "bits": 4, "group_size": 32, "symmetric": True, "damping": 0.01} | CALIBRATION,
}
METHOD = DEFAULT["methods"]["npo_gdr"] | {"learning_rate": 1e-4, "epochs": 6, "storage": "float32"}
LENGTH = 64


def written(folder: Path, network: Any, tokenizer: Any, outcome: dict[str, Any]) -> Path:
    fields = {"kind": folder.name, "method": None, "storage": "float32", "device": "cpu", "training": outcome}
    write_model(folder, network, tokenizer, Origin(), **fields)
    return folder


def inferred(source: Path, quantizer: Any, corpus: Any, folder: Path) -> Path:
    network, tokenizer = quantizer.load(source, "cpu", "float32"), load_tokenizer(source)
    folder.mkdir()
    requests = corpus_requests(corpus, tokenizer, 12, 8, 0)
    write_responses(generate(network, tokenizer, requests, 16), folder / "responses.jsonl")
    texts = {split: getattr(corpus, f"privleak_{split}") for split in SPLITS}
    write_log_probs(split_log_probs(network, tokenizer, texts, LENGTH, 16), folder / "logprobs.parquet")
    return folder


@pytest.mark.parametrize("family", ["gpt_neox", "gpt2", "qwen2", "gemma3_text"])
def test_a_whole_study_of_another_family(family, tiny, tmp_path):
    _, tokenizer, corpus = tiny
    base = tmp_path / "base"
    make_model(family, tokenizer).save_pretrained(base)
    tokenizer.save_pretrained(base)
    folders = {}
    for model, splits in {"target": ("forget", "retain"), "retrain": ("retain",)}.items():
        network, own = load_published(str(base), f"models.{model}")
        check_savable(network, own, base)
        sequences = [each for split in splits for each in corpus_sequences(corpus, split, own, LENGTH, True)]
        outcome = train(network, sequences, own.pad_token_id, Schedule(3e-3, 6, storage="float32"))
        assert outcome["final_loss"] < outcome["first_loss"] - 0.3
        folders[model] = written(tmp_path / model, network, own, outcome)

    network, own = load_model(folders["target"], torch.bfloat16), load_tokenizer(folders["target"])
    check_comparable(network, folders["target"])
    forget, retain = (corpus_sequences(corpus, split, own, LENGTH, True) for split in ("forget", "retain"))
    outcome = unlearn(network, forget, retain, own.pad_token_id, **settings_of(METHOD, 0))
    saved = saved_share(network, folders["target"])
    assert 0 < saved["saved_share"] < saved["moved_share"] <= 1 and 0.5 < saved["rho"] < 1.5
    folders["unlearned"] = written(tmp_path / "unlearned", network, own, outcome)

    rho, losses = {}, {}
    for name, settings in FORMATS.items():
        quantizer, made = make_quantizer(settings), {}
        for model, folder in folders.items():
            made[model] = folder
            if name != "bf16":
                made[model] = tmp_path / f"{model}-{name}"
                held = quantizer.quantize(folder, made[model], corpus.retain)
                assert prove(quantizer, folder, made[model], held)["quantized_layers"] == len(held)
        answers = {
            model: inferred(source, quantizer, corpus, tmp_path / f"{model}-{name}-inferred")
            for model, source in made.items()
        }
        files = answers["unlearned"] / "responses.jsonl", answers["unlearned"] / "logprobs.parquet"
        scores = {
            metric: score(metric, block, *files, answers["retrain"] / "logprobs.parquet")
            for metric, block in DEFAULT["metrics"].items()
        }
        assert all(record["status"] == "ok" for metric, record in scores.items() if metric != "privleak"), scores
        losses[name] = scores["perplexity"]["score"]
        if name != "bf16":
            record = measure_survival(
                folders["target"], folders["unlearned"], made["target"], made["unlearned"], quantizer
            )
            rho[name] = record["all"]["rho"]
            assert len(record["matrices"]) == len(held) and record["all"]["changed_share"] > 0.5
    assert rho["rtn-int8"] == pytest.approx(1, abs=0.1) and rho["rtn-int4"] < rho["rtn-int8"] + 0.1
    assert np.isfinite(list(rho.values())).all()
    assert losses["rtn-int8"] == pytest.approx(losses["bf16"], rel=0.05)
    for name in ("rtn-int4", "bnb-nf4", "gptq"):
        assert losses[name] < 3 * losses["bf16"]
