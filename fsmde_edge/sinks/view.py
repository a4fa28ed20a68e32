"""A live picture of a run for browsers: all views and depth in ring order, and the points from above.

The run hands over its newest set and goes on; a thread of its own makes pictures of it, and only while
somebody looks. Sets that come faster than they can be shown are left out.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.frames import DepthSet, FrameSet
from fsmde_edge.sinks.mosaic import colour_depth, far_end, layout, near_end
from fsmde_edge.sinks.points import CloudMaker, PointChoice
from fsmde_edge.sinks.view_server import ViewServer

MOST_RATE = 15.0
"""Pictures a second that are made at most: what a person sees as moving, and no more work."""

TILE_WIDTH = 320
"""Pixels of a view in the page."""

POINT_COLUMNS = 80
"""Points along a view's width, seen from above."""

QUALITY = 80
PALETTE = 32
"""Colours by which the page draws its scale."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Shown:
    """A set that is to be shown: copies, since sinks keep no array and pictures may be on loan.

    Attributes:
        name: the frame set's.
        seen: which views have a picture.
        ages_ms: camera to the age of its picture when the set came; empty for recordings.
        images, depth_set: copies of what came.
        interval: seconds since the set before; None for the first.
    """

    name: str
    seen: tuple[bool, ...]
    ages_ms: Mapping[str, float]
    images: NDArray[np.uint8]
    depth_set: DepthSet
    interval: float | None


class ViewSink:
    """Serves the page and feeds it."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listen.

        Args:
            host: address to listen at; anything but 127.0.0.1 and ::1 is for those who have the token.
            port: 0 takes a free one.

        Errors:
            OutputError: the address cannot be had.
            MissingExtra: without the package of the extra `view`.
        """
        self._server = ViewServer(host, port, greeting=_greeting())
        self._maker = _Maker()
        self._newest: _Shown | None = None
        self._bell, self._closing = threading.Condition(), False
        self._last_came, self._last_taken = 0.0, 0.0
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._encode, name="view", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Where the page is; with the token where there is one."""
        return self._server.url

    def write(self, frame_set: FrameSet, images: NDArray[np.uint8], depth_set: DepthSet) -> None:
        """Offer a set; it replaces one that nobody has begun to show."""
        if self._failure is not None:
            raise self._failure
        now = time.monotonic()
        interval, self._last_came = (now - self._last_came if self._last_came else None), now
        if not self._server.watchers or now - self._last_taken < 1 / MOST_RATE:
            return
        self._last_taken = now
        ages = frame_set.ages_ns(round(now * 1e9))
        shown = _Shown(
            name=frame_set.name,
            seen=frame_set.valid,
            ages_ms={camera: age / 1e6 for camera, age in ages.items()},
            images=images.copy(),
            depth_set=replace(depth_set, depth=depth_set.depth.copy(), confidence=None),
            interval=interval,
        )
        with self._bell:
            self._newest = shown
            self._bell.notify()

    def close(self) -> None:
        """Tell those who look that the run has ended, and stop listening."""
        with self._bell:
            self._closing = True
            self._bell.notify()
        self._thread.join()
        self._server.close()
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _encode(self) -> None:
        try:
            while (shown := self._next()) is not None:
                self._server.publish(self._maker.message(shown))
        except Exception as error:  # it is the run's to raise it
            self._failure = error

    def _next(self) -> _Shown | None:
        with self._bell:
            self._bell.wait_for(lambda: self._closing or self._newest is not None)
            shown, self._newest = self._newest, None
            return None if self._closing else shown


class _Maker:
    """Sets as messages for the page: a length, JSON, and the pictures one after another."""

    def __init__(self) -> None:
        self._clouds: CloudMaker | None = None
        self._far = 0.0

    def message(self, shown: _Shown) -> bytes:
        depth_set = shown.depth_set
        # Never nearer than before: a colour stays what it is.
        self._far = max(self._far, far_end(depth_set.depth[:, ::4, ::4]))
        pictures, depths, points = self._pictures(shown.images), self._depths(depth_set), self._points(shown)
        head = {
            "set": depth_set.index,
            "name": shown.name,
            "near": near_end(self._far),
            "far": self._far,
            "interval_ms": None if shown.interval is None else shown.interval * 1e3,
            "rows": layout(len(depth_set.cameras)),
            "views": [
                {
                    "camera": camera,
                    "picture": len(picture),
                    "depth": len(depth),
                    "seen": seen,
                    "valid": valid,
                    "age_ms": shown.ages_ms.get(camera),
                }
                for camera, picture, depth, seen, valid in zip(
                    depth_set.cameras,
                    pictures,
                    depths,
                    shown.seen,
                    depth_set.valid or (True,) * len(depths),
                    strict=True,
                )
            ],
            "points": len(points),
        }
        text = json.dumps(head).encode()
        pairs = (part for pair in zip(pictures, depths, strict=True) for part in pair)
        return b"".join((len(text).to_bytes(4, "little"), text, *pairs, points))

    def _pictures(self, images: NDArray[np.uint8]) -> list[bytes]:
        import cv2

        width = min(TILE_WIDTH, images.shape[2])
        size = (width, max(1, images.shape[1] * width // images.shape[2]))
        return [_jpeg(cv2.resize(image, size, interpolation=cv2.INTER_AREA)) for image in images]

    def _depths(self, depth_set: DepthSet) -> list[bytes]:
        """Every nth value, never a mean: there is no depth between two things."""
        step = max(1, depth_set.depth.shape[2] // TILE_WIDTH)
        small = depth_set.depth[:, step // 2 :: step, step // 2 :: step]
        return [_jpeg(colour_depth(depth, self._far)) for depth in small]

    def _points(self, shown: _Shown) -> bytes:
        """Points from above: x and y in centimetres as int16, then red, green, blue."""
        if shown.depth_set.rig is None:
            return b""
        if self._clouds is None:
            stride = max(1, shown.images.shape[2] // POINT_COLUMNS)
            self._clouds = CloudMaker(PointChoice(stride=stride))
        cloud = self._clouds.cloud(shown.images, shown.depth_set)
        near = (np.abs(cloud.xyz[:, :2]) < 320).all(axis=1)
        packed = np.empty(int(near.sum()), [("xy", "<i2", 2), ("rgb", "u1", 3)])
        packed["xy"], packed["rgb"] = np.rint(cloud.xyz[near, :2] * 100), cloud.rgb[near]
        return packed.tobytes()


def _jpeg(image: NDArray[np.uint8]) -> bytes:
    import cv2

    return bytes(cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1])


def _greeting() -> str:
    """What the page is told once: the colours of depth from near to far."""
    metres = np.geomspace(1, 100, PALETTE).astype(np.float32)
    colours: Sequence[Any] = colour_depth(metres[None], 100.0)[0].tolist()
    return json.dumps({"colours": colours})
