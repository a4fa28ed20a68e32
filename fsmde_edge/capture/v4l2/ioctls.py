"""Functions on an open node: fill a structure, ask the kernel, return what it answered."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

from fsmde_edge.capture.v4l2.errors import CameraError, camera_error
from fsmde_edge.capture.v4l2.formats import code_of, colour_of, number_of
from fsmde_edge.capture.v4l2.kernel import Kernel
from fsmde_edge.capture.v4l2.structs import (
    CONTROL_DISABLED,
    FIELD_NONE,
    NEXT_CONTROL,
    TIME_PER_FRAME,
    Buffer,
    BufType,
    Capabilities,
    Capability,
    Control,
    Event,
    EventSubscription,
    ExportBuffer,
    FmtDesc,
    Format,
    Fract,
    FrameIntervalEnum,
    FrameSizeEnum,
    MemoryKind,
    Plane,
    QueryExtCtrl,
    Request,
    RequestBuffers,
    SizeKind,
    StreamParm,
)
from fsmde_edge.errors import InputError
from fsmde_edge.preprocessing.colour import Colour
from fsmde_edge.preprocessing.raw import RawFormat, RawLayout

_QBUF, _DQBUF = (
    int(Request.QBUF),
    int(Request.DQBUF),
)  # plain numbers: an enum's arithmetic costs microseconds

MOST = 1000
"""Of anything that is enumerated: a driver that never ends a list does not hang us."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """An open capture node, owned: `close` it once.

    Attributes:
        path: as it was given.
        fd: its descriptor.
        kernel: what carries out requests.
        queue: single- or multi-planar.
        card, driver, bus: what it calls itself.
    """

    path: str
    fd: int
    kernel: Kernel
    queue: BufType
    card: str
    driver: str
    bus: str

    @property
    def planar(self) -> bool:
        """Whether it speaks the multi-planar half of V4L2."""
        return self.queue == BufType.CAPTURE_MPLANE

    def call(self, request: Request, argument: Any, *, doing: str) -> None:
        """Carry out a request.

        Errors:
            CameraError: the kernel refused; `doing` says what.
        """
        try:
            self.kernel.ioctl(self.fd, request, argument)
        except OSError as error:
            raise camera_error(error, self.path, doing) from error

    def listed(self, request: Request, argument: Any, *, doing: str) -> bool:
        """Carry out one step of an enumeration; False past its end.

        Errors:
            CameraError: anything but the end.
        """
        try:
            self.kernel.ioctl(self.fd, request, argument)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOTTY):  # the end; or a driver that lists nothing
                return False
            raise camera_error(error, self.path, doing) from error
        return True

    def close(self) -> None:
        """Close the descriptor."""
        self.kernel.close(self.fd)


def open_node(path: str, kernel: Kernel) -> Node:
    """Open a camera.

    Errors:
        CameraError: it is missing, in use, not ours to open, or no camera that streams.
    """
    try:
        fd = kernel.open(path)
    except OSError as error:
        raise camera_error(error, path, "open it") from error
    try:
        answer = Capability()
        kernel.ioctl(fd, Request.QUERYCAP, answer)
        return Node(
            path=path,
            fd=fd,
            kernel=kernel,
            queue=_queue(answer, path),
            card=answer.card.decode(errors="replace"),
            driver=answer.driver.decode(errors="replace"),
            bus=answer.bus_info.decode(errors="replace"),
        )
    except OSError as error:
        kernel.close(fd)
        raise camera_error(error, path, "ask what it can do") from error
    except CameraError:
        kernel.close(fd)
        raise


def _queue(answer: Capability, path: str) -> BufType:
    has_own = answer.capabilities & Capabilities.DEVICE_CAPS
    able = Capabilities(answer.device_caps if has_own else answer.capabilities)
    if Capabilities.STREAMING in able and Capabilities.VIDEO_CAPTURE in able:
        return BufType.CAPTURE
    if Capabilities.STREAMING in able and Capabilities.VIDEO_CAPTURE_MPLANE in able:
        return BufType.CAPTURE_MPLANE
    raise CameraError(
        "does not stream pictures: it is another kind of video node",
        where=path,
        hint="fsmde-edge cameras lists those that do",
    )


# Formats and rates


def formats(node: Node) -> Iterator[str]:
    """The codes of the pixel formats that it offers, in its own order."""
    for index in range(MOST):
        answer = FmtDesc(index=index, type=node.queue)
        if not node.listed(Request.ENUM_FMT, answer, doing="list its pixel formats"):
            return
        yield code_of(answer.pixelformat)


def sizes(node: Node, code: str) -> Iterator[tuple[int, int]]:
    """Widths and heights that it offers in a format; of a range, the least and the largest."""
    for index in range(MOST):
        answer = FrameSizeEnum(index=index, pixel_format=number_of(code))
        if not node.listed(Request.ENUM_FRAMESIZES, answer, doing="list its picture sizes"):
            return
        if answer.type == SizeKind.DISCRETE:
            yield answer.discrete.width, answer.discrete.height
            continue
        span = answer.stepwise
        yield span.min_width, span.min_height
        yield span.max_width, span.max_height
        return


def rates(node: Node, code: str, width: int, height: int) -> Iterator[Fraction]:
    """Pictures a second that it offers at a size; of a range, the fastest and the slowest."""
    for index in range(MOST):
        answer = FrameIntervalEnum(index=index, pixel_format=number_of(code), width=width, height=height)
        if not node.listed(Request.ENUM_FRAMEINTERVALS, answer, doing="list its rates"):
            return
        span = answer.stepwise
        alone = answer.type == SizeKind.DISCRETE
        for interval in (answer.discrete,) if alone else (span.min, span.max):
            if interval.numerator:
                yield Fraction(interval.denominator, interval.numerator)
        if not alone:
            return


def get_layout(node: Node) -> tuple[str, int, int]:
    """Format code, width and height that it is set to."""
    answer = Format(type=node.queue)
    node.call(Request.G_FMT, answer, doing="ask for its format")
    picture = answer.fmt.pix_mp if node.planar else answer.fmt.pix
    return code_of(picture.pixelformat), picture.width, picture.height


def set_layout(node: Node, format: RawFormat, width: int, height: int) -> RawLayout:
    """Set format and size, and compare the answer: a driver replaces what it does not know without a word.

    Errors:
        CameraError: it answers with another format or size, or with a layout that cannot hold the picture.
    """
    wanted = Format(type=node.queue)
    node.call(Request.G_FMT, wanted, doing="ask for its format")
    picture = wanted.fmt.pix_mp if node.planar else wanted.fmt.pix
    picture.width, picture.height, picture.field = width, height, FIELD_NONE
    picture.pixelformat = number_of(format.code)
    for plane in picture.plane_fmt if node.planar else (picture,):
        plane.bytesperline = plane.sizeimage = 0  # as the driver likes
    node.call(Request.S_FMT, wanted, doing=f"set {format.code} {width}x{height}")
    got = (code_of(picture.pixelformat), picture.width, picture.height)
    if got != (format.code, width, height):
        raise CameraError(
            f"does not give {format.code} {width}x{height}; its driver would give {got[0]} {got[1]}x{got[2]}",
            where=node.path,
            hint="fsmde-edge cameras lists what it gives",
        )
    if picture.field != FIELD_NONE:
        raise CameraError(
            f"gives interlaced pictures (field order {picture.field})",
            where=node.path,
            hint="set its source to progressive pictures",
        )
    if node.planar and picture.num_planes != 1:
        raise CameraError(
            f"gives {format.code} in {picture.num_planes} separate pieces of memory",
            where=node.path,
            hint="choose another pixel format",
        )
    plane = picture.plane_fmt[0] if node.planar else picture
    colour = colour_of(picture.colorspace, picture.ycbcr_enc, picture.quantization)
    return _checked(node, *got, stride=plane.bytesperline, buffer=plane.sizeimage, colour=colour)


def _checked(
    node: Node, code: str, width: int, height: int, *, stride: int, buffer: int, colour: Colour
) -> RawLayout:
    try:
        layout = RawLayout(code=code, width=width, height=height, stride=stride, buffer=buffer, colour=colour)
    except InputError as error:
        raise CameraError(f"gives {error.what}", where=node.path, hint="choose another size") from error
    if buffer < max(1, layout.size):
        raise CameraError(
            f"says {buffer} bytes in rows of {layout.stride} hold {layout}, which they cannot",
            where=node.path,
            hint="choose another pixel format or size; this is its driver's fault",
        )
    return layout


def set_rate(node: Node, rate: Fraction) -> Fraction | None:
    """Ask for pictures a second; what it answers, or None if its rate cannot be set."""
    parameters = StreamParm(type=node.queue)
    if not node.listed(Request.G_PARM, parameters, doing="ask for its rate"):
        return None
    if not parameters.parm.capture.capability & TIME_PER_FRAME:
        return None
    parameters.parm.capture.timeperframe = Fract(rate.denominator, rate.numerator)
    node.call(Request.S_PARM, parameters, doing=f"set {float(rate):g} pictures a second")
    return _rate(parameters)


def get_rate(node: Node) -> Fraction | None:
    """Pictures a second that it is set to, or None if it does not say."""
    parameters = StreamParm(type=node.queue)
    known = node.listed(Request.G_PARM, parameters, doing="ask for its rate")
    return _rate(parameters) if known else None


def _rate(parameters: StreamParm) -> Fraction | None:
    interval = parameters.parm.capture.timeperframe
    if not interval.numerator or not interval.denominator:
        return None
    return Fraction(interval.denominator, interval.numerator)


# Controls and events


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlInfo:
    """A control of a camera."""

    id: int
    name: str
    kind: int
    minimum: int
    maximum: int
    default: int


def controls(node: Node) -> Iterator[ControlInfo]:
    """Its controls; those that are disabled are left out."""
    answer = QueryExtCtrl(id=NEXT_CONTROL)
    for _ in range(MOST):
        if not node.listed(Request.QUERY_EXT_CTRL, answer, doing="list its controls"):
            return
        if not answer.flags & CONTROL_DISABLED:
            yield ControlInfo(
                id=answer.id,
                name=answer.name.decode(errors="replace"),
                kind=answer.type,
                minimum=answer.minimum,
                maximum=answer.maximum,
                default=answer.default_value,
            )
        answer = QueryExtCtrl(id=answer.id | NEXT_CONTROL)


def get_control(node: Node, control: int) -> int:
    """A control's value."""
    answer = Control(id=control)
    node.call(Request.G_CTRL, answer, doing=f"read its control {control:#x}")
    return int(answer.value)


