from __future__ import annotations

import json
import time

import pytest

from fsmde_edge.frames import Clock, FrameSet, RawFrame, Stamp
from fsmde_edge.preprocessing.raw import RawLayout
from fsmde_edge.watch.guard import Fault, Finding
from fsmde_edge.watch.vitals import NEWEST, Vitals, instant

SECOND = 1_000_000_000
LAYOUT = RawLayout(code="RGB3", width=2, height=2)


class Recording:
    name, drops = "recording", {"front": {"late": 2}}


def frame_set(stamp_ns: int, *, skew_ms: int = 5, left: bool = True) -> FrameSet:
    stamps = stamp_ns, stamp_ns - skew_ms * 1_000_000
    raws = memoryview(bytes(12)), memoryview(bytes(12)) if left else None
    frames = tuple(
        RawFrame(camera=name, raw=raw, layout=LAYOUT, stamp=Stamp(stamp, Clock.MONOTONIC))
        for name, raw, stamp in zip(("front", "left"), raws, stamps, strict=True)
    )
    return FrameSet(frames=frames)


def vitals(started: int = 0) -> Vitals:
    return Vitals(Recording(), "abc", "int8 on a toy", started_ns=started)


def test_rate_and_ages_are_those_of_the_last_minute():
    found = vitals()
    for second in range(1, 201):
        found.add(frame_set(second * SECOND - 40_000_000), (True, True), second * SECOND)
    state = found.state("running", 200 * SECOND)
    assert state["sets"] == 200
    assert state["last_minute"]["sets"] == 61  # both ends
    assert state["last_minute"]["rate_hz"] == pytest.approx(1, abs=0.02)
    assert state["last_minute"]["age_ms"] == {"p50": 42.5, "p90": 45.0, "p99": 45.0, "max": 45.0}
    assert state["last_minute"]["skew_ms"]["max"] == 5.0
    later = found.state("waiting", 300 * SECOND)
    assert later["last_minute"] == {"sets": 0, "rate_hz": 0.0, "skew_ms": None, "age_ms": None}
    assert later["sets"] == 200


def test_the_first_seconds_have_their_own_rate():
    found = vitals(started=100 * SECOND)
    for tick in range(1, 21):
        found.add(frame_set(1), (True, True), 100 * SECOND + tick * SECOND // 10)
    assert found.state("running", 102 * SECOND)["last_minute"]["rate_hz"] == pytest.approx(10)


def test_memory_is_bounded():
    found = vitals()
    for number in range(NEWEST + 5):
        found.add(frame_set(number), (True, True), number)
    assert len(found._newest) == NEWEST


def test_sets_without_a_view_and_views_that_are_not_to_be_trusted_are_counted():
    found = vitals()
    found.add(frame_set(1, left=False), (True, False), 2)
    found.add(frame_set(1), (True, False), 2)
    found.add(frame_set(1), (True, True), 2)
    state = found.state("running", 3)
    assert (state["incomplete"], state["invalid"]) == (1, 2)


def test_a_run_starts_runs_and_waits():
    found = vitals()
    assert found.going(5 * SECOND) == "starting"
    found.add(frame_set(1), (True, True), 5 * SECOND)
    assert [found.going(second * SECOND) for second in (5, 7, 8)] == ["running", "running", "waiting"]


def test_it_is_json_with_findings_and_drops():
    finding = Finding(camera="left", fault=Fault.FROZEN, since_ns=1, until_ns=9, first=0, last=3, sets=4)
    state = vitals().state("failed", 10, why="a reason", findings=[finding])
    assert json.loads(json.dumps(state)) == state
    (told,) = state["guard"]
    assert (told["camera"], told["fault"], told["until"], told["sets"]) == ("left", "frozen", None, 4)
    assert state["cameras"] == {"front": {"drops": {"late": 2}}}
    assert (state["version"], state["state"], state["why"]) == (1, "failed", "a reason")
    line = vitals().line("waiting", SECOND, [finding])
    assert line == "waiting: 0 sets, 0.0/s, left: a frozen picture"


def test_an_instant_is_told_on_both_clocks():
    now = time.monotonic_ns()
    told = instant(now - 3600 * SECOND, now)
    assert told["monotonic_ns"] == now - 3600 * SECOND
    assert told["utc"][:13] == time.strftime("%Y-%m-%dT%H", time.gmtime(time.time() - 3600))
    assert told["utc"].endswith("Z")
