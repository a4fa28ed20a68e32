"""What finalising a bundle on this machine left for those who run it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from fsmde_edge.bundle import Bundle
from fsmde_edge.errors import DeviceError
from fsmde_edge.inference.program import Backend
from fsmde_edge.inference.store import Receipt, Store, differences

State = Literal["fits", "absent", "stale", "foreign"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What the store holds of a bundle for a backend.

    Attributes:
        state: `fits`: an engine for this machine as it is; `stale`: one for this hardware before an upgrade;
            `foreign`: only engines for other hardware; `absent`: none.
        receipt: of the engine that fits, the fastest where several do; or the newest of the others.
        changed: in what its identity differs from this machine's.
    """

    state: State
    receipt: Receipt | None = None
    changed: tuple[str, ...] = ()


def find_engine(store: Store, bundle: Bundle, backend: Backend, *, precision: str = "auto") -> Finding:
    """Look for an engine that this machine may run.

    Args:
        store: where.
        bundle: opened.
        backend: whose engine.
        precision: of the engine; `auto` takes any.

    Raises:
        MissingExtra, DeviceError: the backend is not there; or the store is not to be trusted.
        InputError: a receipt is damaged.
    """
    identity = backend.identity()  # says first what is missing here
    receipts = store.receipts(bundle.hash, backend.name)
    wanted = [r for r in receipts if precision in {"auto", r.key.precision}]
    if not wanted:
        return Finding(state="absent")
    fitting = [r for r in wanted if not differences(r.key.identity, identity)]
    if fitting:
        return Finding(state="fits", receipt=min(fitting, key=lambda r: r.latency_ms["p50"]))
    here = [r for r in wanted if _hardware(r.key.identity, backend) == _hardware(identity, backend)]
    newest = (here or wanted)[0]
    return Finding(
        state="stale" if here else "foreign",
        receipt=newest,
        changed=tuple(differences(newest.key.identity, identity)),
    )


def require_engine(store: Store, bundle: Bundle, backend: Backend, *, precision: str = "auto") -> Receipt:
    """The receipt of an engine that this machine may run.

    Raises:
        DeviceError: there is none; what there is instead is named.
    """
    found = find_engine(store, bundle, backend, precision=precision)
    if found.state == "fits" and found.receipt is not None:
        return found.receipt
    kind = backend.name if precision == "auto" else f"{backend.name} {precision}"
    what = {
        "stale": f"the {kind} engine was built before an upgrade ({'; '.join(found.changed)})",
        "foreign": f"the {kind} engine was built elsewhere ({'; '.join(found.changed)}) and is not used",
    }.get(found.state, f"there is no {kind} engine of this bundle on this machine")
    raise DeviceError(what, where=bundle.root, hint=f"run: fsmde-edge finalise --backend {backend.name}")


def _hardware(identity: Mapping[str, str], backend: Backend) -> list[str | None]:
    return [identity.get(name) for name in backend.hardware]
