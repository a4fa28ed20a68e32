"""Where results go: PNG and NumPy files, mosaics."""

from __future__ import annotations

from fsmde_edge.sinks.base import Sink
from fsmde_edge.sinks.mosaic import MosaicPng, MosaicVideo, mosaic, mosaic_sink
from fsmde_edge.sinks.npz import NpzSink
from fsmde_edge.sinks.png import PngSink

__all__ = ["MosaicPng", "MosaicVideo", "NpzSink", "PngSink", "Sink", "mosaic", "mosaic_sink"]
