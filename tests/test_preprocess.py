from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fsmde_edge.errors import InputError
from fsmde_edge.frames import Frame, FrameSet, Stamp
from fsmde_edge.preprocess import is_plain_resize, own_pinholes, preprocess, preprocess_set, resize
from fsmde_edge.rig import BrownConrady, Camera, Fisheye, NoDistortion, Rig, VirtualPinhole

pictures = hnp.arrays(np.uint8, st.tuples(st.integers(2, 24), st.integers(2, 24), st.just(3)))


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def camera(lens=None, *, width=240, height=160, fx=130.0, cx=None):
    k = np.array([[fx, 0, width / 2 if cx is None else cx], [0, fx, height / 2], [0, 0, 1]])
    return Camera(
        name="a",
        width=width,
        height=height,
        intrinsics=k,
        camera_to_vehicle=np.eye(4),
        distortion=lens or NoDistortion(),
    )


def average_by_hand(image, width, height):
    """Every output pixel as an integral over the area that it covers, input pixel by input pixel."""
    old_height, old_width = image.shape[:2]
    result = np.zeros((height, width, 3))
    for row in range(height):
        top, bottom = row * old_height / height, (row + 1) * old_height / height
        for column in range(width):
            left, right = column * old_width / width, (column + 1) * old_width / width
            for y in range(math.floor(top), min(old_height, math.ceil(bottom))):
                for x in range(math.floor(left), min(old_width, math.ceil(right))):
                    area = (min(y + 1, bottom) - max(y, top)) * (min(x + 1, right) - max(x, left))
                    result[row, column] += max(area, 0) * image[y, x]
    return result * (width * height / (old_width * old_height))


@settings(max_examples=40)
@given(pictures, st.data())
def test_shrinking_is_the_average_over_the_area(image, data):
    height, width = (data.draw(st.integers(1, size - 1)) for size in image.shape[:2])
    exact = average_by_hand(image, width, height)
    assert np.abs(resize(image, width, height) - exact).max() <= 0.5 + 1e-3


@pytest.mark.parametrize(("width", "height"), [(120, 80), (80, 40), (97, 61), (191, 127), (1, 1), (240, 61)])
def test_shrinking_agrees_with_opencv(width, height):
    image = noise(160, 240)
    theirs = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    ours = resize(image, width, height)
    assert np.abs(ours.astype(int) - theirs).max() <= 1  # half a grey level is rounded either way
    assert (ours == theirs).mean() > 0.9


@settings(max_examples=40)
@given(pictures, st.data())
def test_shrinking_keeps_the_mean(image, data):
    height, width = (data.draw(st.integers(1, size)) for size in image.shape[:2])
    assert np.abs(resize(image, width, height).mean((0, 1)) - image.mean((0, 1))).max() <= 0.5 + 1e-3


@settings(max_examples=40)
@given(pictures, st.integers(0, 40), st.integers(0, 40))
def test_enlarging_is_bilinear(image, more_width, more_height):
    width, height = image.shape[1] + more_width, image.shape[0] + more_height
    theirs = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    assert np.abs(resize(image, width, height).astype(int) - theirs).max() <= 1


@given(st.integers(0, 255), st.integers(1, 30), st.integers(1, 30))
def test_one_colour_stays(grey, width, height):
    image = np.full((13, 17, 3), grey, dtype=np.uint8)
    assert (resize(image, width, height) == grey).all()


def test_halves_are_rounded_up():
    image = np.zeros((1, 2, 3), dtype=np.uint8)
    image[0, 1] = 1
    assert resize(image, 1, 1).tolist() == [[[1, 1, 1]]]


def test_a_picture_of_the_networks_size_is_itself():
    image, made = noise(160, 240), camera()
    pinhole = VirtualPinhole.of(made, 240, 160)
    assert is_plain_resize(made, pinhole)
    np.testing.assert_array_equal(preprocess(image, made, pinhole), image)


