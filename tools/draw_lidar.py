"""Draw a data set's LiDAR over its pictures, to see with one's own eyes that the projection is right.

    python tools/draw_lidar.py DATASET --out lidar.png [--scene NAME] [--index N]

Points are coloured by depth (red near, blue far, as in mosaics) over the dimmed pictures of all cameras,
in ring order: front in the middle of the top row. Mind the data's licence before you share a picture.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from fsmde_edge.datasets import open_dataset
from fsmde_edge.errors import FsmdeError
from fsmde_edge.files import atomic_write
from fsmde_edge.frames import Sample
from fsmde_edge.sinks.mosaic import colour_depth, far_end, layout, near_end


def draw(sample: Sample, *, width: int, radius: int, far: float) -> NDArray[np.uint8]:
    """All views of a sample in two rows, uint8 [H, W, 3] RGB, each `width` pixels wide."""
    views = [
        _overlay(frame.image, sample.depth[frame.camera], frame.camera, width, radius, far)
        for frame in sample.frame_set.frames
    ]
    height = max(view.shape[0] for view in views)
    rows = [row for row in layout(len(views)) if row]
    longest = max(len(row) for row in rows) * width
    canvas = np.zeros((height * len(rows), longest, 3), dtype=np.uint8)
    for number, row in enumerate(rows):
        left = (longest - len(row) * width) // 2
        for place, view in enumerate(row):
            tile = views[view]
            x, y = left + place * width, number * height
            canvas[y : y + tile.shape[0], x : x + width] = tile
    return canvas


def _overlay(
    image: NDArray[np.uint8], depth: NDArray[np.float32], name: str, width: int, radius: int, far: float
) -> NDArray[np.uint8]:
    height = round(image.shape[0] * width / image.shape[1])
    grey = cv2.cvtColor(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
    out = np.ascontiguousarray(np.repeat((grey * 0.6).astype(np.uint8)[..., None], 3, axis=2))
    rows, columns = np.nonzero(depth)
    order = np.argsort(-depth[rows, columns])  # near points are drawn last
    rows, columns = rows[order], columns[order]
    colours = colour_depth(depth[rows, columns][None], far)[0]
    for row, column, colour in zip(rows, columns, colours.tolist(), strict=True):
        centre = (int(column * width / image.shape[1]), int(row * height / image.shape[0]))
        cv2.circle(out, centre, radius, colour, -1)
    label = f"{name}: {len(rows)} points, colours {near_end(far):g} to {far:g} m"
    cv2.putText(out, label, (12, 28), cv2.FONT_HERSHEY_SIMPLEX, 0.7, (255, 255, 255), 2, cv2.LINE_AA)
    return out


def main(arguments: list[str] | None = None) -> int:
    """Parse, draw one sample, write one picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scene", action="append", help="keep this scene (repeatable)")
    parser.add_argument("--camera", action="append", help="keep this camera (repeatable)")
    parser.add_argument("--index", type=int, default=0, help="which sample")
    parser.add_argument("--width", type=int, default=960, help="width of one view in pixels")
    parser.add_argument("--radius", type=int, default=1, help="of a point, in pixels")
    args = parser.parse_args(arguments)
    try:
        sample = open_dataset(args.dataset, scenes=args.scene, cameras=args.camera)[args.index]
        far = far_end(np.concatenate([depth.ravel() for depth in sample.depth.values()]))
        picture = draw(sample, width=args.width, radius=args.radius, far=far)
        atomic_write(args.out, bytes(cv2.imencode(args.out.suffix or ".png", picture[..., ::-1])[1]))
    except FsmdeError as error:
        print(f"draw_lidar: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
