"""Measure a bundle on frames: INT8 against FP32 (the gate), both against LiDAR, and how fast each is."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.bundle import Bundle, Golden
from fsmde_edge.datasets.selection import NEAREST
from fsmde_edge.errors import UsageError
from fsmde_edge.evaluation.baselines import Rivals
from fsmde_edge.evaluation.cross_view import CrossView, cross_view, pool
from fsmde_edge.evaluation.deviation import GOLDEN_DEVIATION, mean_deviation
from fsmde_edge.evaluation.gallery import Gallery
from fsmde_edge.evaluation.gate import Gate, GateBudget, GateResult
from fsmde_edge.evaluation.latency import Latency, side_by_side
from fsmde_edge.evaluation.protocols import (
    PROTOCOLS,
    Accuracy,
    Protocol,
    ViewErrors,
    flipped_mean,
    pair_set,
    summarise,
)
from fsmde_edge.frames import Sample
from fsmde_edge.golden import check_preprocessing
from fsmde_edge.inference.backends import open_models, open_session
from fsmde_edge.inference.session import Session
from fsmde_edge.recipes import from_mapping
from fsmde_edge.views import Views, views_for

Depths = Mapping[str, NDArray[np.float32]]

CHECKED = ("fp32", "fp16", "int8")

GREY_LEVELS = 1
"""Difference of preprocessing from golden vectors that is rounding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckOptions:
    """What to measure.

    Attributes:
        protocols: names of the presets.
        max_depth: LiDAR counts up to this many metres.
        runs: timed inferences of each model; 0 measures no latency.
        threads: of one inference.
        backend: that latency is of, and how far INT8 as it runs is from exact.
    """

    protocols: tuple[str, ...] = tuple(PROTOCOLS)
    max_depth: float = 200.0
    runs: int = 30
    threads: int = 1
    backend: str = "auto"

    def __post_init__(self) -> None:
        if not NEAREST < self.max_depth < math.inf:
            raise UsageError(
                f"LiDAR cannot count from {NEAREST} up to {self.max_depth} metres",
                hint="give a larger --max-depth, as 80 or 200",
            )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CheckResult:
    """What was measured; the keys `int8` and `fp16` are there where the bundle has such a model.

    Attributes:
        gate: INT8 against FP32, exact arithmetic. It fails too, and is there without INT8 too, where a model
            or the preprocessing does not give what the bundle's golden frames say, or depth is no number.
        accuracy: protocol to model to result; empty without LiDAR or metres.
        cross: model to cross-view consistency.
        rivals: Abs Rel over images, median-scaled, of the models and of the baselines.
        half: mean deviation of FP16 from FP32, no part of the gate; None without FP16.
        latency: model to latency of one frame set, as it runs (fused kernels).
        fused: mean |fused − exact| / exact of INT8 as it runs; None without INT8.
        preprocessing: largest difference, in grey levels, of this machine's preprocessing from the bundle's
            golden vectors.
        sessions: model to what ran it, in words.
        sets: frame sets measured.
        gallery: pictures of the worst tiles.
    """

    gate: GateResult | None
    accuracy: Mapping[str, Mapping[str, Accuracy]]
    cross: Mapping[str, CrossView]
    rivals: Mapping[str, float]
    half: float | None
    latency: Mapping[str, Latency]
    fused: float | None
    preprocessing: int
    sessions: Mapping[str, str]
    sets: int
    gallery: Gallery

    def as_json(self) -> dict[str, Any]:
        """The object of `check --json`, as the design fixes it."""
        gate = None
        if self.gate is not None:
            names = ("passed", "verdict", "deviation", "p99", "worst_tile", "farther", "abs_rel_change")
            values = self.gate.as_dict()
            gate = {name: values[name] for name in names}
        return {
            "gate": gate,
            "accuracy": {
                protocol: {
                    model: {camera: metrics.as_dict() for camera, metrics in result.cameras.items()}
                    for model, result in models.items()
                }
                for protocol, models in self.accuracy.items()
            },
            "cross_view": {
                model: {
                    "overlap_accuracy": result.overlap_accuracy,
                    "depth_consistency": result.depth_consistency,
                }
                for model, result in self.cross.items()
            },
            "latency_ms": {
                model: {"p50": latency.p50, "p90": latency.p90, "p99": latency.p99}
                for model, latency in self.latency.items()
            },
        }


@np.errstate(all="ignore")  # what is not a number is judged, not warned of
def check(bundle: Bundle, samples: Iterable[Sample], options: CheckOptions) -> CheckResult:
    """Measure a bundle.

    Args:
        bundle: opened; its gate's budget holds here too.
        samples: frame sets of a rig that fits the bundle, read one at a time.
        options: what to measure.

    Raises:
        InputError: frames that do not fit the bundle, or whose LiDAR is all out of range.
    """
    models = [model for model in CHECKED if bundle.manifest.models.get(model)]
    exact = {m: _open_exact(bundle, m, options) for m in models}
    fused = open_models(bundle, models, backend=options.backend, threads=options.threads)
    board = _Board(bundle, options)
    try:
        board.add_golden(bundle.golden(), exact)
        for sample in samples:
            board.add(sample, exact, fused)
        return board.result(fused)
    finally:
        for session in (*exact.values(), *fused.values()):
            session.close()


def _open_exact(bundle: Bundle, model: str, options: CheckOptions) -> Session:
    return open_session(bundle, precision=model, threads=options.threads, exact=True).session


