"""GPTQ and AWQ folders as AutoGPTQ and AutoAWQ lay them out, rounded to nearest here, without those packages."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from palimpsest.models.tensors import open_checkpoint

AWQ_WORD = (0, 2, 4, 6, 1, 3, 5, 7)
"""Which of eight neighbouring outputs AutoAWQ puts in each nibble of a word, lowest first."""


def as_gptq(checkpoint: Path, folder: Path, group: int = 64, bits: int = 4, desc_act: bool = False) -> None:
    """desc_act: a group's columns lie anywhere, as where they are rounded in order of activation."""
    stored = {}
    for name, weight in _tensors(checkpoint).items():
        if "proj" not in name:
            stored[name] = weight.astype(np.float16)
            continue
        rows, columns = weight.shape
        order = np.random.default_rng(0).permutation(columns) if desc_act else np.arange(columns)
        codes, scales, zeros = _rounded(weight[:, order], group, bits, least_zero=1)
        back = np.argsort(order)
        module = name.removesuffix(".weight")
        stored[f"{module}.qweight"] = bit_string(codes[:, back], bits).T.copy()
        stored[f"{module}.qzeros"] = bit_string(zeros.T - 1, bits)
        stored[f"{module}.scales"] = scales.T.copy()
        stored[f"{module}.g_idx"] = (back // group).astype(np.int32)
        stored[f"{module}.bias"] = np.zeros(rows, np.float16)
    grid = {"quant_method": "gptq", "bits": bits, "group_size": group, "sym": False, "desc_act": desc_act}
    _save(stored, checkpoint, folder, grid | {"checkpoint_format": "gptq", "meta": {"damp_percent": 0.05}})


def as_awq(checkpoint: Path, folder: Path, group: int = 32) -> None:
    """With factors beside it, on what the first norm of a block feeds."""
    stored, factors = {}, {}
    for name, weight in _tensors(checkpoint).items():
        module = name.removesuffix(".weight")
        if name.endswith("input_layernorm.weight"):
            columns = np.linspace(0.5, 2, len(weight), dtype=np.float32)
            block = module.removesuffix(".input_layernorm")
            factors |= {f"{block}.self_attn.{part}_proj.columns": columns.copy() for part in "qkv"}
            factors[f"{module}.rows"] = 1 / columns
            weight = weight / columns
        if "proj" not in name:
            stored[name] = weight.astype(np.float16)
            continue
        if any(f"{part}_proj" in name for part in ("q", "k", "v")):
            weight = weight * np.linspace(0.5, 2, weight.shape[1], dtype=np.float32)
        codes, scales, zeros = _rounded(weight, group, 4, least_zero=0)
        stored[f"{module}.qweight"] = bit_string(_awq_order(codes.T), 4)
        stored[f"{module}.qzeros"] = bit_string(_awq_order(zeros.T), 4)
        stored[f"{module}.scales"] = scales.T.copy()
    grid = {"quant_method": "awq", "version": "gemm", "bits": 4, "group_size": group, "zero_point": True}
    _save(stored, checkpoint, folder, grid)
    (folder / "smoothing").mkdir()
    save_file(factors, folder / "smoothing/model.safetensors")


def bit_string(codes: np.ndarray, bits: int) -> np.ndarray:
    """[rows, columns] of codes to [rows, columns * bits / 32] words: a row is a string of bits, lowest first."""
    string = (codes[:, :, None] >> np.arange(bits)) & 1
    packed = np.packbits(string.reshape(len(codes), -1).astype(np.uint8), axis=1, bitorder="little")
    return np.ascontiguousarray(packed).view(np.int32)


def _rounded(weight: np.ndarray, group: int, bits: int, least_zero: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes [rows, columns], scales and zero points [rows, groups]."""
    rows, columns = weight.shape
    groups, largest = weight.reshape(rows, -1, group), 2**bits - 1
    scales = ((groups.max(-1) - groups.min(-1)) / largest).astype(np.float16)
    zeros = np.clip(np.rint(-groups.min(-1) / scales), least_zero, largest).astype(np.int64)
    codes = np.clip(np.rint(groups / scales[:, :, None]) + zeros[:, :, None], 0, largest).astype(np.int64)
    return codes.reshape(rows, columns), scales, zeros


def _awq_order(codes: np.ndarray) -> np.ndarray:
    return codes.reshape(len(codes), -1, 8)[:, :, AWQ_WORD].reshape(len(codes), -1)


def _tensors(checkpoint: Path) -> dict[str, np.ndarray]:
    with open_checkpoint(checkpoint) as files:
        return {name: files.load(name) for name in files.names()}


def _save(stored: dict[str, np.ndarray], checkpoint: Path, folder: Path, stated: dict[str, object]) -> None:
    folder.mkdir()
    save_file(stored, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((checkpoint / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": stated}))
