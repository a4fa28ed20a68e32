"""A few calibration frames by which plans are compared before the gate sees the network.

The gate's own frames stay unseen: whatever is chosen here is judged there, on other frames. So the budget
that a search keeps to is a share of the gate's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from fsmde_edge.compiler.prefix import Depths, Tensors, Walk, one_view
from fsmde_edge.compiler.sensitivity import Effect, measure_effect
from fsmde_edge.datasets.base import Dataset
from fsmde_edge.evaluation.gate import Gate, GateBudget, GateResult
from fsmde_edge.frames import Sample
from fsmde_edge.preprocess import own_pinholes, preprocess_set
from fsmde_edge.rig import VirtualPinhole

if TYPE_CHECKING:
    from onnx import ModelProto

SHARE = 0.8
"""Of the gate's budget: other frames than these must keep to the whole of it."""

MOST_SETS = 4
"""Frame sets that are looked at; the search runs every variant of the network on all of them."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trial:
    """Frames, what FP32 makes of them, and the budget to keep to.

    Attributes:
        samples: calibration frame sets of the full rig.
        feeds: network inputs, in order: one a view where views do not depend on each other, else one a set.
        reference: FP32 depth of each.
        budget: `SHARE` of the gate's.
        metric, disparity: what the network gives.
        max_depth: LiDAR counts up to this many metres.
        threads: ONNX Runtime's; 0 leaves the choice to it.
    """

    samples: tuple[Sample, ...]
    feeds: tuple[Tensors, ...]
    reference: Depths
    budget: GateBudget
    metric: bool
    disparity: bool
    max_depth: float
    threads: int

    def run(self, model: ModelProto) -> Depths:
        """Depth of each input, Q/DQ arithmetic in float32."""
        return Walk(one_view(model) or model, self.feeds, threads=self.threads).finish()

    def effect(self, depths: Depths) -> Effect:
        """How far depths are from FP32's."""
        return measure_effect(self.reference, depths, metric=self.metric)

    def judge(self, depths: Depths) -> GateResult:
        """The gate's numbers on these frames, against the trial's budget."""
        gate = Gate(
            metric=self.metric, disparity=self.disparity, budget=self.budget, max_depth=self.max_depth
        )
        each = len(self.feeds) // len(self.samples)
        for number, sample in enumerate(self.samples):
            rows = slice(number * each, (number + 1) * each)
            gate.add(sample, np.concatenate(self.reference[rows]), np.concatenate(depths[rows]))
        return gate.result()


def make_trial(
    model: ModelProto,
    data: Sequence[Dataset],
    pinholes: Sequence[VirtualPinhole],
    budget: GateBudget,
    *,
    kind: str = "metric",
    max_depth: float = 200.0,
    threads: int = 0,
) -> Trial:
    """Read `MOST_SETS` frame sets, evenly chosen (those of the full rig count), and run FP32 on them.

    Args:
        model: the tidy FP32 network.
        data: what calibrates; its first sample has the full rig.
        pinholes: the bundle's views.
        budget: the gate's.
        kind: of the network's output: metric, relative, disparity.
        max_depth: see `Trial`.
        threads: see `Trial`.
    """
    places = [(dataset, index) for dataset in data for index in range(len(dataset))]
    chosen = np.unique(np.linspace(0, len(places) - 1, min(MOST_SETS, len(places))).round().astype(int))
    read = (places[number][0][places[number][1]] for number in chosen)
    kept = tuple(sample for sample in read if len(sample.rig) == len(pinholes))
    single = one_view(model)
    feeds = tuple(feed for sample in kept for feed in _feeds(sample, pinholes, single=single is not None))
    return Trial(
        samples=kept,
        feeds=feeds,
        reference=Walk(single or model, feeds, threads=threads).finish(),
        budget=GateBudget(**{name: SHARE * limit for name, limit in asdict(budget).items()}),
        metric=kind == "metric",
        disparity=kind == "disparity",
        max_depth=max_depth,
        threads=threads,
    )


def _feeds(sample: Sample, pinholes: Sequence[VirtualPinhole], *, single: bool) -> list[Tensors]:
    own = own_pinholes(sample.rig, pinholes[0].width, pinholes[0].height)
    images, focal = preprocess_set(sample.frame_set, sample.rig, own)
    step = 1 if single else len(images)
    rows = [slice(start, start + step) for start in range(0, len(images), step)]
    return [{"images": images[row], "focal": focal[row]} for row in rows]
