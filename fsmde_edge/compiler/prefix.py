"""Networks run piece by piece, so that many variants of one network share all that they have in common.

A search asks hundreds of times "what if this block were float, or that range another?". Each variant differs
from the network that it varies only from some node on. `run_variants` walks that network once, holds the
tensors that live at a cut, and runs from there only the rest of each variant.

All runs are without graph optimisations. So each node computes the same bits wherever a network is cut: with
them, a fused addition rounds otherwise, integers behind it tip, and the variants are no longer comparable.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.compiler.calibrate import CalibrationBatch, single_view
from fsmde_edge.errors import InputError
from fsmde_edge.graph.model import (
    TensorType,
    copy_model,
    initializers,
    model_bytes,
    subgraph_inputs,
    tensor_types,
)

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

Key = TypeVar("Key", bound=Hashable)
Tensors = Mapping[str, NDArray[Any]]
Depths = list[NDArray[np.float32]]


def feeds_of(batches: Iterable[CalibrationBatch], *, single: bool, most: int) -> list[Tensors]:
    """Network inputs for `Walk`.

    Args:
        batches: frame sets for calibration.
        single: one view each, filling left out, for `one_view` models; otherwise whole batches.
        most: so many views at most, evenly chosen from first to last; at least one input.

    Errors:
        InputError: no frames.
    """
    feeds: list[Tensors] = []
    for batch in batches:
        starts = range(batch.valid) if single else range(1)
        for start in starts:
            rows = slice(start, start + 1) if single else slice(None)
            feeds.append({"images": batch.images[rows], "focal": batch.focal[rows]})
    if not feeds:
        raise InputError("no frames to try variants on", hint="check which frames the recipe selects")
    wanted = max(1, most // len(feeds[0]["focal"]))
    chosen = np.linspace(0, len(feeds) - 1, min(wanted, len(feeds))).round().astype(int)
    return [feeds[i] for i in chosen]


def one_view(model: ModelProto) -> ModelProto | None:
    """The network for a single view, with `depth` alone; None where its views depend on each other."""
    return single_view(model, ["depth"])


class Walk:
    """A network and a few inputs, run up to some node: `live` holds what is needed from there on.

    Args:
        model: a tidy model; the caller may change constants of nodes that have not run yet.
        feeds: one mapping of inputs for each run.
        keep: tensors that stay alive though the network itself is done with them.
        threads: ONNX Runtime's; 0 leaves the choice to it.
    """

    def __init__(
        self, model: ModelProto, feeds: Sequence[Tensors], *, keep: Iterable[str] = (), threads: int = 0
    ) -> None:
        self.model = model
        self.live = [dict(feed) for feed in feeds]
        self.position = 0
        self._types = tensor_types(model)
        self._keep = set(keep)
        self._threads = threads

    def advance(self, stop: int) -> None:
        """Run on until just before node number `stop`."""
        nodes = list(self.model.graph.node)
        piece = nodes[self.position : stop]
        later = self._keep | {info.name for info in self.model.graph.output} | _read(nodes[stop:])
        made = [name for node in piece for name in node.output if name in later]
        if made:
            session = plain_session(piece_of(self.model, piece, made, self._types), threads=self._threads)
            self.live = [live | _run(session, made, live) for live in self.live]
        self.live = [{name: value for name, value in live.items() if name in later} for live in self.live]
        self.position = max(stop, self.position)

    def advance_to(self, name: str) -> NodeProto:
        """Run on until just before a node, which must not have run yet, and give it."""
        names = [node.name for node in self.model.graph.node]
        self.advance(names.index(name, self.position))
        node: NodeProto = self.model.graph.node[self.position]
        return node

    def output_of(self, name: str) -> list[NDArray[Any]]:
        """Run a node too, and give what it makes of each input."""
        node = self.advance_to(name)
        self.advance(self.position + 1)
        return [live[node.output[0]] for live in self.live]

    def finish(self) -> Depths:
        """Run to the end and give the depth of each input."""
        self.advance(len(self.model.graph.node))
        return [live["depth"] for live in self.live]


def run_variants(
    base: ModelProto,
    variants: Iterable[tuple[Key, ModelProto]],
    feeds: Sequence[Tensors],
    *,
    threads: int = 0,
) -> Iterator[tuple[Key, Depths]]:
    """Run variants of a network; what a variant shares with it from the start is computed once for all.

    Of each variant only what differs is kept, so a generator of them needs little memory.

    Args:
        base: a tidy model that gives `depth`.
        variants: (key, tidy model that differs from some node on).
        feeds: inputs.
        threads: ONNX Runtime's; 0 leaves the choice to it.

    Yields:
        (key, depth of each input), those that differ first first.
    """
    rests = sorted((_Rest.of(key, variant, base) for key, variant in variants), key=lambda rest: rest.start)
    walk = Walk(base, feeds, keep=set().union(*(rest.reads for rest in rests)), threads=threads)
    for rest in rests:
        walk.advance(rest.start)
        if rest.piece is None:
            yield rest.key, [live["depth"] for live in walk.live]
            continue
        session = plain_session(rest.completed(base), threads=threads)
        yield rest.key, [_run(session, ["depth"], live)["depth"] for live in walk.live]


def common_nodes(one: ModelProto, other: ModelProto) -> int:
    """How many nodes two models have in common from the start, constants included."""
    mine, theirs = initializers(one.graph), initializers(other.graph)
    for count, (left, right) in enumerate(zip(one.graph.node, other.graph.node, strict=False)):
        if left != right or any(mine.get(name) != theirs.get(name) for name in subgraph_inputs(left)):
            return count
    return min(len(one.graph.node), len(other.graph.node))


def piece_of(
    model: ModelProto,
    nodes: Sequence[NodeProto],
    outputs: Sequence[str],
    types: Mapping[str, TensorType],
    *,
    without: Mapping[str, TensorProto] | None = None,
) -> ModelProto:
    """Some consecutive nodes as a model of its own.

    Args:
        model: the network.
        nodes: of its graph, in order.
        outputs: tensors that they make.
        types: of all its tensors.
        without: constants that are left out, for the caller to add, where they equal the network's.
    """
    from onnx import helper

    made = {name for node in nodes for name in node.output}
    constants = initializers(model.graph)
    read = [name for name in dict.fromkeys(n for node in nodes for n in subgraph_inputs(node)) if name]
    inputs, results = (
        [helper.make_tensor_value_info(name, types[name].dtype, types[name].shape) for name in names]
        for names in ([n for n in read if n not in made and n not in constants], outputs)
    )
    absent = without or {}
    weights = [constants[n] for n in read if n in constants and absent.get(n) != constants[n]]
    graph = helper.make_graph(nodes, "piece", inputs, results, initializer=weights)
    return helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)


def plain_session(model: ModelProto, *, threads: int) -> Any:
    """ONNX Runtime on the CPU, node by node as the graph says, Q/DQ included: no optimisation.

    Args:
        model: with types inferred.
        threads: 0 leaves the choice to it.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model_bytes(model), options, providers=["CPUExecutionProvider"])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Rest:
    """What a variant does behind what it shares with its base.

    Attributes:
        key: the variant's.
        start: how many nodes it shares.
        piece: the nodes behind them, without the constants of the base; None where depth is made before.
        shared: names of these constants.
        reads: names of all that the piece reads.
    """

    key: Any
    start: int
    piece: ModelProto | None
    shared: tuple[str, ...]
    reads: frozenset[str]

    @classmethod
    def of(cls, key: object, variant: ModelProto, base: ModelProto) -> _Rest:
        start = common_nodes(base, variant)
        nodes = list(variant.graph.node)[start:]
        if not any("depth" in node.output for node in nodes):
            return cls(key=key, start=start, piece=None, shared=(), reads=frozenset())
        constants, types = initializers(base.graph), tensor_types(variant)
        piece = piece_of(variant, nodes, ["depth"], types, without=constants)
        known = {item.name for item in (*piece.graph.initializer, *piece.graph.input)}
        known |= {name for node in nodes for name in node.output}
        reads = frozenset(_read(nodes))
        return cls(key=key, start=start, piece=piece, shared=tuple(sorted(reads - known - {""})), reads=reads)

    def completed(self, base: ModelProto) -> ModelProto:
        """The piece with its base's constants."""
        assert self.piece is not None
        constants, whole = initializers(base.graph), copy_model(self.piece)
        whole.graph.initializer.extend(constants[name] for name in self.shared)
        return whole


def _read(nodes: Sequence[NodeProto]) -> set[str]:
    return {name for node in nodes for name in subgraph_inputs(node)}


def _run(session: Any, outputs: list[str], live: Tensors) -> dict[str, NDArray[Any]]:
    feed = {item.name: live[item.name] for item in session.get_inputs()}
    return dict(zip(outputs, session.run(outputs, feed), strict=True))
