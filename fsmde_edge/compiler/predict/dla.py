"""What of a network runs on a Jetson's DLA and what falls back to the GPU, node by node.

By NVIDIA's documentation, before anything is built: the DLA compiler may still refuse a layer (its buffers
are not modelled here). Sources, cited at the rules:

[A] TensorRT 10's API documentation in NvInfer.h, remarks "If executing this layer on DLA"
[R] the same of IResizeLayer
[L] TensorRT 11.4's page "DLA Supported Layers and Restrictions": general restrictions, summary table
[O] github.com/NVIDIA/Deep-Learning-Accelerator-SW, operators/README.md: operators through TensorRT
[W] TensorRT's page "Working with DLA", of 11.1 to 11.4.1, and the release notes of 11.4.1
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Literal

from fsmde_edge.errors import UsageError
from fsmde_edge.graph.model import (
    FLOAT,
    Shape,
    TensorType,
    attribute,
    constant,
    consumers,
    initializers,
    tensor_types,
)

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

Version = tuple[int, ...]

DIGITS = 4
"""Of the longest number in a version."""
Way = Literal["implicit", "typed"]
"""How a DLA is told what is INT8: scales beside a float network, or the network's own types."""

LOADABLES = 16
"""[L] loadables that one DLA core holds at a time."""

_LARGEST_BATCH, _LARGEST_EDGE = 4096, 8192
_LONG_KERNELS = (64, 96, 128)
_SOFTMAX_ALONE, _SOFTMAX = 8192, 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class DlaNode:
    """Where one node runs.

    Attributes:
        node: its name.
        kind: of operator.
        on_dla: whether the DLA takes it; otherwise it falls back to the GPU.
        reason: why it falls back; empty on the DLA.
    """

    node: str
    kind: str
    on_dla: bool
    reason: str


def parse_version(text: str) -> Version:
    """A version of TensorRT as numbers.

    Errors:
        UsageError: it is none.
    """
    parts = text.split(".")
    numbers = all(part.isascii() and part.isdecimal() and len(part) <= DIGITS for part in parts)
    if not 2 <= len(parts) <= 4 or not numbers:
        raise UsageError(f"{text!r} is no version of TensorRT", hint="give it as 10.3 or 8.5.2")
    return tuple(map(int, parts))


def dla_way(version: Version) -> Way:
    """How this TensorRT uses a Jetson's DLA ([W]).

    Errors:
        UsageError: it does not; 10.7 was the last of the old way, 11.4.1 is the first of the new.
    """
    if version < (10, 8):
        return "implicit"
    if version < (11, 4, 1):
        raise UsageError(
            f"TensorRT {'.'.join(map(str, version))} has no DLA on a Jetson (none from 10.8 to 11.4.0 has)",
            hint="use TensorRT 10.3 of JetPack 6, or 11.4.1 on an AGX Orin with JetPack 7.2.2 or later",
        )
    return "typed"


def dla_placement(model: ModelProto, way: Way) -> tuple[DlaNode, ...]:
    """Where each node of a network runs, in the graph's order.

    Args:
        model: the bundle's FP32 network, with static shapes; its other models have the same nodes.
        way: as `dla_way` says.
    """
    network = _Network(model, way)
    found = []
    for node in model.graph.node:
        reason = network.why_not(node)
        found.append(DlaNode(node=node.name, kind=node.op_type, on_dla=not reason, reason=reason))
    return tuple(found)


def count_loadables(model: ModelProto, placement: Iterable[DlaNode]) -> int:
    """In how many connected pieces the DLA's nodes lie: the least number of loadables."""
    inside = {item.node for item in placement if item.on_dla}
    readers = consumers(model.graph)
    piece = {name: name for name in inside}

    def root(name: str) -> str:
        while piece[name] != name:
            name = piece[name]
        return name

    for node in model.graph.node:
        after = [reader.name for tensor in node.output for reader in readers.get(tensor, [])]
        for name in inside.intersection(after) if node.name in inside else ():
            piece[root(name)] = root(node.name)
    return len({root(name) for name in inside})


