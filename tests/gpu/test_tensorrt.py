"""TensorRT takes a bundle's models as they are, and finalising proves that its engines are right."""

from __future__ import annotations

import numpy as np
import pytest

from fsmde_edge.bundle import open_bundle
from fsmde_edge.finalise.finalise import FinaliseOptions, finalise
from fsmde_edge.inference.backends import open_session
from fsmde_edge.inference.store import Store
from fsmde_edge.inference.tensorrt import TensorRtBackend
from fsmde_edge.targets import BuilderOptions

pytestmark = pytest.mark.tensorrt


@pytest.fixture
def bundle(small_bundle, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return open_bundle(small_bundle)


@pytest.mark.parametrize("precision", TensorRtBackend.candidates)
def test_every_candidate_is_right_on_this_device(bundle, precision):
    outcome = finalise(bundle, FinaliseOptions(backend="tensorrt", runs=10), print, Store())
    candidate = next(item for item in outcome.candidates if item.precision == precision)
    assert candidate.reasons == ()
    assert candidate.floated == ()
    assert outcome.latency[candidate.label].p50 > 0
    assert outcome.layers[candidate.label]["Layers"]


def test_a_stored_engine_gives_the_same_depth_each_time(bundle):
    outcome = finalise(bundle, FinaliseOptions(backend="tensorrt", runs=1), print, Store())
    outcome.require_winner(bundle.root)
    golden = bundle.golden()
    with open_session(bundle, precision="auto", backend="tensorrt").session as session:
        first, second = (session.infer(golden.images, golden.focal).depth for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_the_second_build_uses_the_timings_of_the_first(bundle):
    backend, model = TensorRtBackend(), bundle.model("int8-fp16").read_bytes()
    for _ in range(2):
        assert backend.build(model, precision="int8-fp16", options=BuilderOptions(), say=print)
        (cache,) = (Store().root / "caches").iterdir()
        assert cache.stat().st_size > 0
