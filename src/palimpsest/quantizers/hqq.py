"""HQQ: half-quadratic quantization (Badri and Shaji 2023,
https://mobiusml.github.io/hqq_blog), saved as safetensors."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from palimpsest.artefacts import read_json
from palimpsest.errors import PalimpsestError, choose
from palimpsest.models.families import heads_of
from palimpsest.models.tensors import Float32, TensorFiles, open_checkpoint, to_bfloat16
from palimpsest.quantizers.base import (
    STACKED,
    QuantizedMatrix,
    Quantizer,
    check_group_size,
    copy_tokenizer,
    fingerprint,
    load_linear,
    matrix_shapes,
    module_bytes,
    same_shape,
)
from palimpsest.quantizers.calibration import check_number, check_positive
from palimpsest.quantizers.grids.levels import integer_levels

MARK = ".W_q"
CODES_PER_WORD = {8: 1, 4: 2, 3: 10, 2: 4}  # the words are bytes, for 3 bits int32
SOLVERS = {"cpu": "float32", "cuda": "float16"}
AXIS = 1  # groups run along the inputs, which is what HQQ's kernels and other engines can run


@dataclass(frozen=True)
class HQQ(Quantizer):
    """Scales from each group's range; zero points by an iteration that shrinks the error's few large entries. No data.

    bits: 8, 4, 3 or 2; group_size: inputs that share a scale, a multiple of 8, null for one scale per output channel;
    device: where HQQ solves for the zero points, `cpu` in float32 or `cuda` in float16,
    which gives slightly other codes.

    Codes are rounded with float32 scales and zero points, which are then stored in bfloat16: with 8 bits this alone
    moves a group by up to half a step. A group whose weights differ by less than 1e-4 becomes one value (HQQ's guard
    against dividing by zero).
    The folder is what `AutoHQQHFModel.save_to_safetensors` writes, with the configuration that transformers 4 and vLLM
    read. transformers 5 cannot load it: it warns of missing weights and runs with random ones.
    """

    bits: int
    group_size: int | None
    device: str
    packages: ClassVar[tuple[str, ...]] = ("hqq", "transformers", "torch")
    refuses: ClassVar[Mapping[str, str]] = {"mixtral": STACKED}

    def __post_init__(self) -> None:
        check_number("bits", self.bits, CODES_PER_WORD, f"give one of {sorted(CODES_PER_WORD)}")
        if self.group_size is not None:
            check_positive("group_size", self.group_size, " or null for one scale per output channel")
            if self.group_size % 8:
                raise PalimpsestError(f"group_size is {self.group_size}: HQQ takes multiples of 8.")
        choose(SOLVERS, str(self.device), "device of backend 'hqq'")

    @property
    def uses_gpu(self) -> bool:  # type: ignore[override]
        return self.device == "cuda"

    @property
    def needs_cuda(self) -> bool:
        return self.uses_gpu

    def check_checkpoint(self, checkpoint: Path) -> None:
        super().check_checkpoint(checkpoint)
        check_group_size(checkpoint, self.group_size)
        self._check_packing(checkpoint)

    @property
    def zero_on_grid(self) -> bool:
        return False  # zero points are real numbers

    def quantize(self, checkpoint: Path, folder: Path, calibration: Sequence[str] = ()) -> dict[str, str]:
        self.check_family(checkpoint)
        check_group_size(checkpoint, self.group_size)
        self._check_packing(checkpoint)
        copy_tokenizer(checkpoint, folder)
        import torch
        from hqq.core.quantize import HQQLinear
        from hqq.models.hf.base import AutoHQQHFModel
        from transformers import HqqConfig

        if self.device == "cuda" and not torch.cuda.is_available():
            raise PalimpsestError("device is 'cuda', but torch sees no CUDA device here: give 'cpu'.")
        model = load_linear(checkpoint)
        group_size: Any = self.group_size  # annotated as an int there, null means what it means here
        config = HqqConfig(nbits=self.bits, group_size=group_size, axis=AXIS, skip_modules=heads_of(checkpoint))
        # place by place: of a single device hqq asks for a model whose layers are in `model.layers`
        places = dict.fromkeys((name for name, _ in model.named_modules()), self.device)
        AutoHQQHFModel.quantize_model(model, config.quant_config, torch.bfloat16, places)
        model.config.quantization_config = config
        held = {
            name: fingerprint(module.dequantize())
            for name, module in model.named_modules()
            if isinstance(module, HQQLinear)
        }
        model.save_pretrained(folder)
        return held

    def read(self, folder: Path) -> Iterator[QuantizedMatrix]:
        self._check_folder(folder)
        with open_checkpoint(folder) as files:
            for module in [name.removesuffix(MARK) for name in files.names() if name.endswith(MARK)]:
                yield self._read_matrix(files, module)

    def levels(self) -> Float32:
        """Scale = the group's range / (2^bits - 1);
        a group centred on zero has these levels if its zero point is whole.

        HQQ's zero points lie between codes, so zero itself is seldom a level: the bin around zero keeps its width and
        is off centre, by less than half a step.
        """
        return integer_levels(self.bits, divisor=(2**self.bits - 1) / 2)

    def _read_matrix(self, files: TensorFiles, module: str) -> QuantizedMatrix:
        rows, columns = files.load(f"{module}.shape").tolist()
        scales, zero_points = (files.load(f"{module}.{part}").reshape(rows, -1) for part in ("scale", "zero"))
        same_shape(scales, zero_points)
        codes = self._unpack(files.load(f"{module}{MARK}"), scales.size).reshape(rows, columns)
        groups = to_bfloat16(codes.reshape(*scales.shape, -1) - zero_points[:, :, None])
        dequantized = to_bfloat16(groups * scales[:, :, None]).reshape(rows, columns)
        return QuantizedMatrix(module, codes, scales, zero_points, dequantized, module_bytes(files, module))

    def _unpack(self, packed: NDArray, groups: int) -> NDArray[np.uint8]:
        """[words, group_size] to [groups, group_size]:
        a word holds the codes of groups far apart, the first one highest."""
        shifts = [self.bits * i for i in reversed(range(CODES_PER_WORD[self.bits]))]
        codes = [((packed >> shift) & (2**self.bits - 1)).astype(np.uint8) for shift in shifts]
        return np.concatenate(codes)[:groups]

    def _check_packing(self, checkpoint: Path) -> None:
        """HQQ pads 3-bit codes, but packs the others wrongly or not at all where the groups do not fill the bytes."""
        if self.bits == 3:
            return
        for module, (rows, columns) in matrix_shapes(checkpoint).items():
            groups = rows * columns // (self.group_size or columns)
            if groups % CODES_PER_WORD[self.bits]:
                raise PalimpsestError(
                    f"HQQ packs {self.bits}-bit codes of {CODES_PER_WORD[self.bits]} groups into a byte, which the "
                    f"{groups} groups of {module} in {checkpoint} do not fill: give another group_size, or other bits."
                )

    def _check_folder(self, folder: Path) -> None:
        settings = read_json(folder / "config.json").get("quantization_config", {})
        weights = settings.get("quant_config", {}).get("weight_quant_params", {})
        stored = tuple(weights.get(key) for key in ("nbits", "group_size", "axis"))
        if stored != (self.bits, self.group_size, AXIS):
            raise PalimpsestError(
                f"{folder} holds (bits, group_size, axis) = {stored}, the settings say "
                f"{(self.bits, self.group_size, AXIS)}: quantize the checkpoint again."
            )
