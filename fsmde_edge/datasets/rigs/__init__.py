"""Other people's calibrations as a rig.

Kalibr and ROS count from the centre of the first pixel, we from its edge: half a pixel is added to cx and cy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from fsmde_edge.datasets import open_dataset
from fsmde_edge.datasets.rigs.kalibr import kalibr_rig
from fsmde_edge.datasets.rigs.poses_file import read_poses
from fsmde_edge.datasets.rigs.ros import ros_rig
from fsmde_edge.errors import InputError, UsageError
from fsmde_edge.rig import Rig

Importer = Callable[[Sequence[Path], Path | None], Rig]


def import_rig(kind: str, files: Sequence[Path], poses: Path | None = None) -> Rig:
    """The rig that some files describe.

    Args:
        kind: one of `IMPORTERS`.
        files: dgp, nuscenes: one data set; kalibr: one camchain; ros: one camera_info a camera.
        poses: where cameras are on the vehicle (see `read_poses`); only for kalibr and ros.

    Errors:
        UsageError: another number of files, or poses where the files have them.
        InputError: anything missing, broken or unknown in them.
    """
    return IMPORTERS[kind](files, poses)


def _from_dataset(kind: str) -> Importer:
    def read(files: Sequence[Path], poses: Path | None) -> Rig:
        if poses is not None:
            raise UsageError(f"--poses does not go with {kind}", hint="its files say where the cameras are")
        dataset = open_dataset(_only_file(kind, files), lidar=False)
        if dataset.kind != kind:
            raise InputError(f"is laid out as {dataset.kind}, not {kind}", where=files[0])
        return dataset[0].rig

    return read


def _from_kalibr(files: Sequence[Path], poses: Path | None) -> Rig:
    return kalibr_rig(_only_file("kalibr", files), None if poses is None else read_poses(poses))


def _from_ros(files: Sequence[Path], poses: Path | None) -> Rig:
    if poses is None:
        raise UsageError(
            "camera_info does not say where cameras are", hint="give --poses YAML: CAMERA: {xyz: …, xyzw: …}"
        )
    return ros_rig(files, read_poses(poses), poses)


def _only_file(kind: str, files: Sequence[Path]) -> Path:
    if len(files) != 1:
        raise UsageError(f"{kind} takes one file or folder, not {len(files)}")
    return files[0]


IMPORTERS: Mapping[str, Importer] = {
    "dgp": _from_dataset("dgp"),
    "nuscenes": _from_dataset("nuscenes"),
    "kalibr": _from_kalibr,
    "ros": _from_ros,
}
"""Name to what reads it."""
