"""GStreamer pipelines as a source of frame sets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

from fsmde_edge.capture.gstreamer.library import load
from fsmde_edge.capture.gstreamer.loop import PipelineThread
from fsmde_edge.capture.gstreamer.pipeline import Pipeline
from fsmde_edge.capture.live import LiveSets, Matching, following
from fsmde_edge.capture.sync import Missing, SetOutlet
from fsmde_edge.errors import InputError
from fsmde_edge.rig import Rig

DEPTH = 2
"""Pictures of each camera that may wait for the others: pipelines lend few buffers."""


class GstSource(LiveSets):
    """Frame sets of GStreamer pipelines (see `LiveSets`)."""

    def __init__(
        self,
        rig: Rig,
        descriptions: Mapping[str, str],
        matching: Matching,
        *,
        squash: bool = False,
        masks: Path | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Start every pipeline and wait for its first picture, which says how they lie.

        Args:
            rig: the cameras, in ring order, at the size of their pictures.
            descriptions: every camera's pipeline, as for gst-launch-1.0, with one appsink.
            matching: how pictures become sets; its patience holds for the first picture too.
            squash: let the rig follow the pictures' size instead.
            masks: folder of ego masks at the size of the pictures (see `with_masks`).
            say: is told, in a line, of cameras that are lost and that come back.

        Errors:
            DeviceError: GStreamer is not there.
            CameraError: a pipeline that cannot be made or started, or gives nothing that we know.
            InputError: pictures of another size than the rig's, or a mask that cannot be used.
        """
        library = load()
        with ExitStack() as undo:
            pipelines = []
            for name in rig.names:
                pipelines.append(Pipeline(library, name, descriptions[name]))
                undo.callback(pipelines[-1].halt)
            for pipeline in pipelines:
                pipeline.ready()
            for pipeline in pipelines:
                pipeline.first(matching.patience_s)
            layouts = tuple(pipeline.placed.layout for pipeline in pipelines)
            followed = following(rig, layouts, masks)
            if not squash:
                _refuse_other_size(rig, followed)
            undo.pop_all()
        clocks = matching.clocks(rig.names)
        rules = matching.rules([pipeline.period_ns for pipeline in pipelines], depth=DEPTH)
        outlet = SetOutlet(clocks, rules)
        thread = PipelineThread(pipelines, outlet, one_ends_all=matching.missing is Missing.DROP)
        super().__init__(followed, layouts, outlet, clocks, thread, matching, name="GStreamer", say=say)


def _refuse_other_size(rig: Rig, followed: Rig) -> None:
    for camera, found in zip(rig.cameras, followed.cameras, strict=True):
        if (camera.width, camera.height) != (found.width, found.height):
            raise InputError(
                f"gives pictures of {found.width}x{found.height}, its calibration is for "
                f"{camera.width}x{camera.height}",
                where=f"pipeline of camera {camera.name}",
                hint="give the rig file of these pictures, or let the pipeline scale them with its caps",
            )
