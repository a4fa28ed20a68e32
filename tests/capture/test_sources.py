from __future__ import annotations

import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
from dgp_writer import HEIGHT, RING, WIDTH, picture, write_dgp

from fsmde_edge.capture import DatasetReplay, open_source
from fsmde_edge.capture.video import LONGER, VideoSource, match_files, rig_of_pinholes
from fsmde_edge.datasets import open_dataset
from fsmde_edge.errors import InputError, UsageError
from fsmde_edge.preprocess import own_pinholes
from fsmde_edge.rig import Rig

# Replay


@pytest.fixture
def folder(tmp_path):
    return write_dgp(tmp_path / "tiny")


def test_a_replay_yields_every_sample_and_drops_none(folder):
    source = open_source(folder)
    assert source.rig.names == RING
    assert [frame_set.index for frame_set in source] == [0, 1, 2, 3]
    assert [frame_set.index for frame_set in source] == [0, 1, 2, 3]
    assert source.drops == {camera: {} for camera in RING}
    source.close()
    source.close()


def test_a_replay_loads_one_sample_at_a_time(folder):
    source = open_source(folder)
    sets = iter(source)
    next(sets)
    shutil.rmtree(folder / "scene_a/rgb/CAMERA_01")
    with pytest.raises(InputError, match="picture is missing"):
        next(sets)


def test_a_replay_does_not_need_clouds(folder):
    shutil.rmtree(folder / "scene_a/point_cloud")
    assert next(iter(open_source(folder, scenes=["scene_a"]))).cameras == RING


def test_scenes_with_other_cameras_do_not_go_together(tmp_path):
    write_dgp(tmp_path / "a", scenes=("scene_a",))
    write_dgp(tmp_path / "b", scenes=("scene_b",), cameras=RING[:3])

    class Both:
        name = "both"
        parts = (open_dataset(tmp_path / "a"), open_dataset(tmp_path / "b"))

        def __len__(self):
            return 2

        def __getitem__(self, index):
            return self.parts[index][0]

    with pytest.raises(
        InputError, match=r"sample scene_b/000000 has the cameras .*CAMERA_07, those before it"
    ):
        list(DatasetReplay(Both()))


def test_an_empty_data_set_is_refused():
    class Empty(list):
        name = "empty"

    with pytest.raises(InputError, match="holds no sample"):
        DatasetReplay(Empty())


def test_real_time_waits_for_the_stamps_and_skips_long_pauses(folder, monkeypatch):
    from fsmde_edge.capture import replay

    slept, clock = [], iter(np.arange(0, 100, 0.25))
    monkeypatch.setattr(replay.time, "sleep", slept.append)
    monkeypatch.setattr(replay.time, "monotonic", lambda: float(next(clock)))
    assert len(list(open_source(folder, realtime=True))) == 4
    assert slept == [0.75, 0.75]  # a second between samples, a quarter used; none between the scenes


# Video


def write_video(path, pictures=5, fps=10, size=(WIDTH, HEIGHT), start=0):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), fps, size)
    for index in range(pictures):
        writer.write(np.ascontiguousarray(picture(start + index, *size)[..., ::-1]))
    writer.release()
    return path


@pytest.fixture(scope="module")
def rig(tmp_path_factory):
    full = open_dataset(write_dgp(tmp_path_factory.mktemp("rig")))[0].rig
    return Rig.of([full["CAMERA_01"], full["CAMERA_09"]])


@pytest.fixture
def videos(tmp_path):
    return [
        write_video(tmp_path / f"{name}.avi", start=n * 50)
        for n, name in enumerate(("camera_09", "CAMERA_01"))
    ]


def test_picture_i_of_every_file_makes_set_i(videos, rig):
    source = open_source(videos, rig=rig)
    sets = list(source)
    assert [frame_set.index for frame_set in sets] == [0, 1, 2, 3, 4]
    assert sets[0].cameras == ("CAMERA_01", "CAMERA_09")
    assert sets[2].stamps_ns == (200_000_000, 200_000_000)
    error = np.abs(sets[3].frames[0].image.astype(int) - picture(53)).mean()
    assert error < 15  # of the right file and place, as far as JPEG goes
    assert source.drops == {"CAMERA_01": {}, "CAMERA_09": {}}
    source.close()
    source.close()


def test_the_shortest_file_ends_the_source_and_the_rest_is_counted(tmp_path, videos, rig):
    write_video(videos[0], pictures=9)
    source = open_source(tmp_path, rig=rig)  # a folder of videos
    assert len(list(source)) == 5
    assert source.drops == {"CAMERA_01": {}, "CAMERA_09": {LONGER: 4}}


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6])
def test_a_truncated_video_is_named(videos, rig, share):
    write_video(videos[0], pictures=40)
    write_video(videos[1], pictures=40)
    with videos[1].open("r+b") as file:
        file.truncate(int(share * videos[1].stat().st_size))
    with pytest.raises(InputError, match=r"CAMERA_01\.avi: the video"):
        list(open_source(videos, rig=rig))


