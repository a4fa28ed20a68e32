from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from fsmde_edge.datasets.rigs.draw import draw_rig
from fsmde_edge.datasets.rigs.surround import in_words, surround
from fsmde_edge.errors import UsageError
from fsmde_edge.rig import BrownConrady, Camera, Rig


def looking(name, degrees, *, hfov=90.0, lens=None):
    """A camera at the vehicle's origin, 1.5 m up, that looks in a direction."""
    turn = math.radians(degrees)
    pose = np.eye(4)
    pose[:3, 0] = math.sin(turn), -math.cos(turn), 0
    pose[:3, 1] = 0, 0, -1
    pose[:3, 2] = math.cos(turn), math.sin(turn), 0
    pose[2, 3] = 1.5
    fx = 320 / math.tan(math.radians(hfov / 2))
    k = np.array([[fx, 0, 320], [0, fx, 240], [0, 0, 1]])
    extra = {} if lens is None else {"distortion": lens}
    return Camera(name=name, width=640, height=480, intrinsics=k, camera_to_vehicle=pose, **extra)


def test_arcs_are_fields_of_view():
    view = surround(Rig.of([looking("front", 0), looking("left", 80)]))
    assert view.arcs(0) == ((315.0, 405.0),)
    assert view.arcs(1) == ((35.0, 125.0),)
    assert view.shared == ((35.0, 45.0),)
    assert view.blind == ((125.0, 315.0),)
    assert list(view.overlaps()) == [("front", "left", 10.0)]
    assert in_words(view.arcs(0)[0]) == "-45° to +45°"


def test_a_ring_without_gaps_has_no_blind_spot():
    view = surround(Rig.of([looking(str(i), 60 * i, hfov=70) for i in range(6)]))
    assert view.blind == ()
    assert len(view.shared) == 6
    assert [round(both) for _, _, both in view.overlaps()] == [10] * 6


def test_a_lens_that_folds_back_does_not_see_behind_its_edge():
    """k1 = -0.3 brings rays beyond 46 degrees back into the picture; nothing is there."""
    view = surround(Rig.of([looking("front", 0, hfov=100, lens=BrownConrady(k1=-0.3))]))
    ((start, end),) = view.arcs(0)
    assert end - start == pytest.approx(2 * math.degrees(math.atan(1 / math.sqrt(0.9))), abs=1)


@pytest.mark.parametrize("ending", ["svg", "png", "SVG"])
def test_it_is_drawn(tmp_path, ending):
    path = tmp_path / f"rig.{ending}"
    view = surround(Rig.of([looking("a<b", 0), looking("left", 80)]))
    draw_rig(path, view)
    if ending == "png":
        picture = cv2.imread(str(path))
        assert picture.shape == (800, 800, 3)
        ahead, behind = picture[250, 400], picture[600, 400]
        assert (behind == 255).all()
        assert not (ahead == 255).all()
        return
    text = path.read_text()
    assert "a&lt;b" in text
    assert text.count("<polygon") == 1 + 1 + 2 * 2  # blind, shared, a wedge and a dot each


def test_other_endings_are_refused(tmp_path):
    with pytest.raises(UsageError, match=r"neither \.svg nor \.png"):
        draw_rig(tmp_path / "rig.gif", surround(Rig.of([looking("a", 0)])))
    assert not list(tmp_path.iterdir())
