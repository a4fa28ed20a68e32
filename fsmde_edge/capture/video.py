"""One video file a camera; picture i of every file makes frame set i."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.datasets.masks import with_masks
from fsmde_edge.errors import InputError
from fsmde_edge.frames import Frame, FrameSet, Stamp
from fsmde_edge.rig import Camera, Rig, VirtualPinhole

LONGER = "after the end of the shortest file"
"""The cause under which a video's surplus pictures are counted."""


class VideoSource:
    """Frame sets from one video file a camera, up to the end of the shortest file; iterate once."""

    def __init__(
        self, files: Mapping[str, Path], rig: Rig, *, squash: bool = False, masks: Path | None = None
    ) -> None:
        """Open all files.

        Args:
            files: camera name → video file, one for every camera of the rig.
            rig: the cameras that took the videos.
            squash: let the rig's intrinsics follow the size of the videos (for a rig that is given at
                another size, such as a bundle's own views).
            masks: folder of ego masks at the size of the videos (see `with_masks`).

        Errors:
            InputError: a camera without a file, a file without a camera, an unreadable file, another
                picture size than the rig's, or files of different frame rates.
        """
        _check_names(files, rig)
        self._videos: dict[str, _Video] = {}
        try:
            for camera in rig.names:
                self._videos[camera] = _Video(files[camera])
            fitted = Rig(tuple(self._fit(camera, squash) for camera in rig.cameras))
            self._rig = fitted if masks is None else with_masks(fitted, "", given=masks, own=masks)
            self._check_rates()
        except InputError:
            self.close()
            raise
        self._drops: dict[str, dict[str, int]] = {camera: {} for camera in rig.names}

    @property
    def name(self) -> str:
        """The folder of the first file, or the file itself."""
        first = next(iter(self._videos.values())).path
        return first.parent.name or first.name

    @property
    def rig(self) -> Rig:
        """The cameras, at the size of the videos."""
        return self._rig

    @property
    def drops(self) -> Mapping[str, Mapping[str, int]]:
        """Pictures beyond the end of the shortest file, once the end is reached."""
        return self._drops

    def __iter__(self) -> Iterator[FrameSet]:
        index = 0
        while True:
            images = {camera: video.read() for camera, video in self._videos.items()}
            if any(image is None for image in images.values()):
                self._count_drops(index)
                return
            frames = tuple(
                Frame(
                    camera=camera,
                    image=image,
                    stamp=Stamp(round(index * 1e9 / self._videos[camera].fps)),
                    sequence=index,
                )
                for camera, image in images.items()
                if image is not None
            )
            yield FrameSet(frames=frames, index=index, name=f"{self.name}/{index:06d}")
            index += 1

    @property
    def layouts(self) -> None:
        """Pictures are RGB."""
        return None

    def stop(self) -> None:
        """Nothing here waits."""

    def close(self) -> None:
        """Close all files."""
        for video in self._videos.values():
            video.close()

    def _fit(self, camera: Camera, squash: bool) -> Camera:
        video = self._videos[camera.name]
        if (video.width, video.height) == (camera.width, camera.height):
            return camera
        if squash:
            return camera.scaled(video.width, video.height)
        raise InputError(
            f"has pictures of {video.width}x{video.height}, the calibration of camera {camera.name} is for "
            f"{camera.width}x{camera.height}",
            where=video.path,
            hint="give the rig file of these videos",
        )

    def _check_rates(self) -> None:
        slow = min(self._videos.values(), key=lambda video: video.fps)
        fast = max(self._videos.values(), key=lambda video: video.fps)
        if fast.fps > 1.01 * slow.fps:
            raise InputError(
                f"runs at {slow.fps:g} pictures a second, {fast.path} at {fast.fps:g}",
                where=slow.path,
                hint="bring all files to one frame rate",
            )

    def _count_drops(self, sets: int) -> None:
        for camera, video in self._videos.items():
            surplus = max(video.promised, video.taken) - sets
            if surplus > 0:
                self._drops[camera][LONGER] = surplus