def test_a_truncated_video_makes_the_decoder_say_nothing(videos):
    data = write_video(videos[0], pictures=40).read_bytes()
    videos[0].write_bytes(data[: len(data) // 2])
    script = f"""
from pathlib import Path
from fsmde_edge.capture.video import _Video
from fsmde_edge.errors import InputError
try:
    video = _Video(Path({str(videos[0])!r}))
    while video.read() is not None:
        pass
except InputError:
    print("refused")
"""
    child = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert (child.stdout, child.stderr) == ("refused\n", "")


def test_a_file_that_is_no_video_and_one_that_is_missing(videos, rig):
    videos[0].write_bytes(b"hello" * 100)
    with pytest.raises(InputError, match=r"camera_09\.avi: the video cannot be opened"):
        open_source(videos, rig=rig)
    videos[0].unlink()
    with pytest.raises(InputError, match=r"camera_09\.avi: the video file is missing"):
        open_source(videos, rig=rig)


def test_files_are_matched_by_name_never_by_order(rig, tmp_path):
    assert match_files(["CAMERA_09=x=1.avi", "a/camera_01.avi"], rig)["CAMERA_09"].name == "x=1.avi"
    with pytest.raises(InputError, match=r"other\.avi: matches no camera.*CAMERA=FILE.*CAMERA_01, CAMERA_09"):
        match_files(["other.avi"], rig)
    with pytest.raises(InputError, match="is a second file for camera CAMERA_01"):
        match_files(["CAMERA_01.avi", "x/CAMERA_01.avi"], rig)


def test_a_camera_without_a_file(videos, rig):
    with pytest.raises(InputError, match="no video for camera CAMERA_01"):
        open_source(videos[:1], rig=rig)


def test_files_of_another_size_or_rate(videos, rig):
    write_video(videos[0], fps=15)
    with pytest.raises(InputError, match="bring all files to one frame rate"):
        open_source(videos, rig=rig)
    write_video(videos[0], size=(2 * WIDTH, HEIGHT))
    with pytest.raises(
        InputError, match="pictures of 128x40, the calibration of camera CAMERA_09 is for 64x40"
    ):
        open_source(videos, rig=rig)
    squashed = open_source(videos, rig=rig, squash=True).rig["CAMERA_09"]
    assert (squashed.width, squashed.intrinsics[0, 0]) == (128, 80)


def test_videos_need_a_rig_and_take_masks(videos, rig, tmp_path):
    with pytest.raises(UsageError, match="video files need a rig"):
        open_source(videos)
    mask = np.full((HEIGHT, WIDTH), 255, np.uint8)
    mask[20:] = 0
    (tmp_path / "masks").mkdir()
    cv2.imwrite(str(tmp_path / "masks/CAMERA_09_mask.png"), mask)
    source = VideoSource(match_files(videos, rig), rig, masks=tmp_path / "masks")
    assert source.rig["CAMERA_09"].ego_mask.mean() == 0.5
    assert source.rig["CAMERA_01"].ego_mask is None


def test_a_bundles_views_stand_for_a_rig(rig):
    pinholes = own_pinholes(rig, 32, 20)
    stand_in = rig_of_pinholes(pinholes)
    assert stand_in.names == rig.names
    for ours, theirs in zip(stand_in.cameras, rig.cameras, strict=True):
        np.testing.assert_allclose(ours.camera_to_vehicle, theirs.camera_to_vehicle, atol=1e-9)
        np.testing.assert_allclose(ours.intrinsics, theirs.scaled(32, 20).intrinsics)


# Synthetic


def test_synthetic_streets_are_a_source(tmp_path):
    source = open_source("synthetic", size=(48, 32))
    first = next(iter(source))
    assert first.cameras == source.rig.names
    assert len(first.frames) == 6
    assert first.frames[0].image.shape == (32, 48, 3)
    with pytest.raises(InputError, match="no split 'mini'"):
        open_source("synthetic", split="mini")


def test_synthetic_streets_written_as_dgp_replay_the_same_pictures(tmp_path):
    from fsmde_edge.datasets.synthetic import SyntheticStreets
    from fsmde_edge.datasets.synthetic import write_dgp as write_streets

    streets = SyntheticStreets("dev", scenes=1, samples_per_scene=2, width=48, height=32, ego_share=1.0)
    write_streets(tmp_path / "streets", streets)
    dataset = open_dataset(tmp_path / "streets", split="dev")
    assert len(dataset) == 2
    for index in range(2):
        ours, theirs = dataset[index], streets[index]
        assert ours.rig.names == theirs.rig.names
        for camera, a, b in zip(
            theirs.rig.cameras, ours.frame_set.frames, theirs.frame_set.frames, strict=True
        ):
            assert np.abs(a.image.astype(int) - b.image).mean() < 3
            same = (ours.depth[camera.name] > 0) == (theirs.depth[camera.name] > 0)
            assert same.mean() > 0.999
            if camera.ego_mask is not None:
                np.testing.assert_array_equal(ours.rig[camera.name].ego_mask, camera.ego_mask)


# What was named


def test_what_is_no_source_is_one_clear_line(tmp_path):
    with pytest.raises(InputError, match="the data set is missing"):
        open_source(tmp_path / "absent")
    with pytest.raises(InputError, match="is no data set that is known"):
        open_source(tmp_path)
    with pytest.raises(UsageError, match="2 sources that are not all video files"):
        open_source(["a.mp4", "b"])
