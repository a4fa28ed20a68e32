"""Now and then one set also goes through the bundle's FP32 model: how far off is what runs?"""

from __future__ import annotations

import os
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.bundle import Bundle
from fsmde_edge.errors import FsmdeError
from fsmde_edge.evaluation.gate import Gate, GateBudget
from fsmde_edge.inference.backends import open_session
from fsmde_edge.inference.session import Session
from fsmde_edge.recipes import from_mapping

Floats = NDArray[np.float32]

NUMBERS = ("deviation", "p99", "farther")
"""The gate's numbers that a set has by itself; its worst tile is one of many there and says little of one."""

WINDOW = 8
"""Newest compared sets whose mean is held against the budget, which is a mean over many sets too."""

LAST = 10.0
"""Seconds that a comparison which has begun may take at the end."""


class _Work(NamedTuple):
    images: NDArray[np.uint8]
    focal: Floats
    depth: Floats
    cameras: tuple[str, ...]
    valid: tuple[bool, ...]
    world: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One view over all sets that were compared.

    Attributes:
        sets: compared.
        deviation, farther: means over the sets (see `GateBudget`).
        p99: the largest of any set.
    """

    sets: int
    deviation: float
    p99: float
    farther: float

    def plus(self, numbers: Mapping[str, float]) -> Compared:
        """With one more set."""
        sets = self.sets + 1
        return Compared(
            sets=sets,
            deviation=self.deviation + (numbers["deviation"] - self.deviation) / sets,
            p99=max(self.p99, numbers["p99"]),
            farther=self.farther + (numbers["farther"] - self.farther) / sets,
        )


@dataclass(slots=True, eq=False)
class Measure:
    """Deviation view by view, held against a budget.

    Args:
        metric, disparity: of the depth (see `Gate`).
        budget: that the newest `WINDOW` sets are held against.
    """

    metric: bool = True
    disparity: bool = False
    budget: GateBudget = field(default_factory=GateBudget)
    views: dict[str, Compared] = field(default_factory=dict)
    outside: bool = False
    """Whether the newest sets are beyond the budget."""
    _newest: deque[Mapping[str, float]] = field(default_factory=lambda: deque(maxlen=WINDOW))

    def add(self, reference: Floats, work: _Work) -> str:
        """Compare a set; what is to be said of it, if anything.

        Args:
            reference: float32 [V, H, W], the FP32 model's depth.
            work: what was run.
        """
        found = defaultdict[str, list[float]](list)
        for view, camera in enumerate(work.cameras):
            if work.valid[view] and work.world[view].any():
                numbers = self._of_view(camera, reference[view], work.depth[view], work.world[view])
                known = self.views.get(camera, Compared(sets=0, deviation=0.0, p99=0.0, farther=0.0))
                self.views[camera] = known.plus(numbers)
                for name in NUMBERS:
                    found[name].append(numbers[name])
        if not found:
            return ""
        self._newest.append({name: float(np.mean(values)) for name, values in found.items()})
        return self._judged()

    def _of_view(
        self, camera: str, fp32: Floats, depth: Floats, world: NDArray[np.bool_]
    ) -> Mapping[str, float]:
        gate = Gate(metric=self.metric, disparity=self.disparity)
        gate.add_depths("", (camera,), fp32[None], depth[None], world=world[None])
        result = gate.result()
        return {name: float(getattr(result, name)) for name in NUMBERS}

    def _judged(self) -> str:
        """What to say when the newest sets leave the budget, or come back."""
        means = {name: float(np.mean([each[name] for each in self._newest])) for name in NUMBERS}
        beyond = [
            f"{name} {mean:.2%} is beyond {getattr(self.budget, name):.2%}"
            for name, mean in means.items()
            if not mean <= getattr(self.budget, name)
        ]
        changed, self.outside = bool(beyond) is not self.outside, bool(beyond)
        if not changed:
            return ""
        newest = f"over the {len(self._newest)} newest sets compared"
        return f"{'; '.join(beyond)} ({newest})" if beyond else f"within its budget again ({newest})"


class AccuracyWatch:
    """Compares a set every few seconds, in a thread of its own that gives way to everything else."""

    def __init__(
        self, reference: Session, measure: Measure, every_s: float, say: Callable[[str], None]
    ) -> None:
        """Begin.

        Args:
            reference: the FP32 model; closed by `close`.
            measure: takes the comparisons.
            every_s: seconds from one set to the next; while a comparison lasts, none begins.
            say: is told, in a line, when the depth leaves the bundle's budget and when it is back.
        """
        self.measure, self.every_s = measure, every_s
        self.failed = ""
        """Why nothing is compared any more."""
        self._reference, self._say = reference, say
        self._due_ns = 0
        self._work: _Work | None = None
        self._wake = threading.Condition()
        self._open = True
        self._thread = threading.Thread(target=self._guarded, name="accuracy", daemon=True)
        self._thread.start()

    @classmethod
    def of(cls, bundle: Bundle, every_s: float, say: Callable[[str], None]) -> AccuracyWatch:
        """On a bundle's own FP32 model and budget, with one thread of a CPU.

        Errors:
            DeviceError, BundleError: the model cannot be opened.
        """
        manifest, budget = bundle.manifest, GateBudget()
        if manifest.gate:
            budget = from_mapping(GateBudget, manifest.gate["budget"], where=bundle.root)
        session = open_session(bundle, precision="fp32", backend="onnxruntime", threads=1).session
        measure = Measure(metric=manifest.metric, disparity=manifest.kind == "disparity", budget=budget)
        return cls(session, measure, every_s, say)

    def offer(
        self,
        images: NDArray[np.uint8],
        focal: Floats,
        depth: Floats,
        *,
        cameras: tuple[str, ...],
        valid: tuple[bool, ...],
        world: NDArray[np.bool_],
        now_ns: int,
    ) -> None:
        """Copy this set if it is time for one and none is at work; never waits.

        Args:
            images: uint8 [V, H, W, 3], the network's input.
            focal: float32 [V].
            depth: float32 [V, H, W], as the network gave it.
            cameras: of the views.
            valid: which of them have a picture; the others are not compared.
            world: bool [V, H, W], False on the own vehicle, which does not count.
            now_ns: on CLOCK_MONOTONIC.
        """
        if now_ns < self._due_ns or self._work is not None or not self._thread.is_alive():
            return
        self._due_ns = now_ns + round(self.every_s * 1e9)
        with self._wake:
            self._work = _Work(images.copy(), focal.copy(), depth.copy(), cameras, valid, world)
            self._wake.notify()

    def state(self) -> dict[str, Any]:
        """What was found so far, as plain values for JSON."""
        views = {
            camera: {"sets": view.sets, **{name: getattr(view, name) for name in NUMBERS}}
            for camera, view in dict(self.measure.views).items()
        }
        return {
            "every_s": self.every_s,
            "outside": self.measure.outside,
            "failed": self.failed,
            "views": views,
        }

    def close(self) -> None:
        """Finish the comparison that has begun; may be called twice."""
        with self._wake:
            self._open = False
            self._wake.notify()
        self._thread.join(LAST)
        if not self._thread.is_alive():
            self._reference.close()

    def _guarded(self) -> None:
        with suppress(OSError):  # not every system lets a thread be nicer than its process
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
        try:
            while (work := self._next()) is not None:
                reference = self._reference.infer(work.images, work.focal).depth
                if line := self.measure.add(reference, work):
                    self._say(f"--watch-accuracy: {line}")
                self._work = None
        except Exception as error:
            self.failed = str(error) if isinstance(error, FsmdeError) else repr(error)
            self._say(f"--watch-accuracy: {self.failed}; the run goes on without it")

    def _next(self) -> _Work | None:
        with self._wake:
            self._wake.wait_for(lambda: self._work is not None or not self._open)
            return self._work