class _Network:
    """A network and what the rules look up in it."""

    def __init__(self, model: ModelProto, way: Way) -> None:
        self.graph: GraphProto = model.graph
        self.way = way
        self.types: dict[str, TensorType] = tensor_types(model)
        self.constants = set(initializers(model.graph))

    def why_not(self, node: NodeProto) -> str:
        """Why a node falls back; empty where it does not."""
        rule = _RULES.get(node.op_type)
        if rule is None or (node.op_type in _TYPED_ONLY and self.way != "typed"):
            rebuilt = "; it could be rebuilt of others" if node.op_type in _REBUILT else ""
            return f"TensorRT has no DLA layer for {node.op_type}{rebuilt}"
        return self._general(node) or rule(self, node)

    def _general(self, node: NodeProto) -> str:
        """[L] General Restrictions; 2D layers alone, of float16 or INT8."""
        for name in (*self.activations(node), *node.output):
            kind = self.types.get(name)
            if kind is None or kind.shape is None:
                return "a shape is not static"
            if kind.dtype != FLOAT:
                return "a tensor is neither float nor INT8"
            if len(kind.shape) != 4:
                return f"a tensor of {len(kind.shape)} axes; it takes [N, C, H, W]"
            if kind.shape[0] > _LARGEST_BATCH or max(kind.shape[1:]) > _LARGEST_EDGE:
                return f"a batch beyond {_LARGEST_BATCH} or an edge beyond {_LARGEST_EDGE}"
        return ""

    def activations(self, node: NodeProto) -> list[str]:
        """What a node reads and is no constant."""
        return [name for name in node.input if name and name not in self.constants]

    def shape(self, name: str) -> Shape:
        """A shape that `_general` found to be static, or a constant's."""
        return self.types[name].shape or ()


def _convolution(network: _Network, node: NodeProto) -> str:
    # [A] IConvolutionLayer
    if node.input[1] not in network.constants:
        return "its weights are no constant"
    weight = network.shape(node.input[1])
    kernel, pads = weight[2:], _ints(node, "pads", (0, 0, 0, 0))
    limits = (
        (all(1 <= k <= 32 for k in kernel), "a kernel edge beyond 32"),
        (all(p <= 31 and p < k for p, k in zip(pads, (*kernel, *kernel), strict=True)), _PADDING),
        (all(s <= 8 for s in _ints(node, "strides", (1, 1))), "a stride beyond 8"),
        (all(d <= 32 for d in _ints(node, "dilations", (1, 1))), "a dilation beyond 32"),
        (max(weight[0], _int(node, "group", 1)) <= _LARGEST_EDGE, "more than 8192 maps or groups"),
    )
    return _first_broken(limits)


def _deconvolution(network: _Network, node: NodeProto) -> str:
    # [A] IDeconvolutionLayer; no dilation: [L]
    if node.input[1] not in network.constants:
        return "its weights are no constant"
    weight = network.shape(node.input[1])
    limits = (
        (_is_short_or_line(weight[2:]), "a kernel edge beyond 32"),
        (_is_short_or_line(_ints(node, "strides", (1, 1))), "a stride beyond 32"),
        (not any((*_ints(node, "pads", ()), *_ints(node, "output_padding", ()))), "padding; it takes none"),
        (_int(node, "group", 1) == 1, "groups; it takes one"),
        (all(d == 1 for d in _ints(node, "dilations", (1, 1))), "dilation; it takes none"),
        (weight[1] <= _LARGEST_EDGE, "more than 8192 maps"),
    )
    return _first_broken(limits)


def _pooling(_network: _Network, node: NodeProto) -> str:
    # [A] IPoolingLayer; for INT8 one scale in and out, which `lowering.dla` sees to
    limits = (
        (all(1 <= k <= 8 for k in _ints(node, "kernel_shape", ())), "a window edge beyond 8"),
        (all(p <= 7 for p in _ints(node, "pads", ())), "a padding beyond 7"),
        (all(s <= 16 for s in _ints(node, "strides", (1, 1))), "a stride beyond 16"),
        (all(d == 1 for d in _ints(node, "dilations", (1, 1))), "dilation; it takes none"),
    )
    return _first_broken(limits)


def _clip(network: _Network, node: NodeProto) -> str:
    # [L] table, Activation: "Clipped ReLU"
    low = constant(network.graph, node.input[1]) if len(node.input) > 1 and node.input[1] else None
    clipped = low is not None and low.size == 1 and float(low.reshape(-1)[0]) == 0
    return "" if clipped else "a Clip whose lower bound is not 0"


def _elementwise(network: _Network, node: NodeProto) -> str:
    # [A] IElementWiseLayer: two inputs; with a constant it is a Scale layer ([O], Add and Mul)
    shapes = {network.shape(name) for name in network.activations(node)}
    if len(node.input) != 2:
        return f"{len(node.input)} inputs; it takes two"
    return "" if len(shapes) == 1 else "two activations of different shapes"


def _concatenation(network: _Network, node: NodeProto) -> str:
    # [A] IConcatenationLayer: the third axis from the end; [L] table: two inputs or more
    if len(network.activations(node)) < 2:
        return "fewer than two activations"
    return "" if _int(node, "axis", 0) % 4 == 1 else "it joins along another axis than the channels"


