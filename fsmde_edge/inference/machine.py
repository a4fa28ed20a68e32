"""What processor this is: engines for a CPU are measured on one, and mean nothing on another."""

from __future__ import annotations

import platform
from pathlib import Path

INSTRUCTIONS = ("avx2", "avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm")
"""What the kernels of CPU backends are chosen by, as Linux names it."""


def processor() -> str:
    """The processor's name, as the system tells it."""
    names = _values(("model name", "Model"))
    return names[0] if names else platform.processor() or "unknown processor"


def instructions() -> str:
    """Which of `INSTRUCTIONS` the processor has, or that it has none."""
    flags = set(" ".join(_values(("flags", "Features"))).split())
    return " ".join(name for name in INSTRUCTIONS if name in flags) or "none"


def _values(keys: tuple[str, ...]) -> list[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    return [line.partition(":")[2].strip() for line in lines if line.startswith(keys)]
