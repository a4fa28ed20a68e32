"""What the kernel's virtual driver can be told to do, by the names of its controls."""

from __future__ import annotations

from contextlib import contextmanager

from fsmde_edge.capture.v4l2.ioctls import Node, controls, open_node, set_control
from fsmde_edge.capture.v4l2.kernel import LinuxKernel

ERROR_NEXT, REQBUFS_ERROR, QBUF_ERROR, STREAMON_ERROR = 0xF0F042, 0xF0F043, 0xF0F044, 0xF0F045
DROPPED_PERCENT, DISCONNECT, FATAL, WRAP_SEQUENCE = 0xF0F040, 0xF0F041, 0xF0F046, 0xF0F026
BLACK, COUNTER_ALONE = 5, 1
TEXT_LEFT, TEXT_TOP, CELL = 16, 16, (8, 16)
BEFORE_NUMBER = len(" 00:00:00:000 ")


@contextmanager
def opened(path: str):
    """A second look at a device, which may set controls while another streams."""
    node = open_node(path, LinuxKernel())
    try:
        yield node
    finally:
        node.close()


def tell(path: str, control: int, value: int = 1) -> None:
    with opened(path) as node:
        set_control(node, control, value)


def named(node: Node, name: str) -> int:
    return next(control.id for control in controls(node) if control.name == name)


def show_numbers(path: str) -> None:
    """A black picture with time and sequence number in it."""
    with opened(path) as node:
        set_control(node, named(node, "Test Pattern"), BLACK)
        set_control(node, named(node, "OSD Text Mode"), COUNTER_ALONE)
