from __future__ import annotations

import pytest

from fsmde_edge.capture.video import rig_of_pinholes
from fsmde_edge.rig import Rig, VirtualPinhole


@pytest.fixture
def two_cameras() -> Rig:
    """c0 and c1, of 64x32 pixels, back to back."""
    return rig_of_pinholes(
        VirtualPinhole(
            name=f"c{number}",
            width=64,
            height=32,
            fx=40.0,
            fy=40.0,
            cx=32.0,
            cy=16.0,
            fx_range=(10.0, 100.0),
            yaw_deg=number * 180.0,
            pitch_deg=0.0,
            height_m=1.5,
        )
        for number in range(2)
    )
