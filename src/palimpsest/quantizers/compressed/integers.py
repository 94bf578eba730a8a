"""llm-compressor: integer grids by rounding to nearest and by GPTQ (arXiv 2210.17323), saved as compressed-tensors."""

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from palimpsest.artefacts import read_json
from palimpsest.errors import PalimpsestError
from palimpsest.models.families import heads_of
from palimpsest.models.tensors import Float32, open_checkpoint, to_bfloat16
from palimpsest.quantizers.base import (
    QuantizedMatrix,
    Quantizer,
    check_group_size,
    copy_tokenizer,
    fingerprint,
    load_linear,
    module_bytes,
)
from palimpsest.quantizers.calibration import Calibrated, check_damping, check_number, check_positive
from palimpsest.quantizers.compressed.stream import compress_layers
from palimpsest.quantizers.grids.levels import WITH_ZERO_POINTS, integer_levels
from palimpsest.quantizers.grids.packing import unpack_nibbles
from palimpsest.quantizers.grids.rounding import Rounded, round_symmetric, round_with_zero_points

PACKAGES = ("llmcompressor", "compressed-tensors", "transformers", "torch")
MARK = ".weight_packed"


@dataclass(frozen=True)
class CompressedTensors(Quantizer):
    """What the methods on integer grids share: the grid, the file and its reader.

    bits: 4 or 8; group_size: inputs that share a scale, null for one scale per output channel;
    symmetric: whether zero is always code 0 (else each group has a zero point).
    """

    bits: int
    group_size: int | None
    symmetric: bool
    packages: ClassVar[tuple[str, ...]] = PACKAGES

    def __post_init__(self) -> None:
        check_number("bits", self.bits, (4, 8), "give 4 or 8")
        if self.group_size is not None:
            check_positive("group_size", self.group_size, " or null for one scale per output channel")
        if not isinstance(self.symmetric, bool):
            raise PalimpsestError(f"symmetric is {self.symmetric!r}: give true or false.")

    def read(self, folder: Path) -> Iterator[QuantizedMatrix]:
        self._check_folder(folder)
        with open_checkpoint(folder) as files:
            for module in [name.removesuffix(MARK) for name in files.names() if name.endswith(MARK)]:
                rows, columns = files.load(f"{module}.weight_shape")
                packed = files.load(f"{module}{MARK}")
                codes = self._unpack(packed, np.dtype(np.int8), columns)
                values = self._unpack(packed, np.dtype(np.float32), columns)
                scales, zero_points = files.load(f"{module}.weight_scale"), None
                groups = values.reshape(rows, scales.shape[1], -1)  # a view: changed in place below
                if not self.symmetric:
                    packed = np.ascontiguousarray(files.load(f"{module}.weight_zero_point").T)
                    zero_points = self._unpack(packed, np.dtype(np.int8), rows).T
                    groups -= zero_points[:, :, None]
                groups *= scales[:, :, None]
                size = module_bytes(files, module)
                yield QuantizedMatrix(module, codes, scales, zero_points, to_bfloat16(values), size)

    @property
    def width_divisor(self) -> int:
        return self.group_size or 1

    def levels(self) -> Float32:
        """Scale = largest |w| / ((2^bits - 1) / 2), as compressed-tensors sets it for symmetric grids.

        With zero points a group's scale is its range over 2^bits - 1; a group centred on zero has these same levels.
        """
        return integer_levels(self.bits, divisor=(2**self.bits - 1) / 2)

    def dead_zone_range(self) -> tuple[float, float]:
        return super().dead_zone_range() if self.symmetric else WITH_ZERO_POINTS

    def _unpack(self, packed: NDArray[np.int32], kind: np.dtype, columns: int) -> NDArray:
        """[rows, words] to the first `columns` signed codes of each row, as `kind`, contiguous."""
        if self.bits == 8:
            codes = (packed.view(np.uint8) ^ 128).view(np.int8).astype(kind)
        else:
            codes = unpack_nibbles(packed, np.arange(-8, 8).astype(kind), high_first=False)
        return np.ascontiguousarray(codes[:, :columns])

    def _check_folder(self, folder: Path) -> None:
        settings = read_json(folder / "config.json").get("quantization_config", {})
        for group in settings.get("config_groups", {}).values():
            stored = tuple(group["weights"][key] for key in ("num_bits", "group_size", "symmetric"))
            if stored != (self.bits, self.group_size, self.symmetric):
                raise PalimpsestError(
                    f"{folder} holds (bits, group_size, symmetric) = {stored}, the settings say "
                    f"{(self.bits, self.group_size, self.symmetric)}: quantize the checkpoint again."
                )

    def check_checkpoint(self, checkpoint: Path) -> None:
        super().check_checkpoint(checkpoint)
        check_group_size(checkpoint, self.group_size)

    def _prepare(self, checkpoint: Path, folder: Path) -> dict[str, Any]:
        """Check shapes before anything slow is imported; returns the arguments that llm-compressor's modifiers take."""
        self.check_family(checkpoint)
        check_group_size(checkpoint, self.group_size)
        copy_tokenizer(checkpoint, folder)
        groups = {"linear": {"targets": ["Linear"], "weights": self._weights()}}
        return {"config_groups": groups, "ignore": heads_of(checkpoint)}

    def _weights(self) -> dict[str, Any]:
        """The grid in the terms of compressed-tensors."""
        grid = {"num_bits": self.bits, "type": "int", "symmetric": self.symmetric}
        return grid | (
            {"strategy": "group", "group_size": self.group_size} if self.group_size else {"strategy": "channel"}
        )


