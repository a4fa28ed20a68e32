"""MCAP recordings: what is in them, that they play back, and what is left when the writer is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mcap.reader import NonSeekingReader, make_reader
from mcap.writer import Writer
from mcap_doctor import complaints
from mcap_protobuf.decoder import DecoderFactory
from surround import result, ring

from fsmde_edge.capture import open_source
from fsmde_edge.capture.mcap import McapSource
from fsmde_edge.errors import InputError, MissingExtra, OutputError, UsageError
from fsmde_edge.frames import Clock, ExposurePoint, RawFrame, Stamp
from fsmde_edge.preprocess import own_pinholes, preprocess_set
from fsmde_edge.preprocessing.raw import RawLayout
from fsmde_edge.recording import quaternion, rotation_matrix
from fsmde_edge.sinks.mcap import STEP_NS, McapSink
from fsmde_edge.sinks.points import CloudMaker, PointChoice


def record(path, results, **options):
    sink = McapSink(path, **options)
    write_all(sink, results)
    sink.close()
    sink.close()


def write_all(sink, results):
    for one in results:
        sink.write(*one)


def drive(sets=3, rig=None, start=1_700_000_000_000_000_000):
    return [result(rig or ring(), index=n, seed=n, start=start + n * STEP_NS) for n in range(sets)]


def decoded(path):
    """(topic, message, record) of every message, by the reference reader."""
    with path.open("rb") as file:
        reader = make_reader(file, validate_crcs=True, decoder_factories=[DecoderFactory()])
        for _, channel, message in reader.iter_messages():
            decode = DecoderFactory().decoder_for(channel.message_encoding, _schema(reader, channel))
            yield channel.topic, decode(message.data) if decode else message.data, message


def _schema(reader, channel):
    return reader.get_summary().schemas[channel.schema_id]


def of(path, topic):
    return [(message, raw) for name, message, raw in decoded(path) if name == topic]


def nanoseconds(message):
    return message.timestamp.ToNanoseconds()


def test_the_reference_reader_has_nothing_to_complain_of(tmp_path):
    record(tmp_path / "a.mcap", drive())
    assert complaints(tmp_path / "a.mcap") == []
    assert [file.name for file in tmp_path.iterdir()] == ["a.mcap"]
    with (tmp_path / "a.mcap").open("rb") as file:
        reader = make_reader(file)
        kinds = {c.topic: s.name for s, c, _ in reader.iter_messages()}
        assert next(iter(reader.iter_metadata())).metadata == {"pictures": "png, lossless"}
    assert kinds["/cameras/front/image"] == "foxglove.CompressedImage"
    assert kinds["/cameras/front/depth"] == "foxglove.RawImage"
    assert kinds["/cameras/front/own_car"] == "foxglove.RawImage"
    assert kinds["/cameras/front/calibration"] == "foxglove.CameraCalibration"
    assert (kinds["/tf"], kinds["/points"]) == ("foxglove.FrameTransforms", "foxglove.PointCloud")
    assert kinds["/set"] == "fsmde_edge.Set"
    assert len(kinds) == 6 * 4 + 3


def test_depth_calibration_and_poses_are_in_it_exactly(tmp_path):
    rig = ring(at=(0.5, -0.2, 1.6), pitch_deg=-3.0, roll_deg=1.0)
    frame_set, images, depth_set = drive(1, rig)[0]
    record(tmp_path / "a.mcap", [(frame_set, images, depth_set)])
    for view, camera in enumerate(rig.cameras):
        ((depth, _),) = of(tmp_path / "a.mcap", f"/cameras/{camera.name}/depth")
        assert (depth.encoding, depth.step, depth.frame_id) == ("32FC1", 64, f"camera_{camera.name}")
        assert depth.data == depth_set.depth[view].astype("<f4").tobytes()
        ((calibration, _),) = of(tmp_path / "a.mcap", f"/cameras/{camera.name}/calibration")
        assert list(calibration.K) == camera.intrinsics.ravel().tolist()
        assert np.array(calibration.P).reshape(3, 4)[:, :3].tolist() == camera.intrinsics.tolist()
        assert (calibration.width, calibration.height) == (16, 8)
        assert calibration.frame_id == depth.frame_id
    ((transforms, _),) = of(tmp_path / "a.mcap", "/tf")
    for transform, camera in zip(transforms.transforms, rig.cameras, strict=True):
        turn, place = transform.rotation, transform.translation
        assert (transform.parent_frame_id, transform.child_frame_id) == ("vehicle", f"camera_{camera.name}")
        assert (place.x, place.y, place.z) == (0.5, -0.2, 1.6)
        found = rotation_matrix(turn.x, turn.y, turn.z, turn.w)
        np.testing.assert_allclose(found, camera.camera_to_vehicle[:3, :3], atol=1e-14)


def test_points_are_those_of_the_depth(tmp_path):
    choice = PointChoice(stride=2)
    frame_set, images, depth_set = drive(1)[0]
    record(tmp_path / "a.mcap", [(frame_set, images, depth_set)], choice=choice)
    ((points, _),) = of(tmp_path / "a.mcap", "/points")
    layout = {field.name: (field.offset, field.type) for field in points.fields}
    assert layout == {
        "x": (0, 7), "y": (4, 7), "z": (8, 7),
        "red": (12, 1), "green": (13, 1), "blue": (14, 1), "alpha": (15, 1),
    }  # fmt: skip
    assert (points.frame_id, points.point_stride, points.pose.orientation.w) == ("vehicle", 16, 1)
    cloud = CloudMaker(choice).cloud(images, depth_set)
    packed = np.frombuffer(points.data, [("xyz", "<f4", 3), ("rgba", "u1", 4)])
    np.testing.assert_array_equal(packed["xyz"], cloud.xyz)
    np.testing.assert_array_equal(packed["rgba"][:, :3], cloud.rgb)


def test_live_stamps_become_realtime_by_the_offset_that_was_measured(tmp_path):
    offset = 1_700_000_000_000_000_000
    record(tmp_path / "a.mcap", [result(ring(), clock=Clock.MONOTONIC, offset=offset, start=5_000)])
    for view, name in enumerate(ring().names):
        for what in ("image", "depth", "calibration"):
            ((message, raw),) = of(tmp_path / "a.mcap", f"/cameras/{name}/{what}")
            assert nanoseconds(message) == raw.publish_time == offset + 5_000 + 10 * view
            assert (raw.log_time, raw.sequence) == (offset + 5_000, 7)
    source = McapSource(tmp_path / "a.mcap")
    (played,) = source
    assert played.stamps_ns == tuple(offset + 5_000 + 10 * view for view in range(6))
    assert {frame.stamp.clock for frame in played.frames} == {Clock.REALTIME}


def test_the_time_line_goes_on_where_a_recordings_clock_goes_back(tmp_path):
    record(tmp_path / "a.mcap", [*drive(2, start=9_000), *drive(2, start=4_000)])
    times = [raw.log_time for _, raw in of(tmp_path / "a.mcap", "/set")]
    assert times == [9_000 + n * STEP_NS for n in range(4)]
    assert complaints(tmp_path / "a.mcap") == []
    assert [s.stamps_ns[0] for s in McapSource(tmp_path / "a.mcap")] == [
        9_000, 9_000 + STEP_NS, 4_000, 4_000 + STEP_NS
    ]  # fmt: skip


def test_what_comes_back_is_what_the_network_saw(tmp_path):
    rig = ring(at=(0.5, -0.2, 1.6))
    mask = np.ones((8, 16), bool)
    mask[6:] = False
    rig = rig.with_ego_masks({"front": mask})
    sets = drive(3, rig)
    record(tmp_path / "a.mcap", sets)
    source = open_source(tmp_path / "a.mcap")
    first_rig = source.rig
    for (frame_set, images, depth_set), played in zip(sets, source, strict=True):
        assert source.rig is first_rig
        assert (played.index, played.name) == (frame_set.index, frame_set.name)
        assert [f.stamp for f in played.frames] == [f.stamp for f in frame_set.frames]
        assert [f.sequence for f in played.frames] == [f.sequence for f in frame_set.frames]
        again, focal = preprocess_set(played, source.rig, own_pinholes(source.rig, 16, 8))
        np.testing.assert_array_equal(again, images)
        np.testing.assert_array_equal(focal, depth_set.focal)
    assert first_rig.names == rig.names
    for played, camera in zip(first_rig.cameras, rig.cameras, strict=True):
        np.testing.assert_array_equal(played.intrinsics, camera.intrinsics)
        np.testing.assert_allclose(played.camera_to_vehicle, camera.camera_to_vehicle, atol=1e-14)
    np.testing.assert_array_equal(first_rig["front"].ego_mask, mask)
    assert first_rig["back"].ego_mask is None
    assert source.lossless
    source.close()
    source.close()


def test_another_rig_is_another_rig_when_it_comes_back(tmp_path):
    mask = np.zeros((8, 16), bool)
    masked, moved = ring().with_ego_masks({"back": mask}), ring(at=(9, 9, 9))
    record(tmp_path / "a.mcap", [*drive(2, masked), *drive(2, moved, start=10**18)])
    source, rigs = McapSource(tmp_path / "a.mcap"), []
    for _ in source:
        rigs.append(source.rig)
    assert rigs[0] is rigs[1]
    assert rigs[2] is rigs[3]
    np.testing.assert_array_equal(rigs[0]["back"].ego_mask, mask)
    assert rigs[2]["back"].ego_mask is None
    assert rigs[2]["back"].camera_to_vehicle[:3, 3].tolist() == [9, 9, 9]


def test_a_view_without_a_picture_stays_without_one(tmp_path):
    frame_set, images, depth_set = result(
        ring(), clock=Clock.MONOTONIC, offset=10**18, valid=(True, False, True, True, True, True)
    )
    layout = RawLayout(code="UYVY", width=1920, height=1080)
    gone = RawFrame(camera="front-left", raw=None, layout=layout, stamp=Stamp(1_000, Clock.MONOTONIC))
    frames = (frame_set.frames[0], gone, *frame_set.frames[2:])
    before = result(ring(), index=6, clock=Clock.MONOTONIC, offset=10**18)
    record(tmp_path / "a.mcap", [before, (replace(frame_set, frames=frames), images, depth_set)])
    _, played = McapSource(tmp_path / "a.mcap")
    assert played.valid == (True, False, True, True, True, True)
    assert played.frames[1].size == (16, 8)
    assert len(of(tmp_path / "a.mcap", "/cameras/front-left/image")) == 1


def test_exposure_points_come_back(tmp_path):
    frame_set, images, depth_set = drive(1)[0]
    frames = tuple(
        replace(frame, stamp=replace(frame.stamp, exposure=ExposurePoint.MIDDLE))
        for frame in frame_set.frames
    )
    record(tmp_path / "a.mcap", [(replace(frame_set, frames=frames), images, depth_set)])
    (played,) = McapSource(tmp_path / "a.mcap")
    assert {frame.stamp.exposure for frame in played.frames} == {ExposurePoint.MIDDLE}


def test_jpeg_pictures_are_smaller_and_the_recording_says_so(tmp_path):
    sets = drive(1, ring(width=160, height=96, fx=90, fy=90))
    record(tmp_path / "png.mcap", sets)
    record(tmp_path / "jpeg.mcap", sets, jpeg_quality=50)
    assert (McapSource(tmp_path / "png.mcap").lossless, McapSource(tmp_path / "jpeg.mcap").lossless) == (
        True,
        False,
    )
    ((png, _),) = of(tmp_path / "png.mcap", "/cameras/front/image")
    ((jpeg, _),) = of(tmp_path / "jpeg.mcap", "/cameras/front/image")
    assert (png.format, jpeg.format) == ("png", "jpeg")
    assert len(jpeg.data) < len(png.data) / 2
    for wrong in (0, 101):
        with pytest.raises(UsageError):
            McapSink(tmp_path / "wrong.mcap", jpeg_quality=wrong)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["jpeg.mcap", "png.mcap"]


def test_a_run_without_a_set_leaves_no_recording(tmp_path):
    record(tmp_path / "a.mcap", [])
    assert not list(tmp_path.iterdir())


KILLED = """
import os, sys, time
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from surround import result, ring
from fsmde_edge.sinks.mcap import McapSink

