"""What a DLA takes: every limit of NVIDIA's documentation, at the limit and one beyond it."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper
from toy_depth import Builder

from fsmde_edge.compiler.predict.dla import (
    count_loadables,
    dla_placement,
    dla_way,
    parse_version,
)
from fsmde_edge.errors import UsageError
from fsmde_edge.graph.model import infer_shapes


def network(b: Builder, result: str, shape=(1, 8, 64, 64)):
    """A model of what a builder holds, from the float map `x`."""
    b.nodes.append(helper.make_node("Identity", [result], ["y"], name="last"))
    infos = {"x": (TensorProto.FLOAT, list(shape))}
    model = b.model(infos, {"y": (TensorProto.FLOAT, None)})
    return infer_shapes(model)


def reason(op: str, *constants, way: str = "implicit", shape=(1, 8, 64, 64), **attributes) -> str:
    """Why one node on a map falls back; empty where it does not."""
    b = Builder()
    operands = [b.const(value) if value is not None else "" for value in constants]
    out = b.node(op, "x", *operands, name="node", **attributes)
    found = dla_placement(network(b, out, shape), way)[0]
    assert found.node == "node"
    assert found.on_dla == (not found.reason)
    return found.reason


def weight(*shape: int):
    return np.ones(shape, dtype=np.float32)


@pytest.mark.parametrize(
    ("text", "way"),
    [("8.5.2", "implicit"), ("10.3", "implicit"), ("10.7", "implicit"), ("10.7.99", "implicit"),
     ("11.4.1", "typed"), ("11.5", "typed")],
)  # fmt: skip
def test_two_ways_to_use_a_dla(text, way):
    assert dla_way(parse_version(text)) == way


@pytest.mark.parametrize("text", ["10.8", "10.16", "11.0", "11.3", "11.4", "11.4.0"])
def test_versions_without_dla_are_refused_by_name(text):
    with pytest.raises(UsageError, match=f"TensorRT {text} has no DLA on a Jetson"):
        dla_way(parse_version(text))


@pytest.mark.parametrize("text", ["", "10", "10.", "ten", "10.3.0.1.2", "-1.2", "١.٢"])
def test_what_is_no_version_is_refused(text):
    with pytest.raises(UsageError, match="is no version of TensorRT"):
        parse_version(text)


@pytest.mark.parametrize(
    ("inside", "beyond", "why"),
    [
        (
            {"w": (8, 8, 32, 32), "pads": [16] * 4},
            {"w": (8, 8, 33, 33), "pads": [16] * 4},
            "a kernel edge beyond 32",
        ),
        (
            {"w": (8, 8, 3, 3), "pads": [2] * 4},
            {"w": (8, 8, 3, 3), "pads": [3] * 4},
            "as large as the kernel",
        ),
        ({"w": (8, 8, 3, 3), "strides": [8, 8]}, {"w": (8, 8, 3, 3), "strides": [9, 8]}, "a stride beyond 8"),
        (
            {"w": (8, 8, 2, 1), "dilations": [32, 1]},
            {"w": (8, 8, 2, 1), "dilations": [33, 1]},
            "a dilation beyond 32",
        ),
        ({"w": (8192, 8, 1, 1)}, {"w": (8200, 8, 1, 1)}, "beyond 8192"),
        ({"w": (8, 1, 3, 3), "group": 8}, None, ""),
    ],
    ids=["kernel", "padding", "stride", "dilation", "maps", "depthwise"],
)
def test_limits_of_a_convolution(inside, beyond, why):
    inside = dict(inside)
    assert reason("Conv", weight(*inside.pop("w")), **inside) == ""
    if beyond is not None:
        beyond = dict(beyond)
        assert why in reason("Conv", weight(*beyond.pop("w")), **beyond)


def test_limits_of_a_transposed_convolution():
    good = weight(8, 4, 2, 2)
    assert reason("ConvTranspose", good, strides=[2, 2]) == ""
    assert reason("ConvTranspose", weight(8, 4, 1, 64), strides=[1, 64]) == ""
    assert "kernel edge" in reason("ConvTranspose", weight(8, 4, 64, 64), strides=[2, 2])
    assert "padding" in reason("ConvTranspose", weight(8, 4, 4, 4), strides=[2, 2], pads=[1, 1, 1, 1])
    assert "padding" in reason("ConvTranspose", good, strides=[2, 2], output_padding=[1, 1])
    assert "groups" in reason("ConvTranspose", weight(8, 4, 2, 2), strides=[2, 2], group=2)
    assert "dilation" in reason("ConvTranspose", good, dilations=[2, 2])


def test_limits_of_pooling():
    assert reason("MaxPool", kernel_shape=[8, 8], strides=[16, 16], pads=[7] * 4) == ""
    assert "window" in reason("MaxPool", kernel_shape=[9, 9])
    assert "stride" in reason("AveragePool", kernel_shape=[2, 2], strides=[17, 1])
    assert "dilation" in reason("MaxPool", kernel_shape=[2, 2], dilations=[2, 2])


def resize(factors, mode="nearest", place="asymmetric", rounding="floor") -> str:
    b = Builder()
    scales = b.const(factors)
    out = b.node(
        "Resize", "x", "", scales, name="node", mode=mode, nearest_mode=rounding,
        coordinate_transformation_mode=place,
    )  # fmt: skip
    return dla_placement(network(b, out, (1, 8, 16, 16)), "implicit")[0].reason


def test_limits_of_resize():
    assert resize([1, 1, 2, 2]) == resize([1, 1, 32, 1]) == ""
    assert resize([1, 1, 2, 2], place="half_pixel", rounding="round_prefer_ceil") == ""
    assert resize([1, 1, 4, 4], "linear", "half_pixel") == ""
    assert "whole number to 32" in resize([1, 1, 33, 1])
    assert "whole number to 4" in resize([1, 1, 8, 8], "linear", "half_pixel")
    assert "whole number" in resize([1, 1, 1.5, 1.5])
    assert "whole number" in resize([1, 1, 0.5, 0.5])
    assert "channels" in resize([1, 2, 2, 2])
    assert "coordinates asymmetric" in resize([1, 1, 2, 2], "linear")
    assert "coordinates half_pixel floor" in resize([1, 1, 2, 2], place="half_pixel")
    assert "cubic" in resize([1, 1, 2, 2], "cubic", "half_pixel")


def test_limits_of_softmax():
    assert reason("Softmax", axis=1, shape=(2, 1024, 2, 1)) == ""
    assert "1024" in reason("Softmax", axis=1, shape=(2, 1025, 2, 1))
    assert reason("Softmax", axis=1, shape=(2, 8192, 1, 1)) == ""
    assert "batch" in reason("Softmax", axis=0)
    assert "axes" in reason("Softmax", axis=1, shape=(6, 64))


def test_elementwise_layers_take_two_maps_of_one_shape_or_a_constant():
    assert reason("Add", 1.0) == reason("Mul", np.ones((8, 1, 1))) == ""
    b = Builder()
    pooled = b.node("MaxPool", "x", name="pool", kernel_shape=[8, 8], strides=[8, 8])
    vector = b.node("MaxPool", pooled, name="pool2", kernel_shape=[8, 8])
    both = b.node("Add", "x", b.node("Relu", "x", name="relu"), name="same")
    out = b.node("Mul", both, vector, name="other")
    found = {item.node: item.reason for item in dla_placement(network(b, out), "implicit")}
    assert (found["same"], found["other"]) == ("", "two activations of different shapes")


def test_division_runs_only_where_the_network_is_typed():
    assert "no DLA layer for Div" in reason("Div", 2.0)
    assert reason("Div", 2.0, way="typed") == ""


def test_other_layers():
    assert reason("Clip", 0.0, 6.0) == reason("PRelu", np.ones((8, 1, 1))) == reason("LRN", size=5) == ""
    assert "lower bound" in reason("Clip", -1.0, 1.0)
    assert "window" in reason("LRN", size=11)
    assert reason("Transpose", perm=[0, 2, 3, 1]) == ""
    assert "batch" in reason("Transpose", perm=[1, 0, 2, 3])
    assert "no DLA layer for Exp" in reason("Exp")
    assert "it could be rebuilt" in reason("ReduceMax", keepdims=1)
    assert "beyond 8192" in reason("Relu", shape=(1, 1, 8193, 1))
    assert "batch beyond 4096" in reason("Relu", shape=(4097, 1, 1, 1))


def test_concatenation_joins_channels():
    def join(axis):
        b = Builder()
        out = b.node("Concat", "x", b.node("Relu", "x", name="relu"), name="cat", axis=axis)
        return {item.node: item.reason for item in dla_placement(network(b, out), "implicit")}["cat"]

    assert join(1) == join(-3) == ""
    assert join(2) == join(-1) == "it joins along another axis than the channels"


def test_pieces_between_what_falls_back_are_counted():
    b = Builder()
    first = b.relu(b.conv("x", 8, 8, name="a"), "a.relu")
    gap = b.node("Exp", first, name="gap")
    out = b.relu(b.conv(gap, 8, 8, name="b"), "b.relu")
    model = network(b, out)
    placement = dla_placement(model, "implicit")
    assert [item.node for item in placement if not item.on_dla] == ["gap", "last"]
    assert count_loadables(model, placement) == 2


def test_the_students_convolutions_run_and_its_bins_fall_back(toy):
    found = {item.node: item for item in dla_placement(toy, "implicit")}
    assert all(item.on_dla for item in found.values() if item.kind in {"Conv", "MaxPool", "Concat"})
    assert not any(found[name].on_dla for name in ("cast", "gap", "widths", "edges", "centres", "metres"))
