"""A quantized file whose codes no reader here knows: loaded and measured as it is, and never called proven.

What it is compared with at its precision (the target, the retrained model, other methods) is quantized by another
backend, whose settings `like` are.
"""

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from palimpsest.errors import PalimpsestError
from palimpsest.models.tensors import Float32
from palimpsest.quantizers.base import QuantizedMatrix, Quantizer
from palimpsest.quantizers.deployed import recognise
from palimpsest.quantizers.registry import make_quantizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

AS_IT_IS = "as-it-is"
"""The backend's name."""


def _of_like(name: str) -> Any:
    return property(lambda self: getattr(self.stand_in, name))


@dataclass(frozen=True)
class AsItIs(Quantizer):
    """like: a block of params.yaml, by which all other models are quantized at this precision. A folder that was
    brought is loaded by what dequantizes it; all else is `like`'s."""

    like: Mapping[str, Any]

    @cached_property
    def stand_in(self) -> Quantizer:
        """The quantizer of `like`."""
        return make_quantizer(self.like)

    packages = _of_like("packages")
    imports = _of_like("imports")
    environment = _of_like("environment")
    bits = _of_like("bits")
    calibration_text = _of_like("calibration_text")
    uses_gpu = _of_like("uses_gpu")
    sixteen_bits = _of_like("sixteen_bits")
    refuses = _of_like("refuses")
    needs_largest = _of_like("needs_largest")
    width_divisor = _of_like("width_divisor")
    zero_on_grid = _of_like("zero_on_grid")
    needs_cuda = _of_like("needs_cuda")
    check_checkpoint = _of_like("check_checkpoint")
    round = _of_like("round")
    why_not_round = _of_like("why_not_round")
    is_zero = _of_like("is_zero")
    versions = _of_like("versions")
    levels = _of_like("levels")
    level_tables = _of_like("level_tables")
    dead_zone = _of_like("dead_zone")
    dead_zone_range = _of_like("dead_zone_range")

    def why_not_proven(self, folder: Path) -> str:
        """Why the codes of a quantized folder cannot be read; empty where they can, as those that `like` made."""
        return recognise(folder).why_not

    def quantize(self, checkpoint: Path, folder: Path, calibration: Sequence[str] = ()) -> dict[str, str]:
        return self.stand_in.quantize(checkpoint, folder, calibration)

    def read(self, folder: Path) -> Iterator[QuantizedMatrix]:
        self._refuse(folder)
        yield from self.stand_in.read(folder)

    def unquantized(self, folder: Path, quantized: Set[str]) -> Iterator[tuple[str, Float32]]:
        self._refuse(folder)
        yield from self.stand_in.unquantized(folder, quantized)

    def factors(self, folder: Path) -> dict[str, Float32]:
        return self.stand_in.factors(folder)

    def load(self, folder: Path, device: str, dtype: str = "bfloat16") -> "PreTrainedModel":
        found = recognise(folder)
        if not found.why_not:
            return self.stand_in.load(folder, device, dtype)
        return found.load(folder if found.is_gguf else None, device, dtype)

    def _refuse(self, folder: Path) -> None:
        if why := self.why_not_proven(folder):
            raise PalimpsestError(f"the codes of {folder} have no reader here: {why}.")
