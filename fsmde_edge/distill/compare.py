"""Paired comparison of training methods over scenes and seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

RESAMPLES = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A method minus another, with a 95 % interval.

    Attributes:
        mean: of scenes and seeds.
        low, high: ends of the interval.
        seeds: how many both have.
    """

    mean: float
    low: float
    high: float
    seeds: int

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


def paired_difference(one: Values, other: Values, *, seed: int = 0) -> Difference:
    """Mean of one − other, and its percentile bootstrap over scenes and seeds, each drawn for both alike.

    Source: the percentile bootstrap of Efron and Tibshirani, "An Introduction to the Bootstrap", 1993,
    ch. 13; drawing seeds and scenes crosswise is ours: neither are runs of one scene independent, nor scenes
    of one run.

    Args:
        one, other: float [seeds, scenes], of the same seeds and scenes.
        seed: of the draws.
    """
    if one.shape != other.shape or one.ndim != 2 or not one.size:
        raise ValueError(f"results of shapes {one.shape} and {other.shape} are no pairs")
    apart = one - other
    random = np.random.default_rng(seed)
    seeds, scenes = apart.shape
    # How often each is drawn; a mean over draws is a product of two such weights.
    seed_weight = random.multinomial(seeds, np.full(seeds, 1 / seeds), RESAMPLES) / seeds
    scene_weight = random.multinomial(scenes, np.full(scenes, 1 / scenes), RESAMPLES) / scenes
    means = np.einsum("rs,sc,rc->r", seed_weight, apart, scene_weight)
    low, high = np.quantile(means, (0.025, 0.975))
    return Difference(mean=float(apart.mean()), low=float(low), high=float(high), seeds=seeds)


def by_scene(runs: Sequence[Mapping[str, Any]], value: str) -> Values:
    """A value of every run and scene, float [runs, scenes]; scenes where any run has none are left out.

    Args:
        runs: results as `ablate` writes them, of the same frame sets.
        value: a key of a frame set's score.

    Raises:
        ValueError: the runs are of different frame sets.
    """
    names = [tuple(one["name"] for one in run["sets"]) for run in runs]
    if len(set(names)) != 1:
        raise ValueError("runs of different frame sets cannot be compared")
    table = np.array([[one[value] for one in run["sets"]] for run in runs], dtype=np.float64)
    return np.asarray(table[:, ~np.isnan(table).any(axis=0)])
