from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsmde_edge.errors import OutputError, UsageError
from fsmde_edge.frames import DepthSet, Frame, FrameSet, Stamp
from fsmde_edge.sinks import NpzSink, PngSink
from fsmde_edge.sinks.png import depth_to_uint16


def result(depth, cameras=("left", "right"), index=7):
    depth = np.asarray(depth, dtype=np.float32)
    images = np.zeros((*depth.shape, 3), np.uint8)
    frames = tuple(
        Frame(camera=camera, image=image, stamp=Stamp(1000 + n))
        for n, (camera, image) in enumerate(zip(cameras, images, strict=True))
    )
    depth_set = DepthSet(
        depth=depth,
        cameras=tuple(cameras),
        stamps_ns=tuple(range(1000, 1000 + len(cameras))),
        focal=np.ones(len(cameras), np.float32),
        index=index,
    )
    return FrameSet(frames=frames, index=index), images, depth_set


@given(st.lists(st.floats(0.0078125, 255.5, width=32), min_size=4, max_size=4))
def test_a_png_tells_metres_to_half_a_step(tmp_path_factory, metres):
    folder = tmp_path_factory.mktemp("png")
    sink = PngSink(folder)
    sink.write(*result(np.array(metres).reshape(1, 2, 2), cameras=("front",)))
    stored = cv2.imread(str(folder / "000007/front.png"), cv2.IMREAD_UNCHANGED)
    assert stored.dtype == np.uint16
    assert np.abs(stored / 256 - np.float32(metres).reshape(2, 2)).max() <= 0.5 / 256
    assert sink.saturated == 0


@given(st.integers(1, 65535), st.sampled_from([256, 1000]))
def test_every_step_survives_the_round_trip(step, scale):
    values, saturated = depth_to_uint16(np.array([step / scale], np.float32), scale)
    assert abs(int(values[0]) - step) <= (
        0 if scale == 256 else 1
    )  # float32 metres tell thousandths no finer
    assert saturated == 0


@given(st.sampled_from([0.0, -1.0, float("nan"), float("inf"), -float("inf")]))
def test_no_depth_is_zero(value):
    assert depth_to_uint16(np.array([value], np.float32)) == (0, 0)


def test_depth_beyond_the_scale_is_clamped_and_counted(tmp_path):
    sink = PngSink(tmp_path, scale=1000)
    sink.write(*result([[[65.535, 65.6]], [[300, 1.0]]]))
    assert sink.saturated == 2
    left = cv2.imread(str(tmp_path / "000007/left.png"), cv2.IMREAD_UNCHANGED)
    right = cv2.imread(str(tmp_path / "000007/right.png"), cv2.IMREAD_UNCHANGED)
    assert left.tolist() == [[65535, 65535]]
    assert right.tolist() == [[65535, 1000]]
    assert depth_to_uint16(np.array([255.99, 256.0], np.float32))[1] == 1


def test_a_scale_that_makes_no_sense_is_refused(tmp_path):
    with pytest.raises(UsageError):
        PngSink(tmp_path, scale=0)


def test_a_camera_name_cannot_lead_out_of_the_folder(tmp_path):
    PngSink(tmp_path / "out").write(*result([[[1.0]]], cameras=("../../evil",)))
    assert [p.name for p in (tmp_path / "out/000007").iterdir()] == ["__.._evil.png"]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_an_archive_holds_depth_cameras_and_stamps_without_pickles(tmp_path):
    frame_set, images, depth_set = result([[[1.0, 2]], [[3, 4]]])
    NpzSink(tmp_path).write(frame_set, images, depth_set)
    with np.load(tmp_path / "000007.npz", allow_pickle=False) as archive:
        assert sorted(archive.files) == ["cameras", "depth", "stamps_ns"]
        np.testing.assert_array_equal(archive["depth"], depth_set.depth)
        assert archive["depth"].dtype == np.float32
        assert archive["cameras"].tolist() == ["left", "right"]
        assert archive["stamps_ns"].tolist() == [1000, 1001]
        assert archive["stamps_ns"].dtype == np.int64


@pytest.mark.parametrize("sink", [PngSink, NpzSink])
def test_an_output_that_is_a_file_is_one_clear_line(tmp_path, sink):
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "file", tmp_path / "file/below"):
        with pytest.raises(OutputError, match="a part of this path is a file"):
            sink(path)


@pytest.mark.parametrize("sink", [PngSink, NpzSink])
def test_a_file_system_that_takes_no_files_is_one_clear_line(sink):
    with pytest.raises(OutputError, match="cannot be written"):
        sink(Path("/sys/fsmde-edge"))  # nobody may write there, not even root


@pytest.mark.parametrize("sink", [PngSink, NpzSink])
def test_files_are_replaced_whole_and_nothing_hidden_is_left(tmp_path, sink):
    for value in (1.0, 2.0):
        target = sink(tmp_path)
        target.write(*result([[[value]], [[value]]]))
        target.close()
        target.close()
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".")]
