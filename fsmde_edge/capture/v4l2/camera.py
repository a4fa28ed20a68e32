"""A camera that streams: owner of its node, its buffers and the leases on them."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from fsmde_edge.capture.lease import Captured, LeaseError
from fsmde_edge.capture.v4l2.buffers import MODES, Buffers, Memory, Ring, Slot, open_buffers
from fsmde_edge.capture.v4l2.errors import CameraError
from fsmde_edge.capture.v4l2.formats import choose, known
from fsmde_edge.capture.v4l2.ioctls import (
    Filled,
    Node,
    formats,
    get_layout,
    get_rate,
    next_event,
    open_node,
    set_layout,
    set_rate,
    subscribe,
)
from fsmde_edge.capture.v4l2.kernel import Kernel, LinuxKernel
from fsmde_edge.capture.v4l2.loss import Cause, Losses
from fsmde_edge.capture.v4l2.structs import BufFlags, EventType
from fsmde_edge.frames import Clock, ExposurePoint, Stamp
from fsmde_edge.preprocessing.raw import RawLayout

EXPOSURES = {
    int(BufFlags.SOURCE_START_OF_EXPOSURE): ExposurePoint.START,
    int(BufFlags.SOURCE_END_OF_FRAME): ExposurePoint.END,
}
_ERROR = int(BufFlags.ERROR)  # plain numbers: an enum's arithmetic costs microseconds a picture
_TIME, _MONOTONIC = int(BufFlags.TIMESTAMP_MASK), int(BufFlags.TIMESTAMP_MONOTONIC)
_SOURCE = int(BufFlags.SOURCE_MASK)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What is asked of every camera.

    Attributes:
        format: code of the pixel format; the best that is offered if None.
        size: width and height; as the camera is set if None.
        rate: pictures a second; as the camera is set if None.
        buffers: slots of each camera in the ring.
        memory: one memory mode, without any other if it fails; the first that works if None.
    """

    format: str | None = None
    size: tuple[int, int] | None = None
    rate: Fraction | None = None
    buffers: int = 6
    memory: Memory | None = None


class Lease:
    """One picture of a V4L2 camera on loan (see `FrameLease`).

    Attributes:
        camera, sequence, stamp_ns: whose, which and when.
        layout: how the picture lies.
        address: of its first byte, for a GPU that knows the memory.
        used: bytes that the driver wrote.
    """

    __slots__ = (
        "_open", "_owner", "_slot", "_start", "_view",
        "address", "camera", "layout", "sequence", "stamp_ns", "used",
    )  # fmt: skip

    def __init__(self, owner: Camera, slot: Slot, filled: Filled, used: int) -> None:
        self._owner, self._slot, self._start = owner, slot, filled.start
        self._open = True
        self.camera, self.layout = owner.name, owner.layout
        self.sequence, self.stamp_ns = filled.sequence, filled.stamp_ns
        self.address = slot.address + filled.start
        self.used = used
        self._view: memoryview | None = None

    def view(self) -> memoryview:
        """The picture's bytes, read-only. Arrays made of it see other pictures after release."""
        if not self._open:
            raise LeaseError(f"a picture of camera {self.camera} was looked at after its release")
        if self._view is None:
            self._slot.begin_access()
            self._view = self._slot.bytes[self._start : self._start + self.used].toreadonly()
        return self._view

    def release(self) -> None:
        """Give the slot back; after its stream ended it only becomes free."""
        self._owner.end(self)

    def close(self) -> bool:
        """End the lease, under its camera's lock; False if it had ended."""
        was_open, self._open = self._open, False
        if was_open and self._view is not None:
            self._slot.end_access()
            with contextlib.suppress(BufferError):  # an array still looks at it
                self._view.release()
        return was_open

    @property
    def slot(self) -> Slot:
        """Where it lies."""
        return self._slot


