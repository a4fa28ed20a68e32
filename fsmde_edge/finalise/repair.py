"""A network with one block more in float: what is done about a block that a backend gets wrong.

What stays INT8 stays as the bundle has it, with all that was done to its weights and biases. The block itself
computes in float what it should have computed in INT8: its weights keep the values that their integers had.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from glob import escape
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from fsmde_edge.bundle import MANIFEST, Bundle, reading
from fsmde_edge.compiler.half import to_half
from fsmde_edge.compiler.plan import Activation, Plan, Weight, int8_mac_share, place
from fsmde_edge.errors import InputError
from fsmde_edge.graph.model import (
    add_constant,
    consumers,
    copy_model,
    drop_unused,
    load_model,
    producers,
    sort_nodes,
    tidy,
    value_of,
)
from fsmde_edge.graph.structure import computing_nodes

if TYPE_CHECKING:
    from onnx import ModelProto


Entry = TypeVar("Entry", Activation, Weight)

REASON = "wrong in INT8 on the device"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Repair:
    """The networks and the plan of a bundle.

    Attributes:
        model: FP32.
        quantised: its Q/DQ form, float32 where it is not INT8.
        plan: what is INT8.
        keep_float, force_int8: patterns that the plan was made with.
    """

    model: ModelProto
    quantised: ModelProto
    plan: Plan
    keep_float: tuple[str, ...]
    force_int8: tuple[str, ...]

    @classmethod
    def of(cls, bundle: Bundle) -> Repair:
        """Read what the bundle says of it."""
        return cls(
            model=load_model(bundle.model("fp32")),
            quantised=load_model(bundle.model("int8")),
            plan=Plan.load(bundle.root / "plan.json"),
            keep_float=_patterns(bundle, "keep_float"),
            force_int8=_patterns(bundle, "force_int8"),
        )

    def nodes_of(self, tensor: str, floated: Iterable[str]) -> tuple[str, ...]:
        """What to take out of INT8 for a wrong block: the nodes that make it; then those that read it.

        Args:
            tensor: an INT8 activation.
            floated: nodes that are in float already.

        Returns:
            Names of nodes, none of them in float; empty where nothing is left to do.
        """
        already = set(floated)
        makers = [name for name in self._makers(tensor) if name not in already]
        if makers:
            return tuple(makers)
        return tuple(name for name in self._readers(tensor) if name not in already)

    def lowered(self, floated: Iterable[str], *, half: bool) -> ModelProto:
        """The Q/DQ model with these nodes in float."""
        plan = self.without(floated)
        activations = self._integers() - {item.tensor for item in plan.activations if item.int8}
        before, after = ({item.tensor for item in p.weights if item.int8} for p in (self.plan, plan))
        model = unquantised(self.quantised, activations=activations, weights=before - after)
        return to_half(model) if half else model

    def without(self, floated: Iterable[str]) -> Plan:
        """The plan with these nodes in float: INT8 where it was, and where the rules still want it."""
        names = {*floated, *(item.node for item in self.plan.weights if self._stays_float(item))}
        keep = (*self.keep_float, *(escape(name) for name in names))
        placement = place(self.model, keep_float=keep, force_int8=self._forced(names))
        nodes = set(placement.nodes)
        activations = (_kept(item, item.tensor in placement.reasons) for item in self.plan.activations)
        weights = (_kept(item, item.node in nodes) for item in self.plan.weights)
        return replace(
            self.plan,
            activations=tuple(activations),
            weights=tuple(weights),
            int8_mac_share=int8_mac_share(self.model, nodes),
        )

    def _forced(self, floated: set[str]) -> tuple[str, ...]:
        """Names of the nodes that `force_int8` means, without those that a fault takes out."""
        names = (node.name for node in computing_nodes(self.model) if node.name not in floated)
        return tuple(
            escape(name) for name in names if any(fnmatchcase(name, pattern) for pattern in self.force_int8)
        )

    def _stays_float(self, weight: Weight) -> bool:
        """Whether a computing node is in float already, by the rules or by a search."""
        return not weight.int8 and weight.reason != "bias"

    def _makers(self, tensor: str) -> list[str]:
        """Nodes between the INT8 tensors before a block and the one that it makes."""
        made_by, integers = producers(self.model.graph), self._integers()
        waiting, found = [tensor], list[str]()
        while waiting:
            node = made_by.get(waiting.pop())
            if node is not None and node.name not in found:
                found.append(node.name)
                waiting.extend(name for name in node.input if name not in integers)
        return found

    def _readers(self, tensor: str) -> list[str]:
        return [node.name for node in consumers(self.model.graph).get(tensor, [])]

    def _integers(self) -> set[str]:
        return {item.tensor for item in self.plan.activations if item.int8}


def _patterns(bundle: Bundle, name: str) -> tuple[str, ...]:
    """Patterns of nodes that a bundle's plan was made with, by their key in the recipe's `method`."""
    with reading(bundle.root / MANIFEST):
        found = dict(bundle.manifest.calibration.get("method", {})).get(name, [])
        if not isinstance(found, (list, tuple)) or not all(isinstance(item, str) for item in found):
            raise InputError(f"'{name}' of its calibration is no list of patterns")
        return tuple(found)


def unquantised(model: ModelProto, *, activations: Iterable[str], weights: Iterable[str]) -> ModelProto:
    """A Q/DQ model without some of its pairs; a weight becomes the float constant that it was dequantised to.

    Args:
        model: what `lowering.tensorrt.lower` returns.
        activations, weights: tensors of the FP32 network, which are INT8 here.
    """
    bare = copy_model(model)
    graph, made_by = bare.graph, producers(model.graph)
    source = {f"{name}_dequantized": name for name in (*activations, *weights)}
    for name in weights:
        node = made_by[f"{name}_dequantized"]
        integers, scales = (value_of(model.graph, item).astype(np.float32) for item in node.input[:2])
        axis = next(item.i for item in node.attribute if item.name == "axis")
        shape = [-1 if i == axis else 1 for i in range(integers.ndim)]
        add_constant(graph, name, integers * scales.reshape(shape))
    for node in graph.node:
        node.input[:] = [source.get(name, name) for name in node.input]
    drop_unused(graph)
    sort_nodes(graph)
    return tidy(bare)


def _kept(item: Entry, int8: bool) -> Entry:
    """An entry of a plan as it was, or in float."""
    if int8 or not item.int8:
        return item
    if isinstance(item, Weight):
        return replace(item, int8=False, axis=None, scales=(), reason=REASON)
    return replace(item, int8=False, range=None, scale=None, group=None, reason=REASON)
