"""Processes that load models, made lighter: transformers without what it imports for no other reason than that it is
installed (three of eight seconds), and memory that is kept between tensors."""

import ctypes
import importlib
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from palimpsest.runtime import curves
from palimpsest.runtime.devices import check_gpus
from palimpsest.runtime.kernels import multiply_in_float32

OPTIONAL = ("datasets", "hqq", "pandas", "peft", "scipy", "sklearn", "torchao", "torchaudio", "torchvision")
"""Packages that transformers looks for and imports, and that training and inference do not need it to know."""


@contextmanager
def hidden(packages: Collection[str]) -> Iterator[None]:
    """Within it these packages look as if they were not installed; what is imported already stays."""
    names = [name for name in packages if name not in sys.modules]
    sys.modules.update(dict.fromkeys(names))  # type: ignore[arg-type] # None is how Python marks what cannot be imported
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]


class Deferred:
    """A module that is imported when something of it is first used:
    planning reads the tables of modules whose functions need torch."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(importlib.import_module(self.name), attribute)


M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""glibc's names and numbers of what mallopt sets (malloc.h)."""


def keep_freed_memory() -> None:
    """Let the C library keep memory that is freed, for the next tensor, instead of handing it back to the system.

    Otherwise every large tensor starts with pages that the kernel has to clear: half the time of HQQ, a twentieth of a
    training step. Does nothing where the C library is another than glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def import_transformers(needed: Collection[str] = (), training: bool = False) -> None:
    """Import what loads and runs models, and trains them;
    transformers asks once and remembers that the packages not `needed` are absent.

    Afterwards they can be imported as ever. Products of bfloat16 matrices are made in float32 where a CPU has no
    kernels for them (palimpsest.runtime.kernels). To be called before anything else imports transformers: once that has
    asked, what it found must stay importable, and nothing is hidden. Training writes curves where the environment asks
    for them (palimpsest.runtime.curves). Raises PalimpsestError in a job whose GPUs torch cannot use.
    """
    check_gpus()
    keep_freed_memory()
    with hidden(() if "transformers" in sys.modules else set(OPTIONAL) - set(needed)):
        from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM  # noqa: F401

        if training:
            from transformers import Trainer  # noqa: F401
    multiply_in_float32()
    if training:
        curves.attach()
