from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fsmde_edge.evaluation.metrics import NAMES, DepthMetrics, depth_metrics, mean_metrics

metres = st.floats(0.1, 200.0)
maps = st.lists(st.tuples(metres, metres), min_size=1, max_size=200)


def in_plain_python(pairs):
    """The definitions of Eigen et al. with no array in sight."""
    n = len(pairs)
    within = [max(d / g, g / d) for d, g in pairs]
    return {
        "abs_rel": math.fsum(abs(d - g) / g for d, g in pairs) / n,
        "sq_rel": math.fsum((d - g) ** 2 / g for d, g in pairs) / n,
        "rmse": math.sqrt(math.fsum((d - g) ** 2 for d, g in pairs) / n),
        "rmse_log": math.sqrt(math.fsum(math.log(d / g) ** 2 for d, g in pairs) / n),
        "d1": sum(w < 1.25 for w in within) / n,
        "d2": sum(w < 1.5625 for w in within) / n,
        "d3": sum(w < 1.953125 for w in within) / n,
    }


def in_torch(depth, truth):
    d, g = torch.from_numpy(depth), torch.from_numpy(truth)
    worst = torch.stack((d / g, g / d)).amax(dim=0)
    log = torch.log(d).sub(torch.log(g))
    return {
        "abs_rel": ((d - g).abs() / g).mean().item(),
        "sq_rel": ((d - g).pow(2) / g).mean().item(),
        "rmse": torch.nn.functional.mse_loss(d, g).sqrt().item(),
        "rmse_log": log.pow(2).mean().sqrt().item(),
        **{f"d{i}": (worst < 1.25**i).double().mean().item() for i in (1, 2, 3)},
    }


@given(maps)
def test_metrics_equal_an_independent_implementation(pairs):
    depth, truth = np.array(pairs, dtype=np.float64).T
    assert depth_metrics(depth, truth).as_dict() == pytest.approx(in_plain_python(pairs), rel=1e-6, abs=1e-6)


@given(st.integers(0, 2**32 - 1))
def test_metrics_of_random_maps_equal_torchs(seed):
    rng = np.random.default_rng(seed)
    truth = rng.uniform(0.1, 200, (48, 64))
    depth = truth * np.exp(rng.normal(0, 0.4, truth.shape))
    ours = depth_metrics(depth.ravel(), truth.ravel()).as_dict()
    assert ours == pytest.approx(in_torch(depth, truth), rel=1e-6, abs=1e-6)


def test_a_perfect_prediction():
    truth = np.linspace(1, 80, 50)
    assert depth_metrics(truth, truth).as_dict() == {**dict.fromkeys(NAMES, 0.0), "d1": 1, "d2": 1, "d3": 1}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -3.0, 0.0])
def test_a_prediction_that_is_none_counts_as_wrong(value):
    found = depth_metrics(np.array([value]), np.array([10.0]))
    assert found.abs_rel == pytest.approx(1.0, abs=1e-3)
    assert found.d3 == 0
    assert math.isfinite(found.rmse_log)


@given(st.lists(maps, min_size=1, max_size=5))
def test_every_row_of_a_mean_counts_the_same(rows):
    each = [depth_metrics(*np.array(pairs).T) for pairs in rows]
    mean = mean_metrics(each)
    assert isinstance(mean, DepthMetrics)
    for name in NAMES:
        assert getattr(mean, name) == pytest.approx(sum(getattr(r, name) for r in each) / len(each))
