"""A run as an MCAP recording with Foxglove's schemas; it grows set by set and survives being killed.

While it grows it is called `FILE.active`; it gets its own name once its summary is written. Each set is one
chunk, written at once: a killed run loses the set at hand, and every reader of MCAP gets the rest back.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.errors import InputError, OutputError, UsageError, writing
from fsmde_edge.files import make_folder
from fsmde_edge.frames import Clock, DepthSet, FrameSet
from fsmde_edge.recording import (
    POINTS_TOPIC,
    SET_SCHEMA,
    SET_TOPIC,
    TRANSFORMS_TOPIC,
    VEHICLE,
    SetRecord,
    ViewRecord,
    frame_id,
    need_mcap,
    quaternion,
    topic,
)
from fsmde_edge.rig import Camera, Rig
from fsmde_edge.sinks.points import Cloud, CloudMaker, PointChoice

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from google.protobuf.timestamp_pb2 import Timestamp

STEP_NS = 100_000_000
"""From the last set to the next where a recording's clock goes back (a new scene)."""

Stamped = tuple[Camera, int]
"""A camera, and its picture's instant on the recording's time line."""


class McapSink:
    """Records what the network saw, its depth and its points; `run --source FILE` plays it back."""

    def __init__(
        self,
        path: Path,
        choice: PointChoice = PointChoice(),  # noqa: B008, frozen
        *,
        jpeg_quality: int | None = None,
        notes: Mapping[str, str] | None = None,
    ) -> None:
        """Open the file.

        Args:
            path: the recording; an old file of that name is replaced once the new one is complete.
            choice: which pixels become points.
            jpeg_quality: 1 to 100: pictures as JPEG; lossless PNG if None. Only a lossless recording
                replays to the same depth.
            notes: what else is to be known of the run: the file's metadata `fsmde-edge`.

        Errors:
            OutputError: where it cannot be written, or where a killed run left its recording.
            MissingExtra: without the packages of the extra `mcap`.
        """
        need_mcap("a recording (--record)")
        if jpeg_quality is not None and not 1 <= jpeg_quality <= 100:
            raise UsageError(f"a JPEG quality of {jpeg_quality}", hint="choose 1 to 100")
        self._file: _File | None = _File(path, {"pictures": _kind(jpeg_quality), **(notes or {})})
        self._quality, self._maker = jpeg_quality, CloudMaker(choice)
        self._pool = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="record")
        self._rig: Rig | None = None
        self._shift_ns, self._last_ns = 0, -1

    def write(self, frame_set: FrameSet, images: NDArray[np.uint8], depth_set: DepthSet) -> None:
        """Append one set: on disk as far as the system is concerned when this returns."""
        if self._file is None:
            raise OutputError("the recording is closed already")
        if depth_set.rig is None:
            raise InputError("depth that does not say which cameras saw it makes no recording")
        cloud = self._maker.cloud(images, depth_set)
        record = _record(frame_set, depth_set, lossless=self._quality is None)
        stamps = self._time_line(frame_set)
        log_ns = min(stamps)
        stamped = list(zip(depth_set.rig.cameras, stamps, strict=True))
        messages = [*self._views(stamped, images, depth_set, record)]
        if depth_set.rig is not self._rig:
            messages += _own_car(stamped)
            self._rig = depth_set.rig
        messages.append((TRANSFORMS_TOPIC, _transforms(depth_set.rig, log_ns), log_ns))
        messages.append((POINTS_TOPIC, _points(cloud, log_ns), log_ns))
        self._file.append(frame_set.index, log_ns, messages, record)
        self._last_ns = log_ns

    def close(self) -> None:
        """Write the summary and give the file its name."""
        file, self._file = self._file, None
        self._pool.shutdown()
        if file is not None:
            file.finish()

    def _time_line(self, frame_set: FrameSet) -> list[int]:
        """The views' instants, of which the first never lies before that of the set before.

        REALTIME for live sets, by the offset that was measured with them; else the recording's own clock.
        """
        offset = _to_realtime(frame_set)
        first = min(frame_set.stamps_ns) + offset
        if first + self._shift_ns < self._last_ns:
            self._shift_ns = self._last_ns + STEP_NS - first
        return [stamp + offset + self._shift_ns for stamp in frame_set.stamps_ns]

    def _views(
        self, stamped: list[Stamped], images: NDArray[np.uint8], depth_set: DepthSet, record: SetRecord
    ) -> list[tuple[str, Message, int]]:
        pictures = self._pool.map(lambda image: _encoded(image, self._quality), images)
        messages = []
        for (camera, ns), picture, depth, view in zip(
            stamped, pictures, depth_set.depth, record.views, strict=True
        ):
            name = camera.name
            if view.picture:
                messages.append((topic(name, "image"), _picture(camera, ns, picture, self._quality), ns))
            messages.append((topic(name, "depth"), _raw(camera, ns, depth.astype("<f4"), "32FC1"), ns))
            messages.append((topic(name, "calibration"), _calibration(camera, ns), ns))
        return messages


