"""The gate: INT8 is let through only where it is FP32, within a stated budget.

The frames are ones that calibration did not see; both sides run in exact Q/DQ arithmetic.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.errors import InputError
from fsmde_edge.evaluation.metrics import DISTANCE_BANDS, depth_metrics
from fsmde_edge.evaluation.protocols import PROTOCOLS, band_name, pair
from fsmde_edge.frames import Sample

Verdict = Literal["passed", "failed", "inconclusive"]
Values = NDArray[np.float64]

TILE = 16
TILE_NEARER_THAN = 30.0
FARTHER_BY = 0.10
FEWEST_IMAGES = 8
"""Below this many images with LiDAR a bootstrap interval over images means nothing."""

_STEP, _STEPS = 1e-4, 20_000
_LEAST = 1e-9
"""Nothing is divided by less."""


WIDEST = 10.0
"""No budget is beyond a thousand per cent: such a one was meant in per cent, and any INT8 would pass it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateBudget:
    """What INT8 may cost; a recipe may tighten or widen it.

    Attributes:
        deviation: mean |d8 − d32| / d32, over a view's pixels, then over views.
        p99: its 99th percentile over all pixels.
        worst_tile: its mean over the worst 16×16 tile nearer than 30 m.
        farther: share of pixels that INT8 puts more than 10 % farther than FP32 (the dangerous sign).
        abs_rel_change: |ΔAbs Rel| / Abs Rel, where there is LiDAR.
    """

    deviation: float = 0.02
    p99: float = 0.10
    worst_tile: float = 0.15
    farther: float = 0.005
    abs_rel_change: float = 0.01

    def __post_init__(self) -> None:
        for name, limit in asdict(self).items():
            if not 0 <= limit <= WIDEST:
                raise InputError(
                    f"a budget cannot be {name}: {limit}", hint=f"choose 0 to {WIDEST:g}; 0.02 is 2 %"
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class WorstTile:
    """Where INT8 leaves FP32 most: a tile's top left pixel at network size, and its mean deviation."""

    set_name: str
    camera: str
    row: int
    column: int
    deviation: float
    metres: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GateResult:
    """The gate's verdict and all that led to it.

    Attributes:
        verdict: `passed`, `failed` or `inconclusive` (which is not a pass).
        reasons: one line for each number beyond its budget, or why no verdict was possible.
        deviation, p99, worst_tile, farther: as in `GateBudget`.
        abs_rel_change: signed (A8 − A32) / A32, or None without LiDAR.
        interval: its 95 % bootstrap interval over images, or None with fewer than 8.
        images: views compared.
        lidar_images: views with LiDAR.
        metric: False for networks without metres: deviations are then over the mean absolute output, tiles
            count at any distance and Abs Rel does not.
        cameras, distances: mean deviation by camera and by FP32 distance.
        tiles: the worst tiles (at most one a view, twelve in all), worst first.
    """

    verdict: Verdict
    reasons: tuple[str, ...]
    deviation: float
    p99: float
    worst_tile: float
    farther: float
    abs_rel_change: float | None
    interval: tuple[float, float] | None
    images: int
    lidar_images: int
    metric: bool
    budget: GateBudget
    cameras: Mapping[str, float]
    distances: Mapping[str, float]
    tiles: tuple[WorstTile, ...]

    @property
    def passed(self) -> bool:
        """Whether the verdict is `passed`."""
        return self.verdict == "passed"

    def accepted(self, *, allow_few: bool) -> bool:
        """Whether it passed, or could not decide and the user accepts that."""
        return self.passed or (allow_few and self.verdict == "inconclusive")

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "passed": self.passed}

    def failed_by(self, faults: tuple[str, ...]) -> GateResult:
        """The same numbers, failed for these reasons before all others; itself where there are none."""
        if not faults:
            return self
        own = self.reasons if self.verdict == "failed" else ()
        return replace(self, verdict="failed", reasons=(*faults, *own))


