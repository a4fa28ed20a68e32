"""Backends with a planted fault: ONNX Runtime, which builds one block's kernel wrong."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import ModelProto, helper, load_model_from_string

from fsmde_edge.graph.model import add_constant, model_bytes
from fsmde_edge.inference.onnxruntime import OnnxRuntimeBackend
from fsmde_edge.inference.program import Backend


class Planted(OnnxRuntimeBackend):
    """ONNX Runtime, but for what is done to each INT8 model before it is built; counts its builds."""

    def __init__(self, spoil: Callable[[ModelProto], None], candidates: tuple[str, ...] = ("int8", "fp32")):
        self.spoil, self.candidates, self.builds = spoil, candidates, 0

    def build(self, model, *, precision, options, say):
        self.builds += 1
        proto = load_model_from_string(model)
        if precision.startswith("int8"):
            self.spoil(proto)
        return super().build(model_bytes(proto), precision=precision, options=options, say=say)


def wrong_scale(tensor: str, factor: float) -> Callable[[ModelProto], None]:
    """The block that makes a tensor writes integers of a scale that its readers do not know."""

    def spoil(model: ModelProto) -> None:
        for i, node in enumerate(model.graph.node):
            if node.op_type == "QuantizeLinear" and node.output[0] == f"{tensor}_quantized":
                gain = add_constant(model.graph, "planted.gain", np.asarray(1 / factor, dtype=np.float32))
                planted = helper.make_node("Mul", [node.input[0], gain], ["planted.out"], name="planted")
                node.input[0] = "planted.out"
                model.graph.node.insert(i, planted)
                return

    return spoil


def wrong_depth(model: ModelProto, factor: float = 1.1) -> None:
    """Everything behind the last block is wrong: depth is a tenth too large."""
    for i, node in enumerate(model.graph.node):
        if node.output[0] == "depth":
            node.output[0] = "planted.depth"
            gain = add_constant(model.graph, "planted.gain", np.asarray(factor, dtype=np.float32))
            planted = helper.make_node("Mul", ["planted.depth", gain], ["depth"], name="planted")
            model.graph.node.insert(i + 1, planted)
            return


def only(backend: Backend):
    """A table of backends that holds this one alone."""
    return {backend.name: lambda: backend}
