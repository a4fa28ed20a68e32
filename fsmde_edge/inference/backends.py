"""The table of backends, and the one function that opens a session on a bundle."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fsmde_edge.bundle import Bundle
from fsmde_edge.errors import BundleError, FsmdeError, UsageError
from fsmde_edge.inference.finalised import find_engine, require_engine
from fsmde_edge.inference.onnxruntime import NAME, OnnxRuntimeBackend, OnnxRuntimeSession
from fsmde_edge.inference.openvino import OpenVinoBackend
from fsmde_edge.inference.program import Backend, ModelSession
from fsmde_edge.inference.session import Session
from fsmde_edge.inference.store import Chosen, Receipt, Store, differences
from fsmde_edge.inference.tensorrt import TensorRtBackend
from fsmde_edge.targets import BuilderOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """An opened session and why it is this one.

    Attributes:
        session: ready to run.
        reason: what `auto` decided by, or that it was asked for.
    """

    session: Session
    reason: str


BACKENDS: Mapping[str, Callable[[], Backend]] = {
    NAME: OnnxRuntimeBackend,
    "openvino": OpenVinoBackend,
    "tensorrt": TensorRtBackend,
}
"""Name to factory. A factory imports nothing heavy: `identity`, `build` and `load` do."""


def backend_of(name: str) -> Backend:
    """A backend by name.

    Raises:
        UsageError: there is none of that name.
    """
    if name not in BACKENDS:
        raise UsageError(f"no backend is called {name}", hint=f"choose from auto, {', '.join(BACKENDS)}")
    return BACKENDS[name]()


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
        precision: fp32, fp16, int8 or int8-fp16; `auto` is what finalising chose, or else int8 where the
            bundle has it, or else fp32.
        backend: a name in `BACKENDS`; `auto` is what finalising on this machine chose, else ONNX Runtime.
        threads: of one inference; None lets the backend decide.
        exact: Q/DQ arithmetic in float32, for comparisons: ONNX Runtime alone has it.

    Raises:
        UsageError: no such backend, or none with exact arithmetic.
        BundleError: the bundle has no such model, or one of another size than its manifest says.
        DeviceError: the backend is not there, or the engine store has no engine of it for this machine.
    """
    if exact:
        if backend not in {"auto", NAME}:
            raise UsageError(f"{backend} has no exact arithmetic", hint=f"use {NAME} for comparisons")
        return _checked(bundle, _plain(bundle, backend_of(NAME), precision, threads, exact=True), "exact")
    if backend == "auto":
        return _automatic(bundle, precision, threads)
    chosen = backend_of(backend)
    if chosen.stores:
        receipt = require_engine(Store(), bundle, chosen, precision=precision)
        return _checked(bundle, _stored(receipt, threads), "asked for")
    return _checked(bundle, _plain(bundle, chosen, _leanest(bundle, precision), threads), "asked for")


def open_models(
    bundle: Bundle, models: Sequence[str], *, backend: str = "auto", threads: int | None = None
) -> dict[str, Session]:
    """Sessions of several of a bundle's models on one backend, for comparisons.

    Args:
        bundle: opened.
        models: fp32, fp16, int8 or int8-fp16; those that the bundle has and the backend runs are opened.
        backend: a name; `auto` is the one that finalising chose, else ONNX Runtime.
        threads: of one inference.

    Returns:
        Model to session; a backend that runs INT8 beside float16 alone does so for int8 too.
    """
    if backend == "auto":
        chosen = Store().chosen(bundle.hash)
        backend = NAME if chosen is None or _still_valid(chosen) else chosen.key.backend
    opened: dict[str, Session] = {}
    for model in models:
        precision = _form(bundle, backend_of(backend), model)
        if precision is not None and bundle.manifest.models.get(precision):
            choice = open_session(bundle, precision=precision, backend=backend, threads=threads)
            opened[model] = choice.session
    return opened


def _form(bundle: Bundle, backend: Backend, model: str) -> str | None:
    """The precision in which a backend runs a model here; None where it does not."""
    if not backend.stores:
        return model
    forms = [name for name in backend.candidates if name == model or name.startswith(f"{model}-")]
    store = Store()
    found = (name for name in forms if find_engine(store, bundle, backend, precision=name).state == "fits")
    return next(found, None)


def _automatic(bundle: Bundle, precision: str, threads: int | None) -> Choice:
    """What finalising chose, where that is still valid; else ONNX Runtime. The reason says which and why."""
    store = Store()
    chosen = store.chosen(bundle.hash)
    if chosen is None:
        why = "the bundle was not finalised on this machine"
    elif precision not in {"auto", chosen.key.precision}:
        why = f"finalise chose {chosen.key.label}, and {precision} was asked for"
    else:
        found = _still_valid(chosen)
        receipt = store.receipt(chosen.key) if not found else None
        if receipt is not None:
            return _checked(bundle, _stored(receipt, threads), chosen.reason)
        why = found or f"the engine of {chosen.key.label} is gone"
    precision = _leanest(bundle, precision)
    reason = f"{why}; {precision} on ONNX Runtime is the leanest that runs everywhere"
    return _checked(bundle, _plain(bundle, backend_of(NAME), precision, threads), reason)


def _still_valid(chosen: Chosen) -> str:
    """Why what was chosen cannot be used any more; empty where it can."""
    try:
        changed = differences(chosen.key.identity, backend_of(chosen.key.backend).identity())
    except FsmdeError as error:  # uninstalled, or its device is gone
        return f"finalise chose {chosen.key.label}, and {error.what}"
    return f"{chosen.key.label} was finalised for something else ({'; '.join(changed)})" if changed else ""


def _leanest(bundle: Bundle, precision: str) -> str:
    if precision != "auto":
        return precision
    return "int8" if bundle.manifest.models.get("int8") else "fp32"


def _plain(
    bundle: Bundle, backend: Backend, precision: str, threads: int | None, *, exact: bool = False
) -> Session:
    """A bundle's model, made ready now."""
    path = bundle.model(precision)
    if backend.name == NAME:
        return OnnxRuntimeSession(path, precision=precision, threads=threads, exact=exact)
    engine = backend.build(
        path.read_bytes(), precision=precision, options=BuilderOptions(), say=lambda _: None
    )
    program = backend.load(engine, precision=precision, threads=threads)
    return ModelSession(program, precision=precision, where=path)


def _stored(receipt: Receipt, threads: int | None) -> Session:
    """An engine from the store."""
    backend, precision = backend_of(receipt.key.backend), receipt.key.precision
    program = backend.load(Store().engine(receipt), precision=precision, threads=threads)
    return ModelSession(program, precision=precision)


def _checked(bundle: Bundle, session: Session, reason: str) -> Choice:
    expected = (len(bundle.manifest.views), *bundle.manifest.size)
    if session.shape != expected:
        session.close()
        raise BundleError(
            f"is damaged: a network of {session.shape}, where the manifest says {expected}",
            where=bundle.model(session.precision),
            hint="copy or build the bundle again",
        )
    return Choice(session=session, reason=reason)
