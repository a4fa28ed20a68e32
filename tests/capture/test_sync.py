"""Sets of pictures: what may never be, whatever cameras do; and how good a match is against brute force."""

from __future__ import annotations

import itertools
import threading
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import MS, picture

from fsmde_edge.capture.clock import StampClock
from fsmde_edge.capture.sync import CapturedSet, Missing, Rules, SetOutlet, Synchroniser, tightest
from fsmde_edge.capture.v4l2.loss import Cause

NAMES = ("a", "b", "c", "d", "e", "f")
PERIOD = 33 * MS


def paced(count, *, phases, period=PERIOD, jitter=None, lost=()):
    """(instant, camera, number) of cameras that run at one rate, in the order of their instants."""
    found = []
    for camera, phase in zip(NAMES, phases, strict=False):
        for number in range(count):
            if (camera, number) not in lost:
                shake = 0 if jitter is None else jitter[(hash((camera, number)) % len(jitter))]
                found.append((phase + number * period + shake, camera, number))
    return sorted(found)


def made_of(stream, cameras, rules):
    """(sets, pictures, synchroniser) after a stream of (instant, camera, number[, arrival])."""
    sync, pictures, sets = Synchroniser(cameras, rules), [], []
    for instant, camera, number, *arrival in stream:
        pictures.append(picture(camera, instant, sequence=number, arrival_ns=(arrival or [instant])[0]))
        sets += sync.add(pictures[-1], instant)
    return sets, pictures, sync


@st.composite
def streams(draw):
    """Cameras with phases, rates, jitter, losses and pictures that come late and out of order."""
    cameras = NAMES[: draw(st.integers(2, 6))]
    stream = []
    for camera in cameras:
        period = PERIOD + draw(st.integers(-5 * MS, 30 * MS))
        start = draw(st.integers(0, 2 * PERIOD))
        for number in range(draw(st.integers(0, 12))):
            if draw(st.integers(0, 5)):
                instant = start + number * period + draw(st.integers(-40 * MS, 40 * MS))
                stream.append((instant, camera, number, instant + draw(st.integers(-30 * MS, 90 * MS))))
    stream.sort(key=lambda each: each[3])
    rules = Rules(
        tolerance_ns=draw(st.none() | st.integers(0, 50 * MS)),
        missing=draw(st.sampled_from(Missing)),
        depth=draw(st.integers(2, 4)),
    )
    return stream, cameras, rules


@given(streams())
def test_whatever_cameras_do_sets_are_sets(case):
    stream, cameras, rules = case
    sync, pictures, sets = Synchroniser(cameras, rules), [], []
    for instant, camera, number, arrival in stream:
        pictures.append(picture(camera, instant, sequence=number, arrival_ns=arrival))
        sets += sync.add(pictures[-1], instant)
        held = [each for each in pictures if not each.lease.released]
        in_sets = sum(each is not None for made in sets for each in made.pictures)
        assert len(held) - in_sets <= rules.depth * len(cameras)
    before = dict.fromkeys(cameras, -(10**18))
    earliest = -(10**18)
    for made in sets:
        present = [each for each in made.pictures if each is not None]
        assert [each.camera if each else None for each in made.pictures] == [
            camera if each else None for camera, each in zip(cameras, made.pictures, strict=True)
        ]
        assert len({each.camera for each in present}) == len(present) > 0
        if rules.tolerance_ns is not None:
            assert made.skew_ns <= rules.tolerance_ns
        if rules.missing is Missing.DROP:
            assert len(present) == len(cameras)
        for each in present:
            assert each.stamp.ns > before[each.camera]
            before[each.camera] = each.stamp.ns
        assert min(each.stamp.ns for each in present) > earliest
        earliest = min(each.stamp.ns for each in present)
    for made in sets:
        made.release()
        made.release()
    sync.clear()
    assert {each.lease.released for each in pictures} <= {1}
    given_out = Counter(each.camera for each in pictures)
    used = Counter(each.camera for made in sets for each in made.pictures if each is not None)
    for camera in cameras:
        assert given_out[camera] == used[camera] + sum(sync.drops[camera].values())


@given(st.lists(st.lists(st.integers(0, 100), min_size=1, max_size=4, unique=True), min_size=2, max_size=4))
def test_the_tightest_choice_is_that_of_brute_force(lanes):
    lanes = [sorted(lane) for lane in lanes]
    places, skew, promised = tightest(lanes, [1000] * len(lanes))
    pivot = max(lane[0] for lane in lanes)
    chosen = [lane[place] for lane, place in zip(lanes, places, strict=True)]
    choices = [choice for choice in itertools.product(*lanes) if pivot in choice]
    assert pivot in chosen
    assert max(chosen) - min(chosen) == skew == min(max(choice) - min(choice) for choice in choices)
    assert promised <= skew


