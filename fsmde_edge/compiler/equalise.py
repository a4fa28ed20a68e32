"""Cross-layer equalisation: the channels of a tensor made equally large, so that one scale serves them all.

A positive factor passes through ReLU, nearest Resize, MaxPool and Concat unchanged. So channel c of a
convolution's output may be divided by f and the weights that read channel c multiplied by f: the same
function, other ranges. Activations have one scale a tensor, weights one for each output channel: dividing
rows of the first weight costs nothing, multiplying columns of the second one may. The factor between is

    f_c = (a_c / a)^s / (w_c / w)^(1 − s),    a_c = max |x_c|, w_c = max |W_:c|, a and w their largest

as in SmoothQuant (Xiao et al., ICML 2023, eq. 4; s = 0.5), which balances activations against weights; no
channel and no column then passes a or w, unless f had to be bounded. The idea of passing factors between
layers is Nagel et al., ICCV 2019, "Data-Free Quantization".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.compiler.prefix import Tensors, Walk, one_view
from fsmde_edge.graph.model import (
    attribute,
    consumers,
    copy_model,
    initializers,
    set_constant,
    tensor_types,
    tidy,
    value_of,
)

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

LARGEST_FACTOR = 16.0
"""Bounds of a factor: beyond it a channel that calibration hardly saw would be taken at its word."""

_PASSES = frozenset(["Relu", "LeakyRelu", "MaxPool", "Resize"])
"""Nodes through which a positive factor for each channel passes unchanged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A convolution and those that read its channels.

    Attributes:
        source: name of the convolution whose output is divided.
        tensor: what its readers read, for their ranges: behind the activation.
        readers: (convolution, first of its input channels that come from `source`).
    """

    source: str
    tensor: str
    readers: tuple[tuple[str, int], ...]


def find_links(model: ModelProto) -> tuple[Link, ...]:
    """The convolutions whose output channels only other dense convolutions read.

    Args:
        model: a tidy FP32 model.
    """
    finder = _Finder(model)
    found = (finder.link(node) for node in model.graph.node if finder.is_dense(node))
    return tuple(link for link in found if link is not None)


def equalise(
    model: ModelProto, limits: Mapping[str, NDArray[np.float32]], *, strength: float = 0.5
) -> ModelProto:
    """Move factors between the linked convolutions of a network.

    Args:
        model: a tidy FP32 model.
        limits: for each link's tensor, the largest |x| of each channel, float32 [C].
        strength: s above: 1 makes all channels of an activation equally large, 0 all columns of the weights.

    Returns:
        A new model of the same function, up to float rounding.
    """
    result = copy_model(model)
    nodes = {node.name: node for node in result.graph.node}
    for link in find_links(model):
        source, readers = nodes[link.source], [(nodes[name], start) for name, start in link.readers]
        channels = len(limits[link.tensor])
        columns = np.max([_columns(result.graph, node, start, channels) for node, start in readers], axis=0)
        factors = _factors(limits[link.tensor], columns, strength)
        for name in source.input[1:]:
            _scale(result.graph, name, np.reciprocal(factors), axis=0)
        for node, start in readers:
            _scale(result.graph, node.input[1], factors, axis=1, start=start)
    return tidy(result)


def _columns(graph: GraphProto, node: NodeProto, start: int, channels: int) -> NDArray[np.float32]:
    """The largest |weight| of each of some input channels, float32 [channels]."""
    weight = np.abs(value_of(graph, node.input[1])[:, start : start + channels])
    return np.asarray(weight.max(axis=(0, *range(2, weight.ndim))), dtype=np.float32)


def _scale(graph: GraphProto, name: str, factors: NDArray[np.float32], *, axis: int, start: int = 0) -> None:
    """Multiply some slices of a constant along an axis."""
    value = value_of(graph, name).astype(np.float32)
    spread = np.ones(value.shape[axis], dtype=np.float32)
    spread[start : start + len(factors)] = factors
    shape = [-1 if i == axis else 1 for i in range(value.ndim)]
    set_constant(graph, name, value * spread.reshape(shape))


def _factors(
    limits: NDArray[np.float32], columns: NDArray[np.float32], strength: float
) -> NDArray[np.float32]:
    """Channels that are never anything but zero, or that nobody weighs, keep factor 1."""
    alive = (limits > 0) & (columns > 0)
    factors = np.ones_like(limits)
    if alive.any():
        high, wide = limits[alive] / limits.max(), columns[alive] / columns.max()
        factors[alive] = high**strength / wide ** (1 - strength)
    return np.clip(factors, 1 / LARGEST_FACTOR, LARGEST_FACTOR).astype(np.float32)


def _fills_in(node: NodeProto) -> bool:
    """Whether a Resize may write a constant of its own beside the picture."""
    mode = attribute(node, "coordinate_transformation_mode")
    return mode is not None and mode.s == b"tf_crop_and_resize"


class _Finder:
    """Follows a convolution's output to all that read it."""

    def __init__(self, model: ModelProto) -> None:
        self.types = tensor_types(model)
        self.readers = consumers(model.graph)
        self.outputs = {info.name for info in model.graph.output}
        constants = set(initializers(model.graph))
        uses = [name for node in model.graph.node for name in node.input if name in constants]
        self.own = {name for name in constants if uses.count(name) == 1}

    def is_dense(self, node: NodeProto) -> bool:
        """Whether it is a convolution over all its input channels whose weights nobody else uses."""
        group = attribute(node, "group")
        dense = node.op_type == "Conv" and (group is None or group.i == 1)
        return dense and all(name in self.own for name in node.input[1:])

    def link(self, node: NodeProto) -> Link | None:
        found: list[tuple[str, int]] = []
        if not self._follow(node.output[0], 0, found) or not found:
            return None
        return Link(source=node.name, tensor=self._activated(node.output[0]), readers=tuple(found))

    def _follow(self, name: str, offset: int, found: list[tuple[str, int]]) -> bool:
        """Collect the convolutions behind a tensor; False where anything else reads it."""
        if name in self.outputs:
            return False
        for node in self.readers.get(name, []):
            if self.is_dense(node) and node.input[0] == name and name not in node.input[1:]:
                found.append((node.name, offset))
                continue
            shift = self._shift(node, name)
            if shift is None or not self._follow(node.output[0], offset + shift, found):
                return False
        return True

    def _shift(self, node: NodeProto, name: str) -> int | None:
        """By how many channels a node moves those of a tensor; None where factors do not pass it."""
        inputs = list(node.input)
        if len(node.output) != 1 or inputs.count(name) != 1:
            return None
        if node.op_type == "Concat" and self._joins_channels(node):
            return sum(self._channels(other) for other in inputs[: inputs.index(name)])
        if node.op_type not in _PASSES or inputs[0] != name or _fills_in(node):
            return None
        return 0 if self._channels(name) == self._channels(node.output[0]) > 0 else None

    def _activated(self, name: str) -> str:
        """The tensor behind the activation that alone reads this one; itself where there is none."""
        readers = self.readers.get(name, [])
        alone = len(readers) == 1 and readers[0].op_type in {"Relu", "LeakyRelu"}
        return readers[0].output[0] if alone else name

    def _joins_channels(self, node: NodeProto) -> bool:
        axis = attribute(node, "axis")
        return axis is not None and axis.i == 1 and all(self._channels(name) for name in node.input)

    def _channels(self, name: str) -> int:
        kind = self.types.get(name)
        return kind.shape[1] if kind is not None and kind.shape is not None and len(kind.shape) == 4 else 0


def link_tensors(links: Iterable[Link]) -> tuple[str, ...]:
    """The tensors whose channel ranges `equalise` needs."""
    return tuple(dict.fromkeys(link.tensor for link in links))


def channel_limits(
    model: ModelProto, tensors: Sequence[str], feeds: Sequence[Tensors], *, threads: int = 0
) -> dict[str, NDArray[np.float32]]:
    """The largest |x| of each channel of some tensors.

    Args:
        model: a tidy FP32 model.
        tensors: [N, C, h, w] each.
        feeds: inputs, one view each if `prefix.one_view` takes the network apart.
        threads: ONNX Runtime's; 0 leaves the choice to it.

    Returns:
        Tensor to float32 [C].
    """
    walk = Walk(one_view(model) or model, feeds, keep=tensors, threads=threads)
    walk.finish()
    return {
        name: np.max([np.abs(live[name]).max(axis=(0, 2, 3)) for live in walk.live], axis=0)
        for name in tensors
    }
