from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from fsmde_edge.bundle import open_bundle
from fsmde_edge.errors import DeviceError
from fsmde_edge.evaluation.gate import GateBudget
from fsmde_edge.inference.session import Inference, Session
from fsmde_edge.watch.accuracy import WINDOW, AccuracyWatch, Measure

SHAPE = (2, 32, 48)
CAMERAS = ("front", "left")
IMAGES = np.zeros((*SHAPE, 3), np.uint8)
FOCAL = np.ones(2, np.float32)
TRUTH = np.random.default_rng(0).uniform(5, 90, SHAPE).astype(np.float32)
SECOND = 1_000_000_000


class Reference(Session):
    """Gives `TRUTH`; may be held up, or fail."""

    def __init__(self) -> None:
        super().__init__(backend="toy", precision="fp32", detail="", shape=SHAPE)
        self.may_go, self.begun, self.error = threading.Event(), threading.Event(), None
        self.may_go.set()
        self.seen: list[np.ndarray] = []
        self.closed = False

    def _infer(self, images, focal):
        self.begun.set()
        self.may_go.wait(10)
        self.seen.append(images)
        if self.error is not None:
            raise self.error
        return Inference(depth=TRUTH)

    def _close(self) -> None:
        self.closed = True


class Watched:
    """A watch, and how it is offered sets."""

    def __init__(self, every_s: float = 1.0, **options) -> None:
        self.said: list[str] = []
        self.reference = Reference()
        self.watch = AccuracyWatch(self.reference, Measure(**options), every_s, self.said.append)

    def offer(self, depth=TRUTH, *, second: float, images=IMAGES, valid=(True, True), world=None):
        self.watch.offer(
            images,
            FOCAL,
            depth,
            cameras=CAMERAS,
            valid=valid,
            world=np.ones(SHAPE, bool) if world is None else world,
            now_ns=round(second * SECOND),
        )

    def done(self, depth=TRUTH, **options):
        """Offer one and wait until it is compared."""
        self.offer(depth, **options)
        until = time.monotonic() + 10
        while self.watch._work is not None and not self.watch.failed:
            assert time.monotonic() < until
            time.sleep(0.001)


@pytest.fixture
def watched():
    made = Watched()
    yield made
    made.reference.may_go.set()
    made.watch.close()
    assert made.reference.closed


def test_the_models_own_depth_is_no_deviation(watched):
    watched.done(second=1)
    assert set(watched.watch.measure.views) == set(CAMERAS)
    for view in watched.watch.measure.views.values():
        assert (view.sets, view.deviation, view.farther) == (1, 0.0, 0.0)
    assert watched.said == []


def test_each_view_has_its_own_numbers_over_all_sets(watched):
    depth = TRUTH.copy()
    depth[1] *= 1.015
    watched.done(depth, second=1)
    depth[1] = TRUTH[1] * 1.005
    depth[1].reshape(-1)[: depth[1].size // 50] *= 1.2  # two per cent of its pixels are much farther
    watched.done(depth, second=2)
    front, left = (watched.watch.measure.views[camera] for camera in CAMERAS)
    assert front.deviation == 0
    assert left.sets == 2
    assert left.deviation == pytest.approx((0.015 + 0.005 + 0.02 * 0.2) / 2, rel=0.02)
    assert left.farther == pytest.approx(0.01, rel=0.05)
    assert left.p99 == pytest.approx(0.206, abs=0.001)


def test_leaving_the_budget_and_coming_back_are_one_line_each(watched):
    for second in range(1, 4):
        watched.done(TRUTH * np.float32(1.09), second=second)
    (line,) = watched.said
    assert line.startswith("--watch-accuracy: deviation 9.00% is beyond 2.00%")
    assert watched.watch.state()["outside"]
    for second in range(4, 4 + WINDOW):
        watched.done(second=second)
    assert len(watched.said) == 2
    assert "within its budget again (over the 8 newest sets compared)" in watched.said[1]


def test_depth_that_is_no_number_is_beyond_any_budget(watched):
    depth = TRUTH.copy()
    depth[0, 3, 3] = np.nan
    watched.done(depth, second=1)
    assert len(watched.said) == 1


def test_the_own_vehicle_and_views_without_a_picture_do_not_count(watched):
    depth, world = TRUTH.copy(), np.ones(SHAPE, bool)
    depth[0, 20:] *= 3
    world[0, 20:] = False
    depth[1] *= 3
    watched.done(depth, second=1, valid=(True, False), world=world)
    assert set(watched.watch.measure.views) == {"front"}
    assert watched.watch.measure.views["front"].deviation == 0
    watched.done(depth, second=2, valid=(False, False))
    assert watched.watch.measure.views["front"].sets == 1


def test_the_loop_never_waits_and_what_comes_meanwhile_is_left_out(watched):
    watched.reference.may_go.clear()
    pictures = IMAGES.copy()
    watched.offer(second=1, images=pictures)
    assert watched.reference.begun.wait(10)
    pictures[:] = 9  # the loop's next set: the one that is compared is a copy
    for second in range(2, 50):
        watched.offer(TRUTH * 2, second=second)
    assert watched.watch.measure.views == {}
    assert watched.watch._work.depth.max() == TRUTH.max()
    watched.reference.may_go.set()
    watched.watch.close()
    assert [seen.max() for seen in watched.reference.seen] == [0]
    assert watched.watch.measure.views["front"].deviation == 0


def test_no_more_often_than_was_asked_for():
    watched = Watched(every_s=10.0)
    for second in range(100, 130):
        watched.done(second=second)
    watched.watch.close()
    assert watched.watch.measure.views["front"].sets == 3


@pytest.mark.parametrize("error", [DeviceError("the model broke"), ValueError("a fault")])
def test_a_reference_that_fails_is_told_of_once_and_the_run_goes_on(watched, error):
    watched.reference.error = error
    watched.done(second=1)
    watched.watch._thread.join(10)
    watched.offer(second=2)
    (line,) = watched.said
    assert str(error) in line
    assert line.endswith("; the run goes on without it")
    assert watched.watch.state()["failed"]


def test_disparity_counts_the_other_sign_as_farther():
    watched = Watched(metric=False, disparity=True, budget=GateBudget(deviation=9, p99=9, farther=9))
    watched.done(TRUTH * np.float32(0.5), second=1)
    watched.watch.close()
    assert watched.watch.measure.views["front"].farther > 0.5


def test_a_bundles_int8_is_within_its_budget_on_its_golden_frames(small_bundle):
    bundle, said = open_bundle(small_bundle), []
    golden = bundle.golden()
    watch = AccuracyWatch.of(bundle, 1.0, said.append)
    watch.offer(
        golden.images,
        golden.focal,
        golden.depth["int8"],
        cameras=bundle.manifest.cameras,
        valid=(True,) * 6,
        world=np.ones(golden.depth["int8"].shape, bool),
        now_ns=SECOND,
    )
    watch.close()
    assert said == []
    assert all(0 < view.deviation < 0.03 for view in watch.measure.views.values())
