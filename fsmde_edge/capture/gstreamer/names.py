"""Which pipeline is which camera's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fsmde_edge.errors import UsageError
from fsmde_edge.rig import Rig

PREFIX = "gst:"


def is_pipeline(spec: str | Path) -> bool:
    """Whether it is `gst:DESCRIPTION` or `CAMERA=gst:DESCRIPTION`."""
    return _split(str(spec)) is not None


def match_pipelines(specs: Sequence[str | Path], rig: Rig) -> dict[str, str]:
    """Which pipeline is which camera's.

    Args:
        specs: one for all cameras, in which {camera} stands for each one's name and {index} for its place in
            ring order; or one a camera, in ring order, or as `CAMERA=gst:DESCRIPTION`.
        rig: the cameras.

    Errors:
        UsageError: they do not go together.
    """
    parts = [_split(str(spec)) for spec in specs]
    given = [part for part in parts if part is not None]
    if len(given) != len(specs):
        raise UsageError("a GStreamer pipeline beside other sources", hint="give pipelines alone")
    if len(given) == 1 and given[0][0] is None and len(rig) > 1:
        return _for_each(given[0][1], rig)
    names = [camera for camera, _ in given if camera is not None]
    if len(given) != len(rig) or (names and sorted(names) != sorted(rig.names)):
        raise UsageError(
            f"{len(given)} pipelines do not go with the cameras {', '.join(rig.names)}",
            hint="give one with {camera} or {index} in it, or one a camera: CAMERA=gst:...",
        )
    cameras = names or list(rig.names)
    return {camera: text for camera, (_, text) in zip(cameras, given, strict=True)}


def _for_each(text: str, rig: Rig) -> dict[str, str]:
    if "{camera}" not in text and "{index}" not in text:
        raise UsageError(
            f"one pipeline for {len(rig)} cameras",
            hint="put {camera} or {index} where they differ, or give one a camera: CAMERA=gst:...",
        )
    return {
        name: text.replace("{camera}", name).replace("{index}", str(index))
        for index, name in enumerate(rig.names)
    }


def _split(spec: str) -> tuple[str | None, str] | None:
    """(camera or None, description) of a pipeline; None of anything else."""
    before, found, text = spec.partition(PREFIX)
    if not found or (before and not before.endswith("=")):
        return None
    return before[:-1] or None, text.strip()