class _Video:
    """One open video file."""

    def __init__(self, path: Path) -> None:
        import cv2

        if not path.is_file():
            raise InputError("the video file is missing", where=path, hint="check the path")
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # its complaints become our one line
        self.path, self.taken = path, 0
        self._capture: Any = cv2.VideoCapture(str(path))
        if not self._capture.isOpened():
            raise InputError(
                "the video cannot be opened: truncated, or of a kind that OpenCV does not read",
                where=path,
                hint="copy it again, or convert it to H.264 in .mp4",
            )
        self._capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
        self.width = int(self._capture.get(cv2.CAP_PROP_FRAME_WIDTH))
        self.height = int(self._capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
        rate, promised = self._capture.get(cv2.CAP_PROP_FPS), self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.fps = float(rate) if math.isfinite(rate) and rate > 0 else 30.0
        self.promised = int(promised) if math.isfinite(promised) and promised > 0 else 0

    def read(self) -> NDArray[np.uint8] | None:
        """The next picture, RGB, or None at the end."""
        import cv2

        good, picture = self._capture.read()
        if not good:
            if self.taken + max(2, self.promised // 100) < self.promised or not self.taken:
                raise InputError(
                    f"the video is truncated: only {self.taken} of {self.promised} pictures can be read",
                    where=self.path,
                    hint="copy it again",
                )
            return None
        self.taken += 1
        return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), dtype=np.uint8)

    def close(self) -> None:
        self._capture.release()


def match_files(files: Sequence[Path | str], rig: Rig) -> dict[str, Path]:
    """Which video belongs to which camera: `CAMERA=FILE`, or a file whose stem is the camera's name.

    Errors:
        InputError: a file that matches no camera or one that has a file already.
    """
    names = {camera.lower(): camera for camera in rig.names}
    matched: dict[str, Path] = {}
    for file in files:
        given, _, rest = str(file).partition("=")
        path = Path(rest) if rest and given.lower() in names else Path(file)
        camera = names.get(given.lower()) if rest and given.lower() in names else names.get(path.stem.lower())
        if camera is None or camera in matched:
            why = "matches no camera" if camera is None else f"is a second file for camera {camera}"
            raise InputError(
                why,
                where=file,
                hint=f"name the file after its camera, or write CAMERA=FILE, with {', '.join(rig.names)}",
            )
        matched[camera] = path
    return matched


def rig_of_pinholes(pinholes: Sequence[VirtualPinhole]) -> Rig:
    """The rig that a bundle's views stand for: ideal cameras above the vehicle's origin.

    Args:
        pinholes: the views; their yaw, pitch and height give the poses (no roll, no lever arm).
    """
    return Rig.of(
        Camera(
            name=pinhole.name,
            width=pinhole.width,
            height=pinhole.height,
            intrinsics=pinhole.intrinsics,
            camera_to_vehicle=_looking(pinhole.yaw_deg, pinhole.pitch_deg, pinhole.height_m),
        )
        for pinhole in pinholes
    )


def _looking(yaw_deg: float, pitch_deg: float, height: float) -> NDArray[np.float64]:
    yaw, pitch = math.radians(yaw_deg), math.radians(pitch_deg)
    forward = np.array((math.cos(pitch) * math.cos(yaw), math.cos(pitch) * math.sin(yaw), math.sin(pitch)))
    right = np.array((math.sin(yaw), -math.cos(yaw), 0.0))
    pose = np.eye(4)
    pose[:3, :3] = np.stack((right, np.cross(forward, right), forward), axis=1)
    pose[2, 3] = height
    return pose


def _check_names(files: Mapping[str, Path], rig: Rig) -> None:
    missing = [camera for camera in rig.names if camera not in files]
    unknown = [camera for camera in files if camera not in rig.names]
    if missing or unknown:
        what = f"no video for camera {', '.join(missing)}" if missing else f"no camera {', '.join(unknown)}"
        raise InputError(
            f"{len(files)} videos and {len(rig)} cameras do not go together: {what}",
            hint=f"give one file for each of {', '.join(rig.names)}",
        )
