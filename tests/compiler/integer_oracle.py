"""The documented INT8 arithmetic in NumPy with int32 sums: what `compiler/integer.py` must equal."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, NodeProto, helper

from fsmde_edge.graph.model import initializers, value_of


class Oracle:
    """Executes a Q/DQ graph node by node; `values` holds every tensor, `integers` what is dequantised."""

    def __init__(self, model: ModelProto, feeds: dict) -> None:
        self.values = {name: value_of(model.graph, name) for name in initializers(model.graph)} | feeds
        self.integers = {}
        for node in model.graph.node:
            self.values[node.output[0]] = self.run(node)

    def run(self, node: NodeProto):
        inputs = [self.values[name] if name else None for name in node.input]
        attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        if node.op_type in {"Conv", "ConvTranspose", "Gemm", "MatMul"}:
            return self.product(node, attributes)
        if node.op_type == "DequantizeLinear":
            scale = spread(inputs[1], inputs[0].ndim, attributes.get("axis", 1))
            self.integers[node.output[0]] = (inputs[0].astype(np.int32), inputs[1])
            return inputs[0].astype(np.float32) * scale
        return OPERATIONS[node.op_type](attributes, *inputs)

    def product(self, node: NodeProto, attributes):
        (data, scale), (weight, steps) = (self.integers[name] for name in node.input[:2])
        if node.op_type == "MatMul":
            total, shape = data @ weight, (-1,)
        elif node.op_type == "Gemm":
            total, shape = data @ (weight.T if attributes.get("transB") else weight), (-1,)
        else:
            compute = convolve if node.op_type == "Conv" else spread_out
            total, shape = compute(data, weight, **geometry(attributes)), (-1, 1, 1)
            if node.op_type == "ConvTranspose":
                steps = np.tile(steps, attributes.get("group", 1))
        assert total.dtype == np.int32
        made = total.astype(np.float32) * (scale * steps).reshape(shape)
        return made + self.values[node.input[2]].reshape(shape) if len(node.input) > 2 else made


def geometry(attributes) -> dict:
    return {
        "stride": attributes.get("strides", [1, 1]),
        "dilation": attributes.get("dilations", [1, 1]),
        "pads": attributes.get("pads", [0] * 4),
        "groups": attributes.get("group", 1),
    }


def convolve(data, weight, *, stride, dilation, pads, groups):
    data = np.pad(data, ((0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])))
    span = [(k - 1) * d + 1 for k, d in zip(weight.shape[2:], dilation, strict=True)]
    windows = np.lib.stride_tricks.sliding_window_view(data, span, axis=(2, 3))
    windows = windows[:, :, :: stride[0], :: stride[1], :: dilation[0], :: dilation[1]]
    parts = zip(np.split(windows, groups, axis=1), np.split(weight, groups), strict=True)
    return np.concatenate([np.einsum("nchwij,ocij->nohw", x, w) for x, w in parts], axis=1)


def spread_out(data, weight, *, stride, dilation, pads, groups):
    """Transposed convolution: each position adds its value times the kernel."""
    views, _, height, width = data.shape
    tall, wide = ((k - 1) * d + 1 for k, d in zip(weight.shape[2:], dilation, strict=True))
    shape = (views, weight.shape[1], (height - 1) * stride[0] + tall, (width - 1) * stride[1] + wide)
    outs = []
    for x, w in zip(np.split(data, groups, axis=1), np.split(weight, groups), strict=True):
        out = np.zeros(shape, dtype=np.int32)
        for i, j in np.ndindex(*weight.shape[2:]):
            y, z = i * dilation[0], j * dilation[1]
            rows = slice(y, y + height * stride[0], stride[0])
            out[:, :, rows, z : z + width * stride[1] : stride[1]] += np.einsum(
                "nchw,co->nohw", x, w[:, :, i, j]
            )
        outs.append(out[:, :, pads[0] : shape[2] - pads[2], pads[1] : shape[3] - pads[3]])
    return np.concatenate(outs, axis=1)


def spread(scale, rank: int, axis: int):
    return scale if scale.ndim == 0 else scale.reshape([-1 if i == axis else 1 for i in range(rank)])


def quantised(_, value, scale, zero):
    assert not zero.any()
    return np.clip(np.rint(value / scale), -128, 127).astype(np.int8)


def nearest(_, value, __, scales):
    return value.repeat(int(scales[2]), axis=2).repeat(int(scales[3]), axis=3)


OPERATIONS = {
    "Cast": lambda _, x: x.astype(np.float32),
    "Transpose": lambda a, x: x.transpose(a["perm"]),
    "Sub": lambda _, x, y: x - y,
    "Mul": lambda _, x, y: x * y,
    "Add": lambda _, x, y: x + y,
    "Relu": lambda _, x: np.maximum(x, np.float32(0)),
    "Concat": lambda a, *x: np.concatenate(x, axis=a["axis"]),
    "Flatten": lambda _, x: x.reshape(len(x), -1),
    "Reshape": lambda _, x, shape: x.reshape([x.shape[i] if n == 0 else n for i, n in enumerate(shape)]),
    "Squeeze": lambda _, x, axes: x.squeeze(tuple(axes)),
    "Resize": nearest,
    "QuantizeLinear": quantised,
}
