"""Where pictures lie in GStreamer's buffers: no GStreamer needed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsmde_edge.capture.gstreamer.pictures import Lease, Placed
from fsmde_edge.capture.lease import LeaseError
from fsmde_edge.errors import InputError
from fsmde_edge.preprocessing.colour import Colour
from fsmde_edge.preprocessing.raw import RawLayout, unpack

WIDTH, HEIGHT = 6, 4


@given(
    code=st.sampled_from(["NV12", "NV16"]),
    start=st.integers(0, 5),
    between=st.integers(0, 40),
    pads=st.tuples(st.integers(0, 7), st.integers(0, 7)),
    seed=st.integers(0, 2**16),
)
def test_two_planes_show_the_same_picture_wherever_they_lie(code, start, between, pads, seed):
    rng = np.random.default_rng(seed)
    rows = HEIGHT // 2 if code == "NV12" else HEIGHT
    luma = rng.integers(0, 256, (HEIGHT, WIDTH), np.uint8)
    chroma = rng.integers(0, 256, (rows, WIDTH), np.uint8)
    strides = (WIDTH + pads[0], WIDTH + pads[1])
    second = start + strides[0] * HEIGHT + between
    buffer = rng.integers(0, 256, second + strides[1] * rows, np.uint8)
    for plane, at, stride in ((luma, start, strides[0]), (chroma, second, strides[1])):
        buffer[at : at + stride * len(plane)].reshape(len(plane), stride)[:, :WIDTH] = plane
    # as GStreamer says it: a plane each, two more of nothing
    placed = Placed.of(code, (WIDTH, HEIGHT), [*strides, 0, 0], [start, second, 0, 0], Colour())
    together = between == 0 and strides[0] == strides[1]
    assert (placed.second is None) is together
    compact = RawLayout(code=code, width=WIDTH, height=HEIGHT)
    expected = unpack(np.concatenate((luma.reshape(-1), chroma.reshape(-1))), compact)
    np.testing.assert_array_equal(unpack(placed.view(buffer.data), placed.layout), expected)


@pytest.mark.parametrize("code", ["UYVY", "RGB3", "GREY", "NV12"])
def test_planes_in_place_are_not_copied(code):
    layout = RawLayout(code=code, width=WIDTH, height=HEIGHT, stride=24)
    buffer = np.zeros(3 + layout.size, np.uint8)
    placed = Placed.of(code, (WIDTH, HEIGHT), [24, 24], [3, 3 + 24 * HEIGHT], Colour())
    view = placed.view(buffer.data)
    buffer[3] = 77
    assert (placed.second, len(view), view[0]) == (None, layout.size, 77)


@pytest.mark.parametrize("offsets", [[0, 24], [0, 30]], ids=["in place", "apart"])
def test_a_buffer_that_is_too_small_is_refused(offsets):
    placed = Placed.of("NV12", (WIDTH, HEIGHT), [6, 6], offsets, Colour())
    with pytest.raises(InputError, match=r"a buffer of 35 bytes is too small for NV12 6x4 \(36\)"):
        placed.view(np.zeros(35, np.uint8).data)


def test_a_jpeg_is_the_whole_buffer():
    placed = Placed.of("MJPG", (WIDTH, HEIGHT), (), (), Colour())
    assert bytes(placed.view(memoryview(b"jpeg"))) == b"jpeg"


def test_a_lease_ends_once_even_while_an_array_looks_at_it():
    picture = memoryview(bytes(8))
    lease = Lease("front", 3, 5, RawLayout(code="GREY", width=4, height=2), picture)
    array = np.frombuffer(lease.view(), np.uint8)
    lease.release()
    assert array.sum() == 0
    for after in (lease.view, lease.release):
        with pytest.raises(LeaseError, match="front"):
            after()