def set_control(node: Node, control: int, value: int) -> None:
    """Set a control."""
    node.call(Request.S_CTRL, Control(id=control, value=value), doing=f"set its control {control:#x}")


def subscribe(node: Node, kind: int, *, id: int = 0) -> bool:
    """Ask to be told of an event; False if the driver does not know this kind."""
    return node.listed(Request.SUBSCRIBE_EVENT, EventSubscription(type=kind, id=id), doing="watch its events")


def next_event(node: Node) -> Event | None:
    """The oldest event that waits, or None."""
    event = Event()
    try:
        node.kernel.ioctl(node.fd, Request.DQEVENT, event)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EAGAIN):
            return None
        raise camera_error(error, node.path, "read its events") from error
    return event


# Buffers


class Filled(NamedTuple):
    """A buffer that the driver gave out."""

    buffer: int
    sequence: int
    stamp_ns: int
    flags: int
    start: int
    """Where the picture starts in it (data_offset)."""
    used: int
    """Bytes that the driver wrote, from `start`."""


def request_buffers(node: Node, count: int, memory: MemoryKind) -> int:
    """Ask for a queue of buffers, or with 0 give it up; how many there are then."""
    request = RequestBuffers(count=count, type=node.queue, memory=memory)
    node.call(Request.REQBUFS, request, doing=f"make {count} {memory.name} buffers")
    return int(request.count)