sink = McapSink(Path(sys.argv[1]))
for index in range(10**6):
    sink.write(*result(ring(), index=index, seed=index, start=10**18 + index))
    print(index, flush=True)
"""


def test_a_killed_run_loses_no_set_that_was_written(tmp_path):
    path = tmp_path / "a.mcap"
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(KILLED), str(path), str(Path(__file__).parent)],
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        written = -1
        while written < 4:
            written = int(child.stdout.readline())
        os.kill(child.pid, signal.SIGKILL)
    left = path.with_name("a.mcap.active")
    assert [file.name for file in tmp_path.iterdir()] == [left.name]
    played, line = played_or_refused(left)
    assert f"cut off or damaged; its {len(played)} whole sets were read" in line
    assert f"--frames {len(played)}" in line
    assert len(played) > written
    for index, frame_set in enumerate(played):
        _, images, _ = result(ring(), index=index, seed=index)
        np.testing.assert_array_equal(np.stack([f.image for f in frame_set.frames]), images)
    with pytest.raises(OutputError, match="left by one that was killed"):
        McapSink(path)
    assert sets_that_are_recovered(left) >= len(played)


def sets_that_are_recovered(path):
    """By the reference reader without an index, as `mcap recover` does: messages until the file ends."""
    count = 0
    with path.open("rb") as file:
        messages = NonSeekingReader(file, validate_crcs=True).iter_messages(log_time_order=False)
        try:
            for _, channel, _ in messages:
                count += channel.topic == "/set"
        except Exception:  # the reader's own, of many kinds
            return count
    raise AssertionError("the file has an end")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    path = tmp_path_factory.mktemp("recorded") / "a.mcap"
    record(path, drive(3))
    return path


def played_or_refused(path):
    """Sets that were read, and the one line, if any."""
    played, line = [], ""
    try:
        for frame_set in McapSource(path):
            played.append(frame_set)
    except InputError as error:
        line = str(error)
    assert "\n" not in line
    assert not line or str(path) in line
    return played, line


@settings(max_examples=60)
@given(data=st.data())
def test_a_file_that_was_cut_anywhere_gives_its_whole_sets_and_one_line(tmp_path_factory, recorded, data):
    whole = recorded.read_bytes()
    path = tmp_path_factory.mktemp("cut") / "a.mcap"
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    played, line = played_or_refused(path)
    assert line
    assert [s.index for s in played] == list(range(len(played)))
    for frame_set, (_, images, _) in zip(played, drive(3), strict=False):
        np.testing.assert_array_equal(np.stack([f.image for f in frame_set.frames]), images)


@settings(max_examples=150)
@given(data=st.data())
def test_a_damaged_file_is_never_taken_for_another(tmp_path_factory, recorded, data):
    whole = recorded.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    byte = data.draw(st.integers(1, 255))
    path = tmp_path_factory.mktemp("damaged") / "a.mcap"
    path.write_bytes(whole[:place] + bytes([whole[place] ^ byte]) + whole[place + 1 :])
    played, _ = played_or_refused(path)
    for frame_set, (_, images, _) in zip(played, drive(3), strict=False):
        np.testing.assert_array_equal(np.stack([f.image for f in frame_set.frames]), images)


def test_a_length_beyond_the_end_asks_for_no_memory(tmp_path, recorded):
    data, place = bytearray(recorded.read_bytes()), 8
    while data[place] != 6:  # the first chunk
        place += 9 + int.from_bytes(data[place + 1 : place + 9], "little")
    field = place + 9 + 8 + 8 + 8 + 4 + 4 + len("zstd")
    data[field : field + 8] = (900_000_000).to_bytes(8, "little")
    (tmp_path / "a.mcap").write_bytes(data)
    tracemalloc.start()
    try:
        _, line = played_or_refused(tmp_path / "a.mcap")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "cut off or damaged; not one set of it is whole" in line
    assert peak < 50_000_000


def test_somebody_elses_recording_is_one_clear_line(tmp_path):
    path = tmp_path / "other.mcap"
    with path.open("wb") as file:
        writer = Writer(file)
        writer.start()
        channel = writer.register_channel("/cameras/front/image", "json", 0)
        writer.add_message(channel, 1, b"{}", 1)
        writer.finish()
    with pytest.raises(InputError, match="is no recording of fsmde-edge"):
        McapSource(path)
    with pytest.raises(UsageError, match="--masks does not go with a recording"):
        open_source(path, masks=tmp_path)


def test_sets_of_a_newer_version_are_refused(tmp_path):
    path = tmp_path / "newer.mcap"
    with path.open("wb") as file:
        writer = Writer(file)
        writer.start()
        channel = writer.register_channel("/set", "json", 0)
        writer.add_message(channel, 1, b'{"version": 2}', 1)
        writer.finish()
    with pytest.raises(InputError, match="version 2, this program reads version 1"):
        McapSource(path)


def test_a_full_disk_is_one_clear_line_and_what_was_written_stays_readable(tiny_disk):
    rig = ring(width=64, height=32)
    sink = McapSink(tiny_disk / "a.mcap")
    with pytest.raises(OutputError, match="No space left") as told:
        write_all(sink, drive(100, rig))
    sink.close()
    left = tiny_disk / "a.mcap.active"
    assert list(tiny_disk.iterdir()) == [left]
    assert ends_with_a_record(left)
    played, line = played_or_refused(left)
    assert 1 <= len(played) < 20
    assert f"--frames {len(played)}" in line
    assert f"the {len(played)} sets until then can be replayed" in str(told.value)
    for frame_set, (_, images, _) in zip(played, drive(100, rig), strict=False):
        np.testing.assert_array_equal(np.stack([f.image for f in frame_set.frames]), images)


def ends_with_a_record(path):
    """By the specification: after the magic, records of one byte of kind, eight of length, and as many."""
    data, place = path.read_bytes(), 8
    while place < len(data):
        place += 9 + int.from_bytes(data[place + 1 : place + 9], "little")
    return place == len(data)


def test_a_folder_that_takes_no_files_is_one_clear_line(read_only_folder):
    with pytest.raises(OutputError, match="cannot be written"):
        McapSink(read_only_folder / "a.mcap")


def test_without_the_packages_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mcap_protobuf", None)
    with pytest.raises(MissingExtra, match=r"fsmde-edge\[mcap\]"):
        McapSink(tmp_path / "a.mcap")
    assert not list(tmp_path.iterdir())


unit = st.floats(-1, 1)


@given(st.tuples(unit, unit, unit, unit).filter(lambda q: np.linalg.norm(q) > 0.1))
def test_a_rotation_survives_the_way_through_a_quaternion(q):
    rotation = rotation_matrix(*q)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-14)
    assert np.linalg.det(rotation) > 0
    np.testing.assert_allclose(rotation_matrix(*quaternion(rotation)), rotation, atol=1e-14)
    same = np.array(quaternion(rotation)) * np.sign(np.dot(quaternion(rotation), q))
    np.testing.assert_allclose(same, np.array(q) / np.linalg.norm(q), atol=1e-12)
