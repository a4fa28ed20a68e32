"""The kernel's V4L2 structures and request numbers, for 64-bit little-endian Linux (x86-64 and aarch64).

Fields bear the kernel's names; sizes and offsets are compared with the kernel's headers in a test.
"""

from __future__ import annotations

import ctypes
from ctypes import c_char, c_int32, c_int64, c_uint8, c_uint16, c_uint32, c_uint64, c_ulong
from enum import IntEnum, IntFlag
from typing import ClassVar

MAX_PLANES = 8


class BufType(IntEnum):
    """Which queue of a device."""

    CAPTURE = 1
    CAPTURE_MPLANE = 9


class MemoryKind(IntEnum):
    """Who owns a queue's memory, in the kernel's words."""

    MMAP = 1
    USERPTR = 2


class Capabilities(IntFlag):
    """What a node can do; others exist and do not concern us."""

    VIDEO_CAPTURE = 0x1
    VIDEO_CAPTURE_MPLANE = 0x1000
    STREAMING = 0x04000000
    DEVICE_CAPS = 0x80000000


class BufFlags(IntFlag):
    """Flags of a buffer; others exist and do not concern us."""

    ERROR = 0x40
    TIMESTAMP_MASK = 0xE000
    TIMESTAMP_MONOTONIC = 0x2000
    SOURCE_MASK = 0x70000
    SOURCE_END_OF_FRAME = 0x0
    SOURCE_START_OF_EXPOSURE = 0x10000


class EventType(IntEnum):
    """Events that a node may tell."""

    CONTROL = 3
    SOURCE_CHANGE = 5


class SizeKind(IntEnum):
    """How frame sizes and intervals are enumerated."""

    DISCRETE = 1
    CONTINUOUS = 2
    STEPWISE = 3


class ControlKind(IntEnum):
    """Kinds of controls that one integer can set."""

    INTEGER = 1
    BOOLEAN = 2
    MENU = 3
    BUTTON = 4
    INTEGER_MENU = 9


FIELD_NONE = 1
FORMAT_COMPRESSED = 0x1
TIME_PER_FRAME = 0x1000
NEXT_CONTROL = 0x80000000
CONTROL_DISABLED = 0x1


class Capability(ctypes.Structure):
    """What QUERYCAP answers."""

    _fields_: ClassVar = [
        ("driver", c_char * 16),
        ("card", c_char * 32),
        ("bus_info", c_char * 32),
        ("version", c_uint32),
        ("capabilities", c_uint32),
        ("device_caps", c_uint32),
        ("reserved", c_uint32 * 3),
    ]


class FmtDesc(ctypes.Structure):
    """One pixel format of ENUM_FMT."""

    _fields_: ClassVar = [
        ("index", c_uint32),
        ("type", c_uint32),
        ("flags", c_uint32),
        ("description", c_char * 32),
        ("pixelformat", c_uint32),
        ("mbus_code", c_uint32),
        ("reserved", c_uint32 * 3),
    ]


class PixFormat(ctypes.Structure):
    """A single-planar picture."""

    _fields_: ClassVar = [
        ("width", c_uint32),
        ("height", c_uint32),
        ("pixelformat", c_uint32),
        ("field", c_uint32),
        ("bytesperline", c_uint32),
        ("sizeimage", c_uint32),
        ("colorspace", c_uint32),
        ("priv", c_uint32),
        ("flags", c_uint32),
        ("ycbcr_enc", c_uint32),
        ("quantization", c_uint32),
        ("xfer_func", c_uint32),
    ]


class PlanePixFormat(ctypes.Structure):
    """One memory plane of a multi-planar picture."""

    _pack_ = 1
    _layout_ = "ms"
    _fields_: ClassVar = [
        ("sizeimage", c_uint32),
        ("bytesperline", c_uint32),
        ("reserved", c_uint16 * 6),
    ]


class PixFormatMplane(ctypes.Structure):
    """A multi-planar picture."""

    _pack_ = 1
    _layout_ = "ms"
    _fields_: ClassVar = [
        ("width", c_uint32),
        ("height", c_uint32),
        ("pixelformat", c_uint32),
        ("field", c_uint32),
        ("colorspace", c_uint32),
        ("plane_fmt", PlanePixFormat * MAX_PLANES),
        ("num_planes", c_uint8),
        ("flags", c_uint8),
        ("ycbcr_enc", c_uint8),
        ("quantization", c_uint8),
        ("xfer_func", c_uint8),
        ("reserved", c_uint8 * 7),
    ]


