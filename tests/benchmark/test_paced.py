"""Sets that a clock publishes: newest first, never the same twice, what nobody took is missed."""

from dataclasses import dataclass
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from fsmde_edge.benchmark.paced import PacedSets


@dataclass
class FakeClock:
    ns: int = 5_000_000_000

    def now(self) -> int:
        self.ns += 100  # looking at a clock takes time
        return self.ns

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.ns += round(seconds * 1e9) + 50_000  # and sleep is never exact


def taken(rate: float, sets: int, work: list[float]):
    """(index, instant, taken at) of every set that a consumer takes who works work[i] seconds on the i-th."""
    clock = FakeClock()
    found = []
    for i, each in enumerate(PacedSets(rate, sets, now_ns=clock.now, sleep=clock.sleep)):
        found.append((each.index, each.instant_ns, clock.ns))
        clock.ns += round(work[i % len(work)] * 1e9)
    return found


def test_a_fast_consumer_gets_every_set_once_at_its_instant():
    found = taken(10, 50, [0.02])
    assert [index for index, _, _ in found] == list(range(50))
    assert all(0 <= at - instant < 1_000_000 for _, instant, at in found)
    assert {b[1] - a[1] for a, b in pairwise(found)} == {100_000_000}


def test_a_slow_consumer_gets_the_newest_and_loses_the_older():
    found = taken(10, 50, [0.25])
    assert [index for index, _, _ in found][:5] == [0, 2, 5, 7, 10]


def test_sets_that_were_due_during_the_last_piece_of_work_are_not_given_late():
    found = taken(10, 5, [10.0])
    assert [index for index, _, _ in found] == [0]


@given(
    rate=st.floats(1, 200),
    sets=st.integers(1, 60),
    work=st.lists(st.floats(0, 0.2), min_size=1, max_size=5),
)
def test_what_is_given_is_the_newest_of_its_time(rate, sets, work):
    found = taken(rate, sets, work)
    period = round(1e9 / rate)
    indices = [index for index, _, _ in found]
    assert indices == sorted(set(indices))
    assert all(0 <= index < sets for index in indices)
    assert all(0 <= at - instant <= period + 1_000 for _, instant, at in found)
    begun = found[0][1] - indices[0] * period
    assert all(instant == begun + index * period for index, instant, _ in found)
