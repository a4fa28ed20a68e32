"""A recording of ours (`run --record`) as a source: the same pictures, rig and stamps again."""

from __future__ import annotations

import io
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.capture.replay import pause
from fsmde_edge.errors import InputError
from fsmde_edge.frames import Clock, Frame, FrameSet, RawFrame, Stamp
from fsmde_edge.preprocessing.raw import RawLayout
from fsmde_edge.recording import (
    MAGIC,
    SET_TOPIC,
    TRANSFORMS_TOPIC,
    SetRecord,
    ViewRecord,
    frame_id,
    need_mcap,
    rotation_matrix,
    topic,
)
from fsmde_edge.rig import Camera, Rig

if TYPE_CHECKING:
    from mcap.records import McapRecord

LARGEST_CHUNK = 1 << 30
"""Bytes: ours hold one set each; what claims more is broken or means harm."""


def is_mcap(path: Path) -> bool:
    """Whether a file begins like an MCAP file, whatever its name."""
    with suppress(OSError), path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC
    return False


class McapSource:
    """Frame sets of one recording, in the order in which they were recorded; iterate once.

    Pictures are those that the network saw, its rig the ideal cameras that saw them, so they go into it
    again unchanged. A file that was cut off gives its whole sets, then `InputError`.
    """

    def __init__(self, path: Path, *, realtime: bool = False) -> None:
        """Read the first set, for its rig.

        Args:
            path: the recording, or the `.active` file of a run that was killed.
            realtime: keep the recording's own pace; as fast as possible if False.

        Errors:
            InputError: not a recording of ours, or one without a whole set.
            MissingExtra: without the packages of the extra `mcap`.
        """
        need_mcap("reading a recording (MCAP)")
        self._path, self._realtime = path, realtime
        self._incoming = _sets(path)
        self._first: _Played | None = next(self._incoming)
        self._rig, self.lossless = self._first.rig, self._first.record.lossless

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        return self._path.name.partition(".mcap")[0]

    @property
    def rig(self) -> Rig:
        """The rig of the frame set that was yielded last; before the first, that of the first."""
        return self._rig

    @property
    def drops(self) -> Mapping[str, Mapping[str, int]]:
        """A replay waits for its reader: no camera ever drops a picture."""
        return {camera: {} for camera in self._rig.names}

    def __iter__(self) -> Iterator[FrameSet]:
        previous_ns, previous_time = None, 0.0
        while self._first is not None:
            played = self._first
            self._rig = played.rig
            stamp = played.frame_set.stamps_ns[0]
            if self._realtime and previous_ns is not None:
                pause((stamp - previous_ns) / 1e9, since=previous_time)
            previous_ns, previous_time = stamp, time.monotonic()
            yield played.frame_set
            self._first = next(self._incoming, None)

    @property
    def layouts(self) -> None:
        """Pictures are RGB."""
        return None

    def stop(self) -> None:
        """Nothing here waits."""

    def close(self) -> None:
        """Close the file."""
        self._incoming.close()
        self._first = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Played:
    frame_set: FrameSet
    rig: Rig
    record: SetRecord


@dataclass(slots=True)
class _Latest:
    """The newest message of each channel, and the rig that they tell: the same object until it changes."""

    messages: dict[str, Any] = field(default_factory=dict)
    rig: Rig | None = None
    told: tuple[object, ...] = ()

    def newest_rig(self, record: SetRecord) -> Rig:
        told = self._telling(record)
        if self.rig is None or told != self.told:
            self.rig, self.told = self._make(record), told
        return self.rig

    def _telling(self, record: SetRecord) -> tuple[object, ...]:
        """What makes the rig."""
        turns = [
            (t.child_frame_id, t.translation, t.rotation) for t in self.messages[TRANSFORMS_TOPIC].transforms
        ]
        calibrations = [self.messages[topic(view.camera, "calibration")] for view in record.views]
        masks = [self._mask(view.camera) for view in record.views]
        return turns, [(c.width, c.height, list(c.K)) for c in calibrations], masks

    def _make(self, record: SetRecord) -> Rig:
        poses = {t.child_frame_id: _pose(t) for t in self.messages[TRANSFORMS_TOPIC].transforms}
        return Rig(tuple(self._camera(view.camera, poses) for view in record.views))

    def _camera(self, name: str, poses: Mapping[str, NDArray[np.float64]]) -> Camera:
        calibration = self.messages[topic(name, "calibration")]
        world = np.frombuffer(self._mask(name), np.uint8).reshape(calibration.height, calibration.width) > 0
        return Camera(
            name=name,
            width=calibration.width,
            height=calibration.height,
            intrinsics=np.array(calibration.K).reshape(3, 3),
            camera_to_vehicle=poses[frame_id(name)],
            ego_mask=None if world.all() else world,
        )

    def _mask(self, camera: str) -> bytes:
        return bytes(self.messages[topic(camera, "own_car")].data)


def _sets(path: Path) -> Generator[_Played, None, None]:
    """Whole sets; `InputError` where the file ends before its end, or holds none."""
    latest, count = _Latest(), 0
    with _reading(path) as records:
        while True:
            try:
                channel, data = next(records)
            except StopIteration:
                break
            except _broken() as error:
                raise _cut_off(path, count) from error
            if channel != SET_TOPIC:
                latest.messages[channel] = data
                continue
            yield _played(latest, data, path)
            count += 1
    if not count:
        raise InputError("is no recording of fsmde-edge: it holds no sets", where=path)


