from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fsmde_edge.capture.v4l2.loss import STEADY, WRAP, Losses

PERIOD = 33_333_333


def feed(losses: Losses, pictures) -> list[tuple[int, bool]]:
    return [tuple(losses.step(number % WRAP, stamp)) for number, stamp in pictures]


@given(
    st.integers(0, WRAP - 1),
    st.integers(-(2**40), 2**40),
    st.lists(st.integers(0, 4), min_size=1, max_size=40),
    st.lists(st.floats(-0.3, 0.3), min_size=41, max_size=41),
)
def test_what_a_numbering_driver_lost_is_counted_exactly_once_numbers_skip(first, start, lost, jitter):
    number, pictures = 0, [(first, start)]
    for gap, shake in zip([1, *lost], jitter, strict=False):  # the first gap shows that numbers skip
        number += 1 + gap
        pictures.append((first + number, start + number * PERIOD + int(shake * PERIOD)))
    steps = feed(Losses(PERIOD), pictures)
    assert [step for step, _ in steps] == [0, 1, *lost]
    assert not any(late for _, late in steps)


@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=STEADY - 1),  # more of the same would be a slower rate
    st.lists(st.floats(-0.1, 0.1), min_size=STEADY, max_size=STEADY),
)
def test_a_driver_that_numbers_only_what_it_gives_out_is_seen_through_by_time(lost, jitter):
    tick, pictures = 0, [(0, 0)]
    for i, (gap, shake) in enumerate(zip(lost, jitter, strict=False)):
        tick += 1 + gap
        pictures.append((i + 1, tick * PERIOD + int(shake * PERIOD)))
    assert [step for step, _ in feed(Losses(PERIOD), pictures)] == [0, *lost]


def test_numbers_that_begin_anew_are_no_loss():
    pictures = [(100, 0), (101, PERIOD), (0, 2 * PERIOD), (1, 3 * PERIOD)]
    assert [step for step, _ in feed(Losses(PERIOD), pictures)] == [0, 0, 0, 0]


def test_a_jump_in_numbers_that_time_does_not_bear_out_is_no_loss():
    pictures = [(0, 0), (1, PERIOD), (5000, 2 * PERIOD), (5001, 3 * PERIOD)]
    assert [step for step, _ in feed(Losses(PERIOD), pictures)] == [0, 0, 0, 0]


def test_a_picture_that_is_not_newer_is_late_and_changes_nothing():
    steps = feed(Losses(PERIOD), [(0, 0), (1, PERIOD), (1, PERIOD), (0, PERIOD - 5), (2, 2 * PERIOD)])
    assert steps == [(0, False), (0, False), (0, True), (0, True), (0, False)]


def test_a_clock_that_wraps_begins_a_new_time_line():
    wrapped = 2**31
    pictures = [(0, wrapped - PERIOD), (1, wrapped), (2, PERIOD), (3, 2 * PERIOD)]
    assert feed(Losses(PERIOD), pictures) == [(0, False)] * 4


def test_a_camera_that_slows_down_in_the_dark_stops_counting_as_losing():
    losses = Losses(PERIOD)
    steps = feed(losses, [(i, i * 2 * PERIOD) for i in range(40)])
    assert sum(step for step, _ in steps[20:]) == 0


def test_after_a_restart_nothing_is_lost():
    losses = Losses(PERIOD)
    feed(losses, [(0, 0), (1, PERIOD)])
    losses.restart()
    assert losses.step(50, 100 * PERIOD) == (0, False)
