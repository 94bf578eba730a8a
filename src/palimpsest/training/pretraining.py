"""Pretraining of a base on plain text: what models from scratch lack, and what makes their weights survive 4 bits."""

import logging
import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import PreTrainedModel, TrainingArguments, default_data_collator, set_seed

from palimpsest.errors import PalimpsestError
from palimpsest.models.head import Unprojected
from palimpsest.models.pretraining_text import window_starts
from palimpsest.training.fused import decoder_of, is_fused, kernels
from palimpsest.training.trainer import NextTokenTrainer

log = logging.getLogger(__name__)

BETAS = (0.9, 0.95)
"""AdamW's for pretraining (Brown et al. 2020, arXiv 2005.14165, appendix B)."""


@dataclass(frozen=True)
class Pretraining:
    """The block `models.pretraining` without its text.

    steps: of gradient_accumulation batches of `batch_size` windows each; learning_rate: at its highest, after
    warmup_steps, from where it falls to 0 as a cosine; held_out: the share of windows that are never trained on; seed:
    of the weights and the order.
    """

    learning_rate: float
    warmup_steps: int
    steps: int
    batch_size: int
    weight_decay: float
    held_out: float
    seed: int
    gradient_accumulation: int = 1

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> "Pretraining":
        """From the block, which holds the text too."""
        return cls(**{key: settings[key] for key in cls.__dataclass_fields__ if key in settings})


class Windows(Dataset[dict[str, Tensor]]):
    """Stretches of a row of tokens, each behind a BOS as every chunk of the pipeline: input_ids [length + 1]."""

    def __init__(self, tokens: NDArray, starts: NDArray[np.int64], length: int, bos: int) -> None:
        self.tokens, self.starts, self.length, self.bos = tokens, starts, length, bos

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        start = self.starts[index]
        window = self.tokens[start : start + self.length].astype(np.int64)
        return {"input_ids": torch.from_numpy(np.concatenate([[self.bos], window]))}


class PretrainingTrainer(NextTokenTrainer):
    """Next-token cross-entropy over windows that are all of one length: nothing is padded."""

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> tuple[list[Any], int]:
        """The batches of a step: of equal sizes, so that each has an equal part in its mean."""
        self.batches = list(islice(epoch_iterator, num_batches))
        self.parts = []
        return self.batches, len(self.batches)

    def batch_loss(self, model: nn.Module, inputs: Any) -> Tensor:
        if not is_fused(self.model):
            return next_token_loss(model, inputs["input_ids"]) / len(self.batches)
        with self.accelerator.autocast():
            return next_token_loss_without_logits(self.model, inputs["input_ids"]) / len(self.batches)


def next_token_loss(model: Any, ids: Tensor) -> Tensor:
    """Mean cross-entropy, nats a predicted token, of windows [batch, time]."""
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
    return nn.functional.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten())


def next_token_loss_without_logits(model: Any, ids: Tensor) -> Tensor:
    """What `next_token_loss` gives, where training is fused (palimpsest.training.fused)."""
    states = decoder_of(model)(input_ids=ids, use_cache=False).logits[:, :-1]
    head = Unprojected.of(states.flatten(0, 1), model.get_output_embeddings().weight)
    return head.nll(ids[:, 1:].flatten()).mean()


def pretrain(model: PreTrainedModel, tokens: NDArray, bos: int, settings: Pretraining) -> dict[str, Any]:
    """Train in place, weights in float32 and products in bfloat16, on one GPU if there is one; returns what happened:
    steps, losses (nats a token), the loss on the windows held out, how many tokens were seen and of how many.

    tokens: [tokens] the text; a window has as many as the model has positions, BOS included. Raises PalimpsestError
    for a text too short for one step.
    """
    length = model.config.max_position_embeddings - 1
    train, held_out = window_starts(len(tokens), length, settings.held_out, settings.seed)
    if len(train) < settings.batch_size:
        raise PalimpsestError(
            f"the text of models.pretraining has {len(train)} windows of {length} tokens to train on, fewer than "
            f"batch_size {settings.batch_size}: give more text, or lower batch_size or models.scratch.context."
        )
    set_seed(settings.seed)
    with tempfile.TemporaryDirectory() as scratch:
        arguments = TrainingArguments(
            output_dir=scratch,
            max_steps=settings.steps,
            per_device_train_batch_size=settings.batch_size,
            gradient_accumulation_steps=settings.gradient_accumulation,
            dataloader_drop_last=True,  # every step is of one size
            learning_rate=settings.learning_rate,
            warmup_steps=settings.warmup_steps,
            lr_scheduler_type="cosine",
            weight_decay=settings.weight_decay,
            adam_beta1=BETAS[0],
            adam_beta2=BETAS[1],
            optim="adamw_torch_fused",
            bf16=True,
            seed=settings.seed,
            use_cpu=not torch.cuda.is_available(),
            logging_steps=50,
            save_strategy="no",
            report_to="none",
            remove_unused_columns=False,
            dataloader_pin_memory=torch.cuda.is_available(),
        )
        if arguments.n_gpu > 1:  # the Trainer would split each batch over all GPUs that it sees
            arguments._n_gpu = 1
        windows = Windows(tokens, train, length, bos)
        trainer = PretrainingTrainer(
            model=model, args=arguments, train_dataset=windows, data_collator=default_data_collator
        )
        with kernels(model, is_fused(model)):
            trainer.train()
    nats = held_out_loss(model, Windows(tokens, held_out, length, bos), settings.batch_size)
    seen = settings.steps * settings.gradient_accumulation * settings.batch_size * length
    log.info("%.3f nats a token on %d windows held out", nats, len(held_out))
    for trace in ("forward", "_original_forward", "_is_accelerate_prepared"):
        vars(model).pop(trace, None)  # of accelerate's autocast, as in palimpsest.training.trainer
    model.to(torch.device("cpu"))  # type: ignore[arg-type]
    return trainer.result() | {"held_out_nats": nats, "tokens_seen": seen, "tokens_of_text": len(tokens)}


@torch.no_grad()
def held_out_loss(model: PreTrainedModel, windows: Windows, batch_size: int) -> float:
    """Mean cross-entropy over windows, nats a token."""
    model.eval()
    total = 0.0
    for start in range(0, len(windows), batch_size):
        part = [windows[i]["input_ids"] for i in range(start, min(start + batch_size, len(windows)))]
        total += next_token_loss(model, torch.stack(part).to(model.device)).item() * len(part)
    nats = total / len(windows)
    if not math.isfinite(nats):
        raise PalimpsestError(f"the held-out loss is {nats}: lower models.pretraining.learning_rate.")
    return nats
