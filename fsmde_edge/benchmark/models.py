"""Latency of every model of a bundle on its golden frames, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fsmde_edge.bundle import PRECISIONS, Bundle
from fsmde_edge.errors import DeviceError
from fsmde_edge.evaluation.latency import Latency, side_by_side
from fsmde_edge.inference.backends import open_models


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelTimes:
    """What was measured.

    Attributes:
        latency: model to latency; empty where it was stopped before one whole turn.
        sessions: model to what ran it.
        stopped: whether Ctrl-C ended it early.
    """

    latency: Mapping[str, Latency]
    sessions: Mapping[str, str]
    stopped: bool

    @property
    def base_p50(self) -> float:
        """Median of the widest model that ran, FP32 as a rule, which the others are compared with."""
        return self.latency[self.base].p50

    @property
    def base(self) -> str:
        """The model that the others are compared with."""
        return next(name for name in PRECISIONS if name in self.latency)


def bench_models(
    bundle: Bundle, *, runs: int, warmup: int, threads: int, backend: str = "auto"
) -> ModelTimes:
    """Time every model that this machine can run, in turn, on the bundle's golden frames, until Ctrl-C.

    Args:
        bundle: opened.
        runs, warmup: counted and uncounted runs of each model.
        threads: of one inference.
        backend: that runs them (see `backends.open_models`).

    Raises:
        DeviceError: the backend runs none of its models.
    """
    golden = bundle.golden()
    sessions = open_models(bundle, PRECISIONS, backend=backend, threads=threads)
    if not sessions:
        raise DeviceError(
            f"{backend} runs none of this bundle's models",
            where=bundle.root,
            hint=f"run: fsmde-edge finalise --backend {backend}",
        )
    calls = {
        name: (lambda s=session: s.infer(golden.images, golden.focal)) for name, session in sessions.items()
    }
    latency = side_by_side(calls, runs=runs, warmup=warmup, stoppable=True)
    for session in sessions.values():
        session.close()
    return ModelTimes(
        latency=latency,
        sessions={name: session.detail for name, session in sessions.items()},
        stopped=not latency or any(row.runs < runs for row in latency.values()),
    )
