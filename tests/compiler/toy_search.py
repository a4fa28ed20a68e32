"""What the tests of the search share: small networks, their ranges, their INT8 forms."""

from __future__ import annotations

from functools import cache

import numpy as np
from onnx import ModelProto, TensorProto, helper
from toy_depth import Builder, block, focals, normalised, pictures

from fsmde_edge.compiler.calibrate import CalibrationBatch, Ranges, calibrate
from fsmde_edge.compiler.lowering.tensorrt import lower
from fsmde_edge.compiler.plan import PlanOptions
from fsmde_edge.compiler.prefix import feeds_of, one_view
from fsmde_edge.graph.model import tensor_types, tidy

OPTIONS = PlanOptions(calibrator="max")


def finished(b: Builder, features: str, *, views: int = 2, size=(32, 64)) -> ModelProto:
    """A network of the contract around one channel of features at network size."""
    b.node("Squeeze", features, b.const([1], dtype=np.int64), name="squeeze")
    b.nodes[-1].output[0] = "depth"
    inputs = {"images": (TensorProto.UINT8, [views, *size, 3]), "focal": (TensorProto.FLOAT, [views])}
    return tidy(b.model(inputs, {"depth": (TensorProto.FLOAT, [views, *size])}))


def chain(
    *, layers: int = 3, channels: int = 4, seed: int = 0, views: int = 2, mixing: bool = False
) -> ModelProto:
    """Convolutions one behind the other, the last one to depth; `mixing` makes views depend on each other."""
    b = Builder(seed)
    x = normalised(b)
    if mixing:
        mean = b.node("ReduceMean", x, b.const([0], dtype=np.int64), name="mean", keepdims=1)
        x = b.node("Sub", x, mean, name="less")
    width = 3
    for number in range(layers - 1):
        x = b.relu(b.conv(x, width, channels, name=f"conv{number}"), f"relu{number}")
        width = channels
    return finished(b, b.conv(x, width, 1, name="out"), views=views)


def frames(model: ModelProto, *seeds: int) -> list[CalibrationBatch]:
    views, height, width = tensor_types(model)["depth"].shape
    return [
        CalibrationBatch(images=pictures(views, height, width, seed), focal=focals(views), valid=views)
        for seed in seeds
    ]


def ranges_of(model: ModelProto, options: PlanOptions = OPTIONS) -> Ranges:
    return calibrate(model, frames(model, 0, 1), options.place(model).calibrate, threads=1)


def int8(model: ModelProto, options: PlanOptions = OPTIONS) -> ModelProto:
    return lower(model, options.plan(model, ranges_of(model, options)))


def feeds(model: ModelProto, *, most: int = 2):
    return feeds_of(frames(model, 7, 8), single=one_view(model) is not None, most=most)


def feature_network() -> tuple[Builder, str]:
    """A residual block, a Concat skip and a sum in the decoder: 8 channels at half size."""
    b = Builder(2)
    stem = b.relu(b.conv(normalised(b), 3, 6, 5, 2, name="stem"), "stem.relu")
    x = block(b, block(b, stem, 6, 6, 1, "layer1"), 6, 8, 2, "layer2")
    x = b.node("Concat", b.upsample(x, "up"), stem, name="cat", axis=1)
    x = b.relu(b.conv(x, 14, 8, name="dec"), "dec.relu")
    return b, b.relu(b.node("Add", x, b.conv(stem, 6, 8, 1, name="skip"), name="sum"), "sum.relu")


@cache
def toy() -> ModelProto:
    """Metres between 2 and 22 of two independent views; a softened edge, as trained networks have it."""
    b, features = feature_network()
    x = b.upsample(b.conv(features, 8, 1, name="logit", gain=0.15), "full", mode="linear")
    x = b.node("Mul", b.node("Sigmoid", x, name="sigmoid"), b.const(20.0), name="span")
    x = b.node(
        "Squeeze", b.node("Add", x, b.const(2.0), name="near"), b.const([1], dtype=np.int64), name="flat"
    )
    focal = b.node("Reshape", "focal", b.const([-1, 1, 1], dtype=np.int64), name="focal.rows")
    b.nodes.append(
        helper.make_node("Mul", [x, b.node("Div", focal, b.const(300.0), name="ratio")], ["depth"])
    )
    inputs = {"images": (TensorProto.UINT8, [2, 32, 64, 3]), "focal": (TensorProto.FLOAT, [2])}
    return tidy(b.model(inputs, {"depth": (TensorProto.FLOAT, [2, 32, 64])}))


@cache
def toy_ranges() -> Ranges:
    """The toy's calibration."""
    return ranges_of(toy())
