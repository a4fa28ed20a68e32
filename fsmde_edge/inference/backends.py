"""The table of backends, and the one function that opens a session on a bundle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fsmde_edge.bundle import Bundle
from fsmde_edge.errors import UsageError
from fsmde_edge.inference.session import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """An opened session and why it is this one.

    Attributes:
        session: ready to run.
        reason: what `auto` decided by, or that it was asked for.
    """

    session: Session
    reason: str


def _onnxruntime(bundle: Bundle, precision: str, threads: int | None, exact: bool) -> Session:
    from fsmde_edge.inference.onnxruntime import OnnxRuntimeSession

    return OnnxRuntimeSession(bundle.model(precision), precision=precision, threads=threads, exact=exact)


BACKENDS: Mapping[str, Callable[[Bundle, str, int | None, bool], Session]] = {"onnxruntime": _onnxruntime}
"""Name to factory (bundle, precision, threads, exact arithmetic)."""


def open_session(
    bundle: Bundle,
    *,
    precision: str,
    backend: str = "auto",
    threads: int | None = None,
    exact: bool = False,
) -> Choice:
    """Open a bundle's model; a backend that was named never falls back to another.

    Args:
        bundle: opened.
        precision: fp32, fp16, int8 or int8-fp16; `auto` is int8 where the bundle has it, else fp32.
        backend: a name in `BACKENDS`, or `auto`.
        threads: of one inference; None lets the backend decide.
        exact: Q/DQ arithmetic in float32, for comparisons.

    Raises:
        UsageError: no such backend.
        BundleError: the bundle has no such model.
    """
    if backend != "auto" and backend not in BACKENDS:
        raise UsageError(f"no backend is called {backend}", hint=f"choose from auto, {', '.join(BACKENDS)}")
    reason = "asked for"
    if precision == "auto":
        precision = "int8" if bundle.manifest.models.get("int8") else "fp32"
        reason = f"{precision} is the leanest model in the bundle that runs on a CPU"
    name = "onnxruntime" if backend == "auto" else backend
    return Choice(session=BACKENDS[name](bundle, precision, threads, exact), reason=reason)
