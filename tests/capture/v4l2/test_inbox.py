from __future__ import annotations

import threading

from fsmde_edge.capture.lease import Captured
from fsmde_edge.capture.v4l2.inbox import Inbox
from fsmde_edge.capture.v4l2.loss import Cause
from fsmde_edge.frames import Stamp


class CountedLease:
    sequence = stamp_ns = 0

    def __init__(self, camera: str) -> None:
        self.camera, self.released = camera, 0

    def view(self) -> memoryview:
        return memoryview(b"")

    def release(self) -> None:
        self.released += 1


def captured(camera: str, stamp: int) -> Captured:
    return Captured(
        camera=camera, lease=CountedLease(camera), stamp=Stamp(stamp), sequence=stamp, arrival_ns=stamp
    )


def test_an_overflow_releases_the_oldest_of_that_camera_once_and_counts_it():
    inbox = Inbox(("a", "b"), depth=2)
    pictures = [captured("a", stamp) for stamp in (1, 2, 3, 4)]
    other = captured("b", 0)
    for picture in (other, *pictures):
        inbox.put(picture)
    assert [picture.lease.released for picture in pictures] == [1, 1, 0, 0]
    assert inbox.drops == {"a": {Cause.SLOW: 2}, "b": {Cause.SLOW: 0}}
    assert inbox.take(0) == [other, pictures[2], pictures[3]]
    assert inbox.take(0) == []


def test_pictures_come_in_the_order_of_their_stamps():
    inbox = Inbox(("a", "b"))
    late, early = captured("a", 9), captured("b", 5)
    inbox.put(late)
    inbox.put(early)
    assert inbox.take(None) == [early, late]


def test_closing_releases_what_waits_and_what_still_comes():
    inbox = Inbox(("a",))
    waiting, after = captured("a", 1), captured("a", 2)
    inbox.put(waiting)
    inbox.close()
    inbox.close()
    inbox.put(after)
    assert (waiting.lease.released, after.lease.released) == (1, 1)
    assert inbox.take(None) == []
    assert not inbox.is_open


def test_closing_wakes_the_reader():
    inbox = Inbox(("a",))
    reader = threading.Thread(target=inbox.take, args=(None,))
    reader.start()
    inbox.close()
    reader.join(timeout=5)
    assert not reader.is_alive()
