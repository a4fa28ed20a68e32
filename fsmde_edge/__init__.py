"""fsmde-edge: full-surround monocular depth on the edge, from checkpoint to a verified INT8 bundle.

    import fsmde_edge as fe

    for depths in fe.run("bundle", cameras="/dev/video0-5"):
        ...

Names are loaded when they are first used: importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fsmde_edge.api import run
    from fsmde_edge.errors import FsmdeError
    from fsmde_edge.frames import DepthSet

__version__ = "0.1.0"
__all__ = ["DepthSet", "FsmdeError", "run"]

_HOMES = {"run": "api", "FsmdeError": "errors", "DepthSet": "frames"}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
