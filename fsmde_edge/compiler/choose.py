"""Which calibrator's range each tensor takes, by what it does to the network's depth.

A calibrator's own measure (largest value, percentile, entropy, squared error of the tensor) says little about
depth. So all calibrators are tried on the whole network first, and then, from the best one, each
scale-sharing group with each other calibrator alone. Taken is what measures best: the best calibrator for
all, with the one group whose change helped most, or with all changes that helped alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fsmde_edge.compiler.calibrate import Ranges
from fsmde_edge.compiler.histogram import CALIBRATORS
from fsmde_edge.compiler.lowering.tensorrt import lower
from fsmde_edge.compiler.plan import PlanOptions
from fsmde_edge.compiler.prefix import Tensors, Walk, one_view, run_variants
from fsmde_edge.compiler.sensitivity import Effect, measure_effect

if TYPE_CHECKING:
    from onnx import ModelProto

WORTH = 0.995
"""A group changes its calibrator for an error less than this many times as large."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeChoice:
    """What was tried, and what was taken.

    Attributes:
        options: with the calibrators chosen.
        whole: calibrator to its effect on the whole network.
        chosen: the effect of the choice.
    """

    options: PlanOptions
    whole: Mapping[str, Effect]
    chosen: Effect


def choose_ranges(
    model: ModelProto,
    ranges: Ranges,
    options: PlanOptions,
    feeds: Sequence[Tensors],
    *,
    metric: bool = True,
    threads: int = 0,
    progress: Callable[[int], None] = lambda _: None,
) -> RangeChoice:
    """Choose calibrators by measured output error.

    Args:
        model: a tidy FP32 model.
        ranges: its calibration.
        options: of the placement; their calibrators are chosen anew.
        feeds: inputs, one view each if `prefix.one_view` takes the network apart.
        metric: see `sensitivity.measure_effect`.
        threads: ONNX Runtime's; 0 leaves the choice to it.
        progress: called with the number of variants run.
    """
    reference = Walk(one_view(model) or model, feeds, threads=threads).finish()

    def lowered(tried: PlanOptions) -> ModelProto:
        whole = lower(model, tried.plan(model, ranges))
        return one_view(whole) or whole

    def effect(tried: PlanOptions) -> Effect:
        depths = Walk(lowered(tried), feeds, threads=threads).finish()
        return measure_effect(reference, depths, metric=metric)

    whole = {name: effect(replace(options, calibrator=name, calibrators={})) for name in CALIBRATORS}
    best = min(whole, key=lambda name: whole[name].error)
    base = replace(options, calibrator=best, calibrators={})
    tries = _other_ranges(model, ranges, base)
    variants = (((group, name), lowered(base.calibrated({group: name}))) for group, name in tries)
    better: dict[str, tuple[Effect, str]] = {}
    runs = run_variants(lowered(base), variants, feeds, threads=threads)
    for done, ((group, name), depths) in enumerate(runs):
        found = measure_effect(reference, depths, metric=metric)
        known = better[group][0].error if group in better else whole[best].error * WORTH
        if found.error < known:
            better[group] = (found, name)
        progress(done + 1)
    results = [(whole[best], base)]
    results += [(found, base.calibrated({group: name})) for group, (found, name) in better.items()]
    if len(better) > 1:
        together = base.calibrated({group: name for group, (_, name) in better.items()})
        results.append((effect(together), together))
    chosen, taken = min(results, key=lambda result: result[0].error)
    return RangeChoice(options=taken, whole=whole, chosen=chosen)


def _other_ranges(model: ModelProto, ranges: Ranges, base: PlanOptions) -> list[tuple[str, str]]:
    """(group, calibrator) wherever another calibrator gives a group another scale; each scale once."""
    others = {name: _scales(model, ranges, replace(base, calibrator=name)) for name in CALIBRATORS}
    tries = []
    for group, scale in others[base.calibrator].items():
        seen = {scale}
        for name, scales in others.items():
            if scales[group] not in seen:
                seen.add(scales[group])
                tries.append((group, name))
    return tries


def _scales(model: ModelProto, ranges: Ranges, options: PlanOptions) -> dict[str, float | None]:
    """Scale-sharing group to its scale, in the graph's order."""
    return {item.group: item.scale for item in options.plan(model, ranges).activations if item.group}
