"""Cameras as a source: sets of raw pictures where their drivers wrote them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from fsmde_edge.capture.clock import StampClock
from fsmde_edge.capture.sync import CapturedSet, Missing, Rules, SetOutlet
from fsmde_edge.capture.tending import CameraReport
from fsmde_edge.capture.v4l2.camera import Settings, begin_cameras, prepare_cameras
from fsmde_edge.capture.v4l2.errors import CameraError
from fsmde_edge.capture.v4l2.kernel import Kernel
from fsmde_edge.capture.v4l2.loop import CaptureThread
from fsmde_edge.datasets.masks import with_masks
from fsmde_edge.frames import Clock, ExposurePoint, FrameSet, RawFrame, Stamp
from fsmde_edge.preprocessing.raw import RawLayout
from fsmde_edge.rig import Camera as RigCamera
from fsmde_edge.rig import Rig

KEPT_BACK = 4
"""Buffers of each camera beside those that wait for a set: one in the set that is ready, one in the set that
is being looked at, two with the driver."""

LISTEN = 0.05
"""Seconds after which a reader that waits for a set looks whether it is to stop."""

NEWEST = 500
"""Sets of which it is remembered how far a camera lay behind the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Matching:
    """How pictures become frame sets.

    Attributes:
        tolerance_ms: between the earliest and the latest picture of a set; one period if None.
        missing: what becomes of a set that lacks a camera.
        patience_s: without a set for so long, the source gives up.
        offsets_ms: camera to what is added to its stamps.
    """

    tolerance_ms: float | None = None
    missing: Missing = Missing.DROP
    patience_s: float = 30.0
    offsets_ms: Mapping[str, float] = field(default_factory=dict)

    def clocks(self, cameras: Sequence[str]) -> dict[str, StampClock]:
        """A clock for each camera's stamps."""
        return {name: StampClock(offset_ns=round(self.offsets_ms.get(name, 0) * 1e6)) for name in cameras}

    def rules(self, periods_ns: Sequence[int | None], *, depth: int) -> Rules:
        """What makes a set of cameras with these periods, where they are known."""
        known = [period for period in periods_ns if period]
        return Rules(
            tolerance_ns=None if self.tolerance_ms is None else round(self.tolerance_ms * 1e6),
            missing=self.missing,
            depth=depth,
            **({"period_ns": max(known)} if known else {}),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveOptions(Matching):
    """How V4L2 cameras are run.

    Attributes:
        settings: of every camera; its size is the rig's own where a camera has a calibration.
    """

    settings: Settings = field(default_factory=Settings)


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveReport:
    """One camera in a run.

    Attributes:
        camera: what the capture thread knows.
        bytes_per_set: of its picture.
        behind_ms: usual time from the first exposure of a set to this camera's; None without a set.
        delay_ms: usual time from its stamp to its arrival; None without a picture.
        foreign_clock: whether its stamps are not CLOCK_MONOTONIC's, so that their offset was measured.
        exposure: what its instants mark.
    """

    camera: CameraReport
    bytes_per_set: int
    behind_ms: float | None
    delay_ms: float | None
    foreign_clock: bool
    exposure: ExposurePoint


class Capturing(Protocol):
    """What drives cameras on a thread of its own and puts their pictures into an outlet."""

    def start(self) -> None:
        """Let pictures come."""

    def stop(self) -> None:
        """End the thread, close cameras and outlet; may be called twice. Raises what ended the thread."""

    def away(self) -> dict[str, str | None]:
        """Camera → why it gives nothing; None for those that do."""

    def reports(self) -> list[CameraReport]:
        """What each camera did so far, in ring order."""


class LiveSets:
    """Frame sets of cameras of one kind: the newest, on loan, never two at a time; iterate once."""

    def __init__(
        self,
        rig: Rig,
        layouts: tuple[RawLayout, ...],
        outlet: SetOutlet,
        clocks: Mapping[str, StampClock],
        capturing: Capturing,
        matching: Matching,
        *,
        name: str,
        say: Callable[[str], None],
    ) -> None:
        """Take over cameras that are open; pictures come once it is iterated.

        Args:
            rig: the cameras, in ring order, at the size of their pictures.
            layouts: how their pictures lie.
            outlet: makes the sets.
            clocks: of each camera, as the outlet has them.
            capturing: fills the outlet.
            matching: how the sets are made, and how long one is waited for.
            name: what it is.
            say: is told, in a line, of cameras that are lost and that come back.
        """
        self._rig, self._layouts, self._outlet, self._clocks = rig, layouts, outlet, clocks
        self._thread, self._matching, self._name, self._say = capturing, matching, name, say
        self._behind: dict[str, deque[int]] = {name: deque(maxlen=NEWEST) for name in rig.names}
        self._lent: CapturedSet | None = None
        self._stopping = False
        self._told: dict[str, bool] = dict.fromkeys(rig.names, False)
        self.while_waiting: Callable[[], None] = lambda: None
        """Called several times a second while a set is waited for."""

    @property
    def name(self) -> str:
        """What it is."""
        return self._name

    @property
    def rig(self) -> Rig:
        """The cameras."""
        return self._rig

    @property
    def drops(self) -> Mapping[str, Mapping[str, int]]:
        """Pictures that never became part of a set that was looked at: camera → cause → number."""
        return {report.name: report.drops for report in self._thread.reports()}

    @property
    def layouts(self) -> tuple[RawLayout, ...]:
        """How the pictures lie, in ring order."""
        return self._layouts

    def __iter__(self) -> Iterator[FrameSet]:
        """Let pictures come and yield the newest set each time; the one before is given back.

        Errors:
            CameraError: no set came for `patience_s`.
        """
        self._thread.start()
        index = 0
        while (taken := self._wait()) is not None:
            self._lent = taken
            yield self._frame_set(taken, index)
            taken.release()
            index += 1

    def stop(self) -> None:
        """Wait for no further set."""
        self._stopping = True

    def close(self) -> None:
        """Close the cameras; may be called twice.

        Raises:
            Whatever ended the capture thread, if anything did.
        """
        if self._lent is not None:
            self._lent.release()
        self._thread.stop()

    def reports(self) -> list[LiveReport]:
        """What each camera did so far, in ring order."""
        return [
            LiveReport(
                camera=report,
                bytes_per_set=layout.size or layout.buffer,
                behind_ms=_median_ms(self._behind[report.name]),
                delay_ms=None if clock.delay_ns is None else clock.delay_ns / 1e6,
                foreign_clock=clock.foreign_ns is not None,
                exposure=clock.point,
            )
            for report, layout, clock in zip(
                self._thread.reports(), self._layouts, self._clocks.values(), strict=True
            )
        ]

    def _wait(self) -> CapturedSet | None:
        give_up = time.monotonic() + self._matching.patience_s
        while not self._stopping:
            taken = self._outlet.take(LISTEN)
            self._tell()
            self.while_waiting()
            if taken is not None:
                return taken
            if not self._outlet.is_open:
                self._thread.stop()  # raises what ended it
                return None
            if time.monotonic() > give_up:
                raise self._nothing()
        return None

    def _tell(self) -> None:
        """Say which cameras were lost and came back, once each."""
        for camera, away in self._thread.away().items():
            if (away is not None) is not self._told[camera]:
                self._told[camera] = away is not None
                self._say(f"camera {camera} is back" if away is None else f"camera {camera} is lost: {away}")

    def _nothing(self) -> CameraError:
        """Why no set comes, and what to do."""
        patience = f"no frame set came for {self._matching.patience_s:g} s"
        away = {camera: why for camera, why in self._thread.away().items() if why is not None}
        if away:
            camera, why = next(iter(away.items()))
            go_on = len(away) < len(self._clocks) and self._matching.missing is Missing.DROP
            hint = "check cables and power" + (", or go on without it: --missing mask" if go_on else "")
            return CameraError(f"{patience}: {len(away)} of {len(self._clocks)} cameras are lost, "
                               f"{camera} because: {why}", hint=hint)  # fmt: skip
        return CameraError(
            f"{patience}: the cameras give pictures, but not of one instant",
            hint="raise --tolerance, or write their offset_ms into the rig file",
        )

    def _frame_set(self, taken: CapturedSet, index: int) -> FrameSet:
        known = [instant for instant in taken.instants_ns if instant is not None]
        earliest = min(known)
        frames = []
        for camera, captured, instant, layout in zip(
            self._rig.names, taken.pictures, taken.instants_ns, self._layouts, strict=True
        ):
            if captured is None or instant is None:
                frames.append(RawFrame(camera=camera, raw=None, layout=layout, stamp=_stamp(earliest)))
                continue
            self._behind[camera].append(instant - earliest)
            frames.append(
                RawFrame(
                    camera=camera,
                    raw=captured.lease.view(),
                    layout=layout,
                    stamp=_instant(captured.stamp, instant, self._clocks[camera].point),
                    sequence=captured.sequence,
                )
            )
        return FrameSet(
            frames=tuple(frames),
            index=index,
            name=f"{self.name}/{index:06d}",
            loan=taken,
            realtime_offset_ns=time.time_ns() - time.monotonic_ns(),
        )


class LiveSource(LiveSets):
    """Frame sets of V4L2 cameras (see `LiveSets`)."""

    def __init__(
        self,
        rig: Rig,
        devices: Mapping[str, str],
        options: LiveOptions,
        *,
        squash: bool = False,
        masks: Path | None = None,
        kernel: Kernel | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Open every camera and set its format; pictures come once it is iterated.

        Args:
            rig: the cameras, in ring order, at the size of their pictures.
            devices: every camera's node.
            options: how they are run.
            squash: let the rig follow the pictures' size instead, for a rig that is given at another size
                (such as a bundle's own views); the size is that of the options then.
            masks: folder of ego masks at the size of the pictures (see `with_masks`).
            kernel: a fake; the operating system if None.
            say: is told, in a line, of cameras that are lost and that come back.

        Errors:
            CameraError: a camera cannot be opened, or does not give what was asked for.
            InputError: a mask that cannot be used.
        """
        wanted = options.settings
        settings = {
            camera.name: wanted if squash else replace(wanted, size=(camera.width, camera.height))
            for camera in rig.cameras
        }
        paths = {name: devices[name] for name in rig.names}
        self._cameras = prepare_cameras(paths, settings, kernel=kernel)
        layouts = tuple(camera.layout for camera in self._cameras)
        with ExitStack() as undo:
            for camera in self._cameras:
                undo.callback(camera.close)
            followed = following(rig, layouts, masks)
            undo.pop_all()
        clocks = options.clocks(rig.names)
        periods = [camera.period_ns for camera in self._cameras]
        depth = max(2, wanted.buffers - KEPT_BACK)
        outlet = SetOutlet(clocks, options.rules(periods, depth=depth))
        thread = CaptureThread(self._cameras, outlet)
        super().__init__(followed, layouts, outlet, clocks, thread, options, name="cameras", say=say)

    def __iter__(self) -> Iterator[FrameSet]:
        """Start the cameras, then as `LiveSets`.

        Errors:
            CameraError: a camera cannot be started, or no set came for `patience_s`.
        """
        begin_cameras(self._cameras)
        yield from super().__iter__()


def following(rig: Rig, layouts: Sequence[RawLayout], masks: Path | None) -> Rig:
    """The rig at the size of its pictures, with its ego masks.

    Errors:
        InputError: a mask that cannot be used.
    """
    followed = Rig(tuple(_at_size(*pair) for pair in zip(rig.cameras, layouts, strict=True)))
    return followed if masks is None else with_masks(followed, "", given=masks, own=masks)


def _at_size(camera: RigCamera, layout: RawLayout) -> RigCamera:
    size = (layout.width, layout.height)
    return camera if size == (camera.width, camera.height) else camera.scaled(*size)


def _stamp(instant_ns: int, point: ExposurePoint = ExposurePoint.UNKNOWN) -> Stamp:
    return Stamp(instant_ns, Clock.MONOTONIC, point)


def _instant(driver: Stamp, instant_ns: int, point: ExposurePoint) -> Stamp:
    """The driver's own stamp where it says the same."""
    same = driver.ns == instant_ns and driver.exposure is point and driver.clock is Clock.MONOTONIC
    return driver if same else _stamp(instant_ns, point)


def _median_ms(values: Sequence[int]) -> float | None:
    return sorted(values)[len(values) // 2] / 1e6 if values else None
