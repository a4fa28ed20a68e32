"""Ranges of a network's tensors on frames."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto
from toy_depth import Builder, depth_network, focals, normalised, pictures

from fsmde_edge.compiler.calibrate import CalibrationBatch, Ranges, calibrate, single_view
from fsmde_edge.compiler.histogram import Histogram
from fsmde_edge.compiler.plan import place
from fsmde_edge.compiler.simplify import run_model
from fsmde_edge.errors import InputError
from fsmde_edge.graph.model import copy_model, tidy


@pytest.fixture(scope="module")
def model():
    return depth_network(views=3)


def batches(count: int, valid: int = 3):
    for seed in range(count):
        yield CalibrationBatch(images=pictures(3, seed=seed), focal=focals(3), valid=valid)


def all_values(model, tensors, frames):
    probe = copy_model(model)
    known = {info.name: info for info in probe.graph.value_info}
    probe.graph.output.extend(known[name] for name in tensors)
    runs = [run_model(probe, {"images": frame.images, "focal": frame.focal}) for frame in frames]
    return {n: np.concatenate([r[n][: f.valid] for r, f in zip(runs, frames, strict=True)]) for n in tensors}


@pytest.mark.parametrize("valid", [3, 2])
def test_ranges_are_those_of_the_values_that_valid_views_make(model, valid: int):
    tensors = place(model).calibrate
    seen = []
    ranges = calibrate(model, batches(2, valid), tensors, progress=seen.append, threads=1)
    assert ranges.views == seen[-1] == 2 * valid
    for name, values in all_values(model, tensors, list(batches(2, valid))).items():
        found = ranges.tensors[name]
        assert found.count == values.size
        assert found.max == pytest.approx(np.abs(values).max(), rel=1e-5)
        assert found.mean == pytest.approx(np.abs(values).mean(), rel=1e-4)
        assert found.negative == (values.min() < 0)


def test_views_are_calibrated_one_by_one_where_they_are_independent(model):
    single = single_view(model, list(place(model).calibrate))
    assert single is not None
    assert [info.name for info in single.graph.input] == ["images"]


def mixing_network():
    """Subtracts the mean picture of all views before its convolution."""
    b = Builder()
    x = normalised(b)
    mean = b.node("ReduceMean", x, b.const([0], dtype=np.int64), name="mean", keepdims=1)
    x = b.conv(b.node("Sub", x, mean, name="less"), 3, 4, name="conv")
    x = b.conv(b.relu(x, "relu"), 4, 1, name="out")
    b.node("Squeeze", x, b.const([1], dtype=np.int64), name="squeeze")
    b.nodes[-1].output[0] = "depth"
    inputs = {"images": (TensorProto.UINT8, [3, 32, 64, 3]), "focal": (TensorProto.FLOAT, [3])}
    return tidy(b.model(inputs, {"depth": (TensorProto.FLOAT, [3, 32, 64])}))


def test_views_that_depend_on_each_other_are_calibrated_together():
    model = mixing_network()
    tensors = place(model).calibrate
    assert single_view(model, list(tensors)) is None
    ranges = calibrate(model, batches(2, valid=2), tensors, threads=1)
    for name, values in all_values(model, tensors, list(batches(2, valid=2))).items():
        assert ranges.tensors[name].count == values.size
        assert ranges.tensors[name].max == pytest.approx(np.abs(values).max(), rel=1e-5)


def test_ranges_come_back_equal_from_json(model, tmp_path):
    ranges = calibrate(model, batches(1), place(model).calibrate, threads=1)
    ranges.save(tmp_path / "ranges.json")
    assert Ranges.load(tmp_path / "ranges.json") == ranges
    with pytest.raises(InputError, match="version 2"):
        Ranges.from_json(ranges.to_json().replace('"version": 1', '"version": 2'))
    with pytest.raises(InputError, match="no calibration ranges"):
        Ranges.from_json("[]")


def test_no_frames_and_frames_of_another_size_are_refused(model):
    with pytest.raises(InputError, match="no frames"):
        calibrate(model, [], place(model).calibrate)
    wrong = CalibrationBatch(images=pictures(3, 64, 64), focal=focals(3), valid=3)
    with pytest.raises(InputError, match=r"shape \[3, 64, 64, 3\]"):
        calibrate(model, [wrong], place(model).calibrate)
    with pytest.raises(InputError, match="4 valid views of 3"):
        CalibrationBatch(images=pictures(3), focal=focals(3), valid=4)


def test_memory_of_a_histogram_does_not_grow():
    histogram = Histogram()
    sizes = set()
    for power in range(-20, 20):
        histogram.add(np.full(100, 2.0**power, dtype=np.float32))
        sizes.add(histogram.counts.nbytes)
    assert len(sizes) == 1
    assert histogram.count == 4000
