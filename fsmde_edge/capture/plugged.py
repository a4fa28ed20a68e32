"""What a rig file says of cameras that are plugged in: which device each is, and how its stamps are off."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fsmde_edge.capture.video import rig_of_pinholes
from fsmde_edge.datasets.rigfile import load_plugged, load_rig
from fsmde_edge.errors import InputError
from fsmde_edge.rig import Rig, VirtualPinhole


def rig_and_offsets(
    rig_file: Path | None, pinholes: Sequence[VirtualPinhole]
) -> tuple[Rig, dict[str, float]]:
    """The cameras, and the milliseconds to add to their stamps.

    Args:
        rig_file: says both; None where there is none.
        pinholes: a bundle's views, which the cameras are taken for then.

    Errors:
        InputError: the file cannot be used.
    """
    if rig_file is None:
        return rig_of_pinholes(pinholes), {}
    plugged = load_plugged(rig_file)
    return load_rig(rig_file), {camera: each.offset_ms for camera, each in plugged.items()}


def plugged_specs(rig_file: Path | None) -> list[str]:
    """CAMERA=DEVICE of a rig file.

    Errors:
        InputError: it cannot be used, or says of a camera no device.
    """
    assert rig_file is not None
    specs = []
    for camera, each in load_plugged(rig_file).items():
        if each.device is None:
            raise InputError(
                f"does not say which device camera {camera} is",
                where=rig_file,
                hint="add 'device: /dev/v4l/by-path/...', or name the devices: --cameras ... --rig FILE",
            )
        specs.append(f"{camera}={each.device}")
    return specs
