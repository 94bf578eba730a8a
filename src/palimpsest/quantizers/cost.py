"""What a piece of work costs: seconds and peak memory.
Kept apart from manifests, which two equal runs share byte for byte."""

import resource
import sys
import time
from types import TracebackType
from typing import Any

MIB = 1 << 20
_device_peaks: list[int] = []
"""Bytes on the accelerator that child processes have reported: their parent's torch knows nothing of them."""


def note_device_peak(size: int) -> None:
    """Report the most bytes that a child process had on the accelerator;
    every `Cost` of this process that ends later counts it."""
    _device_peaks.append(size)


class Cost:
    """Measures a `with` block: wall seconds, and the peak memory in MiB of this process,
    its children and the accelerator up to its end."""

    def __enter__(self) -> "Cost":
        self.started = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.seconds = time.monotonic() - self.started
        peaks = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        self.peak = max(peaks) * (1 if sys.platform == "darwin" else 1 << 10)
        torch = sys.modules.get("torch")
        own = [torch.cuda.max_memory_allocated()] if torch and torch.cuda.is_available() else []
        self.device_peak = max([*own, *_device_peaks], default=None)

    @property
    def device(self) -> str:
        """Where the work was done: "cuda" when it took memory there, else "cpu"."""
        return "cuda" if self.device_peak else "cpu"

    def record(self) -> dict[str, Any]:
        """{"seconds", "peak_mib": resident memory, of a child where that took more,
        "device_peak_mib": None without an accelerator}."""
        device = self.device_peak
        return {
            "seconds": round(self.seconds, 2),
            "peak_mib": round(self.peak / MIB),
            "device_peak_mib": None if device is None else round(device / MIB, 1),
        }