@dataclass(frozen=True)
class RoundToNearest(CompressedTensors):
    """Every weight to the nearest level; no data, and no more than a layer in memory."""

    def quantize(self, checkpoint: Path, folder: Path, calibration: Sequence[str] = ()) -> dict[str, str]:
        self.check_family(checkpoint)
        check_group_size(checkpoint, self.group_size)
        return compress_layers(checkpoint, folder, {"weights": self._weights()})

    def round(self, weights: Float32, largest: float = 0.0) -> Rounded:
        arithmetic = round_symmetric if self.symmetric else round_with_zero_points
        return arithmetic(weights, self.bits, self.group_size)


@dataclass(frozen=True)
class GPTQ(Calibrated, CompressedTensors):
    """Rounding that passes each column's error on to the next, weighted by the inputs' second moments.

    Columns go in order of decreasing activation with scales fixed beforehand (llm-compressor's `static` order).

    damping: the share of the Hessian's mean diagonal that is added to it, between 0 and 1 (the authors': 0.01).
    """

    damping: float
    refuses: ClassVar[Mapping[str, str]] = {"mixtral": "it saves the experts under other names than the checkpoint's"}

    def __post_init__(self) -> None:
        super().__post_init__()
        check_damping(self.damping)

    def quantize(self, checkpoint: Path, folder: Path, calibration: Sequence[str] = ()) -> dict[str, str]:
        arguments = self._prepare(checkpoint, folder)
        stretches = self.encode(checkpoint, calibration)
        from llmcompressor.modifiers.gptq import GPTQModifier

        modifier = GPTQModifier(dampening_frac=self.damping, **arguments)
        # held from here: the modifier only warns of a fallback, and lets go of the list when it finishes
        fallen_back = modifier._rtn_fallback_module_names
        held = compress_calibrated(checkpoint, folder, modifier, stretches)
        if fallen_back:
            raise PalimpsestError(
                f"GPTQ fell back to rounding for {', '.join(fallen_back)} of {checkpoint} (singular Hessian): "
                "give more samples, longer and more varied calibration text, or a larger damping."
            )
        return held


def compress_calibrated(
    checkpoint: Path,
    folder: Path,
    modifier: Any,
    stretches: "Sequence[Sequence[int]]" = (),
    scaled: "Container[str]" = (),
) -> dict[str, str]:
    """Apply an llm-compressor modifier, or a list of them, to the whole model in memory,
    feeding it the stretches of token ids.

    scaled: afterwards, MODULE.rows of the layers before those whose columns the modifier multiplied. Every other norm
    stays as it is: where norms multiply by 1 + their weight, llm-compressor calibrates with that sum and takes the 1
    away again, which rounds twice what nothing was done to.
    """
    import torch
    from compressed_tensors.quantization.lifecycle.forward import dequantize, quantize
    from llmcompressor import oneshot
    from torch.utils.data import DataLoader
    from transformers import AutoTokenizer

    model = load_linear(checkpoint)
    # without a tokenizer oneshot looks for one itself, and warns
    tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint, local_files_only=True, trust_remote_code=False)
    batches = [{"input_ids": ids, "attention_mask": torch.ones_like(ids)} for ids in torch.tensor(stretches)[:, None]]
    data: Any = DataLoader(batches, batch_size=None) if batches else None  # type: ignore[arg-type]
    norms = {name: each.detach().clone() for name, each in model.named_parameters() if each.dim() == 1}
    oneshot(model=model, processor=tokenizer, recipe=modifier, dataset=data)
    for name, before in norms.items():
        if f"{name.rpartition('.')[0]}.rows" not in scaled:
            model.get_parameter(name).data = before
    held = {}
    for name, module in model.named_modules():
        if getattr(module, "quantization_scheme", None):
            # in two steps, as the file is packed and read:
            # on a GPU the first has a kernel of its own, with other last bits
            parts = [getattr(module, f"weight{part}", None) for part in ("", "_scale", "_zero_point", "_global_scale")]
            weight, scale, zero, whole = (None if part is None else part.detach() for part in parts)
            grid = module.quantization_scheme.weights
            codes = quantize(weight, scale, zero, grid, global_scale=whole)
            held[name] = fingerprint(dequantize(codes, scale, zero, grid, global_scale=whole).cpu())
    model.save_pretrained(folder, save_compressed=True)
    return held
