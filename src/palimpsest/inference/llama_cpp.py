"""llama.cpp itself, in this process (through cyllama): the arithmetic of llama.cpp, Ollama and LM Studio on a CPU."""

import itertools
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palimpsest.errors import PalimpsestError
from palimpsest.inference.engines import Answer
from palimpsest.quantizers.gguf.backend import log_llama_cpp

BATCH = 512
"""Tokens that are run at a time."""


class LlamaCpp:
    """A GGUF file with llama.cpp's own settings: keys and values in float16, activations rounded before products."""

    def __init__(self, path: Path, context: int, begins: bool = True) -> None:
        """context: tokens of the longest prompt with its answer; begins: whether it puts what starts texts before a
        prompt, which a chat template has in it. Raises PalimpsestError with llama.cpp's reason where
        it cannot load the file, and where the model has fewer positions."""
        import cyllama.llama.llama_cpp as llama

        self._llama, self._begins, errors = llama, begins, log_llama_cpp()
        parameters = llama.LlamaModelParams()
        parameters.n_gpu_layers = 0
        try:
            self._model = _model_class()(str(path), parameters, verbose=False)
        except ValueError as error:
            raise PalimpsestError(f"llama.cpp cannot load {path}: {' '.join(errors) or error}") from error
        self.vocabulary: Any = self._model.get_vocab()
        self._room = min(context, self._model.n_ctx_train)
        settings = llama.LlamaContextParams()
        settings.n_ctx, settings.n_batch, settings.n_ubatch = self._room, BATCH, BATCH
        settings.n_threads = settings.n_threads_batch = int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1))
        self._context = llama.LlamaContext(self._model, settings, verbose=False)

    @property
    def facts(self) -> dict[str, Any]:
        return {"engine": "llama.cpp", "through": f"cyllama {version('cyllama')}", "device": "cpu"}

    def answer(self, prompt: str, tokens: int) -> Answer:
        given = list(self.vocabulary.tokenize(prompt, self._begins, True))
        self._check_room(len(given) + tokens)
        self._context.kv_cache_clear(True)
        logits = self._run(given, 0)
        chosen: list[int] = []
        log_probs: list[float] = []
        while len(chosen) < tokens:
            token = int(logits.argmax())
            if self.vocabulary.is_eog(token):
                break
            chosen.append(token)
            log_probs.append(float(logits[token] - np.logaddexp.reduce(logits)))
            if len(chosen) < tokens:
                logits = self._run([token], len(given) + len(chosen) - 1)
        text = self.vocabulary.detokenize(chosen)
        return Answer(tuple(given), len(given), tuple(chosen), tuple(log_probs), text)

    def log_probs(self, tokens: list[int]) -> list[float]:
        self._check_room(len(tokens))
        self._context.kv_cache_clear(True)
        found = []
        for place, (token, following) in enumerate(itertools.pairwise(tokens)):
            logits = self._run([token], place)
            found.append(float(logits[following] - np.logaddexp.reduce(logits)))
        return found

    def _run(self, tokens: list[int], start: int) -> NDArray[np.float64]:
        """[vocabulary] logits behind the last token."""
        for first in range(0, len(tokens), BATCH):
            part = tokens[first : first + BATCH]
            batch = self._llama.LlamaBatch(n_tokens=len(part), embd=0, n_seq_max=1)
            for i, token in enumerate(part):
                batch.add(token, start + first + i, [0], i == len(part) - 1)
            self._context.decode(batch)
        return np.array(self._context.get_logits_ith(-1), np.float64)

    def _check_room(self, tokens: int) -> None:
        if tokens > self._room:
            raise PalimpsestError(
                f"a prompt with its answer takes {tokens} tokens, the file has room for {self._room}: give shorter "
                "prompts, or fewer --tokens."
            )


def _model_class() -> Any:
    """cyllama's contexts ask the model for an attribute that it lacks."""
    import cyllama.llama.llama_cpp as llama

    class Model(llama.LlamaModel):
        @property
        def n_vocab(self) -> int:
            return self.get_vocab().n_vocab

    return Model
