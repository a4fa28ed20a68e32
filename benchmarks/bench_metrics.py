"""Evaluation at DDAD's size: metrics beside their textbook formulas, sparse sampling beside upsampling."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from fsmde_edge.evaluation.metrics import depth_metrics
from fsmde_edge.evaluation.sampling import at_pixels, lidar_pixels

NATIVE, NETWORK = (1216, 1936), (384, 640)
RETURNS = 15_000  # of one DDAD sweep in one camera, about


@pytest.fixture(scope="module")
def pairs():
    """(prediction, truth), float64 [RETURNS], metres."""
    rng = np.random.default_rng(0)
    truth = rng.uniform(1, 200, RETURNS)
    return truth * rng.normal(1, 0.1, RETURNS).clip(0.5, 2), truth


@pytest.fixture(scope="module")
def maps():
    """(depth float32 at network size, LiDAR float32 at native size with 0 = none)."""
    rng = np.random.default_rng(1)
    truth = np.zeros(NATIVE, np.float32)
    truth.ravel()[rng.choice(truth.size, RETURNS, replace=False)] = rng.uniform(1, 200, RETURNS)
    return rng.uniform(1, 200, NETWORK).astype(np.float32), truth


@pytest.mark.benchmark(group=f"metrics of {RETURNS} returns")
class BenchMetrics:
    """Seven numbers."""

    def test_textbook(self, benchmark, pairs):
        """The peer: each formula on its own."""
        benchmark(textbook, *pairs)

    def test_ours(self, benchmark, pairs):
        """Ours, which also survives predictions that are not numbers."""
        assert tuple(benchmark(depth_metrics, *pairs).as_dict().values()) == pytest.approx(textbook(*pairs))


@pytest.mark.benchmark(group=f"prediction at {RETURNS} returns of one picture")
class BenchSampling:
    """What the bilinear upsampling of a whole map says at the LiDAR's pixels."""

    def test_upsample_the_map(self, benchmark, maps):
        """The peer."""
        benchmark(upsampled, *maps)

    def test_sample_the_pixels(self, benchmark, maps):
        """Ours: the same values at those pixels alone."""
        depth, truth = maps

        def sampled():
            u, v, _ = lidar_pixels(truth)
            return at_pixels(depth, u, v, truth.shape)

        np.testing.assert_allclose(benchmark(sampled), upsampled(depth, truth), rtol=1e-3)


def textbook(depth, truth):
    """Abs Rel, Sq Rel, RMSE, RMSE log, and the shares below 1.25, 1.25², 1.25³."""
    shares = [np.mean(np.maximum(depth / truth, truth / depth) < 1.25**n) for n in (1, 2, 3)]
    return (
        np.mean(np.abs(depth - truth) / truth),
        np.mean((depth - truth) ** 2 / truth),
        np.sqrt(np.mean((depth - truth) ** 2)),
        np.sqrt(np.mean((np.log(depth) - np.log(truth)) ** 2)),
        *shares,
    )


def upsampled(depth, truth):
    """The whole map at native size, then the pixels with a return."""
    return cv2.resize(depth, truth.shape[::-1], interpolation=cv2.INTER_LINEAR)[truth > 0]
