"""All views of one instant in one picture: each camera's picture above its depth, with a scale of metres."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.errors import InputError, OutputError, UsageError, writing
from fsmde_edge.files import atomic_file, atomic_write, make_folder
from fsmde_edge.frames import DepthSet, FrameSet

Picture = NDArray[np.uint8]

_FAR = (10.0, 20.0, 40.0, 60.0, 80.0, 100.0, 150.0, 200.0, 250.0)
_TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500)
_BACKGROUND = 24
_NO_DEPTH = 45
_OWN_VEHICLE = 90


def mosaic(
    images: Picture,
    depth: NDArray[np.float32],
    cameras: Sequence[str],
    *,
    max_depth: float | None = None,
    masks: Sequence[NDArray[np.bool_] | None] | None = None,
) -> Picture:
    """One picture of all views, as a driver would look around: front in the middle of the top row.

    Args:
        images: uint8 [V, H, W, 3], RGB, in ring order.
        depth: float32 [V, H, W], metres; 0, negative or not finite is drawn as none.
        cameras: the views' names.
        max_depth: end of the colour scale in metres; chosen from the depth if None.
        masks: per view bool [H, W] or None: False (own vehicle) is drawn grey.

    Returns:
        uint8 [H', W', 3], RGB.
    """
    if not len(images) == len(depth) == len(cameras) or images.shape[1:3] != depth.shape[1:]:
        raise InputError(
            f"pictures {images.shape}, depth {depth.shape} and {len(cameras)} names do not go together"
        )
    far = max_depth or far_end(depth)
    tiles = []
    for view, camera in enumerate(cameras):
        coloured = colour_depth(depth[view], far)
        mask = None if masks is None else masks[view]
        if mask is not None:
            coloured[~mask] = _OWN_VEHICLE
        tiles.append(_tile(images[view], coloured, camera))
    grid = _grid(tiles)
    return np.concatenate((grid, _scale_bar(grid.shape[1], tiles[0].shape[0], far)))


def far_end(depth: NDArray[np.float32]) -> float:
    """The end of the colour scale in metres: a round number that 98 % of the depth values stay below."""
    values = depth[np.isfinite(depth) & (depth > 0)]
    typical = float(np.percentile(values, 98)) if values.size else 0.0
    return next((far for far in _FAR if far >= typical), _FAR[-1])


def colour_depth(depth: NDArray[np.float32], far: float) -> Picture:
    """Depth as colours of the turbo map on a logarithmic scale: red is near, blue is far.

    Args:
        depth: float32 [H, W], metres; 0, negative or not finite becomes dark grey.
        far: metres at the blue end; the red end is `near_end(far)`.

    Returns:
        uint8 [H, W, 3], RGB.
    """
    there = np.isfinite(depth) & (depth > 0)
    near = near_end(far)
    position = np.log(np.where(there, depth, far) / near) / np.log(far / near)
    colours = _turbo(1 - np.clip(position, 0, 1))
    colours[~there] = _NO_DEPTH
    return colours


def near_end(far: float) -> float:
    """The near end of the colour scale that ends at `far`, metres."""
    return min(1.0, far / 20)


def layout(views: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Which views stand in the top and the bottom row, from left to right.

    Views come in ring order (counter-clockwise from the front), so the top row is front-left, front,
    front-right, and the bottom row goes on from the left over the back to the right. The top row has the
    smallest odd number that is at least half of the views; six become 1 0 5 above 2 3 4.
    """
    top = (views + 1) // 2 | 1
    side = min(top, views) // 2
    right = [views - 1 - step for step in range(side)][: max(0, views - 1 - side)]
    upper = (*range(side, 0, -1), 0, *right)
    return upper, tuple(view for view in range(views) if view not in upper)


def _turbo(values: NDArray[np.floating]) -> Picture:
    """Values [H, W] in 0..1 as RGB of the turbo map."""
    import cv2

    table = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[None], cv2.COLORMAP_TURBO)[0, :, ::-1]
    return np.asarray(table[np.rint(values * 255).astype(np.uint8)], dtype=np.uint8)


