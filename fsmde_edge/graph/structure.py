"""What the nodes of a depth network are to a quantiser.

*Computing* nodes are worth INT8 (convolutions, matrix products with constant weights). *Commuting* ones move
or select values without making new ones, so that quantisation passes through them. *Delicate* ones break in
few bits. The *pooled* part works on one vector an image: it costs nothing, and errors there move all of the
picture. The *tail* comes after the last computing node.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from fsmde_edge.graph.model import TensorType, attribute, initializers, tensor_types

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

MOVING = frozenset(
    [
        "MaxPool",
        "Transpose",
        "Reshape",
        "Slice",
        "Flatten",
        "Squeeze",
        "Unsqueeze",
        "Concat",
        "Split",
        "Identity",
        "DepthToSpace",
        "SpaceToDepth",
    ]
)
NEVER_INT8 = frozenset(["Softmax", "LogSoftmax", "Exp", "Log", "CumSum", "Reciprocal", "Softplus"])
DELICATE = NEVER_INT8 | frozenset(
    [
        "Sqrt",
        "Pow",
        "Erf",
        "Div",
        "LayerNormalization",
        "InstanceNormalization",
        "GroupNormalization",
        "GlobalAveragePool",
        "ReduceSum",
        "ReduceMean",
        "ReduceL2",
        "ReduceSumSquare",
        "ReduceLogSumExp",
    ]
)
POOLING = frozenset(["GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceMax", "ReduceSum"])
ACTIVATIONS = frozenset(
    ["Relu", "Clip", "LeakyRelu", "PRelu", "Elu", "Sigmoid", "Tanh", "HardSwish", "HardSigmoid", "Mish"]
)


def commutes(node: NodeProto) -> bool:
    """Whether the node only moves, copies or selects values: nearest Resize, Concat, Slice and such."""
    if node.op_type == "Resize":
        mode = attribute(node, "mode")
        return mode is None or mode.s == b"nearest"
    return node.op_type in MOVING


def moved_inputs(node: NodeProto) -> list[str]:
    """The inputs whose values a commuting node passes on (not its shapes or indices)."""
    return list(node.input) if node.op_type == "Concat" else list(node.input[:1])


def is_delicate(node: NodeProto, constants: set[str]) -> bool:
    """Whether a node needs float32: exponentials, sums and variances; a division only by a variable."""
    return node.op_type in DELICATE and not (node.op_type == "Div" and node.input[1] in constants)


def is_depthwise(node: NodeProto, types: dict[str, TensorType]) -> bool:
    """Whether a convolution has one input channel a group, and several groups."""
    group = attribute(node, "group")
    shape = types[node.input[1]].shape
    return group is not None and group.i > 1 and shape is not None and shape[1] == 1


def is_residual(node: NodeProto, types: dict[str, TensorType], constants: set[str]) -> bool:
    """Whether an Add joins two activations of one shape."""
    if node.op_type != "Add" or constants.intersection(node.input):
        return False
    left, right = (types.get(name) for name in node.input)
    return left is not None and left.shape is not None and left == right


def constants_of(model: ModelProto) -> set[str]:
    """Names of the initializers, and of what is dequantised from one."""
    names = set(initializers(model.graph))
    weights = [
        node for node in model.graph.node if node.op_type == "DequantizeLinear" and node.input[0] in names
    ]
    return names.union(*(node.output for node in weights))


def computing_nodes(model: ModelProto) -> list[NodeProto]:
    """Convolutions, transposed convolutions and matrix products whose weights are constants."""
    constants = constants_of(model)
    return [
        node
        for node in model.graph.node
        if node.op_type in {"Conv", "ConvTranspose", "Gemm", "MatMul"} and node.input[1] in constants
    ]


def pooled_tensors(model: ModelProto) -> set[str]:
    """Tensors of one vector an image: behind a global pooling, until features are mixed in again."""
    types, constants = tensor_types(model), constants_of(model)
    pooled: set[str] = set()
    for node in model.graph.node:
        inputs = [name for name in node.input if name and name not in constants]
        if inputs and (_pools(node, types) or all(name in pooled for name in inputs)):
            pooled.update(node.output)
    return pooled


def tail_nodes(model: ModelProto) -> set[str]:
    """Names of the nodes from which no computing node can be reached, the pooled ones aside."""
    pooled = pooled_tensors(model)
    heavy = {node.name for node in computing_nodes(model) if node.output[0] not in pooled}
    needed: set[str] = set()
    tail: set[str] = set()
    for node in reversed(model.graph.node):
        if node.name in heavy or needed.intersection(node.output):
            needed.update(node.input)
        else:
            tail.add(node.name)
    return tail


def macs(node: NodeProto, types: dict[str, TensorType]) -> int:
    """Multiply-accumulate operations of a computing node; 0 where a shape is unknown."""
    weight, data, out = types[node.input[1]].shape, types.get(node.input[0]), types.get(node.output[0])
    if weight is None or data is None or out is None or data.shape is None or out.shape is None:
        return 0
    if node.op_type == "Conv":
        return prod(out.shape) * prod(weight[1:])
    if node.op_type == "ConvTranspose":
        return prod(data.shape) * prod(weight[1:])
    transposed = attribute(node, "transB")
    columns = weight[0] if transposed is not None and transposed.i else weight[-1]
    return prod(out.shape) * (prod(weight) // columns)


def _pools(node: NodeProto, types: dict[str, TensorType]) -> bool:
    if node.op_type not in POOLING:
        return False
    before, after = types.get(node.input[0]), types.get(node.output[0])
    if before is None or after is None or before.shape is None or after.shape is None:
        return node.op_type.startswith("Global")
    return len(before.shape) == 4 and prod(after.shape) <= before.shape[0] * max(
        before.shape[1], before.shape[3]
    )
