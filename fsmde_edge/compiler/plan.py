"""The precision plan: for every tensor and weight INT8 or float, with range, scale and reason.

The plan knows no backend; `lowering/` writes it the way that each one fuses. It is made in two steps:
`place` decides from the graph alone which tensors become INT8 (so that calibration knows what to look at),
`make_plan` adds the ranges. The rules:

1. Convolutions and matrix products with constant weights compute in INT8; depthwise and transposed ones, the
   pooled head and what `keep_float` names do not.
2. The data input of an INT8 node is quantised, per tensor, once, for all who read it.
3. Where that input comes from a residual Add (through its activation), both its inputs are quantised too.
4. Where it comes from a commuting node (Concat, nearest Resize, MaxPool, Slice, …), that node's inputs are
   quantised too, with the same scale: no requantisation between.
5. What an exponential or a cumulative sum makes is never quantised; nor are biases, and nothing behind the
   last INT8 node (logits, bins, metres).
6. An input image (pixel - 128) × m has scale m: the integers are the pixels themselves, without any error.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from fnmatch import fnmatchcase
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fsmde_edge.compiler.quantiser import LEVELS, channel_scales, scale_of
from fsmde_edge.errors import InputError
from fsmde_edge.files import atomic_write
from fsmde_edge.graph.model import (
    FLOAT,
    UINT8,
    TensorType,
    attribute,
    constant,
    consumers,
    has_quantisation,
    initializers,
    producers,
    tensor_types,
)
from fsmde_edge.graph.structure import (
    ACTIVATIONS,
    NEVER_INT8,
    commutes,
    computing_nodes,
    is_depthwise,
    is_residual,
    macs,
    moved_inputs,
    pooled_tensors,
)
from fsmde_edge.recipes import from_json

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

    from fsmde_edge.compiler.calibrate import Ranges

VERSION = 1
FOREIGN = "net/"
"""What the names in somebody else's network begin with once it is wrapped; a pattern need not."""
WIDEST = float(np.finfo(np.float32).max)
"""No scale is beyond it: graphs and caches hold them as float32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Activation:
    """What becomes of one activation tensor.

    Attributes:
        tensor: its name in the FP32 graph.
        node: the node that makes it.
        int8: whether it gets a Quantize/Dequantize pair.
        range: the largest |x| that it must hold, None for float.
        scale: the step of its integers, None for float.
        group: the tensors of one group share one scale; named after its first tensor. None for float.
        reason: why.
    """

    tensor: str
    node: str
    int8: bool
    range: float | None = None
    scale: float | None = None
    group: str | None = None
    reason: str

    def __post_init__(self) -> None:
        if self.int8 and not (self.scale is not None and 0 < self.scale <= WIDEST):
            raise InputError(f"tensor {self.tensor} has no scale of an INT8 tensor: {self.scale}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Weight:
    """What becomes of one constant operand of a computing node.

    Attributes:
        tensor: the initializer's name.
        node: the first node that reads it.
        int8: whether it is stored as integers.
        axis: the output-channel axis, None for float.
        scales: one for each output channel; empty for float.
        reason: why.
    """

    tensor: str
    node: str
    int8: bool
    axis: int | None = None
    scales: tuple[float, ...] = ()
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """INT8 or float for every tensor and weight of a network.

    Attributes:
        calibrator: the name of the ranges that were used.
        activations: in the graph's order.
        weights: in the graph's order.
        int8_mac_share: the share of multiply-accumulates with both operands in INT8, 0..1.
    """

    version: int = VERSION
    calibrator: str
    activations: tuple[Activation, ...]
    weights: tuple[Weight, ...]
    int8_mac_share: float

    def to_json(self) -> str:
        """Canonical JSON: equal plans, equal text."""
        return json.dumps(asdict(self), sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, *, where: object = None) -> Plan:
        """Read `to_json`'s text back to an equal plan.

        Errors:
            InputError: no plan, or one of a newer version.
        """
        return from_json(cls, text, version=VERSION, failing="is not a precision plan", where=where)

    def save(self, path: Path) -> None:
        """Write plan.json, whole or not at all."""
        atomic_write(path, self.to_json().encode())

    @classmethod
    def load(cls, path: Path) -> Plan:
        """Read plan.json."""
        try:
            return cls.from_json(path.read_text(encoding="utf-8"), where=path)
        except (OSError, UnicodeDecodeError) as error:
            raise InputError("cannot be read as a precision plan", where=path) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Which tensors and nodes become INT8, before any range is known.

    Attributes:
        nodes: names of the computing nodes in INT8.
        reasons: INT8 tensor to the reason.
        groups: INT8 tensor to the name of its scale-sharing group.
        calibrate: the tensors whose ranges are needed; a commuting node's output has its inputs' range.
        floats: node to the reason why it computes in float.
    """

    nodes: tuple[str, ...]
    reasons: Mapping[str, str]
    groups: Mapping[str, str]
    calibrate: tuple[str, ...]
    floats: Mapping[str, str]


