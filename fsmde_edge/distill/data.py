"""Rendered training views on disk: made once, in resumable shards, read as memory maps."""

from __future__ import annotations

import hashlib
import io
import json
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fsmde_edge.distill.augment import SKY, Views
from fsmde_edge.distill.recipe import StreetsRecipe
from fsmde_edge.errors import DeviceError, InputError
from fsmde_edge.files import atomic_write, cache_home, check_writable
from fsmde_edge.frames import Sample
from fsmde_edge.progress import progress
from fsmde_edge.rig import Camera

_ENDINGS = (".images.npy", ".depth.npy", ".focal.npy")
SETS_PER_SHARD = 16
DEPTH_STEPS = 256
"""Depth is stored as uint16 in 1/256 m; 0 = no return, the largest value = sky."""

SKY_STORED = 65535
FARTHEST = 250.0
"""Metres: what is farther than the LiDAR reaches counts as sky."""


@dataclass(frozen=True, slots=True, eq=False)
class ViewStore:
    """Frame sets of one picture size.

    Attributes:
        images: per shard, uint8 [sets, V, H, W, 3].
        depth: per shard, uint16 [sets, V, H, W].
        focal: float32 [all sets, V].
        sets_per_batch, share: as in the recipe.
    """

    images: tuple[NDArray[np.uint8], ...]
    depth: tuple[NDArray[np.uint16], ...]
    focal: NDArray[np.float32]
    sets_per_batch: int
    share: float

    def __len__(self) -> int:
        return len(self.focal)

    def batch(self, indices: NDArray[np.int64]) -> Views:
        """These frame sets as one batch of views."""
        where = [divmod(int(i), SETS_PER_SHARD) for i in indices]
        images = np.concatenate([self.images[shard][row] for shard, row in where])
        depth = np.concatenate([self.depth[shard][row] for shard, row in where])
        return Views(
            torch.from_numpy(images).permute(0, 3, 1, 2).float(),
            torch.from_numpy(np.where(depth == SKY_STORED, SKY, depth / np.float32(DEPTH_STEPS))),
            torch.from_numpy(np.concatenate([self.focal[int(i)] for i in indices])),
        )


def draw_batch(stores: tuple[ViewStore, ...], *, seed: int, step: int) -> Views:
    """The batch of one step: depends on seed and step alone, so that a resumed run sees the same."""
    random = np.random.default_rng((seed, step))
    share = np.array([store.share for store in stores])
    store = stores[int(random.choice(len(stores), p=share / share.sum()))]
    return store.batch(random.integers(0, len(store), size=store.sets_per_batch))


def open_store(recipe: StreetsRecipe, *, data_seed: int, cache: Path, workers: int) -> ViewStore:
    """Render what is missing, then open.

    Args:
        recipe: which scenes, at which size.
        data_seed: of the scenes.
        cache: folder for rendered shards.
        workers: processes that render.
    """
    folder = cache / _key(recipe, data_seed)
    sets = recipe.scenes * recipe.samples_per_scene
    starts = range(0, sets, SETS_PER_SHARD)
    shards = [folder / f"{start:06d}-{min(SETS_PER_SHARD, sets - start):02d}" for start in starts]
    missing = [shard for shard in shards if _whole(shard, recipe.size) is None]
    if missing:
        check_writable(missing[0].with_suffix(".focal.npy"))
        _render([(recipe, data_seed, shard) for shard in missing], workers)
    found = [(shard, _whole(shard, recipe.size)) for shard in shards]
    for shard, arrays in found:
        if arrays is None:
            raise InputError("is no rendered shard", where=shard, hint="remove that folder and run again")
    images, depth, focal = zip(*(arrays for _, arrays in found if arrays is not None), strict=True)
    return ViewStore(images, depth, np.concatenate(focal), recipe.sets_per_batch, recipe.share)


def default_cache() -> Path:
    """`$XDG_CACHE_HOME/fsmde-edge/training`."""
    return cache_home() / "training"


