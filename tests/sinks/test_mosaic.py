from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_depth_files import result

from fsmde_edge.errors import InputError, OutputError, UsageError
from fsmde_edge.sinks import MosaicPng, MosaicVideo, mosaic, mosaic_sink
from fsmde_edge.sinks.mosaic import colour_depth, far_end, layout, near_end

RING = ("front", "front left", "back left", "back", "back right", "front right")


def views(count=6, height=48, width=80):
    images = np.stack([np.full((height, width, 3), 20 * n, np.uint8) for n in range(count)])
    depth = np.stack([np.full((height, width), 2.0 + n, np.float32) for n in range(count)])
    return images, depth


def test_six_views_stand_as_a_driver_looks_around():
    upper, lower = layout(6)
    assert [RING[view] for view in upper] == ["front left", "front", "front right"]
    assert [RING[view] for view in lower] == ["back left", "back", "back right"]


@given(st.integers(1, 12))
def test_every_view_stands_once_with_the_front_in_the_middle_of_the_top(count):
    upper, lower = layout(count)
    assert sorted((*upper, *lower)) == list(range(count))
    assert upper[len(upper) // 2] == 0
    assert len(upper) % 2 == 1 or count == 2


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6, 8])
def test_each_picture_stands_above_its_own_depth(count):
    images, depth = views(count)
    picture = mosaic(
        images, depth, RING[:count] if count <= 6 else [str(n) for n in range(count)], max_depth=20
    )
    upper, lower = layout(count)
    widest = max(len(upper), len(lower)) * 82
    assert picture.shape[1] == widest
    for number, row in enumerate((upper, lower)):
        for place, view in enumerate(row):
            x = (widest - len(row) * 82) // 2 + place * 82 + 41
            y = number * 98 + 1
            assert (picture[y + 44, x] == images[view, 0, 0]).all()
            assert (picture[y + 48 + 24, x] == colour_depth(depth[view], 20)[0, 0]).all()


def test_near_is_red_far_is_blue_and_none_is_grey():
    colours = colour_depth(np.array([[1.2, 75, 0, np.nan, np.inf, -1]], np.float32), 80)[0].astype(int)
    assert colours[0, 0] > 2 * colours[0, 2]
    assert colours[1, 2] > colours[1, 0]
    assert (colours[2:] == colours[2]).all()
    assert np.ptp(colours[2]) == 0


def test_own_vehicle_is_grey_and_other_views_are_not():
    images, depth = views()
    mask = np.ones(depth.shape[1:], bool)
    mask[:, :40] = False
    picture = mosaic(images, depth, RING, masks=[mask, None, None, None, None, None])
    plain = mosaic(images, depth, RING)
    y, x = 49 + 24, 82 + 1  # the front's depth
    assert np.ptp(picture[y, x + 20]) == 0
    assert (picture[y, x + 60] == plain[y, x + 60]).all()
    assert (picture[:, :82] == plain[:, :82]).all()


def test_the_scale_ends_at_a_round_number_beyond_most_of_the_depth():
    assert far_end(np.full((4, 4), 33, np.float32)) == 40
    assert far_end(np.full((4, 4), 999, np.float32)) == 250
    assert far_end(np.zeros((4, 4), np.float32)) == 10
    assert near_end(80) == 1
    assert near_end(10) == 0.5


def test_arrays_that_do_not_go_together_are_refused():
    images, depth = views()
    with pytest.raises(InputError):
        mosaic(images, depth[:5], RING)
    with pytest.raises(InputError):
        mosaic(images, depth[:, ::2], RING)


def three_sets():
    _, depth = views(2)
    for index in range(3):
        yield result(depth + index, cameras=("front", "back"), index=index)


@pytest.mark.parametrize("first", [False, True])
def test_a_png_shows_the_last_set_or_the_first(tmp_path, first):
    sink = MosaicPng(tmp_path / "a/mosaic.png", first=first, max_depth=20)
    for one in three_sets():
        sink.write(*one)
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]
    sink.close()
    sink.close()
    stored = cv2.imread(str(tmp_path / "a/mosaic.png"))[..., ::-1]
    images, depth = views(2)
    expected = mosaic(np.zeros_like(images), depth + (0 if first else 2), ("front", "back"), max_depth=20)
    np.testing.assert_array_equal(stored, expected)


def test_a_png_without_sets_is_not_written(tmp_path):
    MosaicPng(tmp_path / "mosaic.png").close()
    assert not list(tmp_path.iterdir())


def test_a_video_holds_every_set_and_appears_at_the_end(tmp_path):
    sink = MosaicVideo(tmp_path / "mosaic.mp4")
    for one in three_sets():
        sink.write(*one)
    assert not (tmp_path / "mosaic.mp4").exists()
    sink.close()
    sink.close()
    assert [path.name for path in tmp_path.iterdir()] == ["mosaic.mp4"]
    video = cv2.VideoCapture(str(tmp_path / "mosaic.mp4"))
    assert sum(1 for _ in iter(lambda: video.read()[0], False)) == 3


def test_a_missing_codec_is_one_clear_line(tmp_path, monkeypatch):
    class Closed:
        fourcc = staticmethod(lambda *_: 0)

        def __init__(self, *_):
            pass

        def isOpened(self):  # noqa: N802
            return False

    monkeypatch.setattr(cv2, "VideoWriter", Closed)
    sink = MosaicVideo(tmp_path / "mosaic.mp4")
    with pytest.raises(OutputError, match=r"no MPEG-4 encoder.*write a \.png mosaic instead"):
        sink.write(*next(three_sets()))
    sink.close()
    assert not list(tmp_path.iterdir())


def test_a_video_that_lost_pictures_is_not_kept(tmp_path):
    sink = MosaicVideo(tmp_path / "mosaic.mp4")
    for one in three_sets():
        sink.write(*one)
    sink._writer._count += 10  # as if the disk had refused ten
    with pytest.raises(OutputError, match="only 3 of 13 pictures"):
        sink.close()
    assert not list(tmp_path.iterdir())


def test_the_ending_chooses_the_kind(tmp_path):
    assert isinstance(mosaic_sink(tmp_path / "a.PNG"), MosaicPng)
    assert isinstance(mosaic_sink(tmp_path / "a.mp4"), MosaicVideo)
    with pytest.raises(UsageError, match=r"use \.png or \.mp4"):
        mosaic_sink(tmp_path / "a.gif")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError):
        mosaic_sink(tmp_path / "file/a.png")
