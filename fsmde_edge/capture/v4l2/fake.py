"""Cameras without a driver: a `Kernel` whose devices exist in this process and fail on demand.

Descriptors are real (one end of a socket pair each), so the same epoll loop watches them. A frame's bytes are
its sequence number, repeated as 32-bit words: whoever reads it can tell which picture it is.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from fsmde_edge.capture.v4l2.formats import code_of, number_of
from fsmde_edge.capture.v4l2.structs import (
    DMA_BUF_SYNC,
    TIME_PER_FRAME,
    Buffer,
    BufFlags,
    Capabilities,
    Capability,
    Event,
    EventType,
    ExportBuffer,
    FmtDesc,
    Format,
    Fract,
    FrameIntervalEnum,
    FrameSizeEnum,
    MemoryKind,
    Request,
    RequestBuffers,
    SizeKind,
    StreamParm,
)
from fsmde_edge.preprocessing.raw import RawLayout

SIZES = ((64, 32), (320, 180))
PAGE = mmap.PAGESIZE


def _refuse(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@dataclass(slots=True)
class _Held:
    """A buffer in the device's queue."""

    memory: int
    address: int = 0
    length: int = 0
    queued: bool = False
    map: mmap.mmap | None = None
    file: int = -1


@dataclass(eq=False)
class FakeCamera:
    """One device; set its fields to make it fail.

    Attributes:
        path: its node.
        formats: codes that it offers.
        memories: kinds of memory that REQBUFS accepts.
        planar: whether it speaks the multi-planar half, and then with `data_offset` bytes before a picture.
        rate: pictures a second while its thread runs.
        refuse: request to errno, for the next call only.
        always: request to errno, for every call.
        first_sequence: of the next stream.
        mark_error, skip: pictures that come next with the error flag, or are lost.
        silent: gives nothing.
        exportable: whether EXPBUF works.
        paints: a picture's bytes by its number; the number in every word if None.
    """

    path: str
    formats: Sequence[str] = ("YUYV", "UYVY", "NV12", "GREY")
    memories: frozenset[MemoryKind] = frozenset(MemoryKind)
    planar: bool = False
    data_offset: int = 0
    rate: float = 30.0
    refuse: dict[Request, int] = field(default_factory=dict)
    always: dict[Request, int] = field(default_factory=dict)
    first_sequence: int = 0
    mark_error: int = 0
    skip: int = 0
    silent: bool = False
    exportable: bool = True
    paints: Callable[[int], bytes] | None = None

    def __post_init__(self) -> None:
        self._lock = threading.RLock()
        self._ours: socket.socket | None = None
        self._theirs = -1
        self._code, self._width, self._height = self.formats[0], *SIZES[0]
        self._buffers: list[_Held] = []
        self._waiting: deque[int] = deque()
        self._filled: deque[tuple[int, int, int, int]] = deque()
        self._events: deque[int] = deque()
        self._streaming = self._broken = False
        self._there = True
        self._sequence = 0

    # Faults, as a test asks for them

    def unplug(self) -> None:
        """The device goes away: every call answers ENODEV, the node is missing."""
        with self._lock:
            self._there = self._streaming = False
            self._hang_up()

    def plug(self) -> None:
        """It is back, as a new device: who has the old one open must open it again."""
        with self._lock:
            self._there = True

    def break_stream(self) -> None:
        """The stream fails for good: DQBUF and QBUF answer EIO until it is stopped."""
        with self._lock:
            self._broken = True
            self._hang_up()

    def change_source(self, width: int, height: int) -> None:
        """The signal changes its size, which an event tells."""
        with self._lock:
            self._width, self._height = width, height
            self._events.append(EventType.SOURCE_CHANGE)
            if self._ours is not None:
                self._ours.send(b"!", socket.MSG_OOB)

    def expose(self) -> None:
        """Take one picture, into the buffer that has waited longest."""
        with self._lock:
            if not self._streaming or self._broken or self.silent:
                return
            sequence, self._sequence = self._sequence, (self._sequence + 1) % (1 << 32)
            if self.skip:
                self.skip -= 1
            elif self._waiting:
                flags = BufFlags.TIMESTAMP_MONOTONIC | (BufFlags.ERROR if self.mark_error else 0)
                self.mark_error = max(0, self.mark_error - 1)
                index = self._waiting.popleft()
                self._paint(self._buffers[index], sequence)
                self._filled.append((index, sequence, time.monotonic_ns(), flags))
                if self._ours is not None:
                    self._ours.send(b"1")

    # What the kernel's side asks

    def opened(self) -> int:
        """Open it: one at a time, as far as streaming goes."""
        with self._lock:
            if not self._there:
                raise _refuse(errno.ENOENT)
            if self._theirs >= 0:
                raise _refuse(errno.EBUSY if self._ours is not None else errno.ENODEV)
            self._theirs = self._connect().detach()
            self._broken = False
            return self._theirs

    def closed(self) -> None:
        """Close it."""
        with self._lock:
            self._streaming, self._theirs = False, -1
            self._hang_up()
            self._drop_buffers()

    def answer(self, request: Request, argument: Any) -> None:
        """Carry out a request."""
        with self._lock:
            if not self._there or (self._ours is None and not self._broken):
                raise _refuse(errno.ENODEV)
            number = self.refuse.pop(request, 0) or self.always.get(request, 0)
            if number:
                raise _refuse(number)
            if request not in _ANSWERS:
                raise _refuse(errno.ENOTTY)
            _ANSWERS[request](self, argument)

    def _connect(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self._ours = ours
        return theirs

    def _hang_up(self) -> None:
        if self._ours is not None:
            self._ours.close()
            self._ours = None

    def _query(self, answer: Capability) -> None:
        capture = Capabilities.VIDEO_CAPTURE_MPLANE if self.planar else Capabilities.VIDEO_CAPTURE
        answer.driver, answer.card, answer.bus_info = b"fake", b"Fake camera", f"fake:{self.path}".encode()
        answer.device_caps = capture | Capabilities.STREAMING
        answer.capabilities = answer.device_caps | Capabilities.DEVICE_CAPS

    def _enum_formats(self, answer: FmtDesc) -> None:
        answer.pixelformat = number_of(_at(self.formats, answer.index))

    def _enum_sizes(self, answer: FrameSizeEnum) -> None:
        answer.type = SizeKind.DISCRETE
        answer.discrete.width, answer.discrete.height = _at(SIZES, answer.index)

    def _enum_rates(self, answer: FrameIntervalEnum) -> None:
        answer.type = SizeKind.DISCRETE
        answer.discrete = Fract(1, _at((30, 15), answer.index))

    def _size(self) -> int:
        return self.data_offset + (self._layout().size or 4096)

    def _layout(self) -> RawLayout:
        return RawLayout(code=self._code, width=self._width, height=self._height)

    def _get_format(self, answer: Format) -> None:
        picture = answer.fmt.pix_mp if self.planar else answer.fmt.pix
        picture.width, picture.height, picture.field = self._width, self._height, 1
        picture.pixelformat = number_of(self._code)
        plane = picture.plane_fmt[0] if self.planar else picture
        plane.bytesperline, plane.sizeimage = self._layout().stride, self._size()
        if self.planar:
            picture.num_planes = 1

    def _set_format(self, wanted: Format) -> None:
        if self._buffers:
            raise _refuse(errno.EBUSY)
        picture = wanted.fmt.pix_mp if self.planar else wanted.fmt.pix
        code = code_of(picture.pixelformat)
        self._code = code if code in self.formats else self.formats[0]
        asked = (picture.width, picture.height)
        self._width, self._height = min(SIZES, key=lambda size: abs(size[0] - asked[0]))
        self._get_format(wanted)

    def _get_parameters(self, answer: StreamParm) -> None:
        answer.parm.capture.capability = TIME_PER_FRAME
        answer.parm.capture.timeperframe = Fract(1000, round(self.rate * 1000))

    def _set_parameters(self, wanted: StreamParm) -> None:
        interval = wanted.parm.capture.timeperframe
        self.rate = min(200.0, interval.denominator / max(1, interval.numerator))
        self._get_parameters(wanted)

    def _request(self, wanted: RequestBuffers) -> None:
        if self._streaming:
            raise _refuse(errno.EBUSY)
        if wanted.memory not in self.memories:
            raise _refuse(errno.EINVAL)
        self._drop_buffers()
        wanted.count = min(wanted.count, 32)
        self._buffers = [_Held(wanted.memory) for _ in range(wanted.count)]
        if wanted.memory == MemoryKind.MMAP:
            for held in self._buffers:
                held.length = -(-self._size() // PAGE) * PAGE
                held.file = os.memfd_create("fake-camera")
                os.ftruncate(held.file, held.length)
                held.map = mmap.mmap(held.file, held.length)

    def _drop_buffers(self) -> None:
        for held in self._buffers:
            if held.map is not None:
                held.map.close()
                os.close(held.file)
        self._buffers = []
        self._waiting.clear()
        self._filled.clear()

    def _held(self, buffer: Buffer) -> _Held:
        index: int = buffer.index
        held = self._buffers[index] if index < len(self._buffers) else None
        if held is None or held.memory != buffer.memory:
            raise _refuse(errno.EINVAL)
        return held

    def _where(self, buffer: Buffer) -> None:
        held = self._held(buffer)
        target = buffer.m.planes[0] if self.planar else buffer
        target.length = held.length
        offset = buffer.index * (1 << 24)
        if self.planar:
            target.m.mem_offset = offset
        else:
            buffer.m.offset = offset

    def _export(self, wanted: ExportBuffer) -> None:
        if not self.exportable or wanted.index >= len(self._buffers):
            raise _refuse(errno.EINVAL)
        wanted.fd = os.dup(self._buffers[wanted.index].file)

    def _queue(self, buffer: Buffer) -> None:
        if self._broken:
            raise _refuse(errno.EIO)
        held = self._held(buffer)
        if held.queued:
            raise _refuse(errno.EINVAL)
        if held.memory == MemoryKind.USERPTR:
            target = buffer.m.planes[0] if self.planar else buffer
            if target.length < self._size():
                raise _refuse(errno.EINVAL)
            held.address, held.length = target.m.userptr, target.length
        held.queued = True
        self._waiting.append(buffer.index)

    def _dequeue(self, answer: Buffer) -> None:
        if self._broken:
            raise _refuse(errno.EIO)
        if not self._streaming:
            raise _refuse(errno.EINVAL)
        if not self._filled:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        index, answer.sequence, stamp, answer.flags = self._filled.popleft()
        os.read(self._theirs, 1)
        self._buffers[index].queued = False
        answer.index = index
        answer.timestamp.tv_sec, rest = divmod(stamp, 1_000_000_000)
        answer.timestamp.tv_usec = rest // 1000
        if self.planar:
            answer.m.planes[0].bytesused, answer.m.planes[0].data_offset = self._size(), self.data_offset
        else:
            answer.bytesused = self._size()

    def _start(self, _kind: ctypes.c_int) -> None:
        self._streaming, self._sequence = True, self.first_sequence

    def _stop(self, _kind: ctypes.c_int) -> None:
        self._streaming = False
        self._waiting.clear()
        self._filled.clear()
        for held in self._buffers:
            held.queued = False
        self._hang_up()  # a new pair on the same descriptor: no byte of the old stream is left
        with self._connect() as fresh:
            os.dup2(fresh.fileno(), self._theirs, inheritable=False)
        self._broken = False

    def _subscribe(self, _wanted: object) -> None:
        """Every event is told."""

    def _event(self, answer: Event) -> None:
        if not self._events:
            raise _refuse(errno.ENOENT)
        answer.type = self._events.popleft()
        if not self._events:
            socket.socket(fileno=os.dup(self._theirs)).recv(1, socket.MSG_OOB)

    def _paint(self, held: _Held, sequence: int) -> None:
        room = min(self._size(), held.length) - self.data_offset  # the source may have grown since
        number = sequence.to_bytes(4, "little") * (room // 4)
        picture = number if self.paints is None else self.paints(sequence)[:room]
        if held.map is not None:
            held.map[self.data_offset : self.data_offset + len(picture)] = picture
        else:
            ctypes.memmove(held.address + self.data_offset, picture, len(picture))


_ANSWERS: dict[Request, Callable[[FakeCamera, Any], None]] = {
    Request.QUERYCAP: FakeCamera._query,
    Request.ENUM_FMT: FakeCamera._enum_formats,
    Request.ENUM_FRAMESIZES: FakeCamera._enum_sizes,
    Request.ENUM_FRAMEINTERVALS: FakeCamera._enum_rates,
    Request.G_FMT: FakeCamera._get_format,
    Request.S_FMT: FakeCamera._set_format,
    Request.G_PARM: FakeCamera._get_parameters,
    Request.S_PARM: FakeCamera._set_parameters,
    Request.REQBUFS: FakeCamera._request,
    Request.QUERYBUF: FakeCamera._where,
    Request.EXPBUF: FakeCamera._export,
    Request.QBUF: FakeCamera._queue,
    Request.DQBUF: FakeCamera._dequeue,
    Request.STREAMON: FakeCamera._start,
    Request.STREAMOFF: FakeCamera._stop,
    Request.SUBSCRIBE_EVENT: FakeCamera._subscribe,
    Request.DQEVENT: FakeCamera._event,
}


class FakeKernel:
    """A `Kernel` with fake cameras; `run` lets them take pictures by themselves."""

    def __init__(self, cameras: Sequence[FakeCamera]) -> None:
        self.cameras = {camera.path: camera for camera in cameras}
        self._open: dict[int, FakeCamera] = {}
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def open(self, path: str) -> int:
        """Open a fake node."""
        if path not in self.cameras:
            raise _refuse(errno.ENOENT)
        fd = self.cameras[path].opened()
        self._open[fd] = self.cameras[path]
        return fd

    def close(self, fd: int) -> None:
        """Close a node, or a descriptor that EXPBUF gave."""
        camera = self._open.pop(fd, None)
        if camera is not None:
            camera.closed()
        os.close(fd)

    def ioctl(self, fd: int, request: int, argument: Any) -> object:
        """Ask a camera; brackets around a dmabuf need nothing here."""
        if request != DMA_BUF_SYNC:
            self._open[fd].answer(Request(request), argument)
        return 0

    def map(self, fd: int, length: int, offset: int) -> mmap.mmap:
        """Map a camera's buffer, or an exported one."""
        camera = self._open.get(fd)
        if camera is None:
            return mmap.mmap(fd, length, offset=offset)
        return mmap.mmap(camera._buffers[offset >> 24].file, length)

    def nodes(self) -> list[str]:
        """The paths of those that are plugged in."""
        return [path for path, camera in self.cameras.items() if camera._there]

    def run(self) -> None:
        """Let every camera take pictures at its rate, until `stop`."""
        for camera in self.cameras.values():
            thread = threading.Thread(target=self._pace, args=(camera,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """No more pictures; may be called twice."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _pace(self, camera: FakeCamera) -> None:
        while not self._stop.wait(1 / camera.rate):
            camera.expose()


def _at(items: Sequence[Any], index: int) -> Any:
    if index >= len(items):
        raise _refuse(errno.EINVAL)
    return items[index]
