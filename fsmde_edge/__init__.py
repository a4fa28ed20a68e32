"""fsmde-edge: full-surround monocular depth on the edge, from checkpoint to a verified INT8 bundle."""

__version__ = "0.1.0"
