"""GStreamer through PyGObject: packages of the system's Python, never of pip's."""

from __future__ import annotations

import contextlib
import ctypes
from importlib import import_module
from typing import Any, NamedTuple

from fsmde_edge.errors import DeviceError

PACKAGES = "python3-gi python3-gst-1.0 gir1.2-gst-plugins-base-1.0 gstreamer1.0-plugins-base"
"""Debian's and Ubuntu's. python3-gst-1.0 is what gives a mapped buffer without a copy."""


class Library(NamedTuple):
    """Its modules, untyped as they are."""

    gst: Any
    video: Any


def load() -> Library:
    """Load and start GStreamer; costs nothing the second time.

    Errors:
        DeviceError: this Python does not see PyGObject, GStreamer's overrides for it, or its typelibs.
    """
    _keep_exceptions()
    try:
        import gi

        for name in ("Gst", "GstApp", "GstVideo"):
            gi.require_version(name, "1.0")
        from gi.repository import Gst, GstApp, GstVideo  # noqa: F401  GstApp gives appsink its methods

        import_module("gi.overrides.Gst")  # silently absent otherwise, and every mapped picture a copy
    except (ImportError, ValueError) as error:
        raise DeviceError(
            f"a GStreamer source needs PyGObject and GStreamer's own part of it ({error})",
            hint=f"run: sudo apt install {PACKAGES}, and make the venv with --system-site-packages",
        ) from error
    Gst.init(None)
    return Library(Gst, GstVideo)


def _keep_exceptions() -> None:
    """Let C++ libraries that are loaded later find the compiler's unwinder.

    Debian's GStreamer brings libunwind, PyGObject loads it for everybody to see, and it has functions of the
    same names: an exception within such a library then aborts the process (seen with onnx). Who comes first
    is found first.
    """
    with contextlib.suppress(OSError):  # another C library: no libgcc_s, and no such clash
        ctypes.CDLL("libgcc_s.so.1", mode=ctypes.RTLD_GLOBAL)