class _FormatUnion(ctypes.Union):
    _fields_: ClassVar = [
        ("pix", PixFormat),
        ("pix_mp", PixFormatMplane),
        ("raw_data", c_uint8 * 200),
        ("_align", c_uint64),
    ]


class Format(ctypes.Structure):
    """What G_FMT answers and S_FMT takes."""

    _fields_: ClassVar = [("type", c_uint32), ("fmt", _FormatUnion)]


class Fract(ctypes.Structure):
    """Seconds as a fraction."""

    _fields_: ClassVar = [("numerator", c_uint32), ("denominator", c_uint32)]


class CaptureParm(ctypes.Structure):
    """The frame interval."""

    _fields_: ClassVar = [
        ("capability", c_uint32),
        ("capturemode", c_uint32),
        ("timeperframe", Fract),
        ("extendedmode", c_uint32),
        ("readbuffers", c_uint32),
        ("reserved", c_uint32 * 4),
    ]


class _ParmUnion(ctypes.Union):
    _fields_: ClassVar = [("capture", CaptureParm), ("raw_data", c_uint8 * 200)]


class StreamParm(ctypes.Structure):
    """What G_PARM answers and S_PARM takes."""

    _fields_: ClassVar = [("type", c_uint32), ("parm", _ParmUnion)]


class RequestBuffers(ctypes.Structure):
    """REQBUFS."""

    _fields_: ClassVar = [
        ("count", c_uint32),
        ("type", c_uint32),
        ("memory", c_uint32),
        ("capabilities", c_uint32),
        ("flags", c_uint8),
        ("reserved", c_uint8 * 3),
    ]


class _PlaneMemory(ctypes.Union):
    _fields_: ClassVar = [("mem_offset", c_uint32), ("userptr", c_ulong), ("fd", c_int32)]


class Plane(ctypes.Structure):
    """One memory plane of a multi-planar buffer."""

    _fields_: ClassVar = [
        ("bytesused", c_uint32),
        ("length", c_uint32),
        ("m", _PlaneMemory),
        ("data_offset", c_uint32),
        ("reserved", c_uint32 * 11),
    ]


class Timeval(ctypes.Structure):
    """A stamp."""

    _fields_: ClassVar = [("tv_sec", c_int64), ("tv_usec", c_int64)]


class _BufferMemory(ctypes.Union):
    _fields_: ClassVar = [
        ("offset", c_uint32),
        ("userptr", c_ulong),
        ("planes", ctypes.POINTER(Plane)),
        ("fd", c_int32),
    ]


class Buffer(ctypes.Structure):
    """What QUERYBUF, QBUF and DQBUF carry."""

    _fields_: ClassVar = [
        ("index", c_uint32),
        ("type", c_uint32),
        ("bytesused", c_uint32),
        ("flags", c_uint32),
        ("field", c_uint32),
        ("timestamp", Timeval),
        ("timecode", c_uint32 * 4),
        ("sequence", c_uint32),
        ("memory", c_uint32),
        ("m", _BufferMemory),
        ("length", c_uint32),
        ("reserved2", c_uint32),
        ("request_fd", c_int32),
    ]


class ExportBuffer(ctypes.Structure):
    """EXPBUF."""

    _fields_: ClassVar = [
        ("type", c_uint32),
        ("index", c_uint32),
        ("plane", c_uint32),
        ("flags", c_uint32),
        ("fd", c_int32),
        ("reserved", c_uint32 * 11),
    ]


class Control(ctypes.Structure):
    """G_CTRL and S_CTRL."""

    _fields_: ClassVar = [("id", c_uint32), ("value", c_int32)]


class QueryExtCtrl(ctypes.Structure):
    """What a control is."""

    _fields_: ClassVar = [
        ("id", c_uint32),
        ("type", c_uint32),
        ("name", c_char * 32),
        ("minimum", c_int64),
        ("maximum", c_int64),
        ("step", c_uint64),
        ("default_value", c_int64),
        ("flags", c_uint32),
        ("elem_size", c_uint32),
        ("elems", c_uint32),
        ("nr_of_dims", c_uint32),
        ("dims", c_uint32 * 4),
        ("reserved", c_uint32 * 32),
    ]


class FrameSizeDiscrete(ctypes.Structure):
    """One size."""

    _fields_: ClassVar = [("width", c_uint32), ("height", c_uint32)]


