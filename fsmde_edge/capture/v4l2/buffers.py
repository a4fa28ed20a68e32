"""Where pictures lie: one ring of our own, and three ways for a driver to fill it.

    userptr   the driver writes into the ring                                           no copy
    dmabuf    the driver writes into its own memory, exported and mapped by us          no copy
    copy      the driver writes into its own memory, copied once into the ring          one copy

Which of them a driver takes differs, so `open_buffers` asks it: REQBUFS, QBUF and STREAMON answer.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
from abc import ABC, abstractmethod
from collections.abc import Sequence
from enum import Enum
from typing import ClassVar

from fsmde_edge.capture.v4l2.errors import CameraError
from fsmde_edge.capture.v4l2.ioctls import Filled, Node, Queue, request_buffers
from fsmde_edge.capture.v4l2.kernel import Kernel
from fsmde_edge.capture.v4l2.structs import (
    DMA_BUF_SYNC,
    DMA_BUF_SYNC_END_READ,
    DMA_BUF_SYNC_START_READ,
    MemoryKind,
)
from fsmde_edge.preprocessing.raw import RawLayout

PAGE = 4096
"""Slots start and end on it: USERPTR wants it, and so does registering memory with CUDA."""

BEHIND = 4
"""Buffers that the driver of a copying queue has of its own."""


class Memory(str, Enum):
    """How a driver's pictures reach us."""

    USERPTR = "userptr"
    DMABUF = "dmabuf"
    COPY = "copy"


class Slot:
    """Memory for one picture, at an address that never changes."""

    __slots__ = ("address", "bytes", "held", "index", "retired")

    def __init__(self, index: int, whole: memoryview, address: int) -> None:
        self.index, self.bytes, self.address = index, whole, address
        self.held = False
        """Whether a lease is out on it: nobody may write to it."""
        self.retired = False
        """Whether its queue is gone: it ends with its lease."""

    def begin_access(self) -> None:
        """Before a CPU reads the picture."""

    def end_access(self) -> None:
        """After a CPU has read the picture."""

    def retire(self) -> None:
        """Its queue is gone: give the memory up, at once or when its lease ends."""
        self.retired = True
        if not self.held:
            self.close()

    def close(self) -> None:
        """Give the memory up."""


