"""The formats of a new study where nobody names any."""

DEFAULTS = (("bnb-nf4",), ("gptq", "hqq-int4", "rtn-int4"), ("gguf-q4_k_m", "gguf-q4_0"))
"""Of each row the first that fits the target."""