class _File:
    """The file itself: whole chunks go into it, or it stays as it was."""

    def __init__(self, path: Path, notes: Mapping[str, str]) -> None:
        from mcap.writer import Writer

        from fsmde_edge import __version__

        self._path, self._active = path, path.with_name(f"{path.name}.active")
        make_folder(path.parent)
        if path.exists() and not path.is_file():
            raise OutputError(
                "cannot be written: it is no regular file", where=path, hint="choose another name"
            )
        with writing(path):
            self._disk = _create(self._active)
        self._buffer = _Buffer()
        self._writer = Writer(self._buffer, chunk_size=1 << 62)  # a chunk ends when its set does
        self._channels: dict[str, int] = {}
        self._schemas: dict[str, int] = {}
        self._sets, self._good = 0, True
        self._writer.start(library=f"fsmde-edge {__version__}")
        self._writer.add_metadata("fsmde-edge", dict(notes))
        self._out()

    def append(
        self, index: int, log_ns: int, messages: list[tuple[str, Message, int]], record: SetRecord
    ) -> None:
        """One set as one chunk."""
        for name, message, ns in messages:
            channel = self._channel(name, message)
            self._writer.add_message(channel, log_ns, message.SerializeToString(), ns, sequence=index)
        self._writer.add_message(self._set_channel(), log_ns, record.to_json(), log_ns, sequence=index)
        self._writer.flush()  # type: ignore[no-untyped-call]
        self._out()
        self._sets += 1

    def finish(self) -> None:
        """Summary, and the file's own name; nothing after a failure."""
        try:
            if self._good and not self._sets:
                self._active.unlink(missing_ok=True)  # a run without a set leaves no recording
            elif self._good:
                self._writer.finish()  # type: ignore[no-untyped-call]
                self._out()
                with writing(self._path):
                    os.fsync(self._disk.fileno())
                    self._active.replace(self._path)
        finally:
            self._disk.close()

    def _out(self) -> None:
        """What the writer made, to disk; all of it, or the file ends where it did."""
        start = self._disk.tell()
        try:
            with writing(self._active):
                _write_all(self._disk, self._buffer.taken())
        except OutputError as error:
            self._good = False
            os.ftruncate(self._disk.fileno(), start)
            raise OutputError(
                error.what,
                where=self._active,
                hint=f"free some space on that disk; the {self._sets} sets until then can be replayed: "
                f"fsmde-edge run --source {self._active} --frames {self._sets}",
            ) from error

    def _channel(self, name: str, message: Message) -> int:
        from mcap_protobuf.schema import register_schema

        if name not in self._channels:
            kind = message.DESCRIPTOR.full_name
            if kind not in self._schemas:
                self._schemas[kind] = register_schema(self._writer, type(message))
            self._channels[name] = self._writer.register_channel(name, "protobuf", self._schemas[kind])
        return self._channels[name]

    def _set_channel(self) -> int:
        if SET_TOPIC not in self._channels:
            data = json.dumps(SET_SCHEMA).encode()
            schema = self._writer.register_schema(str(SET_SCHEMA["title"]), "jsonschema", data)
            self._channels[SET_TOPIC] = self._writer.register_channel(SET_TOPIC, "json", schema)
        return self._channels[SET_TOPIC]


class _Buffer(io.BytesIO):
    """Memory that the writer believes to be the file: it counts on where the file stands."""

    def __init__(self) -> None:
        super().__init__()
        self._before = 0

    def tell(self) -> int:
        return self._before + super().tell()

    def taken(self) -> bytes:
        """What was written since the last time."""
        data = self.getvalue()
        self._before += len(data)
        self.seek(0)
        self.truncate()
        return data


