"""Which memory mode a driver takes, and that nothing is left behind."""

from __future__ import annotations

import errno
import gc
from itertools import pairwise
from pathlib import Path

import pytest
from camera_contract import running
from test_contract_fake import FakeStage

from fsmde_edge.capture.v4l2.buffers import PAGE, Memory, Ring
from fsmde_edge.capture.v4l2.camera import Settings, open_cameras
from fsmde_edge.capture.v4l2.errors import CameraError
from fsmde_edge.capture.v4l2.fake import FakeCamera, FakeKernel
from fsmde_edge.capture.v4l2.structs import MemoryKind, Request

ONE = {"one": "/dev/fake0"}


def opened(camera: FakeCamera, memory: Memory | None = None, **more):
    (one,), ring = open_cameras(ONE, Settings(memory=memory, **more), kernel=FakeKernel([camera]))
    return one, ring


def test_slots_of_a_ring_are_aligned_and_apart():
    ring = Ring([(2, 5000), (3, PAGE)])
    spans = sorted((slot.address, len(slot.bytes)) for slots in ring.slots for slot in slots)
    assert all(address % PAGE == 0 for address, _ in spans)
    assert all(start + size <= after for (start, size), (after, _) in pairwise(spans))
    assert spans[0][0] == ring.address
    assert spans[-1][0] + spans[-1][1] == ring.address + len(ring) == ring.address + 4 * PAGE + 3 * PAGE
    ring.slots[1][0].bytes[:3] = b"abc"
    assert bytes(ring.slots[1][0].bytes[:3]) == b"abc"


@pytest.mark.parametrize(
    ("memories", "exportable", "mode"),
    [
        ({MemoryKind.USERPTR, MemoryKind.MMAP}, True, Memory.USERPTR),
        ({MemoryKind.MMAP}, True, Memory.DMABUF),
        ({MemoryKind.MMAP}, False, Memory.COPY),
    ],
)
def test_the_first_mode_that_a_driver_takes(memories, exportable, mode):
    source = FakeCamera("/dev/fake0", memories=frozenset(memories), exportable=exportable)
    camera, _ = opened(source)
    assert camera.memory is mode
    assert camera.reason.count("refused") == list(Memory).index(mode)
    source.expose()
    captured = camera.take()
    assert bytes(captured.lease.view()) == bytes(len(captured.lease.view()))  # number 0
    assert camera.copied == (len(captured.lease.view()) if mode is Memory.COPY else 0)
    captured.lease.release()
    camera.close()


def test_a_driver_that_takes_nothing_says_what_each_mode_answered():
    with pytest.raises(CameraError, match=r"none of the memory modes \(userptr.*; dmabuf.*; copy"):
        opened(FakeCamera("/dev/fake0", memories=frozenset()))


@pytest.mark.parametrize("number", [errno.EBUSY, errno.ENOSPC, errno.EIO, errno.ENODEV])
def test_a_refusal_that_concerns_the_camera_tries_no_other_mode(number):
    camera = FakeCamera("/dev/fake0", refuse={Request.STREAMON: number})
    with pytest.raises(CameraError, match="cannot start it") as caught:
        opened(camera)
    assert caught.value.number == number


@pytest.mark.parametrize("memory", Memory)
def test_a_multiplanar_picture_starts_where_the_driver_says(memory):
    source = FakeCamera("/dev/fake0", planar=True, data_offset=128)
    camera, _ = opened(source, memory)
    for number in range(3):
        source.expose()
        captured = camera.take()
        assert bytes(captured.lease.view()) == number.to_bytes(4, "little") * (64 * 32 * 2 // 4)
        assert captured.lease.address % PAGE == (0 if memory is Memory.COPY else 128)
        captured.lease.release()
    camera.close()


@pytest.mark.parametrize("memory", Memory)
def test_a_buffer_on_loan_is_never_written_to(memory):
    source = FakeCamera("/dev/fake0")
    camera, _ = opened(source, memory, buffers=3)
    source.expose()
    kept = camera.take()
    seen = []
    for _ in range(10):
        source.expose()
        if (captured := camera.take()) is not None:
            seen.append(captured.sequence)
            captured.lease.release()
    assert len(seen) == 10
    assert set(bytes(kept.lease.view())) == {0}
    camera.close()


@pytest.mark.parametrize("memory", Memory)
def test_starting_and_stopping_leaves_no_descriptor_behind(memory):
    def descriptors() -> int:
        gc.collect()
        return len(list(Path("/proc/self/fd").iterdir()))

    stage = FakeStage()
    stage.kernel.run()
    before = None
    for _ in range(4):
        with running(stage, memory=memory) as run:
            kept = run.keep("left")
            kept.lease.view()
        kept.lease.release()
        before = before or descriptors()
    assert descriptors() == before
    stage.kernel.stop()


def test_a_camera_that_comes_back_with_another_layout_is_refused():
    source = FakeCamera("/dev/fake0", planar=True)
    camera, _ = opened(source)
    source.data_offset = 64
    with pytest.raises(CameraError, match="came back as UYVY 64x32 in 4160 bytes, it was UYVY 64x32 in 4096"):
        camera.reopen()
    source.data_offset = 0
    camera.reopen()
    camera.close()


def test_a_failure_at_the_start_of_one_camera_closes_the_others():
    kernel = FakeKernel([FakeCamera("/dev/fake0"), FakeCamera("/dev/fake1", refuse={Request.S_FMT: 5})])
    with pytest.raises(CameraError, match="/dev/fake1"):
        open_cameras({"a": "/dev/fake0", "b": "/dev/fake1"}, Settings(), kernel=kernel)
    kernel.close(kernel.open("/dev/fake0"))
