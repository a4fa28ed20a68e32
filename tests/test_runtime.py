from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import asdict, replace

import numpy as np
import pytest

from fsmde_edge.bundle import Manifest
from fsmde_edge.errors import InputError, OutputError
from fsmde_edge.frames import Frame, FrameSet, Stamp
from fsmde_edge.inference.session import Inference, Session
from fsmde_edge.preprocess import own_pinholes
from fsmde_edge.rig import Camera, Rig
from fsmde_edge.runtime import run
from fsmde_edge.views import views_for

HEIGHT, WIDTH = 8, 12


def rig(*, masked=False, fx=20.0, views=2) -> Rig:
    cameras = []
    for number in range(views):
        pose = np.eye(4)
        turn = number * 1.0
        pose[:3, 2] = np.cos(turn), np.sin(turn), 0
        pose[:3, 0] = np.sin(turn), -np.cos(turn), 0
        pose[:3, 1] = 0, 0, -1
        mask = np.ones((2 * HEIGHT, 2 * WIDTH), dtype=bool)
        mask[-4:] = False
        k = np.array([[fx, 0, WIDTH], [0, fx, HEIGHT], [0, 0, 1]])
        cameras.append(
            Camera(
                name=f"c{number}",
                width=2 * WIDTH,
                height=2 * HEIGHT,
                intrinsics=k,
                camera_to_vehicle=pose,
                ego_mask=mask if masked else None,
            )
        )
    return Rig.of(cameras)


def manifest(views: Rig) -> Manifest:
    return Manifest(
        created="",
        version="",
        precision="fp32",
        models={"fp32": "model.fp32.onnx"},
        views=own_pinholes(views, WIDTH, HEIGHT),
        kind="metric",
        focal=320.0,
        target="cpu",
        source={},
    )


class Recording:
    """A source of black pictures."""

    def __init__(self, sets: int, cameras: Rig | None = None) -> None:
        self.rig, self.sets, self.closed, self.given = cameras or rig(), sets, 0, 0
        self.name, self.drops, self.layouts = "recording", {"c0": {"late": 2}}, None

    def __iter__(self):
        for index in range(self.sets):
            self.given += 1
            yield FrameSet(
                frames=tuple(
                    Frame(
                        camera=name,
                        image=np.zeros((2 * HEIGHT, 2 * WIDTH, 3), dtype=np.uint8),
                        stamp=Stamp(index),
                    )
                    for name in self.rig.names
                ),
                index=index,
            )

    def stop(self) -> None:
        pass

    def close(self) -> None:
        self.closed += 1


class SevenMetres(Session):
    """Answers 7 m everywhere."""

    def __init__(self) -> None:
        super().__init__(backend="toy", precision="fp32", detail="", shape=(2, HEIGHT, WIDTH))

    def _infer(self, images, focal):
        return Inference(depth=np.full(self.shape, 7, dtype=np.float32))

    def _close(self) -> None:
        pass


class Memory:
    """Keeps what it is given; may be told to fail."""

    def __init__(self, *, fail_at: int | None = None, fail_close: bool = False) -> None:
        self.sets, self.closed, self.fail_at, self.fail_close = [], 0, fail_at, fail_close

    def write(self, frame_set, images, depth_set) -> None:
        if frame_set.index == self.fail_at:
            raise OutputError("the disk is full")
        self.sets.append(depth_set)

    def close(self) -> None:
        self.closed += 1
        if self.fail_close:
            raise OutputError("cannot be finished")


def test_a_bounded_source_runs_to_its_end():
    sink = Memory()
    report = run(Recording(5), SevenMetres(), manifest(rig()), [sink])
    assert (report.sets, report.stopped) == (5, False)
    assert [made.index for made in sink.sets] == [0, 1, 2, 3, 4]
    assert sink.sets[0].cameras == ("c0", "c1")
    assert sink.sets[0].focal.tolist() == [10.0, 10.0]
    assert (sink.sets[0].depth == 7).all()
    assert set(report.stages) == {"capture", "preprocess", "infer", "sinks"}
    assert {latency.runs for latency in report.stages.values()} == {5}
    assert report.drops == {"c0": {"late": 2}}
    assert sink.closed == 1


def test_frames_bound_an_endless_source():
    source = Recording(10**9)
    report = run(source, SevenMetres(), manifest(rig()), [], frames=3)
    assert report.sets == 3
    assert source.given == 3


def test_an_empty_source_has_no_latency():
    report = run(Recording(0), SevenMetres(), manifest(rig()), [])
    assert (report.sets, report.stages) == (0, {})


def test_depth_on_the_own_car_is_left_out():
    sink = Memory()
    run(Recording(1, rig(masked=True)), SevenMetres(), manifest(rig()), [sink])
    assert (sink.sets[0].depth[:, :-2] == 7).all()
    assert (sink.sets[0].depth[:, -2:] == 0).all()


def test_every_sink_is_closed_when_one_fails():
    sinks = [Memory(), Memory(fail_at=1), Memory()]
    with pytest.raises(OutputError, match="disk is full"):
        run(Recording(3), SevenMetres(), manifest(rig()), sinks)
    assert [sink.closed for sink in sinks] == [1, 1, 1]
    assert [len(sink.sets) for sink in sinks] == [2, 1, 1]


def test_every_sink_is_closed_when_one_cannot_be():
    sinks = [Memory(fail_close=True), Memory()]
    with pytest.raises(OutputError, match="cannot be finished"):
        run(Recording(1), SevenMetres(), manifest(rig()), sinks)
    assert [sink.closed for sink in sinks] == [1, 1]


def test_sinks_are_closed_when_the_rig_does_not_fit():
    sink = Memory()
    with pytest.raises(InputError, match=r"the bundle has 2 views \(c0, c1\), the source 3 cameras"):
        run(Recording(1, rig(views=3)), SevenMetres(), manifest(rig()), [sink])
    assert sink.closed == 1


def test_a_focal_length_that_the_network_is_not_trusted_with_is_refused():
    with pytest.raises(InputError, match="trusted from 5 to 20"):
        views_for(rig(fx=60.0), manifest(rig()))
    assert views_for(rig(fx=39.0), manifest(rig())).world.all()


def test_names_of_cameras_need_not_agree_with_the_bundles():
    made = manifest(rig())
    others = replace(made, views=tuple(replace(view, name=f"x{view.name}") for view in made.views))
    assert views_for(rig(), others).rig.names == ("c0", "c1")
    assert asdict(others)["views"][0]["name"] == "xc0"


def test_handlers_of_signals_come_back():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    run(Recording(1), SevenMetres(), manifest(rig()), [])
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_set_and_exits_well(small_bundle, tmp_path, number):
    script = """
        import sys
        import fsmde_edge.capture.synthetic as synthetic
        from functools import partial
        synthetic.synthetic_source = partial(synthetic.synthetic_source, scenes=100000)  # endless, to us
        from fsmde_edge.cli.main import main
        sys.exit(main(sys.argv[1:]))
    """
    out = tmp_path / "depth"
    arguments = ["run", str(small_bundle), "--source", "synthetic", "--out", str(out), "--threads", "1"]
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while child.poll() is None and not list(out.glob("*/*.png")):
        time.sleep(0.02)
    child.send_signal(number)
    printed, said = child.communicate(timeout=60)
    assert child.returncode == 0, said
    assert said == ""
    sets = sorted(out.iterdir())
    assert f"{len(sets)} frame sets, stopped by a signal" in printed
    assert all(len(list(folder.iterdir())) == 6 for folder in sets)
