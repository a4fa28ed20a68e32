from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from photographs import camera, lenses, photograph, raw_of

from fsmde_edge.errors import DeviceError, InputError
from fsmde_edge.frames import Frame, Stamp
from fsmde_edge.golden import check_preprocessing, make_golden
from fsmde_edge.preprocess import preprocess
from fsmde_edge.preprocessing import kernel
from fsmde_edge.preprocessing.colour import Colour
from fsmde_edge.preprocessing.prepare import open_preparation, prepare_picture
from fsmde_edge.preprocessing.raw import FORMATS, RawLayout, unpack
from fsmde_edge.rig import BrownConrady, Fisheye, NoDistortion, VirtualPinhole

DIRECT = [code for code, format in FORMATS.items() if format.kind not in {"bayer", "jpeg"}]


@pytest.fixture(autouse=True)
def _needs_a_compiler():
    try:
        kernel.load_kernel()
    except DeviceError as error:
        pytest.skip(f"the kernel does not compile here: {error}")


@settings(max_examples=60)
@given(
    code=st.sampled_from(DIRECT),
    lens=lenses,
    halves=st.tuples(st.integers(40, 110), st.integers(30, 80)),
    shrink=st.floats(0.8, 4.5),
    zoom=st.floats(0.9, 1.3),
    gap=st.sampled_from([0, 10]),
    colour=st.builds(Colour, matrix=st.sampled_from(["bt601", "bt709"]), full_range=st.booleans()),
    seed=st.integers(0, 99),
)
def test_every_format_gives_what_the_definition_gives_of_it(
    code, lens, halves, shrink, zoom, gap, colour, seed
):
    width, height = 2 * halves[0], 2 * halves[1]
    made = camera(lens, width, height)
    own = VirtualPinhole.of(made, round(width / shrink), round(height / shrink))
    pinhole = own if zoom < 1 else replace(own, fx=own.fx * zoom, fy=own.fy * zoom)
    stride = width * FORMATS[code].pixel_bytes + gap
    layout = RawLayout(code=code, width=width, height=height, stride=stride, colour=colour)
    data = raw_of(photograph(width, height, seed), layout)
    fast = open_preparation([made], [pinhole], layouts=[layout], how="kernel")
    event(f"{type(lens).__name__}, kernel {'by the definition' not in fast.name}")
    found = fast.images([data])[0].astype(int)
    whole = preprocess(np.full((height, width, 3), 255, np.uint8), made, pinhole) == 255
    error = np.abs(found - preprocess(unpack(data, layout), made, pinhole))
    shared_chroma = FORMATS[code].kind in {"packed", "planes"}
    assert error[whole].max(initial=0) <= (4 if shared_chroma else 2)
    assert (error[whole] > 2).sum() <= error.size / 1000
    assert error.max() <= 24  # pixels of which the camera sees a part
    assert error.mean() < 0.5


@pytest.mark.parametrize("code", DIRECT)
@pytest.mark.parametrize("shift", [-0.2, 0.2])
def test_a_rows_ends_are_repeated_in_their_own_colours(code, shift):
    picture = np.full((16, 24, 3), (200, 60, 90), np.uint8)
    picture[:, 12:] = 70, 180, 120
    made, layout = camera(NoDistortion(), 24, 16), RawLayout(code=code, width=24, height=16)
    own = VirtualPinhole.of(made, 12, 8)
    pinhole, data = replace(own, cx=own.cx + shift), raw_of(picture, layout)
    found = open_preparation([made], [pinhole], layouts=[layout], how="kernel").images([data])[0].astype(int)
    assert np.abs(found - preprocess(unpack(data, layout), made, pinhole)).max() <= 2


@pytest.mark.parametrize("code", ["BA81", "GB10", "RG12", "MJPG"])
def test_formats_that_need_a_decoder_go_through_rgb(code):
    picture, made = photograph(80, 60), camera(BrownConrady(k1=-0.2), 80, 60)
    layout = RawLayout(code=code, width=80, height=60)
    data = (
        cv2.imencode(".jpg", picture)[1].tobytes()
        if code == "MJPG"
        else np.repeat(picture[..., 0].astype("<u2"), 1, axis=1)
        .astype("<u2" if layout.format.bits > 8 else np.uint8)
        .tobytes()
    )
    pinhole = VirtualPinhole.of(made, 30, 20)
    found = open_preparation([made], [pinhole], layouts=[layout], how="kernel").images([data])[0].astype(int)
    assert np.abs(found - preprocess(unpack(data, layout), made, pinhole)).max() <= 2


