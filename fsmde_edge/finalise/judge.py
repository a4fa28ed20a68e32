"""Whether an engine is right: its depth on the bundle's golden frames.

An INT8 engine is held against two depths. Exact Q/DQ arithmetic: within what right executions of this very
network are apart (`compiler.bounds`). And FP32: within the gate's budget, or no farther off than exact INT8
itself is on these frames, whose ego car no mask hides and which the budget, a mean over many, need not fit. A
float engine is held against FP32 alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.bundle import Bundle
from fsmde_edge.compiler.bounds import Bounds, deviation
from fsmde_edge.evaluation.deviation import GOLDEN_DEVIATION, mean_deviation
from fsmde_edge.evaluation.gate import Gate, GateBudget
from fsmde_edge.recipes import from_mapping

Depth = NDArray[np.float32]

GATE_NUMBERS = ("deviation", "p99", "worst_tile", "farther")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What came of judging one engine.

    Attributes:
        reasons: a line for each number beyond its limit; none where the engine is right.
        numbers: what was measured: the gate's against FP32, and for INT8 `exact`, the mean deviation from
            exact arithmetic.
    """

    reasons: tuple[str, ...]
    numbers: Mapping[str, float]

    @property
    def right(self) -> bool:
        """Whether nothing is beyond its limit."""
        return not self.reasons


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Judge:
    """The golden frames' depths and the limits.

    Attributes:
        fp32: golden FP32 depth.
        cameras: names of the views.
        metric, disparity: what depth is.
        budget: of the bundle's gate.
        bounds: what right INT8 engines stay within; None without INT8.
        int8_exact: golden depth of exact INT8, where the bundle holds it: the model at hand must give it.
    """

    fp32: Depth
    cameras: tuple[str, ...]
    metric: bool
    disparity: bool
    budget: GateBudget
    bounds: Bounds | None
    int8_exact: Depth | None = None

    @classmethod
    def of(cls, bundle: Bundle, golden: Mapping[str, Depth], bounds: Bounds | None) -> Judge:
        """The judge of a bundle's engines; `golden` is precision to depth."""
        manifest, budget = bundle.manifest, GateBudget()
        if manifest.gate:
            budget = from_mapping(GateBudget, manifest.gate["budget"], where=bundle.root)
        return cls(
            fp32=golden["fp32"],
            int8_exact=golden.get("int8"),
            cameras=manifest.cameras,
            metric=manifest.metric,
            disparity=manifest.kind == "disparity",
            budget=budget,
            bounds=bounds,
        )

    @np.errstate(all="ignore")  # what is not a number is judged, not warned of
    def int8(self, depth: Depth, exact: Depth) -> Verdict:
        """Judge an INT8 engine.

        Args:
            depth: what it gave.
            exact: what its model gives in exact arithmetic.
        """
        own, limits = self._numbers(exact), self._limits()
        slack = 1.1 if np.isfinite(self.fp32).all() else 0.0
        widened = {name: max(limits[name], slack * own[name]) for name in GATE_NUMBERS}
        verdict = self._against_fp32(depth, widened)
        assert self.bounds is not None
        faults = tuple(f"{fault} (of exact INT8)" for fault in self.bounds.depth_faults(exact, depth))
        if self.int8_exact is not None:
            own_faults = self.bounds.depth_faults(self.int8_exact, exact)
            faults += tuple(
                f"{fault} (exact INT8, of the golden one: the files differ)" for fault in own_faults
            )
        apart = deviation(exact, depth, metric=self.metric).mean
        return Verdict(reasons=(*faults, *verdict.reasons), numbers={"exact": apart, **verdict.numbers})

    @np.errstate(all="ignore")
    def floating(self, depth: Depth, *, precision: str) -> Verdict:
        """Judge an engine of fp32 or fp16; the former has FP32's own depth but for the last bits."""
        verdict = self._against_fp32(depth, self._limits())
        found = mean_deviation(depth, self.fp32, metric=self.metric)
        if precision == "fp32" and not found <= GOLDEN_DEVIATION:
            fault = f"mean {found:.3%} is beyond {GOLDEN_DEVIATION:.3%} (of golden FP32)"
            return Verdict(reasons=(fault, *verdict.reasons), numbers=verdict.numbers)
        return verdict

    def _limits(self) -> dict[str, float]:
        return {name: float(getattr(self.budget, name)) for name in GATE_NUMBERS}

    def _numbers(self, depth: Depth) -> dict[str, float]:
        gate = Gate(metric=self.metric, disparity=self.disparity, budget=self.budget)
        gate.add_depths("golden", self.cameras, self.fp32, depth)
        result = gate.result()
        return {name: float(getattr(result, name)) for name in GATE_NUMBERS}

    def _against_fp32(self, depth: Depth, limits: Mapping[str, float]) -> Verdict:
        numbers = self._numbers(depth)
        reasons = [
            f"{name} {numbers[name]:.3%} is beyond {limits[name]:.3%} (of FP32)"
            for name in GATE_NUMBERS
            if not numbers[name] <= limits[name]
        ]
        return Verdict(reasons=tuple(reasons), numbers=numbers)
