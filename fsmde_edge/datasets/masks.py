"""Ego masks: which pixels of a camera show the world and which the own vehicle."""

from __future__ import annotations

from pathlib import Path

from fsmde_edge.datasets.reading import read_mask
from fsmde_edge.errors import InputError
from fsmde_edge.rig import Rig


def with_masks(rig: Rig, scene: str, *, given: Path | None, own: Path) -> Rig:
    """The rig with the ego masks of a scene.

    A mask is `<CAMERA>_mask.png` (255 = world, 0 = own vehicle), in a folder named after the scene or
    directly in the masks' folder.

    Args:
        rig: the scene's cameras.
        scene: the scene's folder name.
        given: the folder that the user named; it must hold at least one mask for the rig.
        own: the data set's own folder of masks, used where none is given and it holds the scene.

    Errors:
        InputError: a named folder without a fitting mask, or a mask of another size than its pictures.
    """
    folder = given if given is not None else own
    scene_folder = folder / Path(scene).name  # a name from a file must not lead elsewhere
    if scene_folder.is_dir():
        folder = scene_folder
    elif given is None:
        return rig
    found = {path.name.lower(): path for path in sorted(folder.glob("*_mask.png"))} if folder.is_dir() else {}
    masks = {}
    for camera in rig.cameras:
        path = found.get(f"{camera.name}_mask.png".lower())
        if path is None:
            continue
        mask = read_mask(path)
        if mask.shape != (camera.height, camera.width):
            raise InputError(
                f"the ego mask is {mask.shape[1]}x{mask.shape[0]}, the pictures of camera "
                f"{camera.name} are {camera.width}x{camera.height}",
                where=path,
                hint="make the mask from a picture of this camera",
            )
        masks[camera.name] = mask
    if given is not None and not masks:
        raise InputError(
            f"holds no ego mask for scene {scene}",
            where=given,
            hint=f"expected {scene}/{rig.names[0]}_mask.png or {rig.names[0]}_mask.png in it",
        )
    return rig.with_ego_masks(masks)
