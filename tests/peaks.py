"""Memory that a process has taken, measured in that process.

Tests measure in programs of their own, which get at this by `IMPORT`, or by adding this folder
to their path. ``ru_maxrss`` is no use there: on Linux it begins with the peak of the process
that started the program, so that a growth below that of the test run itself shows as nothing.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

__all__ = ["IMPORT", "forget_peak", "peak_bytes", "status_bytes"]

IMPORT = (
    f"import sys; sys.path.append({str(Path(__file__).parent)!r}); "
    "from peaks import forget_peak, peak_bytes\n"
)
"""The first line of a program that measures itself."""


def status_bytes(name: str, pid: int | str = "self") -> int:
    """A size out of ``/proc/<pid>/status`` (Linux); 0 if that process has ended."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) << 10 if found else 0


def peak_bytes() -> int:
    """The most memory that this process has had resident, since `forget_peak` or its start."""
    if peak := status_bytes("VmHWM"):
        return peak
    import resource

    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return usage if sys.platform == "darwin" else usage << 10


def forget_peak() -> int:
    """Let the peak begin anew (Linux), with what is resident now; that many bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return status_bytes("VmRSS")
