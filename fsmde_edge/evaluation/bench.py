"""Latency of every model of a bundle, side by side, with what is needed to compare two machines."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from fsmde_edge.bundle import PRECISIONS, Bundle, open_bundle
from fsmde_edge.errors import FsmdeError
from fsmde_edge.evaluation.latency import Latency, side_by_side
from fsmde_edge.files import atomic_write
from fsmde_edge.inference.backends import open_session
from fsmde_edge.inference.session import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchResult:
    """What was measured.

    Attributes:
        bundle: its hash.
        machine: processor and system, in words.
        views: of one frame set.
        latency: model to latency; empty where it was stopped before one whole turn.
        sessions: model to what ran it.
    """

    bundle: str
    machine: str
    views: int
    latency: Mapping[str, Latency]
    sessions: Mapping[str, str]

    @property
    def base_p50(self) -> float:
        """Median of FP32, which the others are compared with."""
        return self.latency["fp32"].p50

    def save(self, path: Path) -> None:
        """Write JSON."""
        atomic_write(path, json.dumps(asdict(self), indent=1).encode() + b"\n")


def bench_bundle(path: Path, *, runs: int, warmup: int, threads: int) -> BenchResult:
    """Time every model that this machine can run, in turn, on the bundle's golden frames, until Ctrl-C.

    Args:
        path: a bundle.
        runs, warmup: counted and uncounted runs of each model.
        threads: of one inference.
    """
    bundle = open_bundle(path)
    golden = bundle.golden()
    sessions = _sessions(bundle, threads)
    calls = {
        name: (lambda s=session: s.infer(golden.images, golden.focal)) for name, session in sessions.items()
    }
    latency = side_by_side(calls, runs=runs, warmup=warmup, stoppable=True)
    for session in sessions.values():
        session.close()
    return BenchResult(
        bundle=bundle.hash,
        machine=f"{processor()}, {platform.system()} {platform.machine()}",
        views=len(golden.focal),
        latency=latency,
        sessions={name: session.detail for name, session in sessions.items()},
    )


def processor() -> str:
    """The processor's name, as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown processor"
    names = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model"))]
    return names[0] if names else platform.processor() or "unknown processor"


def _sessions(bundle: Bundle, threads: int) -> dict[str, Session]:
    sessions = {}
    for precision in PRECISIONS:
        if bundle.manifest.models.get(precision):
            sessions[precision] = open_session(bundle, precision=precision, threads=threads).session
    if "fp32" not in sessions:
        raise FsmdeError("the bundle has no FP32 model to compare with", where=bundle.root)
    return sessions