def _cut_off(path: Path, count: int) -> InputError:
    whole = f"its {count} whole sets were read" if count else "not one set of it is whole"
    return InputError(
        f"the recording is cut off or damaged; {whole}",
        where=path,
        hint=f"read no further than those: --frames {count}" if count else "record it again",
    )


def _played(latest: _Latest, data: bytes, path: Path) -> _Played:
    with _understanding(path):
        record = SetRecord.from_json(data)
        rig = latest.newest_rig(record)
        frames = tuple(
            _frame(view, record, camera, latest.messages.pop(topic(view.camera, "image"), None))
            for view, camera in zip(record.views, rig.cameras, strict=True)
        )
    return _Played(
        frame_set=FrameSet(frames=frames, index=record.index, name=record.name), rig=rig, record=record
    )


def _frame(view: ViewRecord, record: SetRecord, camera: Camera, message: Any) -> Frame | RawFrame:
    """A live set's stamps come back as REALTIME: the MONOTONIC clock of then is gone."""
    live = record.clock is Clock.MONOTONIC
    stamp = Stamp(
        view.stamp_ns + ((record.realtime_offset_ns or 0) if live else 0),
        Clock.REALTIME if live else record.clock,
        view.exposure,
    )
    if not view.picture:
        layout = RawLayout(code="RGB3", width=camera.width, height=camera.height)
        return RawFrame(camera=view.camera, raw=None, layout=layout, stamp=stamp, sequence=view.sequence)
    image = _decoded(b"" if message is None else message.data)
    if image is None or image.shape[:2] != (camera.height, camera.width):
        raise InputError(f"a picture of camera {view.camera} in set {record.index} is damaged")
    return Frame(camera=view.camera, image=image, stamp=stamp, sequence=view.sequence)


def _decoded(data: bytes) -> NDArray[np.uint8] | None:
    import cv2

    if not data:
        return None
    bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return None if bgr is None else np.ascontiguousarray(bgr[..., ::-1], dtype=np.uint8)


def _pose(transform: Any) -> NDArray[np.float64]:
    pose, place, turn = np.eye(4), transform.translation, transform.rotation
    pose[:3, :3] = rotation_matrix(turn.x, turn.y, turn.z, turn.w)
    pose[:3, 3] = place.x, place.y, place.z
    return pose


@contextmanager
def _reading(path: Path) -> Iterator[Iterator[tuple[str, Any]]]:
    """Topic and message after message, in the file's order, without its index: that may be missing."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", where=path) from error
    with file:
        yield _messages(_records(file))


class _Whole:
    """A file of which a read gives all that it was asked for, or says that the file ends before."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._left = file.seek(0, io.SEEK_END)
        file.seek(0)

    def read(self, length: int) -> bytes:
        if length > self._left:
            raise EOFError
        self._left -= length
        return self._file.read(length)


def _records(file: BinaryIO) -> Iterator[McapRecord]:
    from mcap.exceptions import McapError
    from mcap.records import Chunk
    from mcap.stream_reader import StreamReader, breakup_chunk

    reader = StreamReader(
        cast(IO[bytes], _Whole(file)), emit_chunks=True, validate_crcs=True, record_size_limit=LARGEST_CHUNK
    )
    for record in reader.records:
        if not isinstance(record, Chunk):
            yield record
            continue
        if record.uncompressed_size > LARGEST_CHUNK:
            raise McapError(f"a chunk of {record.uncompressed_size} bytes")
        yield from breakup_chunk(record, validate_crc=True)


def _messages(records: Iterator[McapRecord]) -> Iterator[tuple[str, Any]]:
    """Those of channels that make a frame set; depth and points are not read."""
    from mcap.records import Channel, Message, Schema
    from mcap_protobuf.decoder import DecoderFactory

    factory, schemas = DecoderFactory(), dict[int, Schema]()
    channels, decoders = dict[int, Channel](), dict[int, Any]()
    for record in records:
        if isinstance(record, Schema):
            schemas[record.id] = record
        elif isinstance(record, Channel):
            channels[record.id] = record
        elif isinstance(record, Message) and _wanted(name := channels[record.channel_id].topic):
            if name == SET_TOPIC:
                yield name, record.data
                continue
            channel = channels[record.channel_id]
            if record.channel_id not in decoders:
                schema = schemas.get(channel.schema_id)
                decoders[record.channel_id] = factory.decoder_for(channel.message_encoding, schema)
            decode = decoders[record.channel_id]
            if decode is not None:  # somebody else's channel
                yield name, decode(record.data)


def _wanted(name: str) -> bool:
    return name in (SET_TOPIC, TRANSFORMS_TOPIC) or name.endswith(("/image", "/calibration", "/own_car"))


def _broken() -> tuple[type[Exception], ...]:
    """What the reader raises on bytes that are not what they should be."""
    import struct

    import zstandard
    from google.protobuf.message import DecodeError
    from mcap.exceptions import McapError

    # lz4 raises RuntimeError
    ours = (EOFError, ValueError, KeyError, MemoryError, RuntimeError, struct.error)
    return (*ours, McapError, DecodeError, zstandard.ZstdError)


@contextmanager
def _understanding(path: Path) -> Iterator[None]:
    """A recording whose messages do not go together is one clear line."""
    try:
        yield
    except InputError as error:
        raise InputError(error.what, where=error.where or path, hint=error.hint) from error
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"is no recording that can be understood ({error!r})", where=path) from error
