"""The table of backends, and the one function that opens a session on a bundle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fsmde_edge.bundle import Bundle
from fsmde_edge.errors import BundleError, UsageError
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
        BundleError: the bundle has no such model, or one of another size than its manifest says.
    """
    if backend != "auto" and backend not in BACKENDS:
        raise UsageError(f"no backend is called {backend}", hint=f"choose from auto, {', '.join(BACKENDS)}")
    reason = "asked for"
    if precision == "auto":
        precision = "int8" if bundle.manifest.models.get("int8") else "fp32"
        reason = f"{precision} is the leanest model in the bundle that runs on a CPU"
    name = "onnxruntime" if backend == "auto" else backend
    session = BACKENDS[name](bundle, precision, threads, exact)
    expected = (len(bundle.manifest.views), *bundle.manifest.size)
    if session.shape != expected:
        raise BundleError(
            f"is damaged: a network of {session.shape}, where the manifest says {expected}",
            where=bundle.model(precision),
            hint="copy or build the bundle again",
        )
    return Choice(session=session, reason=reason)
