"""Which blocks INT8 hurts: what each costs alone in INT8, and what the network gains with it alone in float.

A block is what reads one quantised tensor: its computing nodes and the additions that keep it in INT8. (With
one of two readers in float the tensor would be quantised for the other all the same.) All variants of the
network share what comes before their block (`prefix.run_variants`), so the whole table takes about as long as
running the network as many times as it has blocks, on a few views. Errors of blocks add up about as
independent noise does, squares to a square (`Sensitivity.together`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from glob import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from fsmde_edge.compiler.calibrate import Ranges
from fsmde_edge.compiler.lowering.tensorrt import lower
from fsmde_edge.compiler.plan import PlanOptions, int8_mac_share
from fsmde_edge.compiler.prefix import Depths, Tensors, Walk, one_view, run_variants
from fsmde_edge.graph.model import consumers, initializers, tensor_types
from fsmde_edge.graph.structure import is_residual

if TYPE_CHECKING:
    from onnx import ModelProto

WORST = 1.0
"""A pixel's relative error counts up to here, so that one pixel cannot outweigh a picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """How far depth is from FP32's.

    Attributes:
        error: root mean square of |d − d32| / d32, each at most 1 (over mean |d32| without metres).
        sqnr: 10 log₁₀ (Σ d32² / Σ (d − d32)²), in dB; None where nothing differs, or by no finite
            number.
    """

    error: float
    sqnr: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """What reads one quantised tensor.

    Attributes:
        name: of its first computing node.
        nodes: all of them, additions included: what `keep_float` must name.
        macs: their share of the network's multiply-accumulates, 0..1.
        alone_int8: the network in FP32 but for this block.
        alone_float: the network in INT8 but for this block.
    """

    name: str
    nodes: tuple[str, ...]
    macs: float
    alone_int8: Effect
    alone_float: Effect


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivity:
    """The table of a network.

    Attributes:
        int8: the whole network in INT8.
        blocks: in the graph's order.
    """

    int8: Effect
    blocks: tuple[Block, ...]

    def together(self) -> float:
        """The error that the blocks make if each one's is independent of the others'.

        Seen: the shipped student's 24 blocks together, and its whole network, 0.79 % both.
        """
        return math.sqrt(sum(block.alone_int8.error**2 for block in self.blocks))

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def find_blocks(model: ModelProto, options: PlanOptions) -> dict[str, tuple[str, ...]]:
    """The quantised blocks of a network, by name, in the graph's order."""
    placement, readers = options.place(model), consumers(model.graph)
    chosen, types, constants = set(placement.nodes), tensor_types(model), set(initializers(model.graph))
    found = {}
    for tensor in placement.reasons:
        nodes = [node for node in readers.get(tensor, []) if node.name in chosen and node.input[0] == tensor]
        adds = [node for node in readers.get(tensor, []) if is_residual(node, types, constants)]
        if nodes:
            found[nodes[0].name] = tuple(node.name for node in (*nodes, *adds))
    return found


def measure_effect(reference: Depths, found: Depths, *, metric: bool) -> Effect:
    """Compare depths, float32, one array an input.

    Args:
        reference: of FP32.
        found: of the other network.
        metric: whether errors are relative to each pixel's depth, or to the mean absolute output.
    """
    right = np.concatenate([depth.reshape(-1) for depth in reference]).astype(np.float64)
    error = np.concatenate([depth.reshape(-1) for depth in found]) - right
    over = np.maximum(np.abs(right) if metric else np.abs(right).mean(), 1e-9)
    relative = np.minimum(np.nan_to_num(np.abs(error) / over, nan=WORST, posinf=WORST), WORST)
    noise = float(np.square(error).sum())
    sqnr = None
    if noise > 0 and math.isfinite(noise):
        sqnr = 10 * math.log10(max(float(np.square(right).sum()), 1e-30) / noise)
    return Effect(error=float(np.sqrt(np.square(relative).mean())), sqnr=sqnr)


def measure_sensitivity(
    model: ModelProto,
    ranges: Ranges,
    options: PlanOptions,
    feeds: Sequence[Tensors],
    *,
    metric: bool = True,
    threads: int = 0,
    progress: Callable[[int], None] = lambda _: None,
) -> Sensitivity:
    """Try every block alone.

    Args:
        model: a tidy FP32 model.
        ranges: its calibration.
        options: the placement that the blocks are taken from.
        feeds: inputs, one view each if `prefix.one_view` takes the network apart.
        metric: see `measure_effect`.
        threads: ONNX Runtime's; 0 leaves the choice to it.
        progress: called with the number of variants run: two a block, or one where there is only one block.
    """
    blocks = find_blocks(model, options)
    everything = list(dict.fromkeys(name for nodes in blocks.values() for name in nodes))

    def variant(*, keep: Collection[str]) -> ModelProto:
        lowered = lower(model, _keeping(options, everything, keep).plan(model, ranges))
        return one_view(lowered) or lowered

    single = one_view(model) or model
    reference = Walk(single, feeds, threads=threads).finish()
    base = variant(keep=())
    whole = measure_effect(reference, Walk(base, feeds, threads=threads).finish(), metric=metric)
    done = 0

    def effects(start: ModelProto, variants: Iterable[tuple[str, ModelProto]]) -> dict[str, Effect]:
        nonlocal done
        found = {}
        for name, depths in run_variants(start, variants, feeds, threads=threads):
            found[name] = measure_effect(reference, depths, metric=metric)
            done += 1
            progress(done)
        return found

    alone_int8 = effects(
        single,
        ((name, variant(keep=set(everything).difference(nodes))) for name, nodes in blocks.items()),
    )
    # A network of one block without it is FP32.
    without = blocks.items() if len(blocks) > 1 else ()
    alone_float = effects(base, ((name, variant(keep=nodes)) for name, nodes in without))
    return Sensitivity(
        int8=whole,
        blocks=tuple(
            Block(
                name=name,
                nodes=nodes,
                macs=int8_mac_share(model, nodes),
                alone_int8=alone_int8[name],
                alone_float=alone_float.get(name, Effect(error=0.0, sqnr=None)),
            )
            for name, nodes in blocks.items()
        ),
    )


def _keeping(options: PlanOptions, everything: Iterable[str], keep: Collection[str]) -> PlanOptions:
    """The options with some of the blocks' nodes in float, be they forced into INT8 or not."""
    forced = tuple(escape(name) for name in everything if name not in keep) if options.force_int8 else ()
    return replace(options, force_int8=forced).keeping_float(sorted(keep))