class Ring:
    """One mapping with page-aligned slots for all cameras: it can be registered with a GPU once.

    Pages that no driver and no copy ever writes to take no memory.
    """

    def __init__(self, sizes: Sequence[tuple[int, int]]) -> None:
        """Map it.

        Args:
            sizes: for each camera, how many slots of how many bytes.
        """
        spans = [(count, -(-size // PAGE) * PAGE) for count, size in sizes]
        self._map = mmap.mmap(-1, sum(count * size for count, size in spans))
        self.address = _address_of(self._map)
        whole, start = memoryview(self._map), 0
        self.slots: list[tuple[Slot, ...]] = []
        for count, size in spans:
            places = [(i, start + i * size) for i in range(count)]
            self.slots.append(tuple(Slot(i, whole[at : at + size], self.address + at) for i, at in places))
            start += count * size

    def __len__(self) -> int:
        return len(self._map)


class Buffers(ABC):
    """The buffers of one driver queue. One thread takes; whoever holds the camera's lock does the rest."""

    memory: ClassVar[Memory]
    kind: ClassVar[MemoryKind]
    copies: ClassVar[int] = 0

    def __init__(self, node: Node, layout: RawLayout, slots: Sequence[Slot]) -> None:
        self.node, self.layout = node, layout
        self.copied = 0
        """Bytes that a CPU copied so far."""
        self.streaming = False
        self._slots: Sequence[Slot] = slots
        self._leave = contextlib.ExitStack()
        """What gives up that which `_prepare` mapped."""
        count = request_buffers(node, self._wanted(), self.kind)
        try:
            if count < 2:
                raise CameraError(
                    f"gives {count} of {self._wanted()} buffers", where=node.path, hint="use a smaller size"
                )
            self._queue = Queue(node, count, self.kind)
            self._driver_has = bytearray(count)
            self._prepare()
        except BaseException:
            self.close()
            raise

    def _wanted(self) -> int:
        return len(self._slots)

    @abstractmethod
    def _prepare(self) -> None:
        """Map or place every buffer."""

    @abstractmethod
    def _free(self, index: int) -> bool:
        """Whether the driver may have this buffer."""

    @abstractmethod
    def take(self) -> tuple[Filled, Slot | None] | None:
        """The next picture and where it lies, held; None for the slot where none was free.

        Errors:
            CameraError: the stream or the camera failed.
        """

    @abstractmethod
    def give(self, slot: Slot) -> None:
        """A slot that `take` gave is free again.

        Errors:
            CameraError: the driver does not take it now; `arm` tries again.
        """

    @property
    def starved(self) -> bool:
        """Whether the driver has nothing to write to."""
        return 1 not in self._driver_has

    @property
    def owes(self) -> bool:
        """Whether the driver lacks a buffer that it may have."""
        return any(not has and self._free(index) for index, has in enumerate(self._driver_has))

    def arm(self) -> None:
        """Give the driver every buffer that is free.

        Errors:
            CameraError: it does not take one.
        """
        for index, has in enumerate(self._driver_has):
            if not has and self._free(index):
                self._put(index)

    def start(self) -> None:
        """Start the stream."""
        self._queue.stream(True)
        self.streaming = True

    def stop(self) -> None:
        """Stop the stream; every buffer is ours afterwards, leased or not."""
        self.streaming = False
        try:
            self._queue.stream(False)
        finally:
            self._driver_has[:] = bytes(len(self._driver_has))

    def close(self) -> None:
        """Stop and give the queue up; a device that is gone lets no step fail, and every step is done."""
        with contextlib.suppress(CameraError):
            if self.streaming:
                self.stop()
        self._leave.close()
        with contextlib.suppress(CameraError):
            request_buffers(self.node, 0, self.kind)

    def _put(self, index: int) -> None:
        self._queue.put(index)
        self._driver_has[index] = 1

    def _taken(self) -> Filled | None:
        filled = self._queue.take()
        if filled is not None:
            self._driver_has[filled.buffer] = 0
        return filled


class UserptrBuffers(Buffers):
    """The driver writes into our ring: buffer i is slot i, always."""

    memory = Memory.USERPTR
    kind = MemoryKind.USERPTR

    def _prepare(self) -> None:
        for slot in self._slots[: len(self._queue)]:
            self._queue.place(slot.index, slot.address, len(slot.bytes))

    def _free(self, index: int) -> bool:
        return index < len(self._slots) and not self._slots[index].held

    def take(self) -> tuple[Filled, Slot | None] | None:
        """The slot that the driver filled."""
        filled = self._taken()
        if filled is None:
            return None
        slot = self._slots[filled.buffer]
        slot.held = True
        return filled, slot

    def give(self, slot: Slot) -> None:
        """Back to the driver."""
        slot.held = False
        if self.streaming and slot.index < len(self._driver_has):
            self._put(slot.index)


class DmabufBuffers(Buffers):
    """The driver's own buffers, exported and mapped by their descriptors: they outlive the queue."""

    memory = Memory.DMABUF
    kind = MemoryKind.MMAP

    def _prepare(self) -> None:
        self._own: list[_Exported] = []
        for index in range(len(self._queue)):
            length = self._queue.span(index)[1]
            slot = _Exported(self.node.kernel, self._queue.export(index), index, length)
            self._leave.callback(slot.retire)
            self._own.append(slot)

    def _free(self, index: int) -> bool:
        return not self._own[index].held

    def take(self) -> tuple[Filled, Slot | None] | None:
        """The buffer that the driver filled."""
        filled = self._taken()
        if filled is None:
            return None
        slot = self._own[filled.buffer]
        slot.held = True
        return filled, slot

    def give(self, slot: Slot) -> None:
        """Back to the driver."""
        slot.held = False
        if self.streaming:
            self._put(slot.index)


class CopyBuffers(Buffers):
    """The driver's own buffers, mapped; each picture is copied once, into a free slot of the ring."""

    memory = Memory.COPY
    kind = MemoryKind.MMAP
    copies = 1

    def _wanted(self) -> int:
        return BEHIND

    def _prepare(self) -> None:
        self._from: list[int] = []
        for index in range(len(self._queue)):
            offset, length = self._queue.span(index)
            mapping = self.node.kernel.map(self.node.fd, length, offset)
            self._leave.callback(mapping.close)
            self._from.append(_address_of(mapping))

    def _free(self, index: int) -> bool:  # noqa: ARG002 - the driver may always have its own
        return True

    def take(self) -> tuple[Filled, Slot | None] | None:
        """A copy; memory that may be uncached is read once, from first byte to last."""
        filled = self._taken()
        if filled is None:
            return None
        slot = next((slot for slot in self._slots if not slot.held), None)
        if slot is not None:
            length = min(filled.used, self.layout.buffer, len(slot.bytes))
            ctypes.memmove(slot.address, self._from[filled.buffer] + filled.start, length)
            slot.held = True
            self.copied += length
        with contextlib.suppress(CameraError):  # arm tries again
            self._put(filled.buffer)
        return Filled(filled.buffer, filled.sequence, filled.stamp_ns, filled.flags, 0, filled.used), slot

    def give(self, slot: Slot) -> None:
        """The slot may be written to again."""
        slot.held = False


class _Exported(Slot):
    """A slot in a driver's memory: mapping and descriptor live until its lease ends."""

    __slots__ = ("_fd", "_kernel", "_map")

    def __init__(self, kernel: Kernel, fd: int, index: int, length: int) -> None:
        self._kernel, self._fd = kernel, fd
        try:
            self._map = kernel.map(fd, length, 0)
        except BaseException:
            kernel.close(fd)
            raise
        super().__init__(index, memoryview(self._map), _address_of(self._map))

    def begin_access(self) -> None:
        """Let the CPU's caches see what the device wrote."""
        self._sync(DMA_BUF_SYNC_START_READ)

    def end_access(self) -> None:
        """The CPU has read it."""
        self._sync(DMA_BUF_SYNC_END_READ)

    def close(self) -> None:
        """Close the descriptor; the mapping ends when nobody looks at it any more."""
        self._kernel.close(self._fd)
        with contextlib.suppress(BufferError):
            self.bytes.release()
            self._map.close()

    def _sync(self, what: int) -> None:
        self._kernel.ioctl(self._fd, DMA_BUF_SYNC, ctypes.c_uint64(what))


MODES: dict[Memory, type[Buffers]] = {
    mode.memory: mode for mode in (UserptrBuffers, DmabufBuffers, CopyBuffers)
}
"""In the order in which they are tried."""

REFUSALS = frozenset(
    {errno.EINVAL, errno.EFAULT, errno.EOPNOTSUPP, errno.ENOTTY, errno.ENOMEM, errno.EPERM, 0}
)
"""Answers that concern the mode; any other concerns the camera, and another mode would not help."""


def open_buffers(
    node: Node, layout: RawLayout, slots: Sequence[Slot], memory: Memory | None
) -> tuple[Buffers, str]:
    """Start a stream in the first mode that the driver takes, or in the one that is asked for.

    Returns:
        The streaming buffers, and why this mode: a forced mode, or what refused those before it.

    Errors:
        CameraError: a forced mode that fails, no mode that works, or a camera that fails in any.
    """
    refused: list[str] = []
    for mode in MODES if memory is None else (memory,):
        try:
            reason = "asked for" if memory else "; ".join(refused) or "no copy, and the driver takes it"
            return _streaming(MODES[mode], node, layout, slots), reason
        except CameraError as error:
            if error.number not in REFUSALS or memory is not None:
                raise CameraError(
                    f"{error.what} with memory {mode.value}",
                    where=node.path,
                    hint=error.hint if memory is None else f"leave --memory out, or: {error.hint}",
                    number=error.number,
                ) from error
            refused.append(f"{mode.value} refused: {error.what}")
    raise CameraError(
        f"takes none of the memory modes ({'; '.join(refused)})",
        where=node.path,
        hint="unplug and plug the camera, see dmesg",
        number=errno.EINVAL,
    )


def _streaming(mode: type[Buffers], node: Node, layout: RawLayout, slots: Sequence[Slot]) -> Buffers:
    buffers = mode(node, layout, slots)
    try:
        buffers.arm()
        if buffers.starved:
            raise CameraError(
                "cannot start: all of its buffers are still on loan",
                where=node.path,
                hint="release leases sooner",
                number=errno.EAGAIN,
            )
        buffers.start()
    except BaseException:
        buffers.close()
        raise
    return buffers


def _address_of(mapping: mmap.mmap) -> int:
    """Where a mapping lies. The look at it ends here, so that it can be closed."""
    return ctypes.addressof(ctypes.c_char.from_buffer(mapping))
