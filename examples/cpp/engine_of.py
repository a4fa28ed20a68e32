"""Take a bundle's engine out of the engine store, checked: python engine_of.py BUNDLE ENGINE."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from fsmde_edge.bundle import open_bundle
from fsmde_edge.errors import DeviceError, FsmdeError, UsageError
from fsmde_edge.files import atomic_write
from fsmde_edge.inference.backends import backend_of
from fsmde_edge.inference.finalised import find_engine
from fsmde_edge.inference.store import Store


def take(bundle: Path, out: Path, backend: str = "tensorrt") -> None:
    """Write the engine that fits this machine; the store checks its owner, mode and hash before.

    Errors:
        FsmdeError: no engine fits, or it is not to be trusted.
    """
    store = Store()
    found = find_engine(store, open_bundle(bundle), backend_of(backend))
    if found.receipt is None or found.state != "fits":
        raise DeviceError(
            f"no {backend} engine fits this machine",
            where=bundle,
            hint=f"run: fsmde-edge finalise {bundle} --backend {backend}",
        )
    engine = store.engine(found.receipt)
    atomic_write(out, engine)
    out.chmod(0o600)


def main() -> int:
    """The command."""
    os.umask(0o077)
    try:
        if len(sys.argv) != 3:
            raise UsageError("a bundle and a file are needed", hint="python engine_of.py BUNDLE ENGINE")
        take(Path(sys.argv[1]), Path(sys.argv[2]))
    except FsmdeError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
