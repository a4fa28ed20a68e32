"""What a network's kernels would take on a target: a roofline, always an estimate.

A kernel takes the longer of its arithmetic (padded multiply-accumulates at the target's dense rate) and its
traffic (bytes at the memory's bandwidth), each at a stated share of the peak, and a launch. Caches are not
modelled: what a kernel writes is read back from memory. Williams, Waterman, Patterson: "Roofline", CACM 2009.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from fsmde_edge.compiler.predict.fusion import Kernel, Precision
from fsmde_edge.errors import InputError
from fsmde_edge.targets import PowerMode, Target, known

LABEL = "an estimate, not a measurement: roofline × stated efficiency"


@dataclass(frozen=True, slots=True, kw_only=True)
class Efficiency:
    """Shares of the peaks that a kernel is taken to reach; assumptions until a device has measured.

    Attributes:
        compute: of the dense arithmetic rate, 0..1.
        memory: of the memory bandwidth, 0..1.
        launch_us: microseconds between two kernels.
    """

    compute: float = 0.5
    memory: float = 0.7
    launch_us: float = 5.0

    def __post_init__(self) -> None:
        if not (self.compute > 0 and self.memory > 0 and self.launch_us >= 0):
            raise InputError("an efficiency must be positive, and a launch take no negative time")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one kernel takes.

    Attributes:
        kernel: it.
        compute_ms, memory_ms: of its arithmetic, of its traffic; milliseconds.
        launch_ms: of its launch.
    """

    kernel: Kernel
    compute_ms: float
    memory_ms: float
    launch_ms: float

    @property
    def ms(self) -> float:
        """Milliseconds in all."""
        return max(self.compute_ms, self.memory_ms) + self.launch_ms

    @property
    def bound(self) -> Literal["compute", "memory", "launch"]:
        """What most of its time goes into."""
        if self.launch_ms > max(self.compute_ms, self.memory_ms):
            return "launch"
        return "compute" if self.compute_ms > self.memory_ms else "memory"


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a network takes on a target in a power mode.

    Attributes:
        target: its description.
        mode: the power mode.
        efficiency: what was assumed.
        costs: kernel by kernel.
        scale: measured over estimated time, 1 where nothing was measured; it is in all times already.
    """

    target: str
    mode: PowerMode
    efficiency: Efficiency
    costs: tuple[Cost, ...] = field(repr=False)
    scale: float = 1.0

    @property
    def ms(self) -> float:
        """Milliseconds of one inference of all views."""
        return sum(cost.ms for cost in self.costs)

    @property
    def launch_ms(self) -> float:
        """Milliseconds of it that launches take."""
        return sum(cost.launch_ms for cost in self.costs)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the network."""
        return sum(cost.kernel.macs for cost in self.costs)

    @property
    def moved_bytes(self) -> int:
        """Bytes through memory: activations written and read, weights."""
        kernels = [cost.kernel for cost in self.costs]
        return sum(k.read_bytes + k.write_bytes + k.weight_bytes for k in kernels)


def estimate(
    kernels: Sequence[Kernel],
    target: Target,
    *,
    mode: str | None = None,
    efficiency: Efficiency | None = None,
) -> Estimate:
    """Time of each kernel and of all.

    Args:
        kernels: of `fusion.fuse`.
        target: the board.
        mode: its power mode; its first one if None.
        efficiency: shares of the peaks; `Efficiency`'s defaults if None.

    Errors:
        InputError: the target has no rates (a CPU), no such mode, or leaves a number open that this takes.
    """
    chosen, share = target.mode(mode), efficiency or Efficiency()
    bandwidth = known(chosen, "bandwidth_gb_s") * 1e9 * share.memory
    rates = {name: target.macs_per_second(name, chosen) * share.compute for name in _PRECISIONS}
    return Estimate(
        target=target.description,
        mode=chosen,
        efficiency=share,
        costs=tuple(
            Cost(
                kernel=kernel,
                compute_ms=kernel.padded_macs / rates[_unit(kernel)] * 1e3,
                memory_ms=(kernel.read_bytes + kernel.write_bytes + kernel.weight_bytes) / bandwidth * 1e3,
                launch_ms=share.launch_us / 1e3,
            )
            for kernel in kernels
        ),
    )


def calibrated(guess: Estimate, measured_ms: float) -> Estimate:
    """The estimate with every time scaled so that the total is what a device measured.

    Args:
        guess: of `estimate`, for the same network, target and mode as were measured.
        measured_ms: milliseconds of one inference.

    Errors:
        InputError: a time that cannot be.
    """
    if not 0 < measured_ms < float("inf"):
        raise InputError(f"a measured time of {measured_ms} ms cannot be")
    return scaled(guess, measured_ms / guess.ms)


def scaled(guess: Estimate, factor: float) -> Estimate:
    """The estimate with every time multiplied, as for a precision whose neighbour was measured."""
    costs = tuple(
        replace(
            cost,
            compute_ms=cost.compute_ms * factor,
            memory_ms=cost.memory_ms * factor,
            launch_ms=cost.launch_ms * factor,
        )
        for cost in guess.costs
    )
    return replace(guess, costs=costs, scale=guess.scale * factor)


_PRECISIONS: tuple[Precision, ...] = ("int8", "fp16", "fp32")


def _unit(kernel: Kernel) -> Precision:
    """Whose rate a kernel's arithmetic has: depthwise convolutions in float run on CUDA cores (F8)."""
    return "fp32" if kernel.kind == "depthwise" and kernel.precision != "int8" else kernel.precision
