"""Where frame sets come from: data sets, video files, recordings, pipelines and synthetic streets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fsmde_edge.capture.gstreamer.names import is_pipeline
from fsmde_edge.capture.replay import DatasetReplay
from fsmde_edge.capture.source import Source
from fsmde_edge.errors import UsageError
from fsmde_edge.rig import Rig

if TYPE_CHECKING:
    from fsmde_edge.capture.live import Matching

__all__ = ["DatasetReplay", "Source", "open_source"]

SYNTHETIC_LENGTH = 4
"""Frame sets of one synthetic scene."""

VIDEO_ENDINGS = (".mp4", ".avi", ".mkv", ".mov", ".m4v", ".webm")


def open_source(
    spec: str | Path | Sequence[str | Path],
    *,
    rig: Rig | None = None,
    squash: bool = False,
    scenes: Sequence[str] | None = None,
    split: str | None = None,
    masks: Path | str | None = None,
    realtime: bool = False,
    size: tuple[int, int] = (640, 384),
    seed: int = 0,
    sets: int | None = None,
    matching: Matching | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Source:
    """Open a source by what was named.

    Args:
        spec: "synthetic"; the path of a data set; an MCAP recording of ours; video files, one a camera
            (`CAMERA=FILE`, or files named after their camera), or a folder of such files; or GStreamer
            pipelines (`gst:DESCRIPTION`, see `match_pipelines`).
        rig: the cameras of video files and pipelines; data sets bring their own.
        squash: let the rig follow the size of the video files or pipelines (see `VideoSource`).
        scenes, split: which part of a data set.
        masks: folder of ego masks, for data sets, videos and pipelines.
        realtime: replay a data set or a recording at its own pace.
        size: width and height of synthetic pictures.
        seed: of synthetic streets.
        sets: how many frame sets of synthetic streets will be wanted; two scenes if None.
        matching: how pictures of pipelines become sets.
        say: is told, in a line, of pipelines that are lost and that come back.

    Errors:
        InputError: nothing usable lies there.
        UsageError: something was given that goes with another kind of source.
        DeviceError: a pipeline that does not work, or no GStreamer.
    """
    specs = [spec] if isinstance(spec, (str, Path)) else list(spec)
    if len(specs) == 1 and str(specs[0]) == "synthetic":
        _refuse("synthetic streets", rig=rig, scenes=scenes, masks=masks)
        from fsmde_edge.capture.synthetic import synthetic_source

        scenes_needed = 2 if sets is None else -(-sets // SYNTHETIC_LENGTH)
        return synthetic_source(
            split or "test",
            scenes=scenes_needed,
            samples_per_scene=SYNTHETIC_LENGTH,
            width=size[0],
            height=size[1],
            seed=seed,
            realtime=realtime,
        )
    if any(is_pipeline(each) for each in specs):
        _refuse("GStreamer pipelines", scenes=scenes, split=split)
        return _open_pipelines(specs, rig, squash, masks, matching, say)
    if matching is not None:
        raise UsageError("matching of live pictures does not go with a recording", hint="leave it away")
    videos = _video_files(specs)
    if videos:
        _refuse("video files", scenes=scenes, split=split)
        return _open_videos(videos, rig, squash, None if masks is None else Path(masks))
    from fsmde_edge.capture.mcap import McapSource, is_mcap
    from fsmde_edge.datasets import open_dataset

    _refuse("a data set or a recording", rig=rig)
    if len(specs) != 1:
        raise UsageError(
            f"{len(specs)} sources that are not all video files",
            hint="give one data set, or one video a camera",
        )
    if is_mcap(Path(specs[0])):
        _refuse("a recording, which brings its own", scenes=scenes, split=split, masks=masks)
        return McapSource(Path(specs[0]), realtime=realtime)
    dataset = open_dataset(specs[0], scenes=scenes, split=split, masks=masks, lidar=False)
    return DatasetReplay(dataset, realtime=realtime)


def _refuse(source: str, **given: object) -> None:
    for name, value in given.items():
        if value is not None:
            raise UsageError(f"--{name} does not go with {source}", hint=f"leave --{name} away")


def _video_files(specs: Sequence[str | Path]) -> list[str | Path]:
    """The specs themselves if all are video files, a folder's video files, or nothing."""
    if specs and all(Path(str(spec)).suffix.lower() in VIDEO_ENDINGS for spec in specs):
        return list(specs)
    if len(specs) == 1 and Path(specs[0]).is_dir():
        return [file for file in sorted(Path(specs[0]).iterdir()) if file.suffix.lower() in VIDEO_ENDINGS]
    return []


def _open_videos(videos: Sequence[str | Path], rig: Rig | None, squash: bool, masks: Path | None) -> Source:
    from fsmde_edge.capture.video import VideoSource, match_files

    if rig is None:
        raise UsageError("video files need a rig that says which cameras took them", hint="give a rig file")
    return VideoSource(match_files(videos, rig), rig, squash=squash, masks=masks)


def _open_pipelines(
    specs: Sequence[str | Path],
    rig: Rig | None,
    squash: bool,
    masks: Path | str | None,
    matching: Matching | None,
    say: Callable[[str], None],
) -> Source:
    from fsmde_edge.capture.gstreamer.names import match_pipelines
    from fsmde_edge.capture.gstreamer.source import GstSource
    from fsmde_edge.capture.live import Matching

    if rig is None:
        raise UsageError("pipelines need a rig that says which cameras they are", hint="give a rig file")
    return GstSource(
        rig,
        match_pipelines(specs, rig),
        matching or Matching(),
        squash=squash,
        masks=None if masks is None else Path(masks),
        say=say,
    )