@settings(max_examples=30)
@given(size=st.tuples(st.integers(8, 90), st.integers(8, 90)), data=st.data())
def test_a_squashed_picture_is_right_whatever_it_shows(size, data):
    width, height = size
    to = [data.draw(st.integers(2, 2 * length)) for length in size]
    image = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    made = camera(NoDistortion(), width, height)
    pinhole = VirtualPinhole.of(made, *to)
    error = np.abs(prepare_picture(image, made, pinhole).astype(int) - preprocess(image, made, pinhole))
    assert error.max() <= 2


def test_rough_noise_through_a_lens_stays_close():
    image = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    made = camera(BrownConrady(k1=-0.25, k2=0.05), 320, 240)
    pinhole = VirtualPinhole.of(made, 106, 79)
    error = np.abs(prepare_picture(image, made, pinhole).astype(int) - preprocess(image, made, pinhole))
    assert np.percentile(error, 99) <= 5
    assert error.mean() < 1.5


def test_golden_vectors_are_met():
    frame = Frame(camera="a", image=photograph(194, 122), stamp=Stamp(0))
    empty = np.zeros((1, 2, 2, 3), np.uint8)
    golden = make_golden(images=empty, focal=np.ones(1, np.float32), depth={}, frame=frame)
    assert check_preprocessing(golden) == 0
    assert check_preprocessing(golden, prepare_picture) <= 2


def test_views_are_the_same_on_any_number_of_threads_and_in_a_given_place():
    pictures = [photograph(120, 80, seed).reshape(-1) for seed in range(3)]
    cameras = [camera(BrownConrady(k1=-0.1 * i), 120, 80) for i in range(3)]
    pinholes = [VirtualPinhole.of(each, 40, 30) for each in cameras]
    one = open_preparation(cameras, pinholes).images(pictures)
    place = np.full((3, 30, 40, 3), 9, np.uint8)
    assert open_preparation(cameras, pinholes, threads=8).images(pictures, place) is place
    np.testing.assert_array_equal(one, place)
    assert one.std() > 10


def test_a_lens_that_bends_too_strongly_goes_by_the_definition_and_says_so():
    image, made = photograph(160, 120), camera(BrownConrady(k1=-0.9), 160, 120, fx=0.45)
    pinhole = VirtualPinhole.of(made, 60, 40)
    fast = open_preparation([made], [pinhole], how="kernel")
    assert "a by the definition, because the lens bends too strongly" in fast.name
    np.testing.assert_array_equal(fast.images([image.reshape(-1)])[0], preprocess(image, made, pinhole))


@pytest.mark.parametrize("k4", [-0.5, -0.9, -2.0])
def test_a_lens_whose_formula_has_a_pole_in_the_view_is_harmless(k4):
    image, made = photograph(160, 120), camera(BrownConrady(k4=k4), 160, 120, fx=0.45)
    pinhole = VirtualPinhole.of(made, 60, 40)
    found = prepare_picture(image, made, pinhole).astype(int)
    assert np.abs(found - preprocess(image, made, pinhole)).mean() < 0.5


def test_the_definition_can_be_asked_for_and_is_exact():
    image, made = photograph(80, 60), camera(Fisheye(k1=0.01), 80, 60)
    pinhole = VirtualPinhole.of(made, 30, 20)
    slow = open_preparation([made], [pinhole], how="definition")
    assert slow.name == "the definition in NumPy (as asked)"
    np.testing.assert_array_equal(slow.images([image.reshape(-1)])[0], preprocess(image, made, pinhole))


def test_what_does_not_go_together_is_refused():
    made = camera(NoDistortion(), 80, 60)
    pinhole = VirtualPinhole.of(made, 30, 20)
    with pytest.raises(InputError, match="calibrated for 80x60, its pictures are 64x60"):
        open_preparation([made], [pinhole], layouts=[RawLayout(code="UYVY", width=64, height=60)])
    with pytest.raises(InputError, match="2 pictures and 1 views"):
        open_preparation([made], [pinhole]).images([b"", b""])
    with pytest.raises(InputError, match="too small"):
        open_preparation([made], [pinhole]).images([bytes(80 * 60)])
