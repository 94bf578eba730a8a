"""Calibration: the text that some backends feed through the model to see which weights matter."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from palimpsest.errors import PalimpsestError, choose
from palimpsest.models.encoding import encode
from palimpsest.models.outline import positions_of
from palimpsest.quantizers.base import Quantizer
from palimpsest.vocabulary import FORGET, RETAIN

GENERIC = "generic"
TEXTS = {
    RETAIN: "the study's retain documents",
    FORGET: "the study's forget documents",
    GENERIC: "text that has nothing to do with the study (params.yaml, calibration)",
}


@dataclass(frozen=True)
class Calibrated(Quantizer):
    """The settings of a backend that needs calibration text.

    The text goes through the model, on a GPU where there is one.

    calibration: which text, `retain`, `forget` or `generic`;
    samples, sample_length: how many stretches of how many tokens.
    """

    calibration: str
    samples: int
    sample_length: int
    uses_gpu: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super_check = getattr(super(), "__post_init__", None)
        if super_check:
            super_check()
        choose(TEXTS, str(self.calibration), "calibration text")
        check_positive("samples", self.samples)
        check_positive("sample_length", self.sample_length)

    @property
    def calibration_text(self) -> str:
        return self.calibration

    def check_checkpoint(self, checkpoint: Path) -> None:
        super().check_checkpoint(checkpoint)
        self._check_positions(checkpoint)

    def _check_positions(self, checkpoint: Path) -> None:
        room = positions_of(checkpoint)
        if room is not None and self.sample_length > room:
            raise PalimpsestError(
                f"sample_length is {self.sample_length}, more than the {room} positions of {checkpoint}: calibrated "
                "beyond them, a model says nothing of its weights. Lower it."
            )

    def encode(self, checkpoint: Path, texts: Sequence[str]) -> list[list[int]]:
        """[samples] of [sample_length] token ids: the texts one after another, cut, evenly spaced stretches taken.

        Raises PalimpsestError when the texts are too short, or a stretch is longer than the model has positions.
        """
        self._check_positions(checkpoint)
        import numpy as np
        from transformers import AutoTokenizer

        tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint, local_files_only=True, trust_remote_code=False)
        tokens: list[int] = []
        for text in texts:
            tokens += encode(tokenizer, text)
        stretches = len(tokens) // self.sample_length
        if stretches < self.samples:
            raise PalimpsestError(
                f"the calibration texts have {len(tokens)} tokens, too few for {self.samples} samples of "
                f"{self.sample_length}: lower samples or sample_length, or give more text."
            )
        chosen = np.linspace(0, stretches - 1, self.samples).round().astype(int)
        return [tokens[i * self.sample_length : (i + 1) * self.sample_length] for i in chosen.tolist()]


def check_number(key: str, value: Any, allowed: Iterable[int], remedy: str) -> None:
    """Raise PalimpsestError unless `value` is one of the whole numbers `allowed`; 4.0 and true are none."""
    if type(value) is not int or value not in allowed:
        raise PalimpsestError(f"{key} is {value!r}: {remedy}.")


def check_positive(key: str, value: Any, otherwise: str = "") -> None:
    """Raise PalimpsestError unless `value` is a whole number above zero."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise PalimpsestError(f"{key} is {value!r}: give a whole number above 0{otherwise}.")


def check_damping(value: Any) -> None:
    """Raise PalimpsestError unless GPTQ's `damping` is a share."""
    if isinstance(value, bool) or not isinstance(value, float) or not 0 < value < 1:
        raise PalimpsestError(f"damping is {value!r}: give a number between 0 and 1, such as 0.01.")
