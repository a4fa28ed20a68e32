"""Depth metrics, as the field defines them (Eigen et al., NeurIPS 2014, section 4.2), in float64."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

NAMES = ("abs_rel", "sq_rel", "rmse", "rmse_log", "d1", "d2", "d3")
DISTANCE_BANDS = ((0.0, 10.0), (10.0, 30.0), (30.0, 80.0), (80.0, float("inf")))
"""Metres of ground truth; each band includes its lower edge."""

LEAST_DEPTH = 1e-3
"""A prediction below this (or not finite) counts as this: logarithms stay finite, the error stays large."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DepthMetrics:
    """Errors of one set of pixels against ground truth.

    Attributes:
        abs_rel: mean |d − g| / g.
        sq_rel: mean (d − g)² / g, metres.
        rmse: √ mean (d − g)², metres.
        rmse_log: √ mean (ln d − ln g)².
        d1, d2, d3: share of pixels with max(d / g, g / d) < 1.25, 1.25², 1.25³.
    """

    abs_rel: float
    sq_rel: float
    rmse: float
    rmse_log: float
    d1: float
    d2: float
    d3: float

    def as_dict(self) -> dict[str, float]:
        """Name to value."""
        return asdict(self)


def depth_metrics(depth: Values, truth: Values) -> DepthMetrics:
    """Metrics over paired values.

    Args:
        depth: float [N], predicted metres.
        truth: float [N], ground truth in metres, all positive; N ≥ 1.
    """
    truth = truth.astype(np.float64)
    depth = np.maximum(np.nan_to_num(depth.astype(np.float64), nan=0, posinf=0, neginf=0), LEAST_DEPTH)
    error = depth - truth
    log_error = np.log(depth) - np.log(truth)
    ratio = np.maximum(depth / truth, truth / depth)
    return DepthMetrics(
        abs_rel=float(np.mean(np.abs(error) / truth)),
        sq_rel=float(np.mean(error**2 / truth)),
        rmse=float(np.sqrt(np.mean(error**2))),
        rmse_log=float(np.sqrt(np.mean(log_error**2))),
        d1=float(np.mean(ratio < 1.25)),
        d2=float(np.mean(ratio < 1.25**2)),
        d3=float(np.mean(ratio < 1.25**3)),
    )


def mean_metrics(rows: Iterable[DepthMetrics]) -> DepthMetrics:
    """The mean of each metric; every row counts the same."""
    table = np.array([[getattr(row, name) for name in NAMES] for row in rows])
    return DepthMetrics(**{name: float(v) for name, v in zip(NAMES, table.mean(axis=0), strict=True)})
