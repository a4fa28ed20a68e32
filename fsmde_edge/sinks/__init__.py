"""Where results go: PNG and NumPy files, mosaics, point clouds, recordings, a live view."""

from __future__ import annotations

from fsmde_edge.sinks.base import Sink
from fsmde_edge.sinks.mcap import McapSink
from fsmde_edge.sinks.mosaic import MosaicPng, MosaicVideo, mosaic, mosaic_sink
from fsmde_edge.sinks.npz import NpzSink
from fsmde_edge.sinks.ply import PlySink
from fsmde_edge.sinks.png import PngSink
from fsmde_edge.sinks.points import PointChoice
from fsmde_edge.sinks.view import ViewSink

__all__ = [
    "McapSink",
    "MosaicPng",
    "MosaicVideo",
    "NpzSink",
    "PlySink",
    "PngSink",
    "PointChoice",
    "Sink",
    "ViewSink",
    "mosaic",
    "mosaic_sink",
]
