"""The machine that figures were measured on, in words."""

import platform
from pathlib import Path


def processor() -> str:
    """The name that the CPU has for itself; where Linux does not tell it, that of its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
