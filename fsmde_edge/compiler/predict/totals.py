"""The estimate of a whole bundle: every precision that it holds, and FP16 derived where it does not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import exp, log
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fsmde_edge.bundle import PRECISIONS, Bundle
from fsmde_edge.compiler.half import to_half
from fsmde_edge.compiler.predict.cost import (
    LABEL,
    Cost,
    Efficiency,
    Estimate,
    calibrated,
    estimate,
    scaled,
)
from fsmde_edge.compiler.predict.fusion import fuse
from fsmde_edge.errors import InputError
from fsmde_edge.graph.model import load_model
from fsmde_edge.targets import Precision, Target, known

if TYPE_CHECKING:
    from onnx import ModelProto

SHORTEST_MS, LONGEST_MS = 1e-3, 1e7
"""No inference takes less than a microsecond or more than some hours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleEstimate:
    """What a bundle would take on a target.

    Attributes:
        target: what for.
        estimates: precision to estimate, fp32 first.
        derived: precisions that the bundle does not hold and that were made for the estimate.
        measured: precision to milliseconds that calibrated it; empty without a bench.
    """

    target: Target
    estimates: Mapping[str, Estimate]
    derived: tuple[str, ...]
    measured: Mapping[str, float]

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        first = next(iter(self.estimates.values()))
        return {
            "label": LABEL,
            "target": self.target.description,
            "mode": asdict(first.mode),
            "efficiency": asdict(first.efficiency),
            "derived": list(self.derived),
            "measured_ms": dict(self.measured),
            "totals": {name: _total(guess) for name, guess in self.estimates.items()},
            "kernels": {
                name: [_kernel(cost) for cost in guess.costs] for name, guess in self.estimates.items()
            },
        }

    def assumptions(self) -> list[str]:
        """The label and all that the numbers rest on, one line each."""
        first = next(iter(self.estimates.values()))
        share, mode = first.efficiency, first.mode
        kinds: tuple[Precision, ...] = ("int8", "fp16", "fp32")
        rates = {name: 2e-12 * self.target.macs_per_second(name, mode) for name in kinds}
        peaks = ", ".join(f"{name} {rate:.1f}" for name, rate in rates.items())
        bandwidth = known(mode, "bandwidth_gb_s")
        lines = [
            f"{LABEL}; {self.target.description.rstrip('.')}, mode {mode.name}",
            f"dense peaks in 10^12 operations a second: {peaks}; memory {bandwidth:.1f} GB/s",
            f"assumed: {share.compute:.0%} of the arithmetic, {share.memory:.0%} of the memory, "
            f"{share.launch_us:g} us a launch; caches not modelled",
        ]
        if self.measured:
            told = ", ".join(f"{name} {ms:.2f} ms" for name, ms in self.measured.items())
            lines.append(f"scaled to what was measured: {told}")
        return lines


def estimate_bundle(
    bundle: Bundle,
    target: Target,
    *,
    mode: str | None = None,
    efficiency: Efficiency | None = None,
    bench: Path | None = None,
) -> BundleEstimate:
    """Estimate every model of a bundle.

    Args:
        bundle: an opened bundle.
        target: the board.
        mode: its power mode, its first one if None.
        efficiency: what to assume, `Efficiency`'s defaults if None.
        bench: JSON of `fsmde-edge bench --json`, run on that board with TensorRT: scales the estimate.

    Errors:
        InputError: a target without rates, or a bench of another bundle or another backend.
    """
    target.mode(mode)  # refuse before any work
    measured = {} if bench is None else read_bench(bench, bundle.hash)
    models = _models(bundle)
    guesses = {
        name: estimate(fuse(model), target, mode=mode, efficiency=efficiency)
        for name, model in models.items()
    }
    held = [name for name, file in bundle.manifest.models.items() if file]
    return BundleEstimate(
        target=target,
        estimates=_fit(guesses, measured),
        derived=tuple(name for name in models if name not in held),
        measured=measured,
    )


def read_bench(path: Path, bundle_hash: str) -> dict[str, float]:
    """Median milliseconds of each model, of a bench that TensorRT ran.

    Errors:
        InputError: no such file, another bundle, times that cannot be, or models that something else ran.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        medians = {name: float(row["p50"]) for name, row in values["latency"].items()}
        sessions = {name: str(text) for name, text in values["sessions"].items()}
        of_bundle = str(values["bundle"])
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", where=path, hint="check the path") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            "is not what a bench writes", where=path, hint="make it with: fsmde-edge bench --json FILE"
        ) from error
    if of_bundle != bundle_hash:
        raise InputError("measured another bundle", where=path, hint="bench this bundle")
    for name, ms in medians.items():
        if name not in PRECISIONS or name not in sessions or not SHORTEST_MS <= ms <= LONGEST_MS:
            raise InputError(
                f"says that {name} took {ms:g} ms on {sessions.get(name, 'nothing')}, which cannot be",
                where=path,
                hint="make it with: fsmde-edge bench --json FILE",
            )
    other = next((text for text in sessions.values() if "tensorrt" not in text.lower()), None)
    if other is not None or not medians:
        raise InputError(
            f"was not measured with TensorRT ({other or 'it is empty'}), so it says nothing of the target",
            where=path,
            hint="run fsmde-edge bench on the board",
        )
    return medians


def _models(bundle: Bundle) -> dict[str, ModelProto]:
    models = {name: load_model(bundle.model(name)) for name in PRECISIONS if bundle.manifest.models.get(name)}
    if "fp16" not in models and "fp32" in models:
        models["fp16"] = to_half(models["fp32"])
    return {name: models[name] for name in PRECISIONS if name in models}


def _fit(guesses: Mapping[str, Estimate], measured: Mapping[str, float]) -> dict[str, Estimate]:
    """Scale what was measured to it, and the others by the mean (geometric) of those factors."""
    fitted = {name: calibrated(guess, measured[name]) for name, guess in guesses.items() if name in measured}
    if not fitted:
        return dict(guesses)
    mean = exp(sum(log(guess.scale) for guess in fitted.values()) / len(fitted))
    return {name: fitted.get(name) or scaled(guess, mean) for name, guess in guesses.items()}


def _total(guess: Estimate) -> dict[str, Any]:
    return {
        "ms": guess.ms,
        "launch_ms": guess.launch_ms,
        "kernels": len(guess.costs),
        "macs": guess.macs,
        "moved_bytes": guess.moved_bytes,
        "scale": guess.scale,
        "bound_ms": bound_ms(guess),
    }


def bound_ms(guess: Estimate) -> dict[str, float]:
    """Milliseconds in kernels that are bound by arithmetic, by memory, by their launch."""
    found = {"compute": 0.0, "memory": 0.0, "launch": 0.0}
    for cost in guess.costs:
        found[cost.bound] += cost.ms
    return found


def _kernel(cost: Cost) -> dict[str, Any]:
    return {**asdict(cost.kernel), "ms": cost.ms, "bound": cost.bound}
