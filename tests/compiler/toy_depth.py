"""A small depth network that keeps the model contract, built node by node."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from fsmde_edge.graph.model import tidy


class Builder:
    """Collects nodes and constants; every method returns the name of a tensor."""

    def __init__(self, seed: int = 0) -> None:
        self.nodes, self.constants = [], []
        self.random = np.random.default_rng(seed)

    def node(self, op: str, *inputs: str, name: str = "", **attributes) -> str:
        name = name or f"{op.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [f"{name}.out"], name=name, **attributes))
        return f"{name}.out"

    def const(self, value, name: str = "", dtype=np.float32) -> str:
        name = name or f"const{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype=dtype), name))
        return name

    def conv(
        self,
        x: str,
        cin: int,
        cout: int,
        k: int = 3,
        stride: int = 1,
        *,
        name: str,
        group: int = 1,
        gain: float = 1.0,
    ) -> str:
        fan = cin // group * k * k
        weight = self.random.normal(size=(cout, cin // group, k, k)) * np.sqrt(2 / fan) * gain
        weight *= np.exp(
            self.random.normal(size=(cout, 1, 1, 1)) * 0.5
        )  # channels differ, as in trained networks
        bias = self.random.normal(size=cout) * 0.1
        return self.node(
            "Conv",
            x,
            self.const(weight, f"{name}.weight"),
            self.const(bias, f"{name}.bias"),
            name=name,
            kernel_shape=[k, k],
            strides=[stride, stride],
            pads=[k // 2] * 4,
            group=group,
        )

    def relu(self, x: str, name: str) -> str:
        return self.node("Relu", x, name=name)

    def upsample(self, x: str, name: str, *, scale: int = 2, mode: str = "nearest") -> str:
        scales = self.const([1, 1, scale, scale])
        extra = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        if mode == "linear":
            extra = {"coordinate_transformation_mode": "half_pixel"}
        return self.node("Resize", x, "", scales, name=name, mode=mode, **extra)

    def model(self, inputs: dict, outputs: dict, *, opset: int = 19, ir: int = 10) -> ModelProto:
        """Inputs and outputs: name to (element type, shape)."""
        infos = [
            [helper.make_tensor_value_info(n, t, s) for n, (t, s) in part.items()]
            for part in (inputs, outputs)
        ]
        graph = helper.make_graph(self.nodes, "toy", *infos, self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)


def normalised(b: Builder) -> str:
    x = b.node("Cast", "images", name="cast", to=TensorProto.FLOAT)
    x = b.node("Transpose", x, name="nchw", perm=[0, 3, 1, 2])
    x = b.node("Sub", x, b.const(128.0), name="centre")
    return b.node("Mul", x, b.const(1 / 64), name="scale")


def block(b: Builder, x: str, cin: int, cout: int, stride: int, name: str) -> str:
    y = b.relu(b.conv(x, cin, cout, 3, stride, name=f"{name}.conv1"), f"{name}.relu1")
    y = b.conv(y, cout, cout, name=f"{name}.conv2")
    short = x if cin == cout and stride == 1 else b.conv(x, cin, cout, 1, stride, name=f"{name}.short")
    return b.relu(b.node("Add", y, short, name=f"{name}.add"), f"{name}.relu2")


def depth_network(
    *,
    views: int = 2,
    height: int = 32,
    width: int = 64,
    channels: int = 8,
    bins: int = 16,
    confidence: bool = False,
) -> ModelProto:
    """A ResNet-like encoder, a decoder with an Add and a Concat skip, a bin head; tidy."""
    b, c = Builder(), channels
    stem = b.relu(b.conv(normalised(b), 3, c, 7, 2, name="stem"), "stem.relu")
    x = b.node("MaxPool", stem, name="pool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    s4 = block(b, x, c, c, 1, "layer1")
    s8 = block(b, s4, c, 2 * c, 2, "layer2")
    s16 = block(b, s8, 2 * c, 4 * c, 2, "layer3")
    x = b.relu(b.conv(b.upsample(s16, "up1"), 4 * c, 2 * c, name="dec1"), "dec1.relu")
    x = b.relu(b.node("Add", x, b.conv(s8, 2 * c, 2 * c, 1, name="skip8"), name="dec1.add"), "dec1.out")
    x = b.node("Concat", b.upsample(x, "up2"), s4, name="dec2.cat", axis=1)
    x = b.relu(b.conv(x, 3 * c, 2 * c, name="dec2"), "dec2.relu")
    probabilities = b.node(
        "Softmax", b.conv(x, 2 * c, bins, 1, name="logits", gain=0.05), name="softmax", axis=1
    )
    centres = bin_centres(b, s16, 4 * c, bins)
    weighted = b.node("Mul", probabilities, centres, name="weigh")
    metres = b.node("ReduceSum", weighted, b.const([1], dtype=np.int64), name="expect", keepdims=1)
    full = b.upsample(metres, "up4", scale=4, mode="linear")
    metres = b.node("Squeeze", full, b.const([1], dtype=np.int64))
    focal = b.node("Reshape", "focal", b.const([views, 1, 1], dtype=np.int64), name="focal.rows")
    factor = b.node("Div", focal, b.const(300.0), name="focal.f0")
    b.nodes.append(helper.make_node("Mul", [metres, factor], ["depth"], name="metres"))
    outputs = {"depth": (TensorProto.FLOAT, [views, height, width])}
    if confidence:
        top = b.node("ReduceMax", probabilities, b.const([1], dtype=np.int64), name="top", keepdims=1)
        top = b.upsample(top, "top4", scale=4, mode="linear")
        b.nodes.append(
            helper.make_node("Squeeze", [top, b.const([1], dtype=np.int64)], ["confidence"], name="sure")
        )
        outputs["confidence"] = outputs["depth"]
    inputs = {"images": (TensorProto.UINT8, [views, height, width, 3]), "focal": (TensorProto.FLOAT, [views])}
    return tidy(b.model(inputs, outputs))


def bin_centres(b: Builder, features: str, channels: int, bins: int) -> str:
    x = b.node("Flatten", b.node("GlobalAveragePool", features, name="gap"), name="flat")
    weight = b.const(b.random.normal(size=(bins, channels)) * 0.1, "head.weight")
    x = b.node("Gemm", x, weight, b.const(np.zeros(bins)), name="head", transB=1)
    widths = b.node("Softmax", x, name="widths", axis=1)
    edges = b.node("CumSum", widths, b.const(1, dtype=np.int64), name="edges")
    inverse = b.node("Add", b.node("Mul", edges, b.const(0.5), name="span"), b.const(0.05), name="shift")
    metres = b.node("Reciprocal", inverse, name="centres")
    return b.node("Reshape", metres, b.const([0, bins, 1, 1], dtype=np.int64), name="centres.map")


def pictures(views: int = 2, height: int = 32, width: int = 64, seed: int = 0) -> NDArray[np.uint8]:
    """Smooth pictures with edges: sums of waves and a few boxes; uint8 [V, H, W, 3]."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / 16
    out = np.empty((views, height, width, 3), dtype=np.uint8)
    for view in out:
        phase = random.uniform(0, 6, size=(3, 3))
        waves = [
            sum(np.sin(x * a + y * d + p) for a, d, p in zip((1, 0.3, 2), (0.5, 2, 1), row, strict=True))
            for row in phase
        ]
        picture = 128 + 40 * np.stack(waves, axis=-1)
        for _ in range(4):
            top, left = random.integers(0, height - 4), random.integers(0, width - 4)
            picture[top : top + height // 4, left : left + width // 4] = random.uniform(0, 255, size=3)
        view[:] = np.clip(picture, 0, 255)
    return out


def focals(views: int = 2) -> NDArray[np.float32]:
    return np.linspace(250, 500, views, dtype=np.float32)
