from __future__ import annotations

import cv2
import numpy as np
import pytest

from fsmde_edge.errors import InputError
from fsmde_edge.preprocessing.colour import Colour
from fsmde_edge.preprocessing.raw import FORMATS, RawLayout, unpack

HEIGHT, WIDTH = 6, 8
CONSTANTS = {  # of the usual tables for 8 bits: luma, v to red, u to green, v to green, u to blue
    "bt601": (1.164383, 1.596027, 0.391762, 0.812968, 2.017232),
    "bt709": (1.164383, 1.792741, 0.213249, 0.532909, 2.112402),
}
FULL = {"bt601": (1, 1.402, 0.344136, 0.714136, 1.772), "bt709": (1, 1.5748, 0.187324, 0.468124, 1.8556)}


def by_hand(y, u, v, colour):
    """One pixel by the tables' constants, in floats."""
    scale, red, green_u, green_v, blue = (FULL if colour.full_range else CONSTANTS)[colour.matrix]
    luma, u, v = scale * (float(y) - (0 if colour.full_range else 16)), u - 128.0, v - 128.0
    return np.clip([luma + red * v, luma - green_u * u - green_v * v, luma + blue * u], 0, 255)


def written(code, y, u, v, gap):
    """Bytes as V4L2 lays them out, pixel by pixel; chroma is the top left pixel's."""
    stride = WIDTH * FORMATS[code].pixel_bytes + gap
    rows = np.full((HEIGHT, stride), 77, np.uint8)
    if code in {"UYVY", "YUYV"}:
        for row in range(HEIGHT):
            for x in range(0, WIDTH, 2):
                values = {"U": u[row, x], "V": v[row, x]}
                lumas = iter((y[row, x], y[row, x + 1]))
                rows[row, 2 * x : 2 * x + 4] = [next(lumas) if c == "Y" else values[c] for c in code]
        return rows.tobytes(), stride
    step = 2 if code == "NV12" else 1
    rows[:, :WIDTH] = y
    chroma = np.full((HEIGHT // step, stride), 77, np.uint8)
    chroma[:, 0:WIDTH:2], chroma[:, 1:WIDTH:2] = u[::step, ::2], v[::step, ::2]
    return rows.tobytes() + chroma.tobytes(), stride


@pytest.mark.parametrize("code", ["UYVY", "YUYV", "NV12", "NV16"])
@pytest.mark.parametrize("colour", [Colour(matrix=m, full_range=f) for m in CONSTANTS for f in (False, True)])
@pytest.mark.parametrize("gap", [0, 12])
def test_luma_and_chroma_become_the_colours_of_the_standard(code, colour, gap):
    y, u, v = np.random.default_rng(1).integers(0, 256, (3, HEIGHT, WIDTH), dtype=np.uint8)
    data, stride = written(code, y, u, v, gap)
    rgb = unpack(data, RawLayout(code=code, width=WIDTH, height=HEIGHT, stride=stride, colour=colour))
    for row in range(HEIGHT):
        for x in range(WIDTH):
            at = (row - row % 2 if code == "NV12" else row), x - x % 2
            exact = by_hand(y[row, x], u[at], v[at], colour)
            assert np.abs(rgb[row, x] - exact).max() <= 0.51


@pytest.mark.parametrize(
    ("code", "conversion"),
    [("UYVY", cv2.COLOR_YUV2RGB_UYVY), ("YUYV", cv2.COLOR_YUV2RGB_YUYV), ("NV12", cv2.COLOR_YUV2RGB_NV12)],
)
def test_the_default_colours_are_opencvs(code, conversion):
    layout = RawLayout(code=code, width=WIDTH, height=HEIGHT)
    data = np.random.default_rng(2).integers(16, 256, layout.size, dtype=np.uint8)  # it lifts luma below 16
    shape = (HEIGHT * 3 // 2, WIDTH) if code == "NV12" else (HEIGHT, WIDTH, 2)
    assert np.abs(cv2.cvtColor(data.reshape(shape), conversion) - unpack(data, layout).astype(int)).max() <= 2


def test_plain_formats_are_copied():
    rgb = np.random.default_rng(3).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    size = {"width": WIDTH, "height": HEIGHT}
    np.testing.assert_array_equal(unpack(rgb.tobytes(), RawLayout(code="RGB3", **size)), rgb)
    np.testing.assert_array_equal(unpack(rgb[..., ::-1].tobytes(), RawLayout(code="BGR3", **size)), rgb)
    grey = unpack(rgb[..., 0].tobytes(), RawLayout(code="GREY", **size))
    np.testing.assert_array_equal(grey, np.stack([rgb[..., 0]] * 3, axis=-1))


BAYER = [code for code, format in FORMATS.items() if format.kind == "bayer"]


def mosaic(rgb, format):
    """What a Bayer sensor with as many bits sees of a picture."""
    height, width = rgb.shape[:2]
    seen = np.empty((height, width), np.uint16)
    for row in range(height):
        for x in range(width):
            seen[row, x] = rgb[row, x, "RGB".index(format.order[2 * (row % 2) + x % 2])]
    words = seen << (format.bits - 8)
    return words.astype("<u2").tobytes() if format.bits > 8 else words.astype(np.uint8).tobytes()


@pytest.mark.parametrize("code", BAYER)
def test_bayer_pictures_are_interpolated(code):
    row, x = np.mgrid[0:16, 0:20]
    ramps = np.stack((20 + 8 * x, 60 + 4 * row + 2 * x, 200 - 6 * row), axis=-1).astype(np.uint8)
    rgb = unpack(mosaic(ramps, FORMATS[code]), RawLayout(code=code, width=20, height=16))
    assert np.abs(rgb.astype(int) - ramps)[2:-2, 2:-2].max() <= 1


def test_white_balance_multiplies_before_interpolation():
    flat = np.full((8, 8, 3), (100, 50, 25), np.uint8)
    layout = RawLayout(code="GRBG", width=8, height=8, gains=(1.0, 2.0, 4.0))
    assert (unpack(mosaic(flat, FORMATS["GRBG"]), layout) == 100).all()


def test_a_jpeg_is_decoded_and_must_have_the_size():
    smooth = cv2.GaussianBlur(
        np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8), (0, 0), 6
    )
    data = cv2.imencode(".jpg", smooth[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, 98))[1].tobytes()
    rgb = unpack(data, RawLayout(code="MJPG", width=48, height=32))
    assert np.abs(rgb.astype(int) - smooth).mean() < 3
    with pytest.raises(InputError, match="gives 48x32, expected 64x32"):
        unpack(data, RawLayout(code="MJPG", width=64, height=32))
    with pytest.raises(InputError, match="gives nothing"):
        unpack(b"no picture", RawLayout(code="MJPG", width=64, height=32))


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"code": "XYZ1"}, "'XYZ1' is not known"),
        ({"code": "UYVY", "width": 7}, "chroma comes in pairs"),
        ({"code": "NV12", "height": 5}, "chroma comes in pairs"),
        ({"code": "RGGB", "height": 5}, "chroma comes in pairs"),
        ({"code": "UYVY", "stride": 15}, "15 bytes a row"),
        ({"code": "GREY", "width": 0}, "of 0x6"),
    ],
)
def test_an_impossible_layout_is_refused(values, says):
    with pytest.raises(InputError, match=says):
        RawLayout(**{"width": WIDTH, "height": HEIGHT, **values})


@pytest.mark.parametrize("code", [code for code, format in FORMATS.items() if format.kind != "jpeg"])
def test_a_short_buffer_is_refused(code):
    layout = RawLayout(code=code, width=WIDTH, height=HEIGHT)
    with pytest.raises(InputError, match="too small"):
        unpack(bytes(layout.size - 1), layout)


def test_an_unknown_colour_matrix_is_refused():
    with pytest.raises(InputError, match="'bt2020' is not known"):
        Colour(matrix="bt2020")