@given(
    st.lists(st.integers(0, PERIOD - 1), min_size=2, max_size=6),
    st.lists(st.integers(-1 * MS, 1 * MS), min_size=7, max_size=7),
)
def test_cameras_that_run_free_settle_on_the_tightest_cut_of_their_circle(phases, jitter):
    stream = paced(20, phases=phases, jitter=jitter)
    sets, _, sync = made_of(stream, NAMES[: len(phases)], Rules())
    circle = sorted(phases)
    gaps = [after - before for before, after in itertools.pairwise([*circle, circle[0] + PERIOD])]
    slack = 0.1 * PERIOD + 4 * MS
    assert len(sets) >= 16
    for made in sets[3:]:
        assert made.skew_ns <= PERIOD - max(gaps) + slack
    for camera in NAMES[: len(phases)]:
        assert sync.drops[camera][Cause.UNMATCHED] <= 3


def test_triggered_cameras_make_a_set_when_the_last_picture_comes():
    sync = Synchroniser(NAMES, Rules())
    for number in range(5):
        for camera in NAMES:
            (*made,) = sync.add(
                picture(camera, number * PERIOD + NAMES.index(camera) * 1000), number * PERIOD
            )
            assert len(made) == (camera == NAMES[-1])
    assert all(not sum(drops.values()) for drops in sync.drops.values())


def test_a_lost_picture_costs_its_instant_where_incomplete_sets_are_dropped():
    stream = paced(8, phases=(0, 0, 0), lost={("c", 3)})
    sets, _, sync = made_of(stream, NAMES[:3], Rules(tolerance_ns=5 * MS))
    assert [made.pictures[0].sequence for made in sets] == [0, 1, 2, 4, 5, 6, 7]
    assert sync.drops["a"] == {Cause.UNMATCHED: 1}
    assert sync.drops["c"] == {}


def test_a_lost_picture_is_masked_where_incomplete_sets_are_wanted():
    stream = paced(9, phases=(0, 0, 0), lost={("c", 6)})
    sets, _, _ = made_of(stream, NAMES[:3], Rules(missing=Missing.MASK))
    assert [made.pictures[0].sequence for made in sets] == list(range(9))
    assert [made.pictures[2] is None for made in sets] == [number == 6 for number in range(9)]
    assert sets[6].instants_ns[2] is None


@pytest.mark.parametrize("missing", Missing)
def test_a_set_is_given_up_in_time_although_no_picture_comes(missing):
    stream = paced(6, phases=(0, 3 * MS), lost={("b", 5)})
    _, _, sync = made_of(stream, NAMES[:2], Rules(missing=missing))
    first = 5 * PERIOD
    if missing is Missing.DROP:
        assert sync.due_ns is None
        assert list(sync.tick(first + 100 * PERIOD)) == []
        return
    assert first + 3 * MS < sync.due_ns < first + 0.5 * PERIOD
    assert list(sync.tick(sync.due_ns - 1)) == []
    (made,) = sync.tick(sync.due_ns)
    assert (made.pictures[0].stamp.ns, made.pictures[1]) == (first, None)
    assert sync.due_ns is None


def test_a_camera_that_is_away_is_waited_for_twice_and_taken_back_at_once():
    away = {("c", number) for number in range(5, 15)}
    stream = paced(25, phases=(0, 1 * MS, 2 * MS), lost=away)
    sync, waits, masked = Synchroniser(NAMES[:3], Rules(missing=Missing.MASK)), [], []
    for instant, camera, number in stream:
        for made in sync.add(picture(camera, instant, sequence=number), instant):
            waits.append(instant - made.instants_ns[0])
            masked.append(made.pictures[2] is None)
            made.release()
    assert sum(masked) >= 8
    assert masked[-9:] == [False] * 9
    assert sum(wait > 3 * MS for wait in waits) <= 2
    assert max(waits) <= 2.1 * PERIOD


def test_without_all_cameras_nothing_is_made_and_little_is_held():
    stream = paced(50, phases=(0, 0, 0), lost={("c", number) for number in range(50)})
    sets, pictures, sync = made_of(stream, NAMES[:3], Rules(depth=3))
    assert sets == []
    assert sum(not each.lease.released for each in pictures) == 6
    assert sync.drops["a"] == {Cause.UNMATCHED: 47}


def test_the_rate_is_that_of_the_slowest_camera():
    stream = sorted([(n * PERIOD, "a", n) for n in range(40)] + [(n * 2 * PERIOD, "b", n) for n in range(20)])
    sets, _, _ = made_of(stream, NAMES[:2], Rules())
    assert 18 <= len(sets) <= 20
    assert all(made.skew_ns == 0 for made in sets[2:])


def test_a_picture_that_is_older_than_one_before_it_is_late():
    sync = Synchroniser(NAMES[:2], Rules())
    (*none,) = sync.add(late := picture("a", 10 * MS), 10 * MS)
    assert none == []
    list(sync.add(older := picture("a", 9 * MS), 9 * MS))
    list(sync.add(picture("a", 10 * MS), 10 * MS))
    assert (late.lease.released, older.lease.released) == (0, 1)
    assert sync.drops["a"] == {Cause.LATE: 2}


