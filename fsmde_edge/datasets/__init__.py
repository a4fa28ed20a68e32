"""Data sets: DDAD (DGP layout), nuScenes, synthetic street scenes; one function opens any of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fsmde_edge.datasets.base import Dataset

__all__ = ["Dataset", "open_dataset"]


def open_dataset(
    path: Path | str,
    *,
    scenes: Sequence[str] | None = None,
    split: str | None = None,
    masks: Path | str | None = None,
    cameras: Sequence[str] | None = None,
    lidar: bool = True,
) -> Dataset:
    """Open a data set by what lies at a path; samples are read one at a time, when they are asked for.

    Args:
        path: a DGP data set (its folder, its scene_dataset JSON, one scene's folder or JSON; synthetic
            streets are written like this), a folder of nuScenes tables (`v1.0-*/`), or a folder or JSON
            file of one nuScenes sample.
        scenes: scenes to keep, by folder or file name; all if None.
        split: DGP: train, val or test; nuScenes: which tables (mini, trainval, test).
        masks: folder with `<scene>/<CAMERA>_mask.png` or `<CAMERA>_mask.png` (255 = world, 0 = own
            vehicle); the data set's own `masks/<scene>/` if None and it is there.
        cameras: cameras to keep; all if None.
        lidar: read the clouds; without them samples have no depth.

    Errors:
        InputError: nothing that is known lies there, or its description is broken.
    """
    from fsmde_edge.errors import InputError

    try:
        return _open(Path(path), scenes, split, None if masks is None else Path(masks), cameras, lidar)
    except OSError as error:
        where = error.filename or path
        raise InputError(f"cannot be read ({error.strerror or error})", where=where) from error


def _open(
    path: Path,
    scenes: Sequence[str] | None,
    split: str | None,
    masks: Path | None,
    cameras: Sequence[str] | None,
    lidar: bool,
) -> Dataset:
    from fsmde_edge.datasets.dgp import DgpDataset, find_dgp
    from fsmde_edge.datasets.nuscenes import NuScenesDataset, find_one_sample, find_tables
    from fsmde_edge.errors import InputError

    if not path.exists():
        raise InputError("the data set is missing", where=path, hint="check the path")
    if masks is not None and not masks.is_dir():
        raise InputError("the folder of ego masks is missing", where=masks, hint="check the path")
    if find_dgp(path) is not None:
        return DgpDataset(path, scenes=scenes, split=split, masks=masks, cameras=cameras, lidar=lidar)
    if find_tables(path, split) is not None or find_one_sample(path) is not None:
        return NuScenesDataset(path, scenes=scenes, split=split, masks=masks, cameras=cameras, lidar=lidar)
    raise InputError(
        "is no data set that is known",
        where=path,
        hint="give a DGP folder (scene_dataset*.json), a scene folder, nuScenes tables (v1.0-*/), "
        "or a folder with one nuScenes sample.json",
    )
