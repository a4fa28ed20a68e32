"""The precision search: which blocks go back into half precision so that depth keeps to its budget.

Every block costs error in INT8 and time out of it. From the plan with everything in INT8, blocks are put into
float16 in the order of the error that they buy (their noise power alone in INT8, which adds up) over the
milliseconds that they cost by the cost model, one after the other, until the frames of the trial keep to
their budget; then each one is tried in INT8 again, in case later ones made it unnecessary. All plans on the
way are measured, so the report shows error against time and where the choice lies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from fsmde_edge.compiler.calibrate import Ranges
from fsmde_edge.compiler.half import to_half
from fsmde_edge.compiler.lowering.tensorrt import lower
from fsmde_edge.compiler.plan import Plan, PlanOptions, names_node
from fsmde_edge.compiler.predict.cost import estimate
from fsmde_edge.compiler.predict.fusion import fuse
from fsmde_edge.compiler.sensitivity import Block, Sensitivity, measure_sensitivity
from fsmde_edge.compiler.trial import Trial
from fsmde_edge.targets import Target

if TYPE_CHECKING:
    from onnx import ModelProto

Finish = Callable[["ModelProto", Plan], "ModelProto"]

LEAST_MS = 1e-6
"""A block that costs no time in float buys error as if it cost a nanosecond."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One plan: predicted time against measured error.

    Attributes:
        floats: names of the blocks in float.
        ms: of one frame set on the target, by the cost model; an estimate.
        error: root mean square of relative depth error on the trial's frames.
        holds: whether they keep to the trial's budget.
        reasons: if not, what is beyond it.
        int8_mac_share: the share of multiply-accumulates in INT8, 0..1.
    """

    floats: tuple[str, ...]
    ms: float
    error: float
    holds: bool
    reasons: tuple[str, ...]
    int8_mac_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What was tried, and what was taken.

    Attributes:
        target: whose time was predicted.
        sensitivity: the table of blocks.
        block_ms: block to the milliseconds that it costs in float.
        fp32_ms, fp16_ms: the whole network's, by the same cost model.
        points: measured plans, in the order in which they were tried; the first is all INT8.
        chosen: the fastest that holds; the one of least error where none does.
        options: its plan.
    """

    target: str
    sensitivity: Sensitivity
    block_ms: dict[str, float]
    fp32_ms: float
    fp16_ms: float
    points: tuple[Point, ...]
    chosen: Point
    options: PlanOptions

    @property
    def front(self) -> tuple[Point, ...]:
        """The Pareto front, fastest first: no measured plan is faster and nearer to FP32."""
        front: list[Point] = []
        for point in sorted(self.points, key=lambda point: (point.ms, point.error)):
            if not front or point.error < front[-1].error:
                front.append(point)
        return tuple(front)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "front": [asdict(point) for point in self.front]}


def search_precision(
    model: ModelProto,
    ranges: Ranges,
    options: PlanOptions,
    trial: Trial,
    target: Target,
    *,
    finish: Finish = lambda lowered, _: lowered,
    progress: Callable[[int], None] = lambda _: None,
) -> Search:
    """Find the fastest plan by the cost model that keeps to the budget.

    Args:
        model: a tidy FP32 model.
        ranges: its calibration.
        options: what is INT8 and float from the start; blocks that `force_int8` names stay INT8.
        trial: frames and budget.
        target: whose time counts; must have rates.
        finish: what is done to a lowered network before it counts (bias correction, learnt rounding).
        progress: called with the number of networks run, of two a block and one a plan on the way.
    """
    sensitivity = measure_sensitivity(
        model,
        ranges,
        options,
        trial.feeds,
        metric=trial.metric,
        threads=trial.threads,
        progress=progress,
    )
    blocks = {block.name: block for block in sensitivity.blocks}
    finder = _Finder(model, ranges, options, trial, target, blocks, finish)
    whole = finder.point(())
    free = [block.name for block in sensitivity.blocks if not _forced(block, options)]
    if len(sensitivity.blocks) == 1:
        free = []  # without its one block nothing would be INT8
    block_ms = {name: finder.ms((name,)) - whole.ms for name in free}
    order = sorted(block_ms, key=lambda name: -_worth(finder.blocks[name], block_ms[name]))
    points = [whole]
    for point in finder.path(order, so_far=whole):
        points.append(point)
        progress(2 * len(sensitivity.blocks) + len(points))
    points += finder.without_needless(points[-1])
    chosen = _choose(points)
    return Search(
        target=target.description,
        sensitivity=sensitivity,
        block_ms=block_ms,
        fp32_ms=finder.estimate(model),
        fp16_ms=finder.estimate(to_half(model)),
        points=tuple(points),
        chosen=chosen,
        options=finder.options_of(chosen.floats),
    )


@dataclass(slots=True, eq=False)
class _Finder:
    """Makes and measures plans that differ from one by the blocks in float."""

    model: ModelProto
    ranges: Ranges
    options: PlanOptions
    trial: Trial
    target: Target
    blocks: dict[str, Block]
    finish: Finish

    def options_of(self, floats: Sequence[str]) -> PlanOptions:
        return self.options.keeping_float(node for name in floats for node in self.blocks[name].nodes)

    def ms(self, floats: Sequence[str]) -> float:
        plan = self.options_of(floats).plan(self.model, self.ranges)
        return self.estimate(to_half(lower(self.model, plan)))

    def estimate(self, model: ModelProto) -> float:
        return estimate(fuse(model), self.target).ms

    def point(self, floats: tuple[str, ...]) -> Point:
        plan = self.options_of(floats).plan(self.model, self.ranges)
        lowered = lower(self.model, plan)
        depths = self.trial.run(self.finish(lowered, plan))
        result = self.trial.judge(depths)
        return Point(
            floats=floats,
            ms=self.estimate(to_half(lowered)),
            error=self.trial.effect(depths).error,
            holds=result.verdict != "failed",
            reasons=result.reasons if result.verdict == "failed" else (),
            int8_mac_share=plan.int8_mac_share,
        )

    def path(self, order: Sequence[str], *, so_far: Point) -> Iterator[Point]:
        """One block more in float each time, until the budget holds."""
        most = min(len(order), len(self.blocks) - 1)
        while not so_far.holds and len(so_far.floats) < most:
            so_far = self.point((*so_far.floats, order[len(so_far.floats)]))
            yield so_far

    def without_needless(self, point: Point) -> list[Point]:
        """What was tried with one block less in float, again and again while the budget holds."""
        tried: list[Point] = []
        if not point.holds:
            return tried
        for name in point.floats[:-1]:  # without the last one it did not hold
            less = self.point(tuple(other for other in point.floats if other != name))
            tried.append(less)
            if less.holds:
                point = less
        return tried


def _forced(block: Block, options: PlanOptions) -> bool:
    return any(names_node(pattern, node) for node in block.nodes for pattern in options.force_int8)


def _worth(block: Block, ms: float) -> float:
    return block.alone_int8.error**2 / max(ms, LEAST_MS)


def _choose(points: Sequence[Point]) -> Point:
    holding = [point for point in points if point.holds]
    return min(holding, key=lambda p: (p.ms, p.error)) if holding else min(points, key=lambda p: p.error)
