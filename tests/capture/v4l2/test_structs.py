"""Sizes, offsets and request numbers against the kernel's headers, or what those said."""

from __future__ import annotations

import ctypes
import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from fsmde_edge.capture.v4l2 import structs

KERNEL_NAMES = {
    structs.Capability: "v4l2_capability",
    structs.FmtDesc: "v4l2_fmtdesc",
    structs.PixFormat: "v4l2_pix_format",
    structs.PlanePixFormat: "v4l2_plane_pix_format",
    structs.PixFormatMplane: "v4l2_pix_format_mplane",
    structs.Format: "v4l2_format",
    structs.Fract: "v4l2_fract",
    structs.CaptureParm: "v4l2_captureparm",
    structs.StreamParm: "v4l2_streamparm",
    structs.RequestBuffers: "v4l2_requestbuffers",
    structs.Plane: "v4l2_plane",
    structs.Buffer: "v4l2_buffer",
    structs.ExportBuffer: "v4l2_exportbuffer",
    structs.Control: "v4l2_control",
    structs.QueryExtCtrl: "v4l2_query_ext_ctrl",
    structs.FrameSizeDiscrete: "v4l2_frmsize_discrete",
    structs.FrameSizeStepwise: "v4l2_frmsize_stepwise",
    structs.FrameSizeEnum: "v4l2_frmsizeenum",
    structs.FrameIntervalStepwise: "v4l2_frmival_stepwise",
    structs.FrameIntervalEnum: "v4l2_frmivalenum",
    structs.EventSubscription: "v4l2_event_subscription",
    structs.Event: "v4l2_event",
}
ANONYMOUS = {
    structs.FrameSizeEnum: ("discrete", "stepwise"),
    structs.FrameIntervalEnum: ("discrete", "stepwise"),
}
CONSTANTS = {
    **{f"VIDIOC_{request.name}": request.value for request in structs.Request},
    "DMA_BUF_IOCTL_SYNC": structs.DMA_BUF_SYNC,
    "DMA_BUF_SYNC_START | DMA_BUF_SYNC_READ": structs.DMA_BUF_SYNC_START_READ,
    "DMA_BUF_SYNC_END | DMA_BUF_SYNC_READ": structs.DMA_BUF_SYNC_END_READ,
    "VIDEO_MAX_PLANES": structs.MAX_PLANES,
    "V4L2_BUF_TYPE_VIDEO_CAPTURE": structs.BufType.CAPTURE,
    "V4L2_BUF_TYPE_VIDEO_CAPTURE_MPLANE": structs.BufType.CAPTURE_MPLANE,
    "V4L2_MEMORY_MMAP": structs.MemoryKind.MMAP,
    "V4L2_MEMORY_USERPTR": structs.MemoryKind.USERPTR,
    "V4L2_CAP_VIDEO_CAPTURE": structs.Capabilities.VIDEO_CAPTURE,
    "V4L2_CAP_VIDEO_CAPTURE_MPLANE": structs.Capabilities.VIDEO_CAPTURE_MPLANE,
    "V4L2_CAP_STREAMING": structs.Capabilities.STREAMING,
    "V4L2_CAP_DEVICE_CAPS": structs.Capabilities.DEVICE_CAPS,
    "V4L2_BUF_FLAG_ERROR": structs.BufFlags.ERROR,
    "V4L2_BUF_FLAG_TIMESTAMP_MASK": structs.BufFlags.TIMESTAMP_MASK,
    "V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC": structs.BufFlags.TIMESTAMP_MONOTONIC,
    "V4L2_BUF_FLAG_TSTAMP_SRC_MASK": structs.BufFlags.SOURCE_MASK,
    "V4L2_BUF_FLAG_TSTAMP_SRC_EOF": structs.BufFlags.SOURCE_END_OF_FRAME,
    "V4L2_BUF_FLAG_TSTAMP_SRC_SOE": structs.BufFlags.SOURCE_START_OF_EXPOSURE,
    "V4L2_EVENT_CTRL": structs.EventType.CONTROL,
    "V4L2_EVENT_SOURCE_CHANGE": structs.EventType.SOURCE_CHANGE,
    "V4L2_FRMSIZE_TYPE_DISCRETE": structs.SizeKind.DISCRETE,
    "V4L2_FRMSIZE_TYPE_CONTINUOUS": structs.SizeKind.CONTINUOUS,
    "V4L2_FRMIVAL_TYPE_STEPWISE": structs.SizeKind.STEPWISE,
    "V4L2_FIELD_NONE": structs.FIELD_NONE,
    "V4L2_CAP_TIMEPERFRAME": structs.TIME_PER_FRAME,
    "V4L2_CTRL_FLAG_NEXT_CTRL": structs.NEXT_CONTROL,
    "V4L2_CTRL_FLAG_DISABLED": structs.CONTROL_DISABLED,
}
RECORDED = "c11a1c445e45b3f75426ffc48eb9d420f7609fbd6710afbef2ddf1c4d1e693cd"
"""SHA-256 of what the headers of Linux 6.1 say; the same with an x86-64 and an aarch64 compiler."""


def ours() -> str:
    lines = []
    for structure, name in KERNEL_NAMES.items():
        lines.append(f"{name} {ctypes.sizeof(structure)}")
        lines += [f"{name}.{field} {getattr(structure, field).offset}" for field in fields(structure)]
    return "\n".join([*lines, *(f"{name} {int(value)}" for name, value in CONSTANTS.items())]) + "\n"


def fields(structure: type[ctypes.Structure]) -> list[str]:
    own = [name for name, _ in structure._fields_ if not name.startswith(("_", "reserved"))]
    return [*own, *ANONYMOUS.get(structure, ())]


def program() -> str:
    lines = []
    for structure, name in KERNEL_NAMES.items():
        lines.append(f'printf("{name} %zu\\n", sizeof(struct {name}));')
        lines += [
            f'printf("{name}.{field} %zu\\n", offsetof(struct {name}, {field}));'
            for field in fields(structure)
        ]
    lines += [f'printf("{name} %lu\\n", (unsigned long)({name}));' for name in CONSTANTS]
    headers = "stdio.h", "stddef.h", "linux/videodev2.h", "linux/dma-buf.h"
    includes = "\n".join(f"#include <{header}>" for header in headers)
    return f"{includes}\nint main(void) {{\n" + "\n".join(lines) + "\nreturn 0;\n}\n"


def test_sizes_offsets_and_numbers_are_the_kernels(tmp_path):
    if shutil.which("gcc") is None or not Path("/usr/include/linux/videodev2.h").exists():
        pytest.skip("no gcc or no kernel headers: only what they said is compared")
    (tmp_path / "offsets.c").write_text(program())
    subprocess.run(["gcc", "-o", tmp_path / "offsets", tmp_path / "offsets.c"], check=True)
    said = subprocess.run([tmp_path / "offsets"], capture_output=True, text=True, check=True).stdout
    assert ours() == said


def test_they_are_what_the_headers_said():
    assert hashlib.sha256(ours().encode()).hexdigest() == RECORDED
