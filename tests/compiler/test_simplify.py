"""Simplification that changes no result."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from toy_depth import Builder, depth_network, focals, normalised, pictures

from fsmde_edge.compiler import simplify as module
from fsmde_edge.compiler.simplify import fold_batch_norms, run_model, simplify
from fsmde_edge.errors import InputError
from fsmde_edge.graph.model import copy_model, interface, tidy

FEEDS = {"images": pictures(), "focal": focals()}


def with_batch_norm(*, bias: bool = True):
    b = Builder(1)
    x = b.conv(normalised(b), 3, 4, name="conv")
    if not bias:
        del b.nodes[-1].input[2]
    values = [b.random.uniform(0.5, 2, 4) for _ in range(4)]
    names = [b.const(value, f"norm.{i}") for i, value in enumerate(values)]
    x = b.conv(
        b.relu(b.node("BatchNormalization", x, *names, name="norm", epsilon=1e-3), "relu"), 4, 1, name="out"
    )
    b.node("Squeeze", x, b.const([1], dtype=np.int64), name="squeeze")
    b.nodes[-1].output[0] = "depth"
    inputs = {"images": (TensorProto.UINT8, [2, 32, 64, 3]), "focal": (TensorProto.FLOAT, [2])}
    return tidy(b.model(inputs, {"depth": (TensorProto.FLOAT, [2, 32, 64])}))


def test_constants_are_folded_and_the_network_computes_the_same():
    model = depth_network()
    long_way = copy_model(model)
    reshape = next(node for node in long_way.graph.node if node.name == "focal.rows")
    shape = helper.make_node("Concat", ["one", "two", "two"], ["made_shape"], axis=0)
    long_way.graph.node.insert(0, shape)
    for name, value in (("one", 2), ("two", 1)):
        long_way.graph.initializer.append(numpy_helper.from_array(np.array([value], np.int64), name))
    reshape.input[1] = "made_shape"
    simple = simplify(tidy(long_way), FEEDS)
    assert interface(simple) == interface(model)
    assert len(simple.graph.node) <= len(model.graph.node)
    np.testing.assert_allclose(run_model(simple, FEEDS)["depth"], run_model(model, FEEDS)["depth"], rtol=1e-4)


@pytest.mark.parametrize("bias", [True, False])
def test_batch_norms_are_folded(bias: bool):
    model = with_batch_norm(bias=bias)
    folded = copy_model(model)
    assert fold_batch_norms(folded.graph) == 1
    folded = tidy(folded)
    assert "BatchNormalization" not in {node.op_type for node in folded.graph.node}
    np.testing.assert_allclose(
        run_model(folded, FEEDS)["depth"], run_model(model, FEEDS)["depth"], rtol=1e-4, atol=1e-4
    )
    assert fold_batch_norms(folded.graph) == 0
    assert "BatchNormalization" not in {node.op_type for node in simplify(model, FEEDS).graph.node}


def test_without_pictures_a_fixed_pattern_is_compared():
    model = with_batch_norm()
    assert interface(simplify(model)) == interface(model)


def test_a_simplifier_that_changes_results_is_caught(monkeypatch):
    def wrong(model, where):
        changed = copy_model(model)
        bias = next(weight for weight in changed.graph.initializer if weight.name == "out.bias")
        bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32(0.1), "out.bias"))
        return changed

    monkeypatch.setattr(module, "_onnxsim", wrong)
    with pytest.raises(InputError, match="computes something else once simplified: depth"):
        simplify(with_batch_norm(), FEEDS)


def test_a_network_that_gives_no_numbers_is_told_so():
    model = with_batch_norm()
    scale = next(weight for weight in model.graph.initializer if weight.name == "out.bias")
    scale.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(scale) * np.float32(np.inf), "out.bias"))
    with pytest.raises(InputError, match="values of depth that are not finite"):
        simplify(model, FEEDS)
