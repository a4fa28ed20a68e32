"""The one seam between the kernel's refusals and errors that a user can act on."""

from __future__ import annotations

import errno
import os

from fsmde_edge.errors import DeviceError


class CameraError(DeviceError):
    """A camera refused or failed; `number` is the kernel's errno, 0 where the kernel said nothing."""

    def __init__(self, what: str, *, where: object = None, hint: str = "", number: int = 0) -> None:
        super().__init__(what, where=where, hint=hint)
        self.number = number


HINTS = {
    errno.EACCES: "add yourself to the group video: sudo usermod -aG video $USER, then log in again",
    errno.EPERM: "add yourself to the group video: sudo usermod -aG video $USER, then log in again",
    errno.EBUSY: "another program uses this camera: see who with 'fuser -v DEVICE' and end it",
    errno.ENOENT: "check cable and name: fsmde-edge cameras lists what is there",
    errno.ENODEV: "the camera was unplugged or its driver failed: check cable and power, see dmesg",
    errno.ENXIO: "the camera was unplugged or its driver failed: check cable and power, see dmesg",
    errno.ENOSPC: "the USB bus has no bandwidth left: use another port or bus, a smaller size, a lower rate "
    "or MJPG",
    errno.EIO: "the camera or its link failed: check the cable, see dmesg",
    errno.EPROTO: "the USB link failed: use a shorter cable or another port, see dmesg",
    errno.EPIPE: "the camera's pipeline is not set up: check links and formats with media-ctl",
    errno.EINVAL: "the driver does not take this: fsmde-edge cameras lists formats and rates; try another "
    "--memory",
    errno.ERANGE: "choose a value in the range that fsmde-edge cameras lists",
    errno.ENOMEM: "the driver has no memory for its buffers: use fewer or smaller ones, or a larger cma=",
    errno.EFAULT: "the driver cannot reach this memory: choose another --memory",
    errno.EOPNOTSUPP: "the driver cannot do this: choose another --memory",
    errno.ENOTTY: "this is no V4L2 camera, or its driver lacks this call: see fsmde-edge cameras",
    errno.EAGAIN: "the camera has nothing yet: try again",
    errno.ETIMEDOUT: "the camera does not answer: check cable and power, see dmesg",
    errno.ENOLINK: "the link to the camera is not set up: check the pipeline with media-ctl",
    errno.ELOOP: "this name leads in a circle: check it with ls -l",
    errno.ENOTDIR: "check cable and name: fsmde-edge cameras lists what is there",
    errno.EMFILE: "too many files are open: raise ulimit -n",
    errno.ENFILE: "too many files are open on this machine: close programs",
}
"""errno to the next step."""

GONE = frozenset({errno.ENODEV, errno.ENXIO, errno.ENOENT})
"""The device itself went away."""


def camera_error(error: OSError, path: str, doing: str) -> CameraError:
    """What the kernel refused, for a reader.

    Args:
        error: as it came from the system call.
        path: the device.
        doing: what was asked for, as in "cannot DOING".
    """
    number = error.errno or 0
    reason = os.strerror(number) if number else str(error)
    hint = HINTS.get(number, "see dmesg, and unplug and plug the camera").replace("DEVICE", path)
    return CameraError(f"cannot {doing} ({reason})", where=path, hint=hint, number=number)
