"""Published evaluation protocols, every switch explicit; only `deploy` may stand beside a latency.

Sources: the evaluation code of SurroundDepth (Wei et al., CoRL 2022) and VFDepth (Kim et al., RA-L 2022),
as summarised in the design's table.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.errors import InputError
from fsmde_edge.evaluation.metrics import DISTANCE_BANDS, DepthMetrics, depth_metrics, mean_metrics
from fsmde_edge.evaluation.sampling import at_pixels, lidar_pixels
from fsmde_edge.frames import Sample
from fsmde_edge.rig import Camera

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """How predictions meet ground truth.

    Attributes:
        name: of the preset.
        at: `native` compares at the picture's own size, prediction upsampled bilinearly; `network`
            compares at network size, LiDAR moved down (where returns share a pixel, the last in row order
            stays: the cloud's order is not kept in a depth map).
        valid: ground truth counts between these metres, both exclusive.
        clamp: predictions are clamped to these metres, or None.
        ego_mask: whether pixels on the own vehicle are left out.
        flip: whether a mirrored second pass is averaged in, over inverse depths.
        pool: `image` (metrics an image, mean over images, then cameras) or `batch` (pixels of
            `batch_size` samples a camera pooled, mean over cameras, then over batches).
        batch_size: samples pooled by `batch`.
    """

    name: str
    at: Literal["native", "network"]
    valid: tuple[float, float]
    clamp: tuple[float, float] | None
    ego_mask: bool
    flip: bool
    pool: Literal["image", "batch"]
    batch_size: int = 1

    def up_to(self, metres: float) -> Protocol:
        """The same protocol with another largest depth (nuScenes: 80 m)."""
        clamp = None if self.clamp is None else (self.clamp[0], metres)
        return replace(self, valid=(self.valid[0], metres), clamp=clamp)


PROTOCOLS: Mapping[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            name="surrounddepth",
            at="native",
            valid=(0.1, 200.0),
            clamp=(0.1, 200.0),
            ego_mask=False,
            flip=True,
            pool="image",
        ),
        Protocol(
            name="vfdepth",
            at="network",
            valid=(0.0, 200.0),
            clamp=(0.0, 200.0),
            ego_mask=True,
            flip=False,
            pool="batch",
            batch_size=4,
        ),
        Protocol(
            name="deploy",
            at="native",
            valid=(0.1, 200.0),
            clamp=None,
            ego_mask=True,
            flip=False,
            pool="image",
        ),
    )
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ViewErrors:
    """Paired values of one view: what metrics are made of.

    Attributes:
        camera: its name.
        depth, truth: float64 [N], metres.
    """

    camera: str
    depth: Values
    truth: Values


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """A protocol's result.

    Attributes:
        cameras: camera (or `mean`) to metrics.
        distances: band of ground truth, as "0-10", to metrics over all its pixels; bands without any are
            absent.
        images: views with ground truth.
    """

    cameras: Mapping[str, DepthMetrics]
    distances: Mapping[str, DepthMetrics]
    images: int


def pair(
    depth: NDArray[np.float32], truth: NDArray[np.float32], camera: Camera, protocol: Protocol
) -> ViewErrors:
    """Pair one view's prediction with its LiDAR, as the protocol says.

    Args:
        depth: float32 [h, w] at network size, metres.
        truth: float32 [H, W] at the picture's size, metres, 0 = none.
        camera: the camera at the picture's size.
        protocol: the switches.
    """
    if protocol.at == "network":
        camera = camera.scaled(depth.shape[1], depth.shape[0])
        truth = moved_down(truth, depth.shape)
    if protocol.ego_mask and camera.ego_mask is not None:
        truth = np.where(camera.ego_mask, truth, np.float32(0))
    truth = np.where((truth > protocol.valid[0]) & (truth < protocol.valid[1]), truth, np.float32(0))
    u, v, metres = lidar_pixels(truth)
    values = at_pixels(depth, u, v, truth.shape)
    if protocol.clamp is not None:
        values = np.clip(values, *protocol.clamp)
    return ViewErrors(camera=camera.name, depth=values, truth=metres)


def pair_set(depth: NDArray[np.float32], sample: Sample, protocol: Protocol) -> list[ViewErrors]:
    """Pair every view of a sample that has LiDAR; depth is float32 [V, h, w] in ring order."""
    return [
        pair(depth[i], sample.depth[camera.name], camera, protocol)
        for i, camera in enumerate(sample.rig.cameras)
        if camera.name in sample.depth
    ]


def summarise(sets: Sequence[Sequence[ViewErrors]], protocol: Protocol, *, where: object = None) -> Accuracy:
    """Average as the protocol does.

    Args:
        sets: per sample, its views' paired values.
        protocol: the switches.
        where: what was measured, for messages.

    Raises:
        InputError: no view has a single valid return.
    """
    size = protocol.batch_size if protocol.pool == "batch" else 1
    batches = [_by_camera(sets[i : i + size]) for i in range(0, len(sets), size)]
    rows: dict[str, list[DepthMetrics]] = defaultdict(list)
    for batch in batches:
        for camera, (depth, truth) in batch.items():
            rows[camera].append(depth_metrics(depth, truth))
    if not rows:
        low, high = protocol.valid
        raise InputError(
            f"no picture has LiDAR between {low:g} and {high:g} m: nothing can be measured",
            where=where,
            hint="raise --max-depth, or give other frames",
        )
    cameras = {camera: mean_metrics(metrics) for camera, metrics in rows.items()}
    if protocol.pool == "image":
        mean = mean_metrics(cameras.values())
    else:
        present = [batch for batch in batches if batch]
        mean = mean_metrics(mean_metrics(depth_metrics(*p) for p in batch.values()) for batch in present)
    views = [view for views in sets for view in views if view.truth.size]
    return Accuracy(cameras={**cameras, "mean": mean}, distances=_by_distance(views), images=len(views))


def flipped_mean(depth: NDArray[np.float32], mirrored: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean in inverse depth of a prediction and of the one for the mirrored picture (both [V, h, w])."""
    back = mirrored[:, :, ::-1]
    return np.asarray(2 / (1 / np.maximum(depth, 1e-6) + 1 / np.maximum(back, 1e-6)), dtype=np.float32)


def _by_camera(sets: Iterable[Sequence[ViewErrors]]) -> dict[str, tuple[Values, Values]]:
    pooled: dict[str, list[ViewErrors]] = defaultdict(list)
    for views in sets:
        for view in views:
            if view.truth.size:
                pooled[view.camera].append(view)
    return {
        camera: (np.concatenate([v.depth for v in views]), np.concatenate([v.truth for v in views]))
        for camera, views in pooled.items()
    }


def _by_distance(views: Sequence[ViewErrors]) -> dict[str, DepthMetrics]:
    depth = np.concatenate([view.depth for view in views])
    truth = np.concatenate([view.truth for view in views])
    result = {}
    for low, high in DISTANCE_BANDS:
        inside = (truth >= low) & (truth < high)
        if inside.any():
            result[band_name(low, high)] = depth_metrics(depth[inside], truth[inside])
    return result


def band_name(low: float, high: float) -> str:
    """A band in words: 0-10, 80+."""
    return f"{low:g}+" if np.isinf(high) else f"{low:g}-{high:g}"


def moved_down(truth: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """A sparse depth map at another size; where returns share a pixel, the last in row order stays."""
    rows, columns = np.nonzero(truth)
    small = np.zeros(shape, dtype=np.float32)
    y = np.floor((rows + 0.5) * (shape[0] / truth.shape[0])).astype(np.intp)
    x = np.floor((columns + 0.5) * (shape[1] / truth.shape[1])).astype(np.intp)
    small[y, x] = truth[rows, columns]
    return small