def _resize(network: _Network, node: NodeProto) -> str:
    # [R] factors that are whole numbers up to 32 (nearest) or 4 (linear), and three kinds of coordinates
    before, after = network.shape(node.input[0]), network.shape(node.output[0])
    mode = _text(node, "mode", "nearest")
    most = {"nearest": 32, "linear": 4}.get(mode, 0)
    place = _text(node, "coordinate_transformation_mode", "half_pixel")
    rounding = _text(node, "nearest_mode", "round_prefer_floor") if mode == "nearest" else ""
    sizes = zip(after[2:], before[2:], strict=True)
    limits = (
        (most > 0, f"{mode} interpolation"),
        (before[:2] == after[:2], "it resizes the batch or the channels"),
        (all(a % b == 0 and a // b <= most for a, b in sizes), f"a factor that is no whole number to {most}"),
        ((place, rounding) in _COORDINATES, f"coordinates {place} {rounding}".rstrip()),
    )
    return _first_broken(limits)


def _softmax(network: _Network, node: NodeProto) -> str:
    # [A] ISoftMaxLayer
    shape, axis = network.shape(node.input[0]), _int(node, "axis", -1) % 4
    if axis == 0:
        return "it runs along the batch"
    most = _SOFTMAX_ALONE if prod(shape[1:]) == shape[axis] else _SOFTMAX
    return "" if shape[axis] <= most else f"more than {most} values along its axis"


def _shuffle(network: _Network, node: NodeProto) -> str:
    # [O] Reshape, Transpose and Slice; the batch is no axis that a DLA works on ([L])
    keeps = network.shape(node.input[0])[0] == network.shape(node.output[0])[0]
    moved = node.op_type == "Transpose" and _ints(node, "perm", (3, 2, 1, 0))[0] != 0
    return "" if keeps and not moved else "it moves the batch"


def _norm(_network: _Network, node: NodeProto) -> str:
    # [A] ILRNLayer
    return "" if _int(node, "size", 0) in {3, 5, 7, 9} else "a window other than 3, 5, 7 or 9"


def _slope(network: _Network, node: NodeProto) -> str:
    # [L] table, Parametric ReLU: known at build time
    return "" if node.input[1] in network.constants else "its slope is no constant"


def _product(network: _Network, node: NodeProto) -> str:
    # [O] Gemm and MatMul: as a 1x1 convolution
    return "" if node.input[1] in network.constants else "its second operand is no constant"


def _always(_network: _Network, _node: NodeProto) -> str:
    return ""


_PADDING = "a padding beyond 31 or as large as the kernel"
_COORDINATES = (
    ("asymmetric", "floor"),
    ("half_pixel", "round_prefer_floor"),
    ("half_pixel", "round_prefer_ceil"),
    ("half_pixel", ""),
)
_TYPED_ONLY = frozenset(["Div", "Pow"])
"""[A] has them not among TensorRT 10's operations, [L] of 11.4 has."""

_REBUILT = frozenset(
    ["And", "CumSum", "DepthToSpace", "Gather", "Identity", "Neg", "ReduceMax", "ReduceSum", "SpaceToDepth"]
)
"""[O] Reconstruction."""

_RULES: Mapping[str, Callable[[_Network, NodeProto], str]] = {
    "Conv": _convolution,
    "ConvTranspose": _deconvolution,
    "Gemm": _product,
    "MatMul": _product,
    "MaxPool": _pooling,
    "AveragePool": _pooling,
    "BatchNormalization": _always,
    "Relu": _always,
    "LeakyRelu": _always,
    "Sigmoid": _always,
    "Tanh": _always,
    "Abs": _always,
    "Clip": _clip,
    "PRelu": _slope,
    **dict.fromkeys(("Add", "Sub", "Mul", "Max", "Min", "Div", "Pow"), _elementwise),
    "Concat": _concatenation,
    "Resize": _resize,
    "Softmax": _softmax,
    "LRN": _norm,
    **dict.fromkeys(("Reshape", "Transpose", "Slice"), _shuffle),
}
"""[O] operators that are Native through TensorRT."""


def _first_broken(limits: Iterable[tuple[bool, str]]) -> str:
    return next((why for kept, why in limits if not kept), "")


def _is_short_or_line(edges: tuple[int, ...]) -> bool:
    return all(1 <= edge <= 32 for edge in edges) or (min(edges) == 1 and max(edges) in _LONG_KERNELS)


def _ints(node: NodeProto, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
    found = attribute(node, name)
    return default if found is None else tuple(found.ints)


def _int(node: NodeProto, name: str, default: int) -> int:
    found = attribute(node, name)
    return default if found is None else int(found.i)


def _text(node: NodeProto, name: str, default: str) -> str:
    found = attribute(node, name)
    return default if found is None else bytes(found.s).decode()
