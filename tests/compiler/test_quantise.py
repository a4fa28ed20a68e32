"""The middle of the chain: calibrators compared, equalisation and reconstruction on request."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from toy_search import chain

from fsmde_edge.compiler.histogram import CALIBRATORS
from fsmde_edge.compiler.prefix import Walk, one_view
from fsmde_edge.compiler.quantise import Frames, Method, quantise
from fsmde_edge.compiler.trial import make_trial
from fsmde_edge.datasets.synthetic import SyntheticStreets
from fsmde_edge.errors import InputError
from fsmde_edge.evaluation.gate import GateBudget
from fsmde_edge.graph.model import initializers
from fsmde_edge.preprocess import own_pinholes
from fsmde_edge.targets import load_target

PLAIN = Method(calibrator="max", search=False)


@cache
def frames() -> Frames:
    streets = SyntheticStreets("train", scenes=2, width=64, height=32, seed=3)
    rig = streets[0].rig
    return Frames(
        data=[streets],
        pinholes=own_pinholes(rig, 64, 32),
        cameras=rig.names,
        budget=GateBudget(),
        max_depth=200.0,
        allow_few=False,
        recipe="toy",
    )


@cache
def network():
    return chain(views=6, layers=4, channels=6, seed=4)


def quantised(method: Method, said: list[str] | None = None):
    target = load_target("orin-agx-64gb")[0]
    say = (said if said is not None else []).append
    return quantise(network(), "metric", frames(), method, target, threads=1, say=say)


def depth_of(model):
    streets = frames().data[0][0]
    images = np.stack([frame.image for frame in streets.frame_set.frames])
    feeds = [{"images": images[i : i + 1], "focal": np.ones(1, np.float32)} for i in range(len(images))]
    return np.concatenate(Walk(one_view(model), feeds, threads=1).finish())


def test_the_plain_way_leaves_the_network_as_it_is_and_says_what_calibration_saw():
    said: list[str] = []
    result = quantised(PLAIN, said)
    assert result.fp32 is network()
    assert result.plan.calibrator == "max"
    assert result.calibrators == {}
    assert result.search is None
    assert any("calibration saw" in line for line in said)


def test_the_measured_calibrator_is_the_one_of_least_depth_error():
    result = quantised(replace(PLAIN, calibrator="measured"))
    assert set(result.calibrators) == set(CALIBRATORS)
    errors = {name: effect.error for name, effect in result.calibrators.items()}
    assert errors[result.plan.calibrator] == min(errors.values())
    assert max(errors.values()) > min(errors.values())


def test_choosing_for_each_tensor_is_never_worse_than_one_for_all():
    one = quantised(replace(PLAIN, calibrator="measured"))
    each = quantised(replace(PLAIN, calibrator="measured-each"))
    trial = make_trial(network(), frames().data, frames().pinholes, GateBudget(), threads=1)
    assert trial.effect(trial.run(each.model)).error <= trial.effect(trial.run(one.model)).error


def test_equalisation_changes_the_weights_and_not_the_depth():
    result = quantised(replace(PLAIN, equalise=True))
    before, after = initializers(network().graph), initializers(result.fp32.graph)
    assert any(before[name] != after[name] for name in before if name in after)
    np.testing.assert_allclose(depth_of(result.fp32), depth_of(network()), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("change", [{"correct_bias": True}, {"learn_rounding": True}])
def test_reconstruction_happens_when_asked(change):
    plain, changed = quantised(PLAIN), quantised(replace(PLAIN, **change))
    assert plain.plan == changed.plan
    assert plain.model.SerializeToString() != changed.model.SerializeToString()


def test_a_pattern_that_matches_nothing_is_refused_before_any_frame_is_read():
    said: list[str] = []
    with pytest.raises(InputError, match="matches no node"):
        quantised(replace(PLAIN, keep_float=("nothing.*",)), said)
    assert said == []
