"""Quantizers by backend name (`registry`), and what proves that they quantized."""

from palimpsest.quantizers.as_it_is import AS_IT_IS, AsItIs
from palimpsest.quantizers.base import QuantizedMatrix, Quantizer
from palimpsest.quantizers.proof import prove
from palimpsest.quantizers.registry import OF_FILES, QUANTIZERS, make_quantizer

OF_FILES[AS_IT_IS] = AsItIs  # which knows all others

__all__ = ["QUANTIZERS", "QuantizedMatrix", "Quantizer", "make_quantizer", "prove"]