class FrameSizeStepwise(ctypes.Structure):
    """A range of sizes."""

    _fields_: ClassVar = [
        ("min_width", c_uint32),
        ("max_width", c_uint32),
        ("step_width", c_uint32),
        ("min_height", c_uint32),
        ("max_height", c_uint32),
        ("step_height", c_uint32),
    ]


class _SizeUnion(ctypes.Union):
    _fields_: ClassVar = [("discrete", FrameSizeDiscrete), ("stepwise", FrameSizeStepwise)]


class FrameSizeEnum(ctypes.Structure):
    """One answer of ENUM_FRAMESIZES."""

    _anonymous_: ClassVar = ("_union",)
    _fields_: ClassVar = [
        ("index", c_uint32),
        ("pixel_format", c_uint32),
        ("type", c_uint32),
        ("_union", _SizeUnion),
        ("reserved", c_uint32 * 2),
    ]


class FrameIntervalStepwise(ctypes.Structure):
    """A range of intervals."""

    _fields_: ClassVar = [("min", Fract), ("max", Fract), ("step", Fract)]


class _IntervalUnion(ctypes.Union):
    _fields_: ClassVar = [("discrete", Fract), ("stepwise", FrameIntervalStepwise)]


class FrameIntervalEnum(ctypes.Structure):
    """One answer of ENUM_FRAMEINTERVALS."""

    _anonymous_: ClassVar = ("_union",)
    _fields_: ClassVar = [
        ("index", c_uint32),
        ("pixel_format", c_uint32),
        ("width", c_uint32),
        ("height", c_uint32),
        ("type", c_uint32),
        ("_union", _IntervalUnion),
        ("reserved", c_uint32 * 2),
    ]


class EventSubscription(ctypes.Structure):
    """SUBSCRIBE_EVENT."""

    _fields_: ClassVar = [
        ("type", c_uint32),
        ("id", c_uint32),
        ("flags", c_uint32),
        ("reserved", c_uint32 * 5),
    ]


class Timespec(ctypes.Structure):
    """An event's stamp."""

    _fields_: ClassVar = [("tv_sec", c_int64), ("tv_nsec", c_int64)]


class _EventUnion(ctypes.Union):
    _fields_: ClassVar = [("data", c_uint8 * 64), ("_align", c_uint64)]


class Event(ctypes.Structure):
    """What DQEVENT answers."""

    _fields_: ClassVar = [
        ("type", c_uint32),
        ("u", _EventUnion),
        ("pending", c_uint32),
        ("sequence", c_uint32),
        ("timestamp", Timespec),
        ("id", c_uint32),
        ("reserved", c_uint32 * 8),
    ]


_WRITE, _READ = 1, 2


def _number(direction: int, code: int, size: int, family: str = "V") -> int:
    """A request number as the kernel's _IOC macro makes it; the same on x86-64 and aarch64."""
    return direction << 30 | size << 16 | ord(family) << 8 | code


def _both(code: int, structure: type[ctypes.Structure]) -> int:
    return _number(_READ | _WRITE, code, ctypes.sizeof(structure))


class Request(IntEnum):
    """Request numbers of the ioctls in use."""

    QUERYCAP = _number(_READ, 0, ctypes.sizeof(Capability))
    ENUM_FMT = _both(2, FmtDesc)
    G_FMT = _both(4, Format)
    S_FMT = _both(5, Format)
    REQBUFS = _both(8, RequestBuffers)
    QUERYBUF = _both(9, Buffer)
    QBUF = _both(15, Buffer)
    EXPBUF = _both(16, ExportBuffer)
    DQBUF = _both(17, Buffer)
    STREAMON = _number(_WRITE, 18, 4)
    STREAMOFF = _number(_WRITE, 19, 4)
    G_PARM = _both(21, StreamParm)
    S_PARM = _both(22, StreamParm)
    G_CTRL = _both(27, Control)
    S_CTRL = _both(28, Control)
    ENUM_FRAMESIZES = _both(74, FrameSizeEnum)
    ENUM_FRAMEINTERVALS = _both(75, FrameIntervalEnum)
    DQEVENT = _number(_READ, 89, ctypes.sizeof(Event))
    SUBSCRIBE_EVENT = _number(_WRITE, 90, ctypes.sizeof(EventSubscription))
    QUERY_EXT_CTRL = _both(103, QueryExtCtrl)


DMA_BUF_SYNC = _number(_WRITE, 0, 8, "b")
"""Brackets the CPU's reading of a dmabuf."""

DMA_BUF_SYNC_START_READ, DMA_BUF_SYNC_END_READ = 1, 5
