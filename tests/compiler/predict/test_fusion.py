"""Which nodes become one kernel, rule by rule (F1 to F10 of the module): small graphs and a real one."""

from __future__ import annotations

import time

import numpy as np
import pytest
from onnx import TensorProto

from fsmde_edge.compiler.half import to_half
from fsmde_edge.compiler.predict.fusion import fuse
from fsmde_edge.graph.model import tidy


class Graph:
    """A graph of [2, C, 16, 16] maps with hand-placed Q/DQ pairs."""

    def __init__(self) -> None:
        from toy_depth import Builder

        self.b = Builder(1)
        self.zero = self.b.const(0, "zero", dtype=np.int8)

    def pair(self, x: str, scale: float = 0.1, name: str = "") -> str:
        name = name or x.removesuffix(".out")
        s = self.b.const(np.float32(scale), f"{name}.s{len(self.b.constants)}")
        q = self.b.node("QuantizeLinear", x, s, self.zero, name=f"{name}.q{len(self.b.nodes)}")
        return self.b.node("DequantizeLinear", q, s, self.zero, name=f"{name}.dq{len(self.b.nodes)}")

    def conv(self, x: str, cin: int, cout: int, name: str, *, int8: bool = True, group: int = 1) -> str:
        if not int8:
            return self.b.conv(x, cin, cout, name=name, group=group)
        w = self.b.const(self.b.random.integers(-9, 9, (cout, cin // group, 3, 3)), f"{name}.w", np.int8)
        s, z = self.b.const(np.full(cout, 0.01)), self.b.const(np.zeros(cout), dtype=np.int8)
        w = self.b.node("DequantizeLinear", w, s, z, name=f"{name}.wdq", axis=0)
        bias = self.b.const(np.zeros(cout))
        return self.b.node("Conv", x, w, bias, name=name, kernel_shape=[3, 3], pads=[1] * 4, group=group)

    def kernels(self, result: str, *, channels: int = 32, out: int | None = None, side: int = 16):
        self.b.node("Identity", result, name="last")
        self.b.nodes[-1].output[0] = "y"
        shapes = {"x": (TensorProto.FLOAT, [2, channels, 16, 16])}
        result_shape = [2, channels if out is None else out, side, side]
        return fuse(tidy(self.b.model(shapes, {"y": (TensorProto.FLOAT, result_shape)})))


def holds(kernels, name: str):
    return next(kernel for kernel in kernels if name in kernel.nodes)


def test_f1_float_convolution_sum_and_relu_are_one_kernel():
    g = Graph()
    a = g.conv("x", 32, 32, "a", int8=False)
    y = g.b.relu(g.b.node("Add", a, "x", name="sum"), "relu")
    (kernel,) = g.kernels(y)
    assert kernel.nodes == ("a", "sum", "relu")
    assert (kernel.kind, kernel.precision) == ("conv", "fp32")
    assert kernel.macs == kernel.padded_macs == 2 * 16 * 16 * 32 * 32 * 9
    assert kernel.read_bytes == kernel.write_bytes * 1 == 2 * 32 * 16 * 16 * 4
    assert kernel.weight_bytes == (32 * 32 * 9 + 32) * 4


def test_f1_nothing_but_quantize_follows_a_relu():
    g = Graph()
    a = g.b.relu(g.conv("x", 32, 32, "a", int8=False), "relu")
    kernels = g.kernels(g.b.node("Add", a, "x", name="sum"))
    assert [kernel.nodes for kernel in kernels] == [("a", "relu"), ("sum",)]


def test_f2_one_operand_alone_stays_float():
    g = Graph()
    kernel = holds(g.kernels(g.conv("x", 32, 32, "a")), "a")
    assert kernel.precision == "fp32"
    assert "only its weights" in kernel.note


def test_f3_quantize_belongs_to_the_integer_convolution():
    g = Graph()
    a = g.pair(g.b.relu(g.conv(g.pair("x"), 32, 32, "a"), "relu"))
    kernels = g.kernels(g.conv(a, 32, 32, "b"))
    first, last = holds(kernels, "a"), holds(kernels, "b")
    assert any(".q" in name for name in first.nodes)
    assert (first.precision, first.write_bytes) == ("int8", 2 * 32 * 16 * 16)
    assert (last.precision, last.write_bytes) == ("int8", 2 * 32 * 16 * 16 * 4)


def residual(*, skip: bool, own: bool):
    g = Graph()
    x = g.pair("x")
    a = g.conv(x, 32, 32, "a")
    total = g.b.node("Add", g.pair(a) if own else a, x if skip else "x", name="sum")
    y = g.conv(g.pair(g.b.relu(total, "relu")), 32, 32, "b")
    return g.kernels(y)


def test_f3_a_float_skip_costs_a_quantize_of_its_own():
    kernels = residual(skip=False, own=False)
    kernel = holds(kernels, "sum")
    assert "a" in kernel.nodes
    assert "float" in kernel.note
    assert any(k.kind == "quantize" and "relu" in k.name for k in kernels)


def test_f4_a_pair_between_convolution_and_sum_makes_two_kernels_of_one():
    fused, split = residual(skip=True, own=False), residual(skip=True, own=True)
    assert holds(fused, "sum") is holds(fused, "a")
    assert holds(split, "sum").kind == "elementwise"
    assert holds(split, "sum").precision == "int8"
    assert len(split) == len(fused) + 1
    assert sum(k.read_bytes + k.write_bytes for k in split) > sum(k.read_bytes + k.write_bytes for k in fused)


def test_f5_silu_and_what_quantises_it_are_one_elementwise_kernel():
    g = Graph()
    a = g.conv(g.pair("x"), 32, 32, "a")
    silu = g.b.node("Mul", a, g.b.node("Sigmoid", a, name="gate"), name="silu")
    kernels = g.kernels(g.conv(g.pair(silu), 32, 32, "b"))
    kernel = holds(kernels, "silu")
    assert kernel.kind == "elementwise"
    assert {"gate", "silu"} < set(kernel.nodes)
    assert kernel.write_bytes == 2 * 32 * 16 * 16


def test_f6_a_nearest_resize_of_one_scale_runs_on_integers_and_another_scale_requantises():
    counts = {}
    for scale in (0.1, 0.2):
        g = Graph()
        up = g.pair(g.b.upsample(g.pair("x", 0.1), "up"), scale)
        kernels = g.kernels(g.conv(up, 32, 32, "a"), side=32)
        assert holds(kernels, "up").precision == "int8"
        counts[scale] = len(kernels)
        assert any(k.kind == "requantize" for k in kernels) == (scale != 0.1)
    assert counts[0.2] == counts[0.1] + 1


def test_f7_a_bilinear_resize_is_dequantised_before_and_quantised_behind():
    g = Graph()
    up = g.pair(g.b.upsample(g.pair("x"), "up", mode="linear"))
    kinds = [kernel.kind for kernel in g.kernels(g.conv(up, 32, 32, "a"), side=32)]
    assert kinds == ["quantize", "dequantize", "resize", "quantize", "conv"]


def test_f8_channels_are_padded_and_depthwise_pays_for_it():
    g = Graph()
    kernel = holds(g.kernels(g.conv(g.pair("x"), 24, 40, "a"), channels=24, out=40), "a")
    assert kernel.padded_macs * 24 * 40 == kernel.macs * 32 * 64
    g = Graph()
    depthwise = holds(g.kernels(g.conv(g.pair("x"), 64, 64, "a", group=64), channels=64), "a")
    assert (depthwise.kind, depthwise.precision) == ("depthwise", "int8")
    assert depthwise.padded_macs == 32 * depthwise.macs
    g = Graph()
    kernel = holds(g.kernels(g.conv("x", 64, 64, "a", int8=False, group=64), channels=64), "a")
    assert kernel.padded_macs == kernel.macs


def test_f9_rows_are_reformatted_where_packed_channels_are_read():
    g = Graph()
    kernels = g.kernels(g.b.node("Softmax", g.conv("x", 32, 32, "a", int8=False), name="soft", axis=1))
    assert [kernel.kind for kernel in kernels] == ["conv", "softmax"]
    g = Graph()
    x = g.b.node("Cast", "x", name="down", to=TensorProto.FLOAT16)
    weight = g.b.const(np.ones((32, 32, 3, 3)), "w", np.float16)
    a = g.b.node("Conv", x, weight, name="a", kernel_shape=[3, 3], pads=[1] * 4)
    soft = g.b.node("Softmax", a, name="soft", axis=1)
    kernels = g.kernels(g.b.node("Cast", soft, name="up", to=TensorProto.FLOAT))
    assert [kernel.kind for kernel in kernels] == [
        "elementwise",
        "conv",
        "reformat",
        "softmax",
        "elementwise",
    ]


@pytest.mark.parametrize(("channels", "copies"), [(32, 0), (24, 1)])
def test_f10_a_concat_of_full_packs_costs_nothing(channels, copies):
    g = Graph()
    x = g.pair("x")
    parts = [g.pair(g.conv(x, channels, channels, name), 0.1) for name in ("a", "b")]
    cat = g.pair(g.b.node("Concat", *parts, name="cat", axis=1), 0.1)
    kernels = g.kernels(g.conv(cat, 2 * channels, 32, "c"), channels=channels, out=32)
    assert sum(kernel.kind == "copy" for kernel in kernels) == copies


def test_products_of_two_activations_and_transposed_convolutions_count_their_work():
    g = Graph()
    turned = g.b.node("Transpose", "x", name="turn", perm=[0, 1, 3, 2])
    kernel = holds(g.kernels(g.b.node("MatMul", "x", turned, name="product")), "product")
    assert kernel.macs == 2 * 32 * 16 * 16 * 16
    assert kernel.weight_bytes == 0
    g = Graph()
    weight = g.b.const(np.ones((32, 24, 2, 2)), "w")
    up = g.b.node("ConvTranspose", "x", weight, name="up", kernel_shape=[2, 2], strides=[2, 2])
    kernel = holds(g.kernels(up, out=24, side=32), "up")
    assert (kernel.kind, kernel.precision) == ("deconv", "fp32")
    assert kernel.macs == kernel.padded_macs == 2 * 32 * 16 * 16 * 24 * 4


def test_every_node_is_in_at_most_one_kernel_and_no_work_is_lost(toy, toy_int8):
    from fsmde_edge.graph.model import tensor_types
    from fsmde_edge.graph.structure import computing_nodes, macs

    types = tensor_types(toy)
    work = sum(macs(node, types) for node in computing_nodes(toy))
    for model in (toy, to_half(toy), toy_int8, to_half(toy_int8)):
        kernels = fuse(model)
        names = [name for kernel in kernels for name in kernel.nodes]
        assert len(names) == len(set(names))
        assert sum(kernel.macs for kernel in kernels) == work
        assert all(k.read_bytes + k.write_bytes > 0 and k.padded_macs >= k.macs for k in kernels)


def test_all_convolutions_of_the_plan_compute_in_int8(toy_int8):
    kernels = [kernel for kernel in fuse(toy_int8) if kernel.kind == "conv"]
    assert {kernel.precision for kernel in kernels} == {"int8"}
    assert [kernel.note for kernel in kernels if kernel.note] == []


def test_the_model_is_fast_enough_for_a_search(toy_int8):
    start = time.perf_counter()
    for _ in range(10):
        fuse(toy_int8)
    assert (time.perf_counter() - start) / 10 < 0.05