def _whole(shard: Path, size: tuple[int, int]) -> tuple[NDArray[np.uint8], Any, Any] | None:
    """A shard's images, depth and focal lengths as memory maps; None where it is missing or broken."""
    try:
        images, depth, focal = (
            np.load(shard.with_suffix(ending), mmap_mode="r", allow_pickle=False) for ending in _ENDINGS
        )
    except Exception:  # broken bytes lead the reader anywhere; it is rendered again
        return None
    views = (int(shard.name.split("-")[1]), focal.shape[-1] if focal.ndim else 0)
    kinds = tuple((array.shape, array.dtype) for array in (images, depth, focal))
    wanted = (((*views, *size, 3), np.uint8), ((*views, *size), np.uint16), (views, np.float32))
    return (images, depth, focal) if kinds == wanted else None


def _render(jobs: list[tuple[StreetsRecipe, int, Path]], workers: int) -> None:
    """Render shards in processes of their own; Ctrl-C is the parent's to tell, and loses no whole shard."""
    pool = ProcessPoolExecutor(workers, initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN))
    try:
        for _ in progress(pool.map(_render_shard, jobs), total=len(jobs), what="rendering scenes"):
            pass
    except BrokenProcessPool as error:
        raise DeviceError(
            "a process that rendered was killed, perhaps for want of memory",
            hint="run again with fewer --render-workers; what is rendered is kept",
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _render_shard(job: tuple[StreetsRecipe, int, Path]) -> None:
    recipe, data_seed, shard = job
    start, count = map(int, shard.name.split("-"))
    rendered = list(_rendered(recipe, data_seed, range(start, start + count)))
    images, depth, focal = (np.stack(part) for part in zip(*rendered, strict=True))
    for ending, array in zip(_ENDINGS, (images, depth, focal), strict=True):
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=False)
        atomic_write(shard.with_suffix(ending), buffer.getvalue())


def _rendered(
    recipe: StreetsRecipe, data_seed: int, indices: range
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint16], NDArray[np.float32]]]:
    from fsmde_edge.datasets.synthetic import SyntheticStreets

    height, width = recipe.size
    streets = SyntheticStreets(
        "train",
        scenes=recipe.scenes,
        samples_per_scene=recipe.samples_per_scene,
        width=width,
        height=height,
        seed=data_seed,
        rig_spread=recipe.rig_spread,
    )
    for index in indices:
        sample = streets[index]
        images = np.stack([frame.image for frame in sample.frame_set.frames])
        dense = streets.dense_depth(index)
        stored = np.stack([_stored(sample, camera, dense[camera.name]) for camera in sample.rig.cameras])
        focal = np.array([camera.intrinsics[0, 0] for camera in sample.rig.cameras], dtype=np.float32)
        yield images, stored, focal


def _stored(sample: Sample, camera: Camera, dense: NDArray[np.float32]) -> NDArray[np.uint16]:
    """LiDAR returns and sky; neither on the own car, which hides the world behind it."""
    steps = np.clip(np.round(sample.depth[camera.name] * DEPTH_STEPS), 0, SKY_STORED - 1).astype(np.uint16)
    sky = (dense == 0) | (dense > FARTHEST)
    stored = np.where(sky, np.uint16(SKY_STORED), steps)
    return stored if camera.ego_mask is None else np.where(camera.ego_mask, stored, np.uint16(0))


def _key(recipe: StreetsRecipe, data_seed: int) -> str:
    from fsmde_edge.datasets.synthetic import RENDERER_VERSION

    what = {**asdict(recipe), "data_seed": data_seed, "renderer": RENDERER_VERSION}
    # More scenes only add to fewer: what is rendered already serves.
    for irrelevant in ("scenes", "share", "sets_per_batch"):
        del what[irrelevant]
    digest = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]
    return f"streets-{recipe.size[0]}x{recipe.size[1]}-{digest}"
