"""How a run fares, in numbers for machines and in one line for people."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, Literal, NamedTuple

from fsmde_edge.capture.live import LiveReport, LiveSets
from fsmde_edge.capture.source import Source
from fsmde_edge.evaluation.latency import Latency
from fsmde_edge.frames import FrameSet
from fsmde_edge.watch.guard import Finding

VERSION = 1
"""Of what `Vitals.state` gives."""

State = Literal["starting", "running", "waiting", "stopped", "failed"]

MINUTE_NS = 60_000_000_000
NEWEST = 10_000
"""Sets that a minute holds at most."""

WAITING_NS = 2_000_000_000
"""Without a set for so long, a run waits."""


class _Set(NamedTuple):
    when_ns: int
    skew_s: float
    ages_s: Mapping[str, float]


@dataclass(slots=True, eq=False)
class Vitals:
    """Counts what a run does. Belongs to the loop's own thread: a state that grows old is a loop that hangs.

    Args:
        source: what it runs on.
        bundle: the bundle's hash.
        session: what runs the network, in words.
    """

    source: Source
    bundle: str
    session: str
    sets: int = 0
    incomplete: int = 0
    invalid: int = 0
    started_ns: int = field(default_factory=time.monotonic_ns)
    _newest: deque[_Set] = field(default_factory=lambda: deque(maxlen=NEWEST))

    def add(self, frame_set: FrameSet, valid: Sequence[bool], now_ns: int) -> None:
        """Take note of a set whose depth is done.

        Args:
            frame_set: what the cameras saw.
            valid: which views' depth may be shown as current.
            now_ns: on CLOCK_MONOTONIC.
        """
        self.sets += 1
        self.incomplete += not all(frame_set.valid)
        self.invalid += not all(valid)
        ages = {camera: age / 1e9 for camera, age in frame_set.ages_ns(now_ns).items()}
        self._newest.append(_Set(now_ns, frame_set.skew_ms / 1e3, ages))

    def going(self, now_ns: int) -> State:
        """Starting, running, or waiting for a set."""
        if not self.sets:
            return "starting"
        return "running" if now_ns - self._newest[-1].when_ns <= WAITING_NS else "waiting"

    def state(
        self, state: State, now_ns: int, *, why: str = "", findings: Sequence[Finding] = ()
    ) -> dict[str, Any]:
        """All of it as plain values for JSON; docs/monitoring.md says what each key means.

        Args:
            state: of the run.
            now_ns: on CLOCK_MONOTONIC.
            why: it ended.
            findings: of the guard.
        """
        minute = self._minute(now_ns)
        return {
            "version": VERSION,
            "state": state,
            "why": why,
            "pid": os.getpid(),
            "bundle": self.bundle,
            "session": self.session,
            "source": self.source.name,
            "started": instant(self.started_ns, now_ns),
            "updated": instant(now_ns, now_ns),
            "sets": self.sets,
            "incomplete": self.incomplete,
            "invalid": self.invalid,
            "last_minute": {
                "sets": len(minute),
                "rate_hz": _rate(minute, now_ns, self.started_ns),
                "skew_ms": _percentiles([each.skew_s for each in minute if each.ages_s]),
                "age_ms": _percentiles([age for each in minute for age in each.ages_s.values()]),
            },
            "cameras": self._cameras(minute, now_ns),
            "guard": [_finding(finding, now_ns) for finding in findings],
        }

    def line(self, state: State, now_ns: int, findings: Sequence[Finding] = ()) -> str:
        """One line: sets, rate, age, and what is wrong now."""
        minute = self._minute(now_ns)
        ages = [age for each in minute for age in each.ages_s.values()]
        parts = [f"{state}: {self.sets} sets", f"{_rate(minute, now_ns, self.started_ns):.1f}/s"]
        parts += [f"age p99 {Latency.of(ages).p99:.0f} ms"] if ages else []
        parts += [f"{report.camera.name} lost" for report in self._reports() if _lost(report) is not None]
        parts += [f"{finding.camera}: {finding.fault.value}" for finding in findings if finding.lasts]
        return ", ".join(parts)

    def _minute(self, now_ns: int) -> list[_Set]:
        while self._newest and now_ns - self._newest[0].when_ns > MINUTE_NS and len(self._newest) > 1:
            self._newest.popleft()
        return [each for each in self._newest if now_ns - each.when_ns <= MINUTE_NS]

    def _reports(self) -> list[LiveReport]:
        return self.source.reports() if isinstance(self.source, LiveSets) else []

    def _cameras(self, minute: Sequence[_Set], now_ns: int) -> dict[str, Any]:
        if not isinstance(self.source, LiveSets):
            return {name: {"drops": dict(drops)} for name, drops in self.source.drops.items()}
        return {report.camera.name: _camera(report, minute, now_ns) for report in self._reports()}


def instant(ns: int, now_ns: int) -> dict[str, Any]:
    """An instant of CLOCK_MONOTONIC as itself and in UTC, by the clock on the wall as it is now."""
    utc = datetime.fromtimestamp(time.time() + (ns - now_ns) / 1e9, tz=timezone.utc)
    return {"monotonic_ns": ns, "utc": utc.isoformat(timespec="milliseconds").replace("+00:00", "Z")}


def _lost(report: LiveReport) -> int | None:
    """Since when a camera gives nothing; None while it does."""
    outages = report.camera.outages
    return outages[-1].since_ns if outages and outages[-1].until_ns is None else None


def _camera(report: LiveReport, minute: Sequence[_Set], now_ns: int) -> dict[str, Any]:
    camera, since = report.camera, _lost(report)
    lasted = [(outage.until_ns or now_ns) - outage.since_ns for outage in camera.outages]
    return {
        "path": camera.path,
        "state": "streaming" if since is None else "lost",
        "lost_since": None if since is None else instant(since, now_ns),
        "why": "" if since is None else camera.outages[-1].why,
        "pictures": camera.frames,
        "drops": dict(camera.drops),
        "outages": len(lasted),
        "outage_s": round(sum(lasted) / 1e9, 3),
        "age_ms": _percentiles([each.ages_s[camera.name] for each in minute if camera.name in each.ages_s]),
    }


def _finding(finding: Finding, now_ns: int) -> dict[str, Any]:
    return {
        "camera": finding.camera,
        "fault": finding.fault.name.lower(),
        "since": instant(finding.since_ns, now_ns),
        "until": None if finding.lasts else instant(finding.until_ns, now_ns),
        "sets": finding.sets,
    }


def _rate(minute: Sequence[_Set], now_ns: int, started_ns: int) -> float:
    """Sets a second, over the last minute or since the start."""
    return round(len(minute) / max(1e-9, min(MINUTE_NS, now_ns - started_ns) / 1e9), 3)


def _percentiles(seconds: Sequence[float]) -> dict[str, float] | None:
    if not seconds:
        return None
    latency = Latency.of(seconds)
    values = {"p50": latency.p50, "p90": latency.p90, "p99": latency.p99, "max": max(seconds) * 1e3}
    return {name: round(value, 3) for name, value in values.items()}