def _write_all(disk: FileIO, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[disk.write(left) :]  # a disk that fills up takes a part first, and then refuses


def _create(active: Path) -> FileIO:
    """A growing file of our own; another run's is left alone."""
    try:
        handle = os.open(active, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError as error:
        raise OutputError(
            "is being written by another run, or was left by one that was killed",
            where=active,
            hint="replay it (fsmde-edge run --source), then move or remove it",
        ) from error
    return FileIO(handle, "wb")


def _kind(jpeg_quality: int | None) -> str:
    return "png, lossless" if jpeg_quality is None else f"jpeg, quality {jpeg_quality}"


def _to_realtime(frame_set: FrameSet) -> int:
    """What brings a set's stamps to the recording's time line."""
    live = frame_set.frames[0].stamp.clock is Clock.MONOTONIC
    return (frame_set.realtime_offset_ns or 0) if live else 0


def _record(frame_set: FrameSet, depth_set: DepthSet, *, lossless: bool) -> SetRecord:
    current = depth_set.valid or (True,) * len(depth_set.cameras)
    return SetRecord(
        index=frame_set.index,
        name=frame_set.name,
        clock=frame_set.frames[0].stamp.clock,
        realtime_offset_ns=frame_set.realtime_offset_ns,
        lossless=lossless,
        views=tuple(
            ViewRecord(
                camera=frame.camera,
                stamp_ns=frame.stamp.ns,
                exposure=frame.stamp.exposure,
                sequence=frame.sequence,
                picture=frame.valid,
                depth=depth,
            )
            for frame, depth in zip(frame_set.frames, current, strict=True)
        ),
    )


def _time(ns: int) -> Timestamp:
    from google.protobuf.timestamp_pb2 import Timestamp

    time = Timestamp()
    time.FromNanoseconds(ns)
    return time


def _encoded(image: NDArray[np.uint8], quality: int | None) -> bytes:
    """RGB to JPEG of a quality, or to PNG."""
    import cv2

    bgr = image[..., ::-1]
    if quality is not None:
        return bytes(cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1])
    # OpenCV's smallest on such pictures, and faster than its default (docs/measurements.md).
    strategy = [cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_HUFFMAN_ONLY]
    return bytes(cv2.imencode(".png", bgr, [cv2.IMWRITE_PNG_COMPRESSION, 1, *strategy])[1])


def _picture(camera: Camera, ns: int, encoded: bytes, quality: int | None) -> Message:
    from foxglove_schemas_protobuf.CompressedImage_pb2 import CompressedImage

    return CompressedImage(
        timestamp=_time(ns),
        frame_id=frame_id(camera.name),
        data=encoded,
        format="png" if quality is None else "jpeg",
    )


def _raw(camera: Camera, ns: int, pixels: NDArray[Any], encoding: str) -> Message:
    from foxglove_schemas_protobuf.RawImage_pb2 import RawImage

    return RawImage(
        timestamp=_time(ns),
        frame_id=frame_id(camera.name),
        width=camera.width,
        height=camera.height,
        encoding=encoding,
        step=camera.width * pixels.itemsize,
        data=pixels.tobytes(),
    )


def _calibration(camera: Camera, ns: int) -> Message:
    from foxglove_schemas_protobuf.CameraCalibration_pb2 import CameraCalibration

    k = camera.intrinsics
    return CameraCalibration(
        timestamp=_time(ns),
        frame_id=frame_id(camera.name),
        width=camera.width,
        height=camera.height,
        distortion_model="plumb_bob",
        D=[0.0] * 5,
        K=k.ravel(),
        R=np.eye(3).ravel(),
        P=np.hstack((k, np.zeros((3, 1)))).ravel(),
    )


def _own_car(stamped: list[Stamped]) -> list[tuple[str, Message, int]]:
    """Each camera's ego mask, all world where it has none, so that an older one does not stay in force."""
    messages = []
    for camera, ns in stamped:
        mask = camera.ego_mask
        world = np.ones((camera.height, camera.width), np.bool_) if mask is None else mask
        message = _raw(camera, ns, world.astype(np.uint8) * np.uint8(255), "mono8")
        messages.append((topic(camera.name, "own_car"), message, ns))
    return messages


def _transforms(rig: Rig, ns: int) -> Message:
    from foxglove_schemas_protobuf.FrameTransform_pb2 import FrameTransform
    from foxglove_schemas_protobuf.FrameTransforms_pb2 import FrameTransforms
    from foxglove_schemas_protobuf.Quaternion_pb2 import Quaternion
    from foxglove_schemas_protobuf.Vector3_pb2 import Vector3

    transforms = []
    for camera in rig.cameras:
        pose = camera.camera_to_vehicle
        x, y, z, w = quaternion(pose[:3, :3])
        transforms.append(
            FrameTransform(
                timestamp=_time(ns),
                parent_frame_id=VEHICLE,
                child_frame_id=frame_id(camera.name),
                translation=Vector3(x=pose[0, 3], y=pose[1, 3], z=pose[2, 3]),
                rotation=Quaternion(x=x, y=y, z=z, w=w),
            )
        )
    return FrameTransforms(transforms=transforms)


def _points(cloud: Cloud, ns: int) -> Message:
    from foxglove_schemas_protobuf.PackedElementField_pb2 import PackedElementField as Field
    from foxglove_schemas_protobuf.PointCloud_pb2 import PointCloud
    from foxglove_schemas_protobuf.Pose_pb2 import Pose
    from foxglove_schemas_protobuf.Quaternion_pb2 import Quaternion
    from foxglove_schemas_protobuf.Vector3_pb2 import Vector3

    packed = np.empty(len(cloud.xyz), [("xyz", "<f4", 3), ("rgba", "u1", 4)])
    packed["xyz"], packed["rgba"][:, :3], packed["rgba"][:, 3] = cloud.xyz, cloud.rgb, 255
    places = [Field(name=name, offset=4 * n, type=Field.FLOAT32) for n, name in enumerate("xyz")]
    names = ("red", "green", "blue", "alpha")
    colours = [Field(name=name, offset=12 + n, type=Field.UINT8) for n, name in enumerate(names)]
    return PointCloud(
        timestamp=_time(ns),
        frame_id=VEHICLE,
        pose=Pose(position=Vector3(), orientation=Quaternion(w=1)),
        point_stride=packed.itemsize,
        fields=[*places, *colours],
        data=packed.tobytes(),
    )
