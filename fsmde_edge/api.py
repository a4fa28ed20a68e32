"""The library's front door: `import fsmde_edge as fe; for depths in fe.run("bundle", ...): ...`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Literal

from fsmde_edge.bundle import Bundle, open_bundle
from fsmde_edge.capture import Source, open_source
from fsmde_edge.capture.gstreamer.names import is_pipeline
from fsmde_edge.capture.live import LiveOptions, LiveSource, Matching
from fsmde_edge.capture.plugged import plugged_specs, rig_and_offsets
from fsmde_edge.capture.sync import Missing
from fsmde_edge.errors import GateFailed, UsageError
from fsmde_edge.fit import refuse_other_count
from fsmde_edge.frames import DepthSet
from fsmde_edge.sinks.base import Sink

__all__ = ["run"]

Named = str | Path | Sequence[str | Path]


def run(
    bundle: str | Path,
    *,
    source: Named | None = None,
    cameras: Named | None = None,
    rig: str | Path | None = None,
    masks: str | Path | None = None,
    frames: int | None = None,
    precision: str = "auto",
    backend: str = "auto",
    threads: int = 1,
    fit: bool = False,
    missing: Literal["drop", "mask"] = "drop",
    tolerance_ms: float | None = None,
    max_age_ms: float | None = 1000.0,
    patience_s: float = 30.0,
    allow_failed: bool = False,
    sinks: Sequence[Sink] = (),
    say: Callable[[str], None] = lambda _: None,
) -> Iterator[DepthSet]:
    """Metric depth of all views, set by set: the newest of live cameras, every one of a recording.

    A generator: it opens everything at the first set, and closes it at the end, at `break`, and when an
    exception passes. Where that must not wait for the collector, hold it in `contextlib.closing`.

        import fsmde_edge as fe

        for depths in fe.run("bundle", cameras="/dev/video0-5", rig="rig.yaml"):
            print(depths.cameras[0], depths.depth[0].mean(), "m")

    Args:
        bundle: its folder.
        source: "synthetic", a data set, a recording, video files, or GStreamer pipelines (see `open_source`).
        cameras: V4L2 devices in ring order, `CAMERA=DEVICE`, or a rig file that names them; this or `source`.
        rig: the rig file of devices, video files or pipelines; without one, devices and pipelines are taken
            as the bundle's own views.
        masks: folder of ego masks.
        frames: at most this many sets; None for all.
        precision, backend, threads: of the session (see `open_session`).
        fit: rectify each camera into the bundle's own view.
        missing: a live set that lacks a camera is dropped, or its view is marked invalid.
        tolerance_ms: most time between the first and the last exposure of a live set; one period if None.
        max_age_ms: depth of older live pictures is marked invalid; no limit if None.
        patience_s: without a live set for so long, it gives up.
        allow_failed: run a bundle whose gate did not pass.
        sinks: get every set, its pictures too, before it is yielded; the caller closes them.
        say: is told, in a line, of cameras that are lost and that come back.

    Yields:
        Depth float32 [V, H, W] in metres along each camera's optical axis, 0 where `valid` is False.

    Raises:
        FsmdeError: whatever a user can cause, with what to do next; its subclass says what kind.
    """
    from fsmde_edge.inference.backends import open_session
    from fsmde_edge.runtime import depth_sets

    opened = open_bundle(Path(bundle))
    if precision != "fp32" and not (opened.int8_accepted or allow_failed):
        raise GateFailed(
            f"this bundle's gate is {opened.verdict}: its INT8 depth is not known to be its FP32 depth",
            where=opened.root,
            hint="run it with precision='fp32', or with allow_failed=True if you know why",
        )
    matching = Matching(tolerance_ms=tolerance_ms, missing=Missing(missing), patience_s=patience_s)
    rig_file = None if rig is None else Path(rig)
    if (source is None) == (cameras is None):
        raise UsageError("neither cameras nor a source, or both", hint="give cameras=... or source=...")
    if cameras is not None:
        pictures: Source = _cameras(opened, _listed(cameras), rig_file, masks, matching, say)
    else:
        assert source is not None
        pictures = _source(opened, _listed(source), rig_file, masks, frames, matching, say)
    with closing(pictures):
        chosen = open_session(opened, precision=precision, backend=backend, threads=threads)
        with chosen.session as session:
            made = depth_sets(
                pictures,
                session,
                opened.manifest,
                threads=threads,
                fit=fit,
                max_age_ms=max_age_ms,
                mask_unreadable=missing == "mask",
                sinks=sinks,
            )
            yield from islice(made, frames)


def _listed(named: Named) -> list[str]:
    return [str(named)] if isinstance(named, (str, Path)) else [str(each) for each in named]


def _cameras(
    bundle: Bundle,
    specs: list[str],
    rig_file: Path | None,
    masks: str | Path | None,
    matching: Matching,
    say: Callable[[str], None],
) -> LiveSource:
    from fsmde_edge.capture.devices import name_cameras

    if rig_file is None and len(specs) == 1 and Path(specs[0]).suffix.lower() in {".yaml", ".yml"}:
        rig_file, specs = Path(specs[0]), []
    rig, offsets = rig_and_offsets(rig_file, bundle.manifest.views)
    refuse_other_count(rig, bundle.manifest)
    devices = name_cameras(specs or plugged_specs(rig_file), rig.names)
    options = LiveOptions(
        tolerance_ms=matching.tolerance_ms,
        missing=matching.missing,
        patience_s=matching.patience_s,
        offsets_ms=offsets,
    )
    where = None if masks is None else Path(masks)
    return LiveSource(rig, devices, options, squash=rig_file is None, masks=where, say=say)


def _source(
    bundle: Bundle,
    specs: list[str],
    rig_file: Path | None,
    masks: str | Path | None,
    frames: int | None,
    matching: Matching,
    say: Callable[[str], None],
) -> Source:
    from dataclasses import replace

    from fsmde_edge.datasets.rigfile import load_rig

    if not any(is_pipeline(spec) for spec in specs):
        height, width = bundle.manifest.size
        rig = None if rig_file is None else load_rig(rig_file)
        return open_source(specs, size=(width, height), rig=rig, masks=masks, sets=frames)
    rig, offsets = rig_and_offsets(rig_file, bundle.manifest.views)
    refuse_other_count(rig, bundle.manifest)
    matching = replace(matching, offsets_ms=offsets)
    return open_source(specs, rig=rig, squash=rig_file is None, masks=masks, matching=matching, say=say)
