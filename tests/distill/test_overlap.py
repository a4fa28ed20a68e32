from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from teaching import HEIGHT, WIDTH, ddad_like, geometry

from fsmde_edge.distill.overlap import LEAST, REACH_DEG, ring_links
from fsmde_edge.rig import Camera, Rig, overlap

PICTURE = (HEIGHT, WIDTH)


def looking(azimuth, name, *, fov=60.0, back=0.0):
    """A level camera 1.5 m up."""
    c, s = math.cos(math.radians(azimuth)), math.sin(math.radians(azimuth))
    pose = np.array([[s, 0, c, -back * c], [-c, 0, s, -back * s], [0, -1, 0, 1.5], [0, 0, 0, 1]])
    fx = WIDTH / 2 / math.tan(math.radians(fov / 2))
    k = np.array([[fx, 0, WIDTH / 2], [0, fx, HEIGHT / 2], [0, 0, 1]])
    return Camera(name=name, width=WIDTH, height=HEIGHT, intrinsics=k, camera_to_vehicle=pose)


def links(rig, sets=1, **how):
    return ring_links(*geometry(rig, sets), PICTURE, **how)


def linked(found):
    """Which links have any region, [B, L]."""
    return torch.maximum(found.here, found.there).flatten(2).any(dim=2)


@pytest.mark.parametrize("seed", range(3))
def test_regions_are_the_rigs_own_overlap(seed):
    rig = ddad_like(seed)
    found = links(rig, grid=(20, 32))
    assert linked(found).all()
    for i, camera in enumerate(rig.cameras):
        after = rig.cameras[(i + 1) % 6]
        assert float(found.here[0, i].mean()) == pytest.approx(overlap(camera, after), abs=1e-9)
        assert float(found.there[0, i].mean()) == pytest.approx(overlap(after, camera), abs=1e-9)


@pytest.mark.parametrize("seed", range(8))
def test_cameras_that_look_anywhere_see_what_the_rig_says(seed):
    random = np.random.default_rng(seed)
    rig = Rig.of([tumbled(looking(0, name, fov=95.0), random) for name in "abc"])
    found = links(rig, grid=(20, 32))
    for i, camera in enumerate(rig.cameras):
        expected = overlap(camera, rig.cameras[(i + 1) % 3])
        if expected >= LEAST:
            assert float(found.here[0, i].mean()) == pytest.approx(expected, abs=1e-9)


def tumbled(camera, random):
    pose = np.eye(4)
    q, r = np.linalg.qr(random.normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    pose[:3, :3] = q * np.linalg.det(q)
    pose[:3, 3] = random.normal(size=3)
    return replace(camera, camera_to_vehicle=pose)


def test_a_region_lies_on_the_neighbours_side():
    found = links(ddad_like())
    columns = torch.linspace(0, 1, found.here.shape[-1], dtype=torch.float64)
    for region, left in ((found.here, True), (found.there, False)):
        centre = (region * columns).sum(dim=(2, 3)) / region.sum(dim=(2, 3))
        assert ((centre < 0.5) == left).all()  # counter-clockwise: the next view is to the left


def test_a_pixel_that_both_see_at_some_distances_belongs_in_part():
    found = links(ddad_like()).here.unique()
    torch.testing.assert_close(found, torch.tensor([0, 1 / 3, 2 / 3, 1]).double(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("gap", [-20.0, 2.0, REACH_DEG - 3, REACH_DEG + 3, 60.0])
def test_neighbours_overlap_or_come_near_or_have_a_gap(gap):
    rig = Rig.of([looking(0, "a"), looking(60 + gap, "b")])
    found = links(rig)
    assert found.here.shape == (1, 1, 40, 64)
    assert bool(linked(found)) == (gap < REACH_DEG)
    if gap > REACH_DEG:
        assert not found.here.any()
        assert not found.there.any()
        return
    # Rays of a within reach of b's picture: from a's left edge (30°) in.
    reach = -gap if gap < 0 else REACH_DEG - gap
    columns = (torch.arange(64) + 0.5) / 64 * WIDTH - WIDTH / 2
    azimuth = -torch.atan(columns / rig.cameras[0].intrinsics[0, 0]).rad2deg()
    expected = azimuth > 30 - reach
    middle = found.here[0, 0, 20] > 0.5
    assert (middle == expected).float().mean() > 0.95
    assert middle.float().mean() == pytest.approx(float(found.there[0, 0, 20].flip(0).gt(0.5).float().mean()))


def test_a_strip_is_taken_only_where_nothing_overlaps():
    close, apart = Rig.of([looking(0, "a"), looking(50, "b")]), Rig.of([looking(0, "a"), looking(65, "b")])
    # Level cameras of one height that overlap do so at rows that both see, a strip at every row.
    assert float(links(apart).here[0, 0, 0].max()) == 1
    assert float(links(close).here.mean()) == pytest.approx(overlap(*close.cameras), abs=0.02)


def test_a_gap_in_a_ring_is_a_link_less():
    rig = Rig.of([looking(a, str(a)) for a in (0, 55, 110)])
    assert linked(links(rig)).tolist() == [[True, True, False]]


def test_cameras_that_stand_back_to_back_do_not_meet():
    rig = Rig.of([looking(0, "a"), looking(180, "b")])
    assert not linked(links(rig)).any()


def test_every_set_has_regions_of_its_own():
    rigs = [ddad_like(seed) for seed in range(3)]
    whole = ring_links(*(torch.cat(part) for part in zip(*map(geometry, rigs), strict=True)), PICTURE)
    for i, rig in enumerate(rigs):
        for part, alone in zip(whole, links(rig), strict=True):
            assert torch.equal(part[i : i + 1], alone)


def test_one_view_has_no_neighbour():
    found = links(Rig.of([looking(0, "a")]))
    assert found.here.shape == (1, 0, 40, 64)


def test_the_rigs_neighbours_are_linked():
    rig = ddad_like()
    assert len(rig.neighbours(minimum=LEAST)) == int(linked(links(rig)).sum()) == 6


def test_single_precision_gives_the_same_regions():
    rig = ddad_like()
    found = ring_links(*geometry(rig, dtype=torch.float32), PICTURE)
    assert found.here.dtype == torch.float32
    assert (found.here.double() - links(rig).here).abs().mean() < 1e-3
