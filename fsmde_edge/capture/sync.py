"""Pictures of one instant: matched by their instants on one clock, the newest kept, all drops counted.

Cameras may be triggered together or run free. In both cases a set is the tightest choice of one picture from
each camera among all choices that hold its *pivot*, the latest of the oldest waiting pictures (the idea of
ROS's ApproximateTime; the rest is ours). It waits only where the cameras' own rates promise a tighter one.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from fsmde_edge.capture.clock import StampClock
from fsmde_edge.capture.lease import Captured
from fsmde_edge.capture.v4l2.loss import Cause

LONG_AGO = -(1 << 63)
REMEMBERED = 5
"""Intervals of a camera whose lower quartile is its period: lost pictures only lengthen them."""

LONGEST_WAIT = 1.5
"""The one wait, in periods of the slowest camera, from the arrival of a set's first picture."""

AWAY = 2
"""Sets without a camera after which none waits for it until its next picture."""

LEARNT_FROM, SLACK, MARGIN = 16, 1.5, 0.25
"""A camera is missing once that share of the largest spread of arrivals in so many complete sets, and that
share of a period, have passed."""

WORTH = 0.1
"""Periods by which a set must promise to become tighter to be waited for."""


class Missing(str, Enum):
    """What becomes of a set that lacks a camera."""

    DROP = "drop"
    MASK = "mask"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What makes a set.

    Attributes:
        tolerance_ns: between the earliest and the latest instant of a set; one period of the slowest camera
            if None: any cameras that run free find each other then, and the set says how far apart they are.
        missing: whether a set that lacks a camera is dropped, or delivered without it.
        depth: pictures of each camera that may wait; two are needed to choose.
        period_ns: between two pictures, until it has been measured.
    """

    tolerance_ns: int | None = None
    missing: Missing = Missing.DROP
    depth: int = 2
    period_ns: int = 33_333_333


class CapturedSet:
    """One picture of every camera, in ring order, on loan together.

    Attributes:
        index: running number of the sets that were made, delivered or not.
        pictures: one a camera; None where it is missing.
        instants_ns: when each was exposed, on CLOCK_MONOTONIC; None where it is missing.
    """

    __slots__ = ("_lent", "index", "instants_ns", "pictures")

    def __init__(
        self, index: int, pictures: tuple[Captured | None, ...], instants_ns: tuple[int | None, ...]
    ) -> None:
        self.index, self.pictures, self.instants_ns = index, pictures, instants_ns
        self._lent = True

    @property
    def skew_ns(self) -> int:
        """Between the earliest and the latest."""
        known = [instant for instant in self.instants_ns if instant is not None]
        return max(known) - min(known)

    def release(self) -> None:
        """Give all pictures back; may be called twice."""
        if self._lent:
            self._lent = False
            for captured in self.pictures:
                if captured is not None:
                    captured.lease.release()


class _Waiting(NamedTuple):
    instant_ns: int
    captured: Captured


@dataclass(slots=True, eq=False)
class _Lane:
    """One camera's pictures that wait, oldest first."""

    name: str
    period_ns: int
    waiting: deque[_Waiting] = field(default_factory=deque)
    intervals: deque[int] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    last_ns: int = LONG_AGO
    floor_ns: int = LONG_AGO
    """Nothing as old as this may be part of a set any more."""
    missed: int = 0
    """Sets in a row that were made without it."""
    drops: Counter[Cause] = field(default_factory=Counter)

    def accept(self, item: _Waiting, depth: int) -> bool:
        if item.instant_ns <= max(self.last_ns, self.floor_ns):
            self.drop(item, Cause.LATE)
            return False
        if self.last_ns != LONG_AGO:
            self.intervals.append(item.instant_ns - self.last_ns)
            self.period_ns = sorted(self.intervals)[len(self.intervals) // 4]
        self.last_ns = item.instant_ns
        self.waiting.append(item)
        if len(self.waiting) > depth:
            self.drop(self.waiting.popleft(), Cause.UNMATCHED)
        return True

    def drop(self, item: _Waiting, cause: Cause) -> None:
        self.drops[cause] += 1
        item.captured.lease.release()

    def take(self, place: int) -> _Waiting:
        """The picture at a place; older ones are dropped."""
        for _ in range(place):
            self.drop(self.waiting.popleft(), Cause.UNMATCHED)
        chosen = self.waiting.popleft()
        self.floor_ns, self.missed = chosen.instant_ns, 0
        return chosen


class Synchroniser:
    """Makes sets of pictures. Pure: no clock, no thread; whoever adds pictures says when they came."""

    def __init__(self, cameras: Sequence[str], rules: Rules) -> None:
        """Start with nothing.

        Args:
            cameras: names in ring order.
            rules: what makes a set.
        """
        self._rules = rules
        self._lanes = [_Lane(name, rules.period_ns) for name in cameras]
        self._by_name = {lane.name: lane for lane in self._lanes}
        self._spreads: deque[int] = deque(maxlen=LEARNT_FROM)
        self._made = 0

    def add(self, captured: Captured, instant_ns: int) -> Sequence[CapturedSet]:
        """Take a picture over, and give the sets that it completes.

        Args:
            captured: the picture; it is released here where it becomes part of no set.
            instant_ns: when it was exposed, on the clock that all cameras share.
        """
        lane = self._by_name[captured.camera]
        accepted = lane.accept(_Waiting(instant_ns, captured), self._rules.depth)
        return self.tick(captured.arrival_ns) if accepted else ()

    def tick(self, now: int) -> Sequence[CapturedSet]:
        """Time passed: give the sets that need not wait any more."""
        found = []
        while (made := self._next(now)) is not None:
            found.append(made)
        return found

    @property
    def due_ns(self) -> int | None:
        """When `tick` may give something if no picture comes; None for never."""
        lanes = [lane for lane in self._lanes if lane.waiting]
        if not lanes:
            return None
        if len(lanes) == len(self._lanes):
            return self._due(lanes, self._longest(lanes))
        return self._due(lanes, self._usual(lanes)) if self._rules.missing is Missing.MASK else None

    @property
    def drops(self) -> Mapping[str, Counter[Cause]]:
        """Camera → cause → pictures that became part of no set."""
        return {lane.name: lane.drops for lane in self._lanes}

    def clear(self) -> None:
        """Release what waits."""
        for lane in self._lanes:
            while lane.waiting:
                lane.drop(lane.waiting.popleft(), Cause.UNMATCHED)

    def _next(self, now: int) -> CapturedSet | None:
        """The next set, or None where one has to wait for more pictures."""
        while True:
            lanes = [lane for lane in self._lanes if lane.waiting]
            if len(lanes) < len(self._lanes) and not self._may_go_without(lanes, now):
                return None
            heads = [lane.waiting[0].instant_ns for lane in lanes]
            tolerance = self._tolerance(lanes)
            places, skew, promised = tightest(
                [[item.instant_ns for item in lane.waiting] for lane in lanes],
                [lane.period_ns for lane in lanes],
            )
            if skew <= tolerance:
                worth = skew - promised > WORTH * max(lane.period_ns for lane in lanes)
                waits = worth and now < self._due(lanes, self._longest(lanes))
                return None if waits else self._set(lanes, places)
            end = min(heads) + tolerance
            together = [lane for lane, head in zip(lanes, heads, strict=True) if head <= end]
            if self._rules.missing is Missing.MASK and 2 * len(together) >= len(lanes):
                return self._set(together, [0] * len(together))
            oldest = lanes[heads.index(min(heads))]  # in no set that may still come is it near enough
            oldest.drop(oldest.waiting.popleft(), Cause.UNMATCHED)

    def _may_go_without(self, lanes: Sequence[_Lane], now: int) -> bool:
        """Whether those cameras that have nothing are missing from the set rather than late."""
        if self._rules.missing is Missing.DROP or not lanes:
            return False
        awaited = any(lane.missed < AWAY and not lane.waiting for lane in self._lanes)
        return not awaited or now >= self._due(lanes, self._usual(lanes))

    def _due(self, lanes: Sequence[_Lane], wait: int) -> int:
        first = min((lane.waiting[0] for lane in lanes), key=lambda item: item.instant_ns)
        return first.captured.arrival_ns + wait

    def _longest(self, lanes: Sequence[_Lane]) -> int:
        return round(LONGEST_WAIT * max(lane.period_ns for lane in lanes))

    def _usual(self, lanes: Sequence[_Lane]) -> int:
        """What is enough as a rule, once there is one."""
        if len(self._spreads) < LEARNT_FROM // 4:
            return self._longest(lanes)
        slowest = max(lane.period_ns for lane in lanes)
        return min(self._longest(lanes), round(SLACK * max(self._spreads) + MARGIN * slowest))

    def _tolerance(self, lanes: Sequence[_Lane]) -> int:
        given = self._rules.tolerance_ns
        return max(lane.period_ns for lane in lanes) if given is None else given

    def _set(self, lanes: Sequence[_Lane], places: Sequence[int]) -> CapturedSet:
        chosen = {lane.name: lane.take(place) for lane, place in zip(lanes, places, strict=True)}
        earliest = min(item.instant_ns for item in chosen.values())
        items = [chosen.get(lane.name) for lane in self._lanes]
        if len(lanes) == len(self._lanes):
            arrivals = [item.captured.arrival_ns for item in chosen.values()]
            self._spreads.append(max(arrivals) - min(arrivals))
        for lane in self._lanes:
            lane.floor_ns = max(lane.floor_ns, earliest)
            lane.missed += lane.name not in chosen
        made = CapturedSet(
            self._made,
            tuple(item and item.captured for item in items),
            tuple(item and item.instant_ns for item in items),
        )
        self._made += 1
        return made


def tightest(instants: Sequence[Sequence[int]], periods: Sequence[int]) -> tuple[tuple[int, ...], int, int]:
    """The tightest choice of one picture from each camera among all that hold the pivot.

    Args:
        instants: of each camera's waiting pictures, rising, at least one.
        periods: of each camera: its next pictures are expected that much later.

    Returns:
        (which picture of each camera, their skew, the skew that expected pictures promise at best).
    """
    places, values = [0] * len(instants), [lane[0] for lane in instants]
    last = max(values)
    pivot, best, skew, promised, expected = last, tuple(places), last - min(values), last - min(values), False
    while (low := min(values)) < pivot:
        camera = values.index(low)
        places[camera] += 1
        if places[camera] < len(instants[camera]):
            values[camera] = instants[camera][places[camera]]
        else:
            values[camera], expected = low + max(1, periods[camera]), True
        last = max(last, values[camera])
        found = last - min(values)
        promised = min(promised, found)
        if found <= skew and not expected:
            best, skew = tuple(places), found
    return best, skew, promised


class SetOutlet:
    """An outlet that makes sets on the capture thread: a whole set wakes its reader once.

    The newest set waits; one that was not taken until the next is lost to the slow reader.
    """

    def __init__(self, clocks: Mapping[str, StampClock], rules: Rules) -> None:
        """Make it.

        Args:
            clocks: camera, in ring order, to what brings its stamps to the clock that all share.
            rules: what makes a set.
        """
        self._clocks = clocks
        self._sync = Synchroniser(tuple(clocks), rules)
        self._slow: dict[str, int] = dict.fromkeys(clocks, 0)
        self._ready = threading.Condition()
        self._newest: CapturedSet | None = None
        self._untold = False
        """Whether the reader has not been woken for the newest yet."""
        self._open = True

    def put(self, captured: Captured) -> None:
        """Add a picture, and show the set that it completes; a reader that waits is woken by `tick`."""
        if not self._open:
            captured.lease.release()
            return
        for made in self._sync.add(captured, self._clocks[captured.camera].instant_ns(captured)):
            self._show(made)

    def tick(self, now_ns: int) -> int | None:
        """Show what need not wait any more, and wake the reader.

        He is woken last, when this thread is about to wait itself: earlier he would only wait for the
        interpreter's lock, at two system calls each time.
        """
        if not self._open:
            return None
        for made in self._sync.tick(now_ns):
            self._show(made)
        due = self._sync.due_ns
        if self._untold:
            with self._ready:
                self._untold = False
                self._ready.notify()
        return due

    def take(self, timeout: float | None) -> CapturedSet | None:
        """The newest set, for the caller to release; waits for it.

        Args:
            timeout: seconds to wait, or None for ever.

        Returns:
            None after the time, or once it is closed.
        """
        with self._ready:
            self._ready.wait_for(lambda: self._newest is not None or not self._open, timeout)
            taken, self._newest = self._newest, None
            return taken

    def close(self) -> None:
        """Release what waits and wake the reader; may be called twice."""
        with self._ready:
            self._open = False
            left, self._newest = self._newest, None
            self._ready.notify_all()
        self._sync.clear()
        self._lose(left)

    @property
    def is_open(self) -> bool:
        """Whether more may come."""
        return self._open

    @property
    def drops(self) -> Mapping[str, Mapping[Cause, int]]:
        """Camera → cause → pictures that no reader got."""
        return {name: {**drops, Cause.SLOW: self._slow[name]} for name, drops in self._sync.drops.items()}

    def _show(self, made: CapturedSet) -> None:
        with self._ready:
            surplus, self._newest, self._untold = self._newest, made, True
        self._lose(surplus)

    def _lose(self, made: CapturedSet | None) -> None:
        """A set that no reader came for."""
        if made is not None:
            for captured in made.pictures:
                if captured is not None:
                    self._slow[captured.camera] += 1
            made.release()
