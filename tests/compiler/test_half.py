"""Float16 forms of a network."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, numpy_helper
from test_lowering import compile_int8, run
from toy_depth import depth_network, pictures

from fsmde_edge.compiler.half import float32_nodes, to_half
from fsmde_edge.errors import InputError
from fsmde_edge.graph.model import interface, model_bytes, tensor_types, tidy
from fsmde_edge.inference.unsigned import round_half


@pytest.fixture(scope="module")
def model():
    return depth_network(channels=32, confidence=True)


def test_inputs_and_outputs_keep_their_types_and_the_file_halves(model):
    half = to_half(model)
    assert interface(half) == interface(model)
    assert len(model_bytes(half)) < 0.52 * len(model_bytes(model))
    assert model_bytes(tidy(half)) == model_bytes(half)


def test_features_are_half_and_what_is_delicate_is_not(model):
    types = tensor_types(to_half(model))
    for name in ("scale.out", "stem.out", "dec2.cat.out", "logits.out"):
        assert types[name].dtype == TensorProto.FLOAT16
    for name in ("softmax.out", "gap.out", "edges.out", "centres.out", "weigh.out", "expect.out", "up4.out"):
        assert types[name].dtype == TensorProto.FLOAT
    assert "stem" not in float32_nodes(model)


def test_half_computes_nearly_the_same(model):
    images = pictures(seed=4)
    reference = run(model, images)
    assert np.mean(np.abs(run(to_half(model), images) - reference) / reference) < 0.005


def test_a_constant_beyond_float16_keeps_its_node_in_float32():
    model = depth_network()
    bias = next(weight for weight in model.graph.initializer if weight.name == "dec2.bias")
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32(1e6), "dec2.bias"))
    assert "dec2" in float32_nodes(model)
    assert tensor_types(to_half(model))["dec2.out"].dtype == TensorProto.FLOAT


def test_a_second_conversion_is_refused(model):
    with pytest.raises(InputError, match="half precision already"):
        to_half(to_half(model))


def test_int8_with_float16_rest_means_the_same_as_with_float32_rest(model):
    _, int8 = compile_int8(model)
    half = to_half(int8)
    scales = [weight for weight in half.graph.initializer if "_scale" in weight.name]
    assert {weight.data_type for weight in scales} == {TensorProto.FLOAT16}
    wide = {weight.name: numpy_helper.to_array(weight) for weight in int8.graph.initializer}
    for scale in scales:
        name = scale.name.removesuffix("_half")
        assert (numpy_helper.to_array(scale).astype(np.float32) == wide[name]).all(), (
            "scales are float16 numbers"
        )
    images = pictures(seed=4)
    reference = run(int8, images, exact=True)
    found = run(round_half(half), images, exact=True)
    assert np.mean(np.abs(found - reference) / reference) < 0.02
