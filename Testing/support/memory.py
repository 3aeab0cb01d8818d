"""The memory that a process has needed at most."""

import sys
from pathlib import Path


def peak_mb() -> float:
    """MB of this process at its peak.

    On Linux the kernel's own mark of the process: `ru_maxrss` begins at the size of the process that started this one.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) / 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)