def place(model: ModelProto, *, keep_float: Iterable[str] = (), force_int8: Iterable[str] = ()) -> Placement:
    """Decide from the graph which nodes and tensors become INT8.

    Args:
        model: a tidy FP32 model.
        keep_float: patterns (fnmatch) of node names that stay float.
        force_int8: patterns of computing nodes that the rules would leave in float; wins over `keep_float`.

    Errors:
        InputError: the model is quantised already, a pattern matches no node, or nothing is left to quantise.
    """
    if has_quantisation(model):
        raise InputError("is quantised already", hint="give the FP32 network")
    keep, force = tuple(keep_float), tuple(force_int8)
    _check_patterns(model, (*keep, *force))
    return _Placer(model, keep, force).run()


def names_node(pattern: str, node: str) -> bool:
    """Whether a pattern (fnmatch) names a node, by its name here or in the file that it came from."""
    return fnmatchcase(node, pattern) or fnmatchcase(node.removeprefix(FOREIGN), pattern)


def refuse_idle(force_int8: Iterable[str], placement: Placement) -> None:
    """Refuse patterns that force nothing: what they name computes nothing that can be INT8.

    Errors:
        InputError: with why, where the rules say it.
    """
    for pattern in force_int8:
        if not any(names_node(pattern, name) for name in placement.nodes):
            why = [reason for name, reason in placement.floats.items() if names_node(pattern, name)]
            raise InputError(
                f"the pattern '{pattern}' names nothing that can be forced into INT8 "
                f"({why[0] if why else 'no convolution and no matrix product'})",
                hint="name convolutions or matrix products of: fsmde-edge inspect BUNDLE --plan",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOptions:
    """All that a plan of a given network and its ranges depends on.

    Attributes:
        calibrator: which of the ranges' thresholds to take (`histogram.CALIBRATORS`).
        calibrators: other ones for some scale-sharing groups, by their names.
        keep_float, force_int8: see `place`.
    """

    calibrator: str = "mse"
    calibrators: Mapping[str, str] = field(default_factory=dict)
    keep_float: tuple[str, ...] = ()
    force_int8: tuple[str, ...] = ()

    def place(self, model: ModelProto) -> Placement:
        """See `place`."""
        return place(model, keep_float=self.keep_float, force_int8=self.force_int8)

    def plan(self, model: ModelProto, ranges: Ranges) -> Plan:
        """See `make_plan`."""
        return make_plan(
            model,
            ranges,
            calibrator=self.calibrator,
            calibrators=self.calibrators,
            keep_float=self.keep_float,
            force_int8=self.force_int8,
        )

    def keeping_float(self, nodes: Iterable[str]) -> PlanOptions:
        """The same with these nodes, by their names, in float as well."""
        return replace(self, keep_float=(*self.keep_float, *(escape(name) for name in nodes)))

    def calibrated(self, calibrators: Mapping[str, str]) -> PlanOptions:
        """The same with these calibrators for these groups."""
        return replace(self, calibrators={**self.calibrators, **calibrators})


def make_plan(
    model: ModelProto,
    ranges: Ranges,
    *,
    calibrator: str = "mse",
    calibrators: Mapping[str, str] | None = None,
    keep_float: Iterable[str] = (),
    force_int8: Iterable[str] = (),
) -> Plan:
    """Place and give every INT8 tensor its scale.

    Args:
        model: a tidy FP32 model.
        ranges: of all tensors in `place(...).calibrate`.
        calibrator: which of `ranges`' thresholds to take (`histogram.CALIBRATORS`).
        calibrators: other ones for some scale-sharing groups, by their names.
        keep_float: see `place`.
        force_int8: see `place`.

    Errors:
        InputError: as `place`; or a range is missing.
    """
    placement = place(model, keep_float=keep_float, force_int8=force_int8)
    limits = _group_limits(model, placement, ranges, calibrator, calibrators or {})
    return Plan(
        calibrator=calibrator,
        activations=tuple(_activations(model, placement, limits)),
        weights=tuple(_weights(model, placement)),
        int8_mac_share=int8_mac_share(model, placement.nodes),
    )


def int8_mac_share(model: ModelProto, nodes: Iterable[str]) -> float:
    """The share of a network's multiply-accumulates that the named nodes do, 0..1."""
    types, chosen = tensor_types(model), set(nodes)
    work = {node.name: macs(node, types) for node in computing_nodes(model)}
    total = sum(work.values())
    return sum(count for name, count in work.items() if name in chosen) / total if total else 0.0


def weight_axis(node: NodeProto) -> int:
    """The output-channel axis of a computing node's weight."""
    if node.op_type == "Conv":
        return 0
    if node.op_type == "Gemm":
        transposed = attribute(node, "transB")
        return 0 if transposed is not None and transposed.i else 1
    return 1


@dataclass(slots=True)
class _Placer:
    """The state of one placement: a walk from the INT8 nodes back to what they read."""

    model: ModelProto
    keep: tuple[str, ...]
    force: tuple[str, ...]
    types: dict[str, TensorType] = field(init=False)
    made_by: dict[str, NodeProto] = field(init=False)
    constants: set[str] = field(init=False)
    pooled: set[str] = field(init=False)
    reasons: dict[str, str] = field(init=False, default_factory=dict)
    parents: dict[str, str] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.types = tensor_types(self.model)
        self.made_by = producers(self.model.graph)
        self.constants = set(initializers(self.model.graph))
        self.pooled = pooled_tensors(self.model)

    def run(self) -> Placement:
        floats = {node.name: self._why_float(node) for node in computing_nodes(self.model)}
        chosen = [node for node in computing_nodes(self.model) if not floats[node.name]]
        if not chosen:
            reasons = ", ".join(sorted(set(floats.values()))) or "no convolutions"
            raise InputError(
                f"nothing of the network can be INT8 ({reasons})",
                hint="keep less in float, or build with --precision fp16",
            )
        for node in chosen:
            self._want(node.input[0], f"read by {node.name}")
        order = [name for node in self.model.graph.node for name in node.output if name in self.reasons]
        return Placement(
            nodes=tuple(node.name for node in chosen),
            reasons={name: self.reasons[name] for name in order},
            groups=self._name_groups(order),
            calibrate=tuple(name for name in order if not self._commuting(self.made_by[name])),
            floats={name: reason for name, reason in floats.items() if reason},
        )

    def _why_float(self, node: NodeProto) -> str:
        """Why a computing node stays float; empty for INT8."""
        if not self._can_be_int8(node.input[0]):
            return "pooled head" if node.input[0] in self.pooled else "its input cannot be INT8"
        if _matches(node, self.force):
            return ""
        if _matches(node, self.keep):
            return "kept in float on request"
        if node.op_type == "ConvTranspose":
            return "transposed convolution"
        if node.op_type == "Conv" and is_depthwise(node, self.types):
            return "depthwise convolution"
        if node.output[0] in self.pooled:
            return "pooled head"
        if len(self.types[node.input[1]].shape or ()) < 2:
            return "its weight is a vector"
        return ""

    def _can_be_int8(self, name: str) -> bool:
        node = self.made_by.get(name)
        kind = self.types.get(name)
        if node is None or kind is None or kind.dtype != FLOAT or name in self.pooled:
            return False
        if self._commuting(node):
            return all(self._can_be_int8(source) for source in moved_inputs(node))
        return node.op_type not in NEVER_INT8

    def _want(self, name: str, reason: str) -> None:
        """Make a tensor INT8, and those before it that this calls for (rules 3 and 4)."""
        waiting = [(name, reason)]
        while waiting:
            name, reason = waiting.pop()
            if name in self.reasons:
                continue
            self.reasons[name] = reason
            self.parents.setdefault(name, name)
            node = self.made_by[name]
            if self._commuting(node):
                for source in moved_inputs(node):
                    waiting.append((source, f"shares its scale through {node.name}"))
                    self._join(source, name)
            else:
                waiting += self._residual_inputs(node)

    def _residual_inputs(self, node: NodeProto) -> list[tuple[str, str]]:
        if node.op_type in ACTIVATIONS:
            node = self.made_by.get(node.input[0], node)
        if not is_residual(node, self.types, self.constants) or _matches(node, self.keep):
            return []
        if not all(self._can_be_int8(name) for name in node.input):
            return []
        return [(name, f"added in {node.name}") for name in node.input]

    def _commuting(self, node: NodeProto) -> bool:
        return commutes(node) and not _matches(node, self.keep) and not self.constants & {*moved_inputs(node)}

    def _root(self, name: str) -> str:
        while self.parents.setdefault(name, name) != name:
            name = self.parents[name]
        return name

    def _join(self, left: str, right: str) -> None:
        self.parents[self._root(left)] = self._root(right)

    def _name_groups(self, order: list[str]) -> dict[str, str]:
        first: dict[str, str] = {}
        return {name: first.setdefault(self._root(name), name) for name in order}


def _group_limits(
    model: ModelProto,
    placement: Placement,
    ranges: Ranges,
    calibrator: str,
    calibrators: Mapping[str, str],
) -> dict[str, tuple[float, float]]:
    """Group to (range, scale): the widest of its members', or the exact scale of an image."""
    exact = _exact_images(model, placement.calibrate)
    limits: dict[str, tuple[float, float]] = {}
    for name in placement.calibrate:
        group = placement.groups[name]
        limit = ranges.range_of(name, calibrators.get(group, calibrator))
        members = sum(1 for other in placement.groups.values() if other == group)
        scale = exact[name] if name in exact and members == 1 else scale_of(limit)
        if group not in limits or scale > limits[group][1]:
            limits[group] = (scale * LEVELS if name in exact and members == 1 else limit, scale)
    return limits


def _exact_images(model: ModelProto, names: Iterable[str]) -> dict[str, float]:
    """Tensors that are (pixel - 128) × m for one number m, and the scale m that makes them exact."""
    made_by = producers(model.graph)
    found = {}
    for name in names:
        line = _pixel_line(model, made_by, name)
        if line is not None and abs(line[1] + 128 * line[0]) <= 1e-4 * abs(line[0]):
            found[name] = scale_of(abs(line[0]) * LEVELS)
    return found


def _pixel_line(model: ModelProto, made_by: dict[str, NodeProto], name: str) -> tuple[float, float] | None:
    """(a, b) where the tensor is a × pixel + b, pixel a uint8 input; None where it is anything else."""
    node = made_by.get(name)
    if node is None:
        images = [info for info in model.graph.input if info.name == name]
        return (1.0, 0.0) if images and images[0].type.tensor_type.elem_type == UINT8 else None
    if node.op_type in {"Cast", "Transpose", "Identity"}:
        return _pixel_line(model, made_by, node.input[0])
    if node.op_type not in {"Sub", "Add", "Mul", "Div"}:
        return None
    value = constant(model.graph, node.input[1])
    before = _pixel_line(model, made_by, node.input[0])
    if before is None or value is None or np.unique(value).size != 1:
        return None
    a, b, c = *before, float(value.reshape(-1)[0])
    if node.op_type in {"Sub", "Add"}:
        return a, b - c if node.op_type == "Sub" else b + c
    return (a * c, b * c) if node.op_type == "Mul" else (a / c, b / c)


def _activations(
    model: ModelProto, placement: Placement, limits: dict[str, tuple[float, float]]
) -> Iterable[Activation]:
    types, readers, pooled = tensor_types(model), consumers(model.graph), pooled_tensors(model)
    for node in model.graph.node:
        for name in node.output:
            if name in placement.reasons:
                group = placement.groups[name]
                limit, scale = limits[group]
                yield Activation(
                    tensor=name,
                    node=node.name,
                    int8=True,
                    range=limit,
                    scale=scale,
                    group=group,
                    reason=placement.reasons[name],
                )
            elif name in types and types[name].dtype == FLOAT:
                after = [out for reader in readers.get(name, []) for out in reader.output]
                yield Activation(
                    tensor=name,
                    node=node.name,
                    int8=False,
                    reason=_float_reason(node, name, after, placement, pooled),
                )


def _float_reason(
    node: NodeProto, name: str, after: list[str], placement: Placement, pooled: set[str]
) -> str:
    if name in pooled:
        return "pooled head"
    if node.op_type in NEVER_INT8:
        return f"{node.op_type} keeps float"
    if after and all(out in placement.reasons for out in after):
        return "inside a fused kernel: quantised behind it"
    return "read by no INT8 node"


def _weights(model: ModelProto, placement: Placement) -> Iterable[Weight]:
    seen: set[str] = set()
    int8_nodes = set(placement.nodes)
    names = set(initializers(model.graph))
    for node in sorted(computing_nodes(model), key=lambda node: node.name not in int8_nodes):
        weight, *bias = node.input[1:]
        if weight not in seen:
            yield _weight(model, node, node.name in int8_nodes, placement.floats.get(node.name, ""))
        for name in bias:
            if name in names and name not in seen:
                yield Weight(tensor=name, node=node.name, int8=False, reason="bias")
        seen.update(node.input[1:])


def _weight(model: ModelProto, node: NodeProto, int8: bool, reason: str) -> Weight:
    name = node.input[1]
    if not int8:
        return Weight(tensor=name, node=node.name, int8=False, reason=reason)
    value, axis = constant(model.graph, name), weight_axis(node)
    assert value is not None
    scales = channel_scales(value.astype(np.float32), axis)
    reason = f"{node.op_type} in INT8"
    return Weight(tensor=name, node=node.name, int8=True, axis=axis, scales=scales, reason=reason)


def _matches(node: NodeProto, patterns: tuple[str, ...]) -> bool:
    return any(names_node(pattern, node.name) for pattern in patterns)


def _check_patterns(model: ModelProto, patterns: tuple[str, ...]) -> None:
    for pattern in patterns:
        if not any(names_node(pattern, node.name) for node in model.graph.node):
            raise InputError(
                f"the pattern '{pattern}' matches no node of the network",
                hint="list the node names of a bundle with: fsmde-edge inspect BUNDLE --plan",
            )