@dataclass(slots=True, eq=False)
class Gate:
    """Compares frame set by frame set; memory does not grow with the number of sets but by a few numbers.

    Args:
        metric: whether depths are metres.
        disparity: whether a larger value is nearer.
        budget: the limits.
        max_depth: LiDAR counts up to this many metres.
    """

    metric: bool = True
    disparity: bool = False
    budget: GateBudget = field(default_factory=GateBudget)
    max_depth: float = 200.0
    _views: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    _bands: dict[str, Values] = field(default_factory=lambda: defaultdict(lambda: np.zeros(2)))
    _histogram: NDArray[np.int64] = field(default_factory=lambda: np.zeros(_STEPS + 1, dtype=np.int64))
    _farther: int = 0
    _pixels: int = 0
    _tiles: list[WorstTile] = field(default_factory=list)
    _abs_rel: list[tuple[float, float]] = field(default_factory=list)
    _had_lidar: bool = False
    _least: float = np.inf
    _most: float = -np.inf

    @np.errstate(all="ignore")  # what is not a number is judged, not warned of
    def add(
        self, sample: Sample, fp32: NDArray[np.float32], int8: NDArray[np.float32]
    ) -> list[tuple[int, WorstTile]]:
        """Compare one frame set.

        Args:
            sample: pictures, rig and LiDAR.
            fp32, int8: float32 [V, h, w], in ring order.

        Returns:
            (view, its worst tile), for the views that have one.
        """
        tiles = []
        for i, camera in enumerate(sample.rig.cameras):
            mask = camera.scaled(fp32.shape[2], fp32.shape[1]).ego_mask
            world = np.ones(fp32.shape[1:], dtype=np.bool_) if mask is None else mask
            if world.any():
                tile = self._add_view(sample.frame_set.name, camera.name, fp32[i], int8[i], world)
                tiles += [(i, tile)] if tile is not None else []
            if self.metric and camera.name in sample.depth:
                self._add_lidar(sample, i, fp32[i], int8[i])
        self._tiles = sorted((*self._tiles, *(t for _, t in tiles)), key=lambda t: -t.deviation)[:12]
        return tiles

    @np.errstate(all="ignore")
    def add_depths(
        self,
        name: str,
        cameras: Sequence[str],
        fp32: NDArray[np.float32],
        int8: NDArray[np.float32],
        *,
        world: NDArray[np.bool_] | None = None,
    ) -> None:
        """Compare one frame set of which no more is known than its depths: no LiDAR.

        Args:
            name: of the set.
            cameras: of its views, in order.
            fp32, int8: float32 [V, h, w].
            world: bool [V, h, w], the pixels that count, some in each view; all if None.
        """
        counted = np.ones(fp32.shape, dtype=np.bool_) if world is None else world
        tiles = []
        for i, camera in enumerate(cameras):
            tiles.append(self._add_view(name, camera, fp32[i], int8[i], counted[i]))
        found = [tile for tile in (*self._tiles, *tiles) if tile is not None]
        self._tiles = sorted(found, key=lambda t: -t.deviation)[:12]

    def result(self) -> GateResult:
        """The verdict over all sets so far."""
        means = [value for values in self._views.values() for value in values]
        if not means:
            return self._empty()
        shares = np.cumsum(self._histogram) / self._pixels
        numbers = {
            "deviation": float(np.mean(means)),
            "p99": float((np.searchsorted(shares, 0.99) + 1) * _STEP),
            "worst_tile": self._tiles[0].deviation if self._tiles else 0.0,
            "farther": self._farther / self._pixels,
        }
        change, interval = self._abs_rel_change()
        verdict, reasons = self._judge(numbers, change, interval)
        return GateResult(
            verdict=verdict,
            reasons=reasons,
            **numbers,
            abs_rel_change=change,
            interval=interval,
            images=len(means),
            lidar_images=len(self._abs_rel),
            metric=self.metric,
            budget=self.budget,
            cameras={name: float(np.mean(values)) for name, values in self._views.items()},
            distances={name: float(total / count) for name, (total, count) in self._bands.items() if count},
            tiles=tuple(self._tiles),
        )

    def _add_view(
        self,
        set_name: str,
        camera: str,
        fp32: NDArray[np.float32],
        int8: NDArray[np.float32],
        world: NDArray[np.bool_],
    ) -> WorstTile | None:
        reference = fp32.astype(np.float64)
        over = np.abs(reference) if self.metric else np.full_like(reference, np.abs(reference[world]).mean())
        self._least = min(self._least, float(reference[world].min()))
        self._most = max(self._most, float(reference[world].max()))
        signed = (int8 - reference) / np.maximum(over, _LEAST)
        # A result that is not a number is as far off as can be.
        signed = np.nan_to_num(signed, nan=np.inf, posinf=np.inf, neginf=-np.inf).clip(-1e6, 1e6)
        deviation = np.abs(signed)
        self._views[camera].append(float(deviation[world].mean()))
        steps = np.minimum((deviation[world] / _STEP).astype(np.int64), _STEPS)
        self._histogram += np.bincount(steps, minlength=_STEPS + 1)
        away = -signed if self.disparity else signed
        self._farther += int((away[world] > FARTHER_BY).sum())
        self._pixels += int(world.sum())
        for low, high in DISTANCE_BANDS if self.metric else ():
            inside = world & (reference >= low) & (reference < high)
            self._bands[band_name(low, high)] += (deviation[inside].sum(), inside.sum())
        tile = _worst_tile(deviation, reference, world, TILE_NEARER_THAN if self.metric else np.inf)
        if tile is None:
            return None
        row, column, mean, metres = tile
        return WorstTile(
            set_name=set_name, camera=camera, row=row, column=column, deviation=mean, metres=metres
        )

    def _add_lidar(
        self, sample: Sample, view: int, fp32: NDArray[np.float32], int8: NDArray[np.float32]
    ) -> None:
        protocol, camera = PROTOCOLS["deploy"].up_to(self.max_depth), sample.rig.cameras[view]
        before, after = (pair(d, sample.depth[camera.name], camera, protocol) for d in (fp32, int8))
        self._had_lidar = True
        if before.truth.size:
            self._abs_rel.append(
                (
                    depth_metrics(before.depth, before.truth).abs_rel,
                    depth_metrics(after.depth, after.truth).abs_rel,
                )
            )

    def _abs_rel_change(self) -> tuple[float | None, tuple[float, float] | None]:
        if not self._abs_rel:
            return None, None
        pairs = np.array(self._abs_rel)
        before, after = np.maximum(pairs.mean(axis=0), _LEAST)
        change = float((after - before) / before)
        if len(pairs) < FEWEST_IMAGES:
            return change, None
        draws = np.random.default_rng(0).integers(0, len(pairs), size=(2000, len(pairs)))
        means = np.maximum(pairs[draws].mean(axis=1), _LEAST)
        low, high = np.percentile((means[:, 1] - means[:, 0]) / means[:, 0], (2.5, 97.5))
        return change, (float(low), float(high))

    def _judge(
        self, numbers: Mapping[str, float], change: float | None, interval: tuple[float, float] | None
    ) -> tuple[Verdict, tuple[str, ...]]:
        limits = asdict(self.budget)
        reasons = [
            f"{name} {value:.2%} is beyond {limits[name]:.2%}"
            for name, value in numbers.items()
            if not value <= limits[name]
        ]
        limit = self.budget.abs_rel_change
        if change is not None and not abs(change) <= limit:
            reasons.append(f"abs_rel_change {change:+.2%} is beyond {limit:.2%}")
        if reasons:
            return "failed", tuple(reasons)
        if self._most <= self._least:
            same = f"FP32 says {self._most:g} everywhere: there is nothing that INT8 could lose"
            return "inconclusive", (same,)
        if self._had_lidar and change is None:
            return "inconclusive", (f"the frames have LiDAR, but none of it within {self.max_depth:g} m",)
        if change is not None and interval is None:
            few = f"{len(self._abs_rel)} images with LiDAR give no interval (at least {FEWEST_IMAGES} do)"
            return "inconclusive", (few,)
        if interval is not None and max(-interval[0], interval[1]) > limit:
            return "inconclusive", (
                f"abs_rel_change may be anywhere from {interval[0]:+.2%} to {interval[1]:+.2%}: "
                f"more images are needed to say that it is within {limit:.2%}",
            )
        return "passed", ()

    def _empty(self) -> GateResult:
        return GateResult(
            verdict="inconclusive",
            reasons=("no frame to compare",),
            deviation=0.0,
            p99=0.0,
            worst_tile=0.0,
            farther=0.0,
            abs_rel_change=None,
            interval=None,
            images=0,
            lidar_images=0,
            metric=self.metric,
            budget=self.budget,
            cameras={},
            distances={},
            tiles=(),
        )


def _worst_tile(
    deviation: Values, reference: Values, world: NDArray[np.bool_], nearer_than: float
) -> tuple[int, int, float, float] | None:
    """(row, column, mean deviation, mean metres) of the worst whole tile at least half of which is valid."""
    height, width = (size - size % TILE for size in deviation.shape)

    def sums(values: Values) -> Values:
        cut = values[:height, :width].reshape(height // TILE, TILE, width // TILE, TILE)
        return np.asarray(cut.sum(axis=(1, 3)))

    counts = sums(world.astype(np.float64))
    metres = sums(np.where(world, np.nan_to_num(reference), 0)) / np.maximum(counts, 1)
    means = sums(np.where(world, deviation, 0)) / np.maximum(counts, 1)
    means[(counts < TILE * TILE / 2) | (metres >= nearer_than)] = -1
    if not means.size:
        return None
    row, column = np.unravel_index(int(means.argmax()), means.shape)
    if means[row, column] < 0:
        return None
    return int(row) * TILE, int(column) * TILE, float(means[row, column]), float(metres[row, column])
