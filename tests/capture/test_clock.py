from __future__ import annotations

from pictures import MS, picture

from fsmde_edge.capture.clock import StampClock
from fsmde_edge.frames import ExposurePoint

SECOND = 1000 * MS


def test_stamps_of_the_shared_clock_stay_as_they_are_even_a_little_in_the_future():
    clock = StampClock()
    for number, delay in enumerate((5, -88, 400)):
        stamp = number * SECOND
        assert clock.instant_ns(picture("a", stamp, arrival_ns=stamp + delay * MS)) == stamp
    assert clock.foreign_ns is None
    assert clock.delay_ns == 5 * MS


def test_another_clock_is_measured_by_the_picture_that_came_fastest():
    clock = StampClock()
    for number, delay in enumerate((7, 3, 9)):
        stamp = number * 100 * MS
        instant = clock.instant_ns(picture("a", stamp, arrival_ns=stamp + 29 * SECOND + delay * MS))
    assert clock.foreign_ns == 29 * SECOND + 3 * MS
    assert instant == stamp + 29 * SECOND + 3 * MS


def test_a_foreign_clock_that_is_set_is_measured_anew():
    clock = StampClock()
    arrival = 10_000 * SECOND
    for number in range(5):
        clock.instant_ns(picture("a", number * SECOND, arrival_ns=arrival + number * SECOND))
    stepped = 3600 * SECOND + 5 * SECOND
    instant = clock.instant_ns(picture("a", stepped, arrival_ns=arrival + 5 * SECOND))
    assert instant == arrival + 5 * SECOND


def test_a_stall_of_this_program_leaves_no_trace():
    clock = StampClock()
    clock.instant_ns(picture("a", 0, arrival_ns=MS))
    clock.instant_ns(picture("a", SECOND, arrival_ns=9 * SECOND))
    assert clock.instant_ns(picture("a", 10 * SECOND, arrival_ns=10 * SECOND + MS)) == 10 * SECOND
    assert clock.foreign_ns is None


def test_the_middle_of_the_exposure_is_told_where_it_is_known():
    clock = StampClock(exposure_ns=10 * MS)
    assert clock.instant_ns(picture("a", 0, exposure=ExposurePoint.START)) == 5 * MS
    assert clock.point is ExposurePoint.MIDDLE
    assert clock.instant_ns(picture("a", SECOND, exposure=ExposurePoint.END)) == SECOND
    assert clock.point is ExposurePoint.END


def test_a_constant_offset_is_added():
    assert StampClock(offset_ns=-3 * MS).instant_ns(picture("a", SECOND)) == SECOND - 3 * MS