def test_a_pinhole_camera_is_squashed_and_nothing_else():
    image, made = noise(160, 240), camera(cx=101.5)
    pinhole = VirtualPinhole.of(made, 96, 64)
    np.testing.assert_array_equal(preprocess(image, made, pinhole), resize(image, 96, 64))


def scene(x, y):
    """A smooth pattern over the plane z = 1, three channels in 0..255."""
    channels = (np.sin(5 * x) * np.cos(4 * y), np.sin(3 * x + 2 * y), np.cos(6 * y - x))
    return np.stack([127.5 + 120 * channel for channel in channels], axis=-1)


def photograph(made: Camera) -> np.ndarray:
    """What a camera takes of `scene`: every pixel looks along its own ray."""
    u, v = np.meshgrid(np.arange(made.width) + 0.5, np.arange(made.height) + 0.5)
    rays = made.rays(np.stack((u, v), axis=-1))
    return np.round(np.nan_to_num(scene(rays[..., 0], rays[..., 1]))).astype(np.uint8)


@pytest.mark.parametrize(
    "lens",
    [
        BrownConrady(k1=-0.25, k2=0.05, p1=0.001, p2=-0.001),
        BrownConrady(k1=0.1),
        Fisheye(k1=0.02, k2=-0.003),
        Fisheye(),
    ],
)
@pytest.mark.parametrize("size", [(240, 160), (120, 80), (95, 51), (300, 200)])
def test_rectification_gives_the_picture_of_an_ideal_camera(lens, size):
    real = camera(lens)
    pinhole = VirtualPinhole.of(real, *size)
    ideal = Camera(
        name="ideal",
        width=size[0],
        height=size[1],
        intrinsics=pinhole.intrinsics,
        camera_to_vehicle=np.eye(4),
    )
    made = preprocess(photograph(real), real, pinhole).astype(int)
    u, v = np.meshgrid(np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5)
    uv, _ = real.project(ideal.rays(np.stack((u, v), axis=-1)))
    margin = 3
    well_inside = (uv > margin).all(axis=-1) & (uv < np.array((240, 160)) - margin).all(axis=-1)
    assert well_inside.mean() > 0.5
    error = np.abs(made - photograph(ideal))[well_inside]
    assert error.max() <= 4
    assert error.mean() < 1


def test_rectification_is_black_where_the_camera_sees_nothing():
    real = camera(BrownConrady(k1=0.3))  # pincushion: the ideal picture's corners lie outside the real one
    made = preprocess(np.full((160, 240, 3), 200, dtype=np.uint8), real, VirtualPinhole.of(real, 120, 80))
    assert (made[0, 0] == 0).all()
    assert (made[40, 60] == 200).all()


def test_turning_into_a_shifted_pinhole_shifts_the_picture():
    real = camera()
    own = VirtualPinhole.of(real, 240, 160)
    image = noise(160, 240)
    made = preprocess(image, real, replace(own, cx=own.cx + 7))
    np.testing.assert_array_equal(made[:, 7:], image[:, :-7])
    assert (made[:, :7] == 0).all()


def test_a_set_is_prepared_view_by_view_with_its_focal_lengths():
    rig = Rig((camera(fx=130.0),))
    frames = FrameSet(frames=(Frame(camera="a", image=noise(160, 240), stamp=Stamp(0)),))
    images, focal = preprocess_set(frames, rig, own_pinholes(rig, 60, 40))
    assert images.shape == (1, 40, 60, 3)
    assert images.dtype == np.uint8
    assert focal.tolist() == [32.5]
    assert focal.dtype == np.float32


def test_what_does_not_go_together_is_refused():
    made = camera()
    pinhole = VirtualPinhole.of(made, 60, 40)
    with pytest.raises(InputError, match="expected"):
        preprocess(noise(160, 241), made, pinhole)
    frames = FrameSet(frames=(Frame(camera="a", image=noise(160, 240), stamp=Stamp(0)),))
    with pytest.raises(InputError, match="1 pictures, 1 cameras and 2 views"):
        preprocess_set(frames, Rig((made,)), (pinhole, pinhole))