@dataclass(slots=True, eq=False)
class _Board:
    """Everything that is summed up, frame set by frame set."""

    bundle: Bundle
    options: CheckOptions
    views: Views | None = None
    gate: Gate = field(init=False)
    gallery: Gallery = field(default_factory=Gallery)
    rivals: Rivals = field(default_factory=Rivals)
    pairs: dict[tuple[str, str], list[list[ViewErrors]]] = field(default_factory=dict)
    cross: dict[str, list[CrossView]] = field(default_factory=dict)
    half: list[float] = field(default_factory=list)
    fused: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    grey_levels: int = 0
    first: str = ""
    input: tuple[NDArray[np.uint8], NDArray[np.float32]] | None = None
    sets: int = 0

    def __post_init__(self) -> None:
        manifest = self.bundle.manifest
        budget = GateBudget()
        if manifest.gate:
            budget = from_mapping(GateBudget, manifest.gate["budget"], where=self.bundle.root)
        self.gate = Gate(
            metric=manifest.metric,
            disparity=manifest.kind == "disparity",
            budget=budget,
            max_depth=self.options.max_depth,
        )

    def add_golden(self, golden: Golden, exact: Mapping[str, Session]) -> None:
        """Compare models and preprocessing with what they gave when the bundle was built."""
        for name, expected in golden.depth.items():
            if name in exact:
                found = exact[name].infer(golden.images, golden.focal).depth
                deviation = self._deviation(found, expected)
                if not deviation <= GOLDEN_DEVIATION:
                    self.faults.append(
                        f"{name} is {deviation:.2%} off the golden depth (at most {GOLDEN_DEVIATION:.2%})"
                    )
        self.grey_levels = check_preprocessing(golden)
        if self.grey_levels > GREY_LEVELS:
            self.faults.append(
                f"preprocessing is {self.grey_levels} grey levels off golden vectors (at most {GREY_LEVELS})"
            )

    def add(self, sample: Sample, exact: Mapping[str, Session], fused: Mapping[str, Session]) -> None:
        if self.views is None or self.views.rig is not sample.rig:
            self.views = views_for(sample.rig, self.bundle.manifest)
        images, focal = self.input = self.views.prepare(sample.frame_set)
        depths = {name: session.infer(images, focal).depth for name, session in exact.items()}
        self.first = self.first or sample.frame_set.name
        for name, depth in depths.items():
            fault = f"{name} gives depth that is not a number"
            if fault not in self.faults and not np.isfinite(depth).all():
                self.faults.append(fault)
        if "fp16" in depths:
            self.half.append(self._deviation(depths["fp16"], depths["fp32"]))
        if "int8" in depths:
            tiles = self.gate.add(sample, depths["fp32"], depths["int8"])
            self.gallery.add(tiles, images, depths["fp32"], depths["int8"])
        if "int8" in depths and "int8" in fused:
            self.fused.append(self._deviation(fused["int8"].infer(images, focal).depth, depths["int8"]))
        if self.bundle.manifest.metric and sample.depth:
            self.rivals.add(sample, depths)
            self._add_accuracy(sample, images, focal, depths, exact)
            for name, depth in depths.items():
                result = cross_view([depth], [sample], max_depth=self.options.max_depth)
                self.cross.setdefault(name, []).append(result)
        self.sets += 1

    def _add_accuracy(
        self,
        sample: Sample,
        images: NDArray[np.uint8],
        focal: NDArray[np.float32],
        depths: Depths,
        exact: Mapping[str, Session],
    ) -> None:
        protocols = [self._protocol(name) for name in self.options.protocols]
        flipped = {}
        if any(protocol.flip for protocol in protocols):
            mirrored = np.ascontiguousarray(images[:, :, ::-1])
            flipped = {
                name: flipped_mean(depths[name], session.infer(mirrored, focal).depth)
                for name, session in exact.items()
            }
        for protocol in protocols:
            for name in depths:
                depth = (flipped if protocol.flip else depths)[name]
                self.pairs.setdefault((protocol.name, name), []).append(pair_set(depth, sample, protocol))

    def result(self, fused: Mapping[str, Session]) -> CheckResult:
        accuracy: dict[str, dict[str, Accuracy]] = {}
        for (protocol, model), sets in self.pairs.items():
            accuracy.setdefault(protocol, {})[model] = summarise(
                sets, self._protocol(protocol), where=self.first.rpartition("/")[0] or None
            )
        judged = bool(self.bundle.manifest.models.get("int8")) or self.faults
        return CheckResult(
            gate=self.gate.result().failed_by(tuple(self.faults)) if judged else None,
            accuracy=accuracy,
            cross={name: pool(parts) for name, parts in self.cross.items()},
            rivals=self.rivals.result(),
            half=float(np.mean(self.half)) if self.half else None,
            latency=self._latency(fused),
            fused=float(np.mean(self.fused)) if self.fused else None,
            preprocessing=self.grey_levels,
            sessions={name: session.detail for name, session in fused.items()},
            sets=self.sets,
            gallery=self.gallery,
        )

    def _deviation(self, depth: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
        return mean_deviation(depth, expected, metric=self.bundle.manifest.metric)

    def _protocol(self, name: str) -> Protocol:
        return PROTOCOLS[name].up_to(self.options.max_depth)

    def _latency(self, fused: Mapping[str, Session]) -> Mapping[str, Latency]:
        if self.options.runs == 0 or self.input is None:
            return {}
        images, focal = self.input
        calls = {name: (lambda s=session: s.infer(images, focal)) for name, session in fused.items()}
        return side_by_side(calls, runs=self.options.runs)