def _tile(image: Picture, coloured: Picture, name: str) -> Picture:
    import cv2

    tile = np.concatenate((image, coloured))
    size = max(0.35, image.shape[0] / 420)
    thick = max(1, round(2 * size))
    (_, high), _ = cv2.getTextSize(name, cv2.FONT_HERSHEY_SIMPLEX, size, thick)
    place = (high // 2 + 3, high + high // 2 + 3)
    _write(tile, name, place, size, thick)
    return np.pad(tile, ((1, 1), (1, 1), (0, 0)), constant_values=_BACKGROUND)


def _write(picture: Picture, text: str, place: tuple[int, int], size: float, thick: int) -> None:
    """White letters on a darkened plate, readable on anything."""
    import cv2

    (wide, high), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, thick)
    edge = high // 3 + 1
    left, base = place
    plate = picture[
        max(0, base - high - edge) : base + below // 2 + edge, max(0, left - edge) : left + wide + edge
    ]
    plate //= 3
    cv2.putText(picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, size, (255, 255, 255), thick, cv2.LINE_AA)


def _grid(tiles: Sequence[Picture]) -> Picture:
    upper, lower = layout(len(tiles))
    height, width = tiles[0].shape[:2]
    rows = [row for row in (upper, lower) if row]
    total = max(len(row) for row in rows) * width
    grid = np.full((height * len(rows), total, 3), _BACKGROUND, dtype=np.uint8)
    for number, row in enumerate(rows):
        left = (total - len(row) * width) // 2
        for place, view in enumerate(row):
            x = left + place * width
            grid[number * height : (number + 1) * height, x : x + width] = tiles[view]
    return grid


