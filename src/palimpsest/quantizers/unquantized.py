"""The unquantized precision: the checkpoint as it is, in bfloat16."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from palimpsest.errors import PalimpsestError
from palimpsest.models.quantized import reject_quantized
from palimpsest.models.tensors import Float32
from palimpsest.quantizers.base import QuantizedMatrix, Quantizer, load_checkpoint

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Unquantized(Quantizer):
    """Runs a checkpoint; has no codes, and an update survives it by definition."""

    packages: ClassVar[tuple[str, ...]] = ("transformers", "torch")
    bits = 16

    def quantize(self, checkpoint: Path, folder: Path, calibration: Sequence[str] = ()) -> dict[str, str]:
        raise PalimpsestError(f"backend 'none' quantizes nothing: use the checkpoint {checkpoint} itself.")

    def load(self, folder: Path, device: str, dtype: str = "bfloat16") -> "PreTrainedModel":
        reject_quantized(folder)
        return load_checkpoint(folder, dtype, device_map={"": device}).eval()

    def read(self, folder: Path) -> Iterator[QuantizedMatrix]:
        yield from ()

    def levels(self) -> Float32:
        return np.zeros(0, np.float32)

    def dead_zone(self) -> tuple[float, float]:
        return 0.0, 0.0
