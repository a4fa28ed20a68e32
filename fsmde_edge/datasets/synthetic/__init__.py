"""Procedural street scenes with exact depth: the demo's data set and the tests' fixture."""

from fsmde_edge.datasets.synthetic.dataset import SyntheticStreets
from fsmde_edge.datasets.synthetic.rig import Split
from fsmde_edge.datasets.synthetic.writer import write_dgp

RENDERER_VERSION = 1
"""Raised whenever the same seed would give other pictures: rendered caches depend on it."""

__all__ = ["RENDERER_VERSION", "Split", "SyntheticStreets", "write_dgp"]
