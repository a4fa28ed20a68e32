"""Engines for those who run a bundle: one that fits lies in the store, one that does not exist is made."""

from __future__ import annotations

from fsmde_edge.bundle import Bundle
from fsmde_edge.errors import DeviceError
from fsmde_edge.finalise.finalise import FinaliseOptions, finalise
from fsmde_edge.inference.backends import backend_of
from fsmde_edge.inference.finalised import find_engine
from fsmde_edge.inference.program import Say
from fsmde_edge.inference.store import Store


def ensure_engine(
    bundle: Bundle, backend: str, *, say: Say, threads: int | None = None, allow_failed: bool = False
) -> None:
    """Finalise a bundle for a backend whose engines are stored, unless one fits this machine as it is.

    An upgrade makes the old engine useless, and it is built again. One for other hardware was carried here by
    somebody, and is not replaced unasked.

    Args:
        bundle: opened.
        backend: a name, or `auto`, for which nothing is built.
        say: called with what is done, and why.
        threads: of one inference.
        allow_failed: see `FinaliseOptions`.

    Raises:
        DeviceError: the store holds engines for other hardware only; or as `finalise`.
        GateFailed: no engine is right.
    """
    if backend == "auto" or not backend_of(backend).stores:
        return
    store, chosen = Store(), backend_of(backend)
    found = find_engine(store, bundle, chosen)
    if found.state == "fits":
        return
    if found.state == "foreign":
        raise DeviceError(
            f"the {backend} engine was built elsewhere ({'; '.join(found.changed)}) and is not used",
            where=bundle.root,
            hint=f"run: fsmde-edge finalise {bundle.root} --backend {backend}",
        )
    if found.state == "stale":
        why = "; ".join(found.changed)
        say(f"the {backend} engine was built before an upgrade ({why}): building it again")
    else:
        say(f"this bundle has no {backend} engine on this machine yet: building it")
    options = FinaliseOptions(backend=backend, threads=threads, allow_failed=allow_failed)
    outcome = finalise(bundle, options, say, store)
    outcome.require_winner(bundle.root)
