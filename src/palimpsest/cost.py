"""What a piece of work costs: seconds and peak memory. Kept apart from manifests, which two equal runs share byte for byte."""

import resource
import sys
import time
from types import TracebackType
from typing import Any

MIB = 1 << 20


class Cost:
    """Measures a `with` block: wall seconds, and the peak memory in MiB of this process, its children and the accelerator so far."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __enter__(self) -> "Cost":
        self.started = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.seconds = time.monotonic() - self.started

    def record(self) -> dict[str, Any]:
        """{"seconds", "peak_mib": resident memory, of a child where that took more, "device_peak_mib": None without one}."""
        peaks = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        unit = 1 if sys.platform == "darwin" else 1 << 10
        torch = sys.modules.get("torch")
        device = torch.cuda.max_memory_allocated() / MIB if torch and torch.cuda.is_available() else None
        return {
            "seconds": round(self.seconds, 2),
            "peak_mib": round(max(peaks) * unit / MIB),
            "device_peak_mib": device and round(device),
        }
