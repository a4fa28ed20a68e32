"""One thread, one core; medians and ratios at the end.

    pytest benchmarks --benchmark-enable --benchmark-only

In every group the first benchmark is the measure: the others are printed as multiples of its median.
"""

from __future__ import annotations

import os
from itertools import groupby

import pytest

for library in ("OMP", "OPENBLAS", "MKL"):  # read when NumPy is first imported
    os.environ[f"{library}_NUM_THREADS"] = "1"


@pytest.fixture(scope="session", autouse=True)
def _one_core():
    """The last core that this process may use, and one thread in OpenCV."""
    import cv2

    allowed, threads = os.sched_getaffinity(0), cv2.getNumThreads()
    os.sched_setaffinity(0, {max(allowed)})
    cv2.setNumThreads(1)
    yield
    os.sched_setaffinity(0, allowed)
    cv2.setNumThreads(threads)


def pytest_terminal_summary(terminalreporter, config) -> None:
    """Median of each benchmark, and its multiple of the first of its group."""
    session = getattr(config, "_benchmarksession", None)
    done = [bench for bench in session.benchmarks if bench.stats.data] if session else []
    if not done:
        return
    terminalreporter.section("medians, one thread")
    for group, benches in groupby(done, key=lambda bench: bench.group):
        terminalreporter.write_line(str(group))
        first: float | None = None
        for bench in benches:
            median = bench.stats.median
            first = median if first is None else first
            name = bench.name.removeprefix("test_")
            terminalreporter.write_line(f"  {name:32s} {median * 1e3:10.3f} ms  x {median / first:.2f}")