class Camera:
    """One camera, from opening to closing. A capture thread drives it; leases end on any thread."""

    def __init__(self, name: str, path: str, settings: Settings, kernel: Kernel) -> None:
        """Only take note: `prepare` and `begin` open it.

        Args:
            name: in the rig.
            path: of its node; may be a name such as /dev/v4l/by-path/..., looked up at every opening.
            settings: format, size, rate, buffers.
            kernel: the operating system or a fake of it.
        """
        self.name, self.path = name, path
        self.settings, self._kernel = settings, kernel
        self._lock = threading.Lock()
        self._node: Node | None = None
        self._buffers: Buffers | None = None
        self._slots: Sequence[Slot] = ()
        self._layout: RawLayout | None = None
        self._whole = 0
        """Bytes of a picture; 0 if they vary."""
        self._losses = Losses(None)
        self._starved = False
        self._copied = 0
        self.rate: Fraction | None = None
        self.memory: Memory | None = settings.memory
        self.reason = ""
        """Why this memory mode."""
        self.frames = 0
        """Pictures given out."""
        self.leased = 0
        """Leases that are out."""
        self.drops: Counter[Cause] = Counter()

    @property
    def layout(self) -> RawLayout:
        """How its pictures lie; known once it is prepared."""
        assert self._layout is not None
        return self._layout

    @property
    def fd(self) -> int:
        """The open node's descriptor, to be watched while it streams."""
        assert self._node is not None
        return self._node.fd

    @property
    def copies(self) -> int:
        """Copies that a CPU makes of every picture."""
        return 0 if self.memory is None else MODES[self.memory].copies

    @property
    def copied(self) -> int:
        """Bytes that a CPU copied so far."""
        return self._copied + (0 if self._buffers is None else self._buffers.copied)

    @property
    def period_ns(self) -> int | None:
        """Time between two pictures, as measured or as the driver says."""
        return self._losses.period_ns

    def prepare(self) -> RawLayout:
        """Open the node, set format, size and rate.

        Errors:
            CameraError: it cannot be opened, or gives something else than was asked for.
        """
        node = open_node(self.path, self._kernel)
        try:
            layout = self._set(node)
            before = self._layout
            if before is not None and before != layout:
                raise CameraError(
                    f"came back as {layout} in {layout.buffer} bytes, it was {before} in {before.buffer}",
                    where=self.path,
                    hint="start again",
                )
            self.rate = get_rate(node) if self.settings.rate is None else set_rate(node, self.settings.rate)
        except BaseException:
            node.close()
            raise
        self._node, self._layout = node, layout
        self._whole = layout.size
        self._losses = Losses(round(1_000_000_000 / self.rate) if self.rate else None)
        return layout

    def _set(self, node: Node) -> RawLayout:
        before = self._layout
        if before is not None:
            return set_layout(node, before.format, before.width, before.height)
        _, width, height = get_layout(node)
        if self.settings.size is not None:
            width, height = self.settings.size
        wanted = self.settings.format
        format = choose(formats(node), path=self.path) if wanted is None else known(wanted, path=self.path)
        return set_layout(node, format, width, height)

    def begin(self, slots: Sequence[Slot]) -> None:
        """Start the stream.

        Args:
            slots: its part of the ring; the same at every start.

        Errors:
            CameraError: no memory mode works, or not the one that is asked for.
        """
        assert self._node is not None
        subscribe(self._node, EventType.SOURCE_CHANGE)
        with self._lock:
            self._slots = slots
            self._buffers, reason = open_buffers(self._node, self.layout, slots, self.memory)
            if not self.reason:
                self.memory, self.reason = self._buffers.memory, reason
            self._starved = False

    def take(self) -> Captured | None:
        """The next picture, or None: nothing is there yet, or what was there counts as dropped.

        Errors:
            CameraError: the stream or the camera failed.
        """
        buffers = self._buffers
        assert buffers is not None
        taken = buffers.take()
        if taken is None:
            return None
        arrival = time.monotonic_ns()
        filled, slot = taken
        step = self._losses.step(filled.sequence, filled.stamp_ns)
        if step.lost:
            self.drops[Cause.SLOW if self._starved else Cause.GAP] += step.lost
        self._starved = buffers.starved
        cause = self._unusable(filled, late=step.late)
        if slot is None or cause is not None:
            self.drops[cause or Cause.SLOW] += 1
            if slot is not None:
                self._give(slot)
            return None
        self.frames += 1
        with self._lock:
            self.leased += 1
        lease = Lease(self, slot, filled, self._whole or filled.used)
        stamp = _stamp(filled)
        return Captured(
            camera=self.name, lease=lease, stamp=stamp, sequence=filled.sequence, arrival_ns=arrival
        )

    def _unusable(self, filled: Filled, *, late: bool) -> Cause | None:
        if filled.flags & _ERROR or filled.used < (self._whole or 1):
            return Cause.ERROR
        return Cause.LATE if late else None

    def end(self, lease: Lease) -> None:
        """End a lease.

        Raises:
            LeaseError: it had ended.
        """
        with self._lock:
            if not lease.close():
                raise LeaseError(f"a picture of camera {self.name} was given back twice")
            self.leased -= 1
            self._return(lease.slot)

    def _give(self, slot: Slot) -> None:
        with self._lock:
            self._return(slot)

    def _return(self, slot: Slot) -> None:
        if slot.retired or self._buffers is None:
            slot.held = False
            if slot.retired:
                slot.close()
            return
        with contextlib.suppress(CameraError):  # what the driver does not take now, `arm` gives it later
            self._buffers.give(slot)

    @property
    def waiting_for_leases(self) -> bool:
        """Whether the driver has nothing to write to because all of it is on loan."""
        return self._buffers is not None and self._buffers.starved

    @property
    def owes(self) -> bool:
        """Whether the driver refused a buffer that it should have."""
        return self._buffers is not None and self._buffers.owes

    def arm(self) -> None:
        """Offer the driver again what it refused.

        Errors:
            CameraError: it refuses again.
        """
        with self._lock:
            if self._buffers is not None:
                self._buffers.arm()

    def source_changed(self) -> bool:
        """Read its events; whether one says that the source's format changed."""
        assert self._node is not None
        changed = False
        while (event := next_event(self._node)) is not None:
            changed |= event.type == EventType.SOURCE_CHANGE
        return changed

    def restart(self) -> None:
        """Stop and start the stream without closing: heals a queue that failed.

        Errors:
            CameraError: it does not heal.
        """
        with self._lock:
            assert self._buffers is not None
            with contextlib.suppress(CameraError):  # a stream that is stopped already
                self._buffers.stop()
            self._losses.restart()
            self._buffers.arm()
            if self._buffers.starved:
                raise CameraError("cannot restart: all of its buffers are on loan", where=self.path)
            self._buffers.start()

    def reopen(self) -> None:
        """Open and start again as it was; pictures on loan stay as they are.

        Errors:
            CameraError: it is not there, or not as it was.
        """
        self.close()
        self.prepare()
        try:
            self.begin(self._slots)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop and close; may be called twice. Leases stay readable and are not filled again."""
        with self._lock:
            buffers, self._buffers = self._buffers, None
            node, self._node = self._node, None
            if buffers is not None:
                self._copied += buffers.copied
                buffers.close()
            if node is not None:
                node.close()


def open_cameras(
    paths: Mapping[str, str], settings: Settings, *, kernel: Kernel | None = None
) -> tuple[list[Camera], Ring]:
    """Open and start all cameras, in one ring.

    Args:
        paths: camera name to node.
        settings: of each of them.
        kernel: a fake; the operating system if None.

    Returns:
        The cameras, streaming, and the ring that holds their pictures (dmabuf aside).

    Errors:
        CameraError: one of them fails; all are closed then.
    """
    cameras = prepare_cameras(paths, dict.fromkeys(paths, settings), kernel=kernel)
    return cameras, begin_cameras(cameras)


def prepare_cameras(
    paths: Mapping[str, str], settings: Mapping[str, Settings], *, kernel: Kernel | None = None
) -> list[Camera]:
    """Open all cameras and set their formats, without a picture yet.

    Args:
        paths: camera name to node.
        settings: of each.
        kernel: a fake; the operating system if None.

    Errors:
        CameraError: one of them fails; all are closed then.
    """
    system = LinuxKernel() if kernel is None else kernel
    cameras = [Camera(name, path, settings[name], system) for name, path in paths.items()]
    with contextlib.ExitStack() as undo:
        for camera in cameras:
            undo.callback(camera.close)
            camera.prepare()
        undo.pop_all()
    return cameras


def begin_cameras(cameras: Sequence[Camera]) -> Ring:
    """Start cameras that are prepared, in one ring.

    Returns:
        What holds their pictures (dmabuf aside).

    Errors:
        CameraError: one of them fails; all are closed then.
    """
    with contextlib.ExitStack() as undo:
        for camera in cameras:
            undo.callback(camera.close)
        ring = Ring([(camera.settings.buffers, camera.layout.buffer) for camera in cameras])
        for camera, slots in zip(cameras, ring.slots, strict=True):
            camera.begin(slots)
        undo.pop_all()
    return ring


def _stamp(filled: Filled) -> Stamp:
    return Stamp(
        filled.stamp_ns,
        Clock.MONOTONIC if filled.flags & _TIME == _MONOTONIC else Clock.RECORDED,
        EXPOSURES.get(filled.flags & _SOURCE, ExposurePoint.UNKNOWN),
    )