def _scale_bar(width: int, tile_height: int, far: float) -> Picture:
    """A strip with the colour scale, ticks in metres and the unit."""
    import cv2

    size = max(0.35, tile_height / 1100)
    thick = max(1, round(1.6 * size))
    (_, high), _ = cv2.getTextSize("0", cv2.FONT_HERSHEY_SIMPLEX, size, thick)
    margin, bar = 2 * high, 2 * high
    strip = np.full((bar + 5 * high, width, 3), _BACKGROUND, dtype=np.uint8)
    near = near_end(far)
    (unit_width, _), _ = cv2.getTextSize("depth [m]", cv2.FONT_HERSHEY_SIMPLEX, size, thick)
    left, right = margin, max(margin + 2, width - margin - unit_width - high)
    strip[high : high + bar, left:right] = _turbo(1 - np.linspace(0, 1, right - left)[None].repeat(bar, 0))
    edge = left
    for metres in sorted({near, far, *(tick for tick in _TICKS if near < tick < far)}):
        x = left + round((right - left - 1) * float(np.log(metres / near) / np.log(far / near)))
        cv2.line(strip, (x, high), (x, high + bar + high // 2), (255, 255, 255), thick)
        text = f"{metres:g}"
        (wide, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, thick)
        if x - wide // 2 >= edge or metres == near:
            _write(strip, text, (max(0, x - wide // 2), 3 * high + bar), size, thick)
            edge = x + wide // 2 + high
    _write(strip, "depth [m]", (right + high, high + (bar + high) // 2), size, thick)
    return strip


class MosaicPng:
    """The mosaic of one frame set as a picture file: the last one (default) or the first."""

    def __init__(
        self,
        path: Path,
        *,
        first: bool = False,
        max_depth: float | None = None,
        masks: Sequence[NDArray[np.bool_] | None] | None = None,
    ) -> None:
        """Make the file's folder.

        Errors:
            OutputError: where the folder cannot be made.
        """
        make_folder(path.parent)
        self._path, self._first, self._max_depth, self._masks = path, first, max_depth, masks
        self._kept: tuple[Picture, NDArray[np.float32], tuple[str, ...]] | None = None

    def write(self, frame_set: FrameSet, images: Picture, depth_set: DepthSet) -> None:  # noqa: ARG002
        """Keep a copy of the set that will be drawn."""
        if self._kept is None or not self._first:
            self._kept = (images.copy(), depth_set.depth.copy(), depth_set.cameras)

    def close(self) -> None:
        """Draw and write the kept set."""
        import cv2

        kept, self._kept = self._kept, None
        if kept is None:
            return
        picture = mosaic(*kept, max_depth=self._max_depth, masks=self._masks)
        atomic_write(self._path, bytes(cv2.imencode(".png", picture[..., ::-1])[1]))


class MosaicVideo:
    """The mosaics of all frame sets as an MPEG-4 video; the first set fixes the colour scale."""

    def __init__(
        self,
        path: Path,
        *,
        fps: float = 10.0,
        max_depth: float | None = None,
        masks: Sequence[NDArray[np.bool_] | None] | None = None,
    ) -> None:
        """Make the file's folder.

        Errors:
            OutputError: where the folder cannot be made.
        """
        make_folder(path.parent)
        self._path, self._fps, self._max_depth, self._masks = path, fps, max_depth, masks
        self._stack = ExitStack()
        self._writer: _Mp4 | None = None

    def write(self, frame_set: FrameSet, images: Picture, depth_set: DepthSet) -> None:  # noqa: ARG002
        """Draw one set and append it."""
        self._max_depth = self._max_depth or far_end(depth_set.depth)
        picture = mosaic(
            images, depth_set.depth, depth_set.cameras, max_depth=self._max_depth, masks=self._masks
        )
        if self._writer is None:
            temporary = self._stack.enter_context(atomic_file(self._path))
            try:
                self._writer = _Mp4(temporary, self._path, self._fps, picture)
            except OutputError as error:
                self._stack.__exit__(type(error), error, error.__traceback__)
                raise
        self._writer.append(picture)

    def close(self) -> None:
        """Finish the file; it appears under its name only if every picture arrived in it."""
        writer, self._writer = self._writer, None
        if writer is None:
            return
        try:
            writer.finish()
        except OutputError as error:
            self._stack.__exit__(type(error), error, error.__traceback__)
            raise
        self._stack.close()


class _Mp4:
    """OpenCV's video writer, which reports no errors, with the checks that find them."""

    def __init__(self, file: Path, name: Path, fps: float, picture: Picture) -> None:
        import cv2

        with writing(name):
            file.touch()  # tells a disk that refuses from an encoder that is missing
        self._file, self._name, self._count = file, name, 0
        self._size = (picture.shape[1] + picture.shape[1] % 2, picture.shape[0] + picture.shape[0] % 2)
        code = cv2.VideoWriter.fourcc(*"mp4v")
        self._writer = cv2.VideoWriter(str(file), code, fps, self._size)
        if not self._writer.isOpened():
            raise OutputError(
                "cannot be written: this OpenCV has no MPEG-4 encoder (mp4v)",
                where=name,
                hint="write a .png mosaic instead",
            )

    def append(self, picture: Picture) -> None:
        width, height = self._size
        even = np.pad(picture, ((0, height - picture.shape[0]), (0, width - picture.shape[1]), (0, 0)))
        self._writer.write(np.ascontiguousarray(even[..., ::-1]))
        self._count += 1

    def finish(self) -> None:
        import cv2

        self._writer.release()
        video = cv2.VideoCapture(str(self._file))
        arrived = int(video.get(cv2.CAP_PROP_FRAME_COUNT)) if video.isOpened() else 0
        video.release()
        if arrived < self._count:
            raise OutputError(
                f"only {arrived} of {self._count} pictures could be written",
                where=self._name,
                hint="free some space on that disk and run again; nothing was left half-written",
            )


def mosaic_sink(
    path: Path,
    *,
    max_depth: float | None = None,
    masks: Sequence[NDArray[np.bool_] | None] | None = None,
    fps: float = 10.0,
) -> MosaicPng | MosaicVideo:
    """The sink for a mosaic file, by its ending: .png (the last set) or .mp4 (all sets).

    Errors:
        UsageError: another ending.
    """
    if path.suffix.lower() == ".png":
        return MosaicPng(path, max_depth=max_depth, masks=masks)
    if path.suffix.lower() == ".mp4":
        return MosaicVideo(path, fps=fps, max_depth=max_depth, masks=masks)
    raise UsageError(
        f"a mosaic cannot be a {path.suffix or 'file without ending'}", where=path, hint="use .png or .mp4"
    )
