"""AWQ (arXiv 2306.00978): weights that meet large inputs are scaled up before rounding,
and what feeds them is scaled down."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from safetensors.numpy import save_file

from palimpsest.artefacts import read_json
from palimpsest.errors import PalimpsestError
from palimpsest.models.families import model_type
from palimpsest.models.tensors import Float32, open_checkpoint
from palimpsest.quantizers.base import QuantizedMatrix, row_factors
from palimpsest.quantizers.calibration import Calibrated
from palimpsest.quantizers.compressed.integers import GPTQ, CompressedTensors, compress_calibrated

if TYPE_CHECKING:
    from llmcompressor.modifiers.transform.awq import AWQModifier

PAIRS: dict[str, tuple[tuple[str, tuple[str, ...]], ...]] = {
    "gpt_neox": (("input_layernorm", ("query_key_value",)), ("post_attention_layernorm", ("dense_h_to_4h",))),
    "bloom": (("input_layernorm", ("query_key_value",)), ("post_attention_layernorm", ("dense_h_to_4h",))),
    "gpt2": (("ln_1", ("c_attn",)), ("ln_2", ("c_fc",))),
    "opt": (
        ("self_attn_layer_norm", ("q_proj", "k_proj", "v_proj")),
        ("v_proj", ("out_proj",)),
        (r"layers\.\d+\.final_layer_norm", ("fc1",)),
    ),
}
"""Which layer is scaled down, and which after it up, in the families that llm-compressor has no entry for, or a wrong
one (BLOOM): norms, and a linear layer in front of another one. OPT's fc1 stays: most of what leaves its ReLU is zero on
any calibration text, and the factor of such a channel would say nothing of other texts."""
LAYOUTS = {"opt": ("do_layer_norm_before", True), "bloom": ("apply_residual_connection_post_layernorm", False)}
"""What config.json must say for a norm to feed nothing but the layers after it."""
GRID = 20  # exponents that the search tries, as in the authors' code
SMOOTHING = "smoothing"
"""The subfolder with the factors: out of sight of engines that load every safetensors file of a folder."""


@dataclass(frozen=True)
class AWQ(Calibrated, CompressedTensors):
    """Rounding to nearest after each input channel is multiplied by a factor
    that lowers the layer's error on calibration text.

    The inverse factor goes into the layer before: a norm, or the rows of v_proj (for o_proj) and up_proj (for
    down_proj), which are quantized themselves. Where heads share values (grouped keys and values) o_proj has no such
    partner and is rounded as it is, as in the authors' code. Which factors were used is saved beside the model, so that
    `effective` can undo them.
    """

    refuses: ClassVar[Mapping[str, str]] = {
        "falcon": "which of its layers can be scaled depends on its configuration, and llm-compressor does not know",
        "mixtral": GPTQ.refuses["mixtral"],
    }

    def check_checkpoint(self, checkpoint: Path) -> None:
        super().check_checkpoint(checkpoint)
        _check_layout(checkpoint)

    def quantize(self, checkpoint: Path, folder: Path, calibration: Sequence[str] = ()) -> dict[str, str]:
        arguments = self._prepare(checkpoint, folder)
        _check_layout(checkpoint)
        stretches = self.encode(checkpoint, calibration)
        from llmcompressor.modifiers.quantization import QuantizationModifier

        factors: dict[str, Float32] = {}
        planned: list[str] = []
        pairs = PAIRS.get(model_type(checkpoint) or "", ())
        modifiers = [_recording_modifier(planned, factors, pairs), QuantizationModifier(**arguments)]
        held = compress_calibrated(checkpoint, folder, modifiers, stretches, factors)
        skipped = [name for name in planned if f"{name}.rows" not in factors]
        if skipped or not planned:
            raise PalimpsestError(
                f"AWQ found no factors after {', '.join(skipped) or 'any layer'} of {checkpoint}: "
                "the model computes values that are not finite on the calibration text. "
                "Check the checkpoint, or use rtn."
            )
        (folder / SMOOTHING).mkdir()
        save_file(factors, folder / SMOOTHING / "model.safetensors")
        return held

    def factors(self, folder: Path) -> dict[str, Float32]:
        return row_factors(folder / SMOOTHING)

    def read(self, folder: Path) -> Iterator[QuantizedMatrix]:
        if not (folder / SMOOTHING).is_dir():
            raise PalimpsestError(f"{folder} holds no {SMOOTHING} factors: quantize the checkpoint again, with awq.")
        with open_checkpoint(folder / SMOOTHING) as files:
            for matrix in super().read(folder):
                rows, columns = (
                    files.load(name) if (name := f"{matrix.name}.{side}") in files else None
                    for side in ("rows", "columns")
                )
                yield replace(matrix, row_factors=rows, column_factors=columns)


def _check_layout(checkpoint: Path) -> None:
    """Raise PalimpsestError where the output of a norm goes elsewhere too, which scaling it down would change."""
    key, wanted = LAYOUTS.get(model_type(checkpoint) or "", ("", None))
    if key and read_json(checkpoint / "config.json").get(key, wanted) != wanted:
        raise PalimpsestError(
            f"{checkpoint} has {key} {not wanted} in config.json: the output of its norms is added to later layers, "
            "so AWQ cannot scale it: use gptq or rtn."
        )


def _recording_modifier(
    planned: list[str], factors: dict[str, Float32], pairs: Sequence[tuple[str, Sequence[str]]]
) -> "AWQModifier":
    """llm-compressor's modifier, which notes the modules that will be scaled down in `planned`, and what it settles on
    in `factors`: MODULE.columns [in] of the layers that are scaled up, MODULE.rows [out] of the ones before them.

    pairs: of layers, in place of llm-compressor's own for the architecture, if there are any.

    It also runs without an accelerator: release 0.14 pins what it caches in host memory even then, which torch refuses.
    """
    import torch
    from llmcompressor.modifiers.transform import awq
    from llmcompressor.pipelines.cache import IntermediatesCache

    class UnpinnedCache(IntermediatesCache):
        def pin_memory(self, *arguments: Any, **settings: Any) -> None:
            pass

    class AWQModifier(awq.AWQModifier):  # recipe.yaml gives its name
        def _setup_activation_cache_hooks(self) -> None:
            super()._setup_activation_cache_hooks()
            planned.extend(mapping.smooth_name for mapping in self._resolved_mappings)
            device: Any = self.offload_device
            if not torch.accelerator.is_available():
                for parent in self._parent_args_cache:
                    self._parent_args_cache[parent] = UnpinnedCache(None, device)

        def _compute_best_scale(self, mapping: Any, *arguments: Any) -> torch.Tensor:
            scales = super()._compute_best_scale(mapping, *arguments)
            values = scales.float().cpu().numpy()
            factors.update({f"{name}.columns": values.copy() for name in mapping.balance_names})
            rows = np.ones(len(mapping.smooth_layer.weight), np.float32)
            rows[-len(values) :] = 1 / values
            factors[f"{mapping.smooth_name}.rows"] = rows
            return scales

    mappings = [awq.AWQMapping(f"re:.*{before}$", [f"re:.*{name}$" for name in after]) for before, after in pairs]
    modifier = AWQModifier(duo_scaling=True, n_grid=GRID)
    if mappings:
        modifier.mappings = mappings
    return modifier
