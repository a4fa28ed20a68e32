from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsmde_edge.bundle import open_bundle
from fsmde_edge.frames import Frame, FrameSet, RawFrame, Stamp
from fsmde_edge.preprocessing.raw import RawLayout
from fsmde_edge.watch.guard import CALM, REMEMBERED, DepthRange, Fault, Guard

SIZE = (32, 48)
CAMERAS = ("front", "left")
NOTHING = RawLayout(code="RGB3", width=2, height=2)
FOCAL = np.array([20.0, 40.0], np.float32)
EXPECTED = DepthRange(least=0.0, most=5.0, by_focal=True)  # up to 100 m at a focal length of 20


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (len(CAMERAS), *SIZE, 3), dtype=np.uint8)


def street() -> np.ndarray:
    return np.random.default_rng(0).uniform(5, 90, (len(CAMERAS), *SIZE)).astype(np.float32)


class Watched:
    """A guard and the sets that it is shown."""

    def __init__(self, **options) -> None:
        self.said: list[str] = []
        self.guard = Guard(EXPECTED, say=self.said.append, **options)
        self.index = -1

    def see(self, depth=None, images=None, valid=(True, True)):
        self.index += 1
        blank = np.zeros((2, 2, 3), np.uint8)
        frames = tuple(
            Frame(camera=name, image=blank, stamp=Stamp(self.index))
            if there
            else RawFrame(camera=name, raw=None, layout=NOTHING, stamp=Stamp(self.index))
            for name, there in zip(CAMERAS, valid, strict=True)
        )
        return self.guard.judge(
            FrameSet(frames=frames, index=self.index),
            picture(self.index) if images is None else images,
            FOCAL,
            street() if depth is None else depth,
            1000 + self.index,
        )

    @property
    def faults(self):
        return [(finding.camera, finding.fault) for finding in self.guard.findings()]


def test_a_street_is_trusted():
    watched = Watched()
    assert [watched.see() for _ in range(30)] == [(True, True)] * 30
    assert (watched.faults, watched.said) == ([], [])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_pixel_that_is_no_number_makes_its_view_invalid(value):
    depth, watched = street(), Watched()
    depth[1, 17, 23] = value
    assert watched.see(depth) == (True, False)
    assert watched.faults == [("left", Fault.NOT_FINITE)]
    (line,) = watched.said
    assert line == "camera left gives depth that is not a number; its depth is marked invalid"


def test_depth_that_is_the_same_everywhere():
    depth, watched = street(), Watched()
    depth[0] = 7
    assert watched.see(depth) == (False, True)
    assert watched.faults == [("front", Fault.FLAT)]


@pytest.mark.parametrize(("share", "found"), [(0.02, True), (0.005, False)])
@pytest.mark.parametrize("metres", [101.0, 0.0, -3.0])
def test_depth_out_of_range_counts_by_its_share_and_focal_length(share, found, metres):
    depth, watched = street(), Watched()
    depth[0].reshape(-1)[: round(share * depth[0].size)] = metres
    assert watched.see(depth) == (not found, True)
    assert watched.faults == ([("front", Fault.RANGE)] if found else [])


def test_another_focal_length_has_another_range():
    depth, watched = street(), Watched()
    depth[1] = depth[1] + 100  # 105 to 190 m: the left camera's focal length is twice the front's
    assert watched.see(depth) == (True, True)


def test_a_covered_lens_is_named_though_its_noise_is_there():
    images, watched = picture(0), Watched()
    images[1] = np.random.default_rng(1).normal(6, 1, (*SIZE, 3)).clip(0, 255)
    assert watched.see(images=images) == (True, False)
    assert watched.faults == [("left", Fault.BLANK)]
    images[1, :, :, 0] += np.arange(SIZE[1], dtype=np.uint8)  # one channel shows something
    assert watched.see(images=images) == (True, True)


def test_a_frozen_camera_is_found_at_the_tenth_same_picture_and_let_go_at_the_next():
    watched, still = Watched(frozen_after=10), picture(99)[0]

    def frozen():
        images = picture(watched.index + 1)
        images[0] = still
        return images

    seen = [watched.see(images=frozen()) for _ in range(12)]
    assert seen == [(True, True)] * 9 + [(False, True)] * 3
    assert watched.see() == (True, True)
    (finding,) = watched.guard.findings()
    assert (finding.camera, finding.fault) == ("front", Fault.FROZEN)
    assert (finding.first, finding.last, finding.sets) == (9, 11, 3)
    assert (finding.since_ns, finding.until_ns) == (1009, 1011)


def test_pictures_that_differ_in_one_row_in_four_are_not_the_same():
    watched, images = Watched(frozen_after=2), picture(0)
    for number in range(20):
        images[:, 4] = number
        assert watched.see(images=images) == (True, True)


def test_a_recording_may_stand_still():
    watched = Watched(frozen_after=None)
    assert {watched.see(images=picture(0)) for _ in range(30)} == {(True, True)}


def test_a_view_without_a_picture_is_not_judged():
    depth, watched = street(), Watched(frozen_after=2)
    depth[1] = np.nan
    for _ in range(3):
        assert watched.see(depth, np.zeros((2, *SIZE, 3), np.uint8), valid=(False, False)) == (False, False)
    assert watched.faults == []


def test_it_may_only_tell():
    depth, watched = street(), Watched(mask=False)
    depth[0] = 7
    assert watched.see(depth) == (True, True)
    assert watched.said == ["camera front gives depth that is the same everywhere"]


def test_a_fault_that_flickers_is_told_of_once_and_ends_after_calm():
    bad, watched = street(), Watched()
    bad[0] = 7
    for number in range(40):
        watched.see(bad if number % 3 == 0 else None)
    assert len(watched.said) == 1
    assert [finding.lasts for finding in watched.guard.findings()] == [True]
    for _ in range(CALM):
        watched.see()
    (ended,) = watched.guard.findings()
    assert (ended.lasts, ended.sets, ended.last) == (False, 14, 39)
    watched.see(bad)
    assert len(watched.said) == 2


def test_what_is_remembered_is_bounded():
    bad, watched = street(), Watched()
    bad[0] = 7
    for _ in range(REMEMBERED + 3):
        watched.see(bad)
        for _ in range(CALM):
            watched.see()
    assert len(watched.guard.findings()) == REMEMBERED


@given(st.lists(st.booleans(), max_size=60), st.integers(2, 6))
def test_frozen_means_so_many_same_pictures_in_a_row(changes, after):
    watched, shown, run = Watched(frozen_after=after), picture(0), 0
    for number, change in enumerate(changes):
        if change:
            shown = picture(number + 1)
        run = 1 if change or number == 0 else run + 1
        assert watched.see(images=shown) == ((True, True) if run < after else (False, False))


def test_a_bundles_own_golden_depth_lies_in_its_range(small_bundle):
    bundle = open_bundle(small_bundle)
    golden, expected = bundle.golden(), DepthRange.of(bundle)
    for depth, focal in zip(golden.depth["fp32"], golden.focal, strict=True):
        low, high = expected.at(float(focal))
        assert low == 0 < depth.min()
        assert 3.9 * depth.max() <= high
        assert expected.at(2 * float(focal)) == pytest.approx((0, 2 * high))


def test_what_is_about_to_be_hit_is_no_fault():
    depth, watched = street(), Watched()
    depth[0] = np.linspace(0.2, 0.6, SIZE[1])
    assert watched.see(depth) == (True, True)
