"""Quantizers by backend name. One class in a module of its own and one line in the registry add one."""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from palimpsest.errors import PalimpsestError, choose
from palimpsest.quantizers.archived.backends import AutoAWQ, AutoGPTQ
from palimpsest.quantizers.base import Quantizer
from palimpsest.quantizers.bitsandbytes import BitsAndBytes4bit, BitsAndBytesInt8
from palimpsest.quantizers.compressed.awq import AWQ
from palimpsest.quantizers.compressed.floats import EightBit, Microscale
from palimpsest.quantizers.compressed.integers import GPTQ, RoundToNearest
from palimpsest.quantizers.gguf.backend import GGUF
from palimpsest.quantizers.hqq import HQQ
from palimpsest.quantizers.torchao import TorchAOInt4, TorchAOInt8, TorchAOIntx
from palimpsest.quantizers.unquantized import Unquantized
from palimpsest.vocabulary import UNQUANTIZED

QUANTIZERS: dict[str, type[Quantizer]] = {
    UNQUANTIZED: Unquantized,
    "bnb-int8": BitsAndBytesInt8,
    "bnb-4bit": BitsAndBytes4bit,
    "rtn": RoundToNearest,
    "gptq": GPTQ,
    "gguf": GGUF,
    "hqq": HQQ,
    "torchao-int8": TorchAOInt8,
    "torchao-int4": TorchAOInt4,
    "torchao-intx": TorchAOIntx,
    "awq": AWQ,
    "w8a8": EightBit,
    "microscale": Microscale,
    "auto-gptq": AutoGPTQ,
    "autoawq": AutoAWQ,
}
OF_FILES: dict[str, type[Quantizer]] = {}
"""What loads files that others made and nothing here could make; no block of `quantizers` names one."""


def make_quantizer(settings: Mapping[str, Any]) -> Quantizer:
    """The quantizer of one params block, such as `{backend: rtn, bits: 4, group_size: 128, symmetric: true}`.

    Raises PalimpsestError for an unknown backend, an unknown or missing key, or a value out of range.
    """
    if "backend" not in settings:
        raise PalimpsestError(
            f"the quantizer settings {dict(settings)} have no backend: add one of {sorted(QUANTIZERS)}."
        )
    backend = settings["backend"]
    quantizer = OF_FILES.get(str(backend)) or choose(QUANTIZERS, str(backend), "quantizer backend")
    known = {field.metadata.get("key", field.name): field for field in fields(quantizer)}  # type: ignore[arg-type]
    given = {key: value for key, value in settings.items() if key != "backend"}
    for key in given:
        choose(known, str(key), f"setting of quantizer backend {backend!r}:")
    for key, field in known.items():
        if key not in given and field.default is MISSING:
            raise PalimpsestError(
                f"quantizer backend {backend!r} needs the setting {key!r}: add it to its params block."
            )
    return quantizer(**{known[key].name: value for key, value in given.items()})