class Queue:
    """The structures of one queue's buffers, made once: nothing is allocated while pictures come."""

    def __init__(self, node: Node, count: int, memory: MemoryKind) -> None:
        self._node, self._planar = node, node.planar
        self._planes = [Plane() for _ in range(count + 1)]
        self._buffers = [self._blank(index, memory, self._planes[index]) for index in range(count)]
        self._answer, self._answer_plane = self._blank(0, memory, self._planes[count]), self._planes[count]
        self._kind = ctypes.c_int(node.queue)
        self._request, self._fd = node.kernel.ioctl, node.fd

    def _blank(self, index: int, memory: MemoryKind, plane: Plane) -> Buffer:
        buffer = Buffer(index=index, type=self._node.queue, memory=memory)
        if self._planar:
            buffer.m.planes, buffer.length = ctypes.pointer(plane), 1
        return buffer

    def __len__(self) -> int:
        return len(self._buffers)

    def place(self, index: int, address: int, length: int) -> None:
        """Say where a USERPTR buffer lies."""
        target = self._planes[index] if self._planar else self._buffers[index]
        target.m.userptr, target.length = address, length

    def span(self, index: int) -> tuple[int, int]:
        """Offset and length by which an MMAP buffer is mapped."""
        buffer, plane = Buffer(index=index, type=self._node.queue, memory=MemoryKind.MMAP), Plane()
        if self._planar:
            buffer.m.planes, buffer.length = ctypes.pointer(plane), 1
        self._node.call(Request.QUERYBUF, buffer, doing="ask where a buffer lies")
        return (plane.m.mem_offset, plane.length) if self._planar else (buffer.m.offset, buffer.length)

    def export(self, index: int) -> int:
        """An MMAP buffer as the descriptor of a dmabuf, owned by the caller."""
        request = ExportBuffer(type=self._node.queue, index=index, flags=os.O_RDWR | os.O_CLOEXEC)
        self._node.call(Request.EXPBUF, request, doing="export a buffer")
        return int(request.fd)

    def put(self, index: int) -> None:
        """Give a buffer to the driver."""
        try:
            self._request(self._fd, _QBUF, self._buffers[index])
        except OSError as error:
            raise camera_error(error, self._node.path, "give it a buffer") from error

    def take(self) -> Filled | None:
        """The next filled buffer, or None if there is none yet."""
        answer = self._answer
        if self._planar:
            answer.length = 1
        try:
            self._request(self._fd, _DQBUF, answer)
        except BlockingIOError:
            return None
        except OSError as error:
            raise camera_error(error, self._node.path, "take a picture from it") from error
        start = self._answer_plane.data_offset if self._planar else 0
        used = self._answer_plane.bytesused if self._planar else answer.bytesused
        time = answer.timestamp
        stamp = time.tv_sec * 1_000_000_000 + time.tv_usec * 1000
        return Filled(answer.index, answer.sequence, stamp, answer.flags, start, max(0, used - start))

    def stream(self, on: bool) -> None:
        """Start or stop; after a stop the driver holds no buffer any more."""
        request = Request.STREAMON if on else Request.STREAMOFF
        self._node.call(request, self._kind, doing="start it" if on else "stop it")