# The outlet: a thread puts, a reader takes


def outlet(names=NAMES[:2], **rules) -> SetOutlet:
    return SetOutlet({name: StampClock() for name in names}, Rules(**rules))


def put_set(made: SetOutlet, at: int, names=NAMES[:2]):
    pictures = [picture(name, at) for name in names]
    for each in pictures:
        made.put(each)
    return pictures


def test_a_slow_reader_gets_the_newest_set_and_loses_the_others():
    made = outlet()
    pictures = [put_set(made, number * PERIOD) for number in range(4)]
    taken = made.take(0)
    assert isinstance(taken, CapturedSet)
    assert taken.pictures == tuple(pictures[3])
    assert taken.index == 3
    assert made.take(0) is None
    assert {name: drops[Cause.SLOW] for name, drops in made.drops.items()} == {"a": 3, "b": 3}
    assert [each.lease.released for each in itertools.chain(*pictures)] == [1] * 6 + [0] * 2
    taken.release()
    made.close()
    assert [each.lease.released for each in itertools.chain(*pictures)] == [1] * 8


def test_a_set_wakes_its_reader_once():
    made, woken = outlet(NAMES), []
    reader = threading.Thread(target=lambda: woken.append(made.take(None)), daemon=True)
    reader.start()
    waits, wait = Counter(), made._ready.wait

    def counted(timeout=None):
        waits["woken"] += 1
        return wait(timeout)

    made._ready.wait = counted
    put_set(made, 0, NAMES)
    made.tick(0)  # as the capture thread does after every batch, before it waits itself
    reader.join(timeout=5)
    assert len(woken) == 1
    assert waits["woken"] == 0  # it was not put back to sleep by pictures that make no set
    made.close()


def test_closing_releases_all_and_wakes_the_reader():
    made = outlet()
    ready, waiting = put_set(made, 0), picture("a", PERIOD)
    made.put(waiting)
    made.close()
    made.close()
    after = picture("a", 2 * PERIOD)
    made.put(after)
    assert made.take(None) is None
    assert [each.lease.released for each in (*ready, waiting, after)] == [1] * 4
    assert not made.is_open


@pytest.mark.parametrize("offset_ms", [-4, 4])
def test_constant_offsets_bring_cameras_together(offset_ms):
    clocks = {"a": StampClock(), "b": StampClock(offset_ns=offset_ms * MS)}
    made = SetOutlet(clocks, Rules(tolerance_ns=0))
    made.put(picture("a", 50 * MS))
    made.put(picture("b", (50 - offset_ms) * MS))
    taken = made.take(0)
    assert taken.instants_ns == (50 * MS, 50 * MS)
    assert taken.skew_ns == 0
    made.close()


def test_a_picture_that_comes_after_the_set_that_went_without_it_is_late():
    stream = paced(6, phases=(0, 1 * MS), lost={("b", 5)})
    *_, sync = made_of(stream, NAMES[:2], Rules(missing=Missing.MASK))
    (masked,) = sync.tick(sync.due_ns)
    assert masked.pictures[1] is None
    list(sync.add(tardy := picture("b", 5 * PERIOD - 1 * MS, arrival_ns=6 * PERIOD), 5 * PERIOD - 1 * MS))
    assert tardy.lease.released == 1
    assert sync.drops["b"] == {Cause.LATE: 1}


def test_a_set_that_promises_to_be_tighter_is_waited_for_once():
    made = outlet()
    made.put(picture("a", 0))
    made.put(picture("b", 25 * MS))
    assert made.take(0) is None  # the next picture of a is expected 8 ms after that of b
    assert made.tick(26 * MS) == round(1.5 * Rules().period_ns)
    assert made.take(0) is None
    assert made.tick(50 * MS) is None
    assert made.take(0).skew_ns == 25 * MS
    made.close()
    assert made.tick(60 * MS) is None


def test_few_views_that_lie_apart_from_the_others_are_no_set():
    stream = paced(10, phases=(0, 20 * MS, 21 * MS, 22 * MS, 23 * MS))
    rules = Rules(tolerance_ns=15 * MS, missing=Missing.MASK)
    sets, _, sync = made_of(stream, NAMES[:5], rules)
    assert all(None not in made.pictures and made.skew_ns == 13 * MS for made in sets)
    assert sync.drops["a"] == {Cause.UNMATCHED: 1}


def test_lost_pictures_leave_the_measured_period_as_it_is():
    sync = Synchroniser(NAMES[:2], Rules(period_ns=1))
    for number in (0, 1, 2, 3, 5):
        list(sync.add(picture("a", number * PERIOD), number * PERIOD))
    assert sync._by_name["a"].period_ns == PERIOD
