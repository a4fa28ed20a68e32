"""Pipelines as cameras, on GStreamer's own test source; skipped where Python does not see GStreamer."""

from __future__ import annotations

import gc
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import closing

import numpy as np
import pytest

from fsmde_edge.capture import open_source, tending
from fsmde_edge.capture.gstreamer.library import load
from fsmde_edge.capture.gstreamer.pictures import CODES, mapped
from fsmde_edge.capture.lease import LeaseError
from fsmde_edge.capture.live import Matching
from fsmde_edge.capture.sync import Missing
from fsmde_edge.errors import DeviceError, InputError

SIZE = "width=64,height=32,framerate=30/1"
LIVE = f"gst:videotestsrc is-live=true pattern=red ! video/x-raw,format=UYVY,{SIZE} ! appsink"
RECORDING = f"gst:videotestsrc num-buffers=4 ! video/x-raw,format=NV12,{SIZE} ! appsink"


@pytest.fixture(scope="module")
def library():
    try:
        return load()
    except DeviceError as error:
        pytest.skip(f"NOT RUN: {error}")


@pytest.fixture
def opened(library, two_cameras):
    """Opens pipelines, one or two of them, as a source; closes it."""
    made = []

    def open_them(*specs, patience=10.0, **options):
        both = specs if len(specs) == 2 else specs * 2
        matching = Matching(patience_s=patience, **options)
        made.append(open_source(both, rig=two_cameras, matching=matching, say=said.append))
        return made[-1]

    said: list[str] = []
    open_them.said = said
    yield open_them
    for source in made:
        source.close()


def some(source, count):
    return zip(range(count), source, strict=False)


def test_live_pictures_come_young_and_in_sets_of_all_cameras(opened):
    source = opened(LIVE)
    for index, frame_set in some(source, 8):
        ages = frame_set.ages_ns(time.monotonic_ns())
        assert (frame_set.index, frame_set.cameras, frame_set.valid) == (index, ("c0", "c1"), (True, True))
        assert 0 < min(ages.values()) <= max(ages.values()) < 2e9
        red = frame_set.frames[0].image[16, 32]
        assert np.abs(red.astype(int) - (255, 0, 0)).max() <= 4
    report = source.reports()[0].camera
    assert (report.layout, report.rate, report.copies, report.copied) == ("UYVY 64x32", 30.0, 0, 0)
    assert not source.reports()[0].foreign_clock


def test_a_recording_keeps_its_pace_and_ends(opened):
    source = opened(RECORDING)
    sets = [(each.skew_ms, [frame.sequence for frame in each.frames], each.stamps_ns[0]) for each in source]
    assert [numbers for _, numbers, _ in sets] == [[number, number] for number in range(len(sets))]
    assert len(sets) >= 3
    assert max(skew for skew, _, _ in sets) == 0
    assert np.diff([stamp for _, _, stamp in sets]).min() > 30e6
    assert opened.said == []


@pytest.mark.parametrize("name", CODES)
def test_every_format_shows_the_same_picture(opened, name):
    source = opened(f"gst:videotestsrc pattern=smpte ! video/x-raw,format={name},{SIZE} ! appsink")
    picture = next(iter(source)).frames[0]
    assert picture.layout.code == CODES[name]
    bar = picture.image[8, 4]  # the first bar is light grey
    assert bar.min() >= 180
    assert np.ptp(bar) <= 6


def test_an_appsink_without_caps_is_given_what_we_take(opened):
    assert opened(f"gst:videotestsrc ! video/x-raw,{SIZE} ! appsink").layouts[0].code in CODES.values()


def test_a_released_picture_is_gone_and_its_buffer_unmapped(opened):
    for _, frame_set in some(opened(LIVE), 1):
        view, lease = frame_set.frames[0].raw, frame_set.loan.pictures[0].lease
        assert view.readonly
        frame_set.release()
        with pytest.raises(ValueError, match="released memoryview"):
            view[0]
        with pytest.raises(LeaseError):
            lease.release()


class Watched:
    """A buffer, and how often it was unmapped."""

    def __init__(self, buffer):
        self.buffer, self.unmapped = buffer, 0

    def map(self, flags):
        return self.buffer.map(flags)

    def unmap(self, info):
        self.unmapped += 1
        self.buffer.unmap(info)


def test_a_buffer_stays_mapped_for_the_last_array_and_no_longer(library):
    watched = Watched(library.gst.Buffer.new_wrapped(bytes(range(64))))
    view = mapped(library, watched)
    kept = np.frombuffer(view[32:], np.uint8)
    del view
    gc.collect()
    assert kept.tolist() == list(range(32, 64))
    assert watched.unmapped == 0
    del kept
    assert watched.unmapped == 1


def test_exceptions_of_libraries_that_are_loaded_later_still_work(library):
    script = """
        from fsmde_edge.capture.gstreamer.library import load
        load()
        import onnx.defs
        try:
            onnx.defs.get_schema("NoSuchOperator")
        except onnx.defs.SchemaError:
            print("caught")
    """
    child = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False
    )
    assert (child.returncode, child.stdout) == (0, "caught\n")


def test_a_pipeline_that_fails_is_an_outage_in_its_own_words_and_comes_back(opened, monkeypatch):
    monkeypatch.setattr(tending, "FIRST_WAIT", 0.02)
    broken = LIVE.replace("appsink", "identity error-after=6 ! appsink")
    source = opened(LIVE, broken, missing=Missing.MASK)
    seen = {frame_set.valid for _, frame_set in some(source, 25)}
    assert {(True, True), (True, False)} <= seen
    first = source.reports()[1].camera.outages[0]
    assert "identity" in first.why
    assert first.until_ns is not None
    assert any(line.startswith("camera c1 is lost: pipeline of camera c1: identity") for line in opened.said)


def test_a_live_stream_that_ends_is_an_outage_and_begins_again(opened, monkeypatch):
    monkeypatch.setattr(tending, "FIRST_WAIT", 0.02)
    source = opened(LIVE, LIVE.replace("pattern", "num-buffers=4 pattern"))
    assert sum(1 for _ in some(source, 6)) == 6  # more than one of its streams gives
    outage = source.reports()[1].camera.outages[0]
    assert outage.why.endswith("its stream ended")
    assert outage.until_ns is not None


def test_a_stop_ends_the_wait(opened):
    source = opened(LIVE)
    threading.Timer(0.3, source.stop).start()
    assert sum(1 for _ in source) > 0


def test_nothing_is_left_running(opened):
    before = threading.active_count()
    with closing(opened(LIVE)) as source:
        next(iter(source))
    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("gst:nosuchelement ! appsink", "c0: GStreamer does not understand it .*nosuchelement"),
        ("gst:videotestsrc ! fakesink", "it has 0 appsinks, expected one"),
        ("gst:videotestsrc ! video/x-raw,format=AYUV ! appsink caps=video/x-raw", "AYUV is none of UYVY"),
        ("gst:filesrc location=/nowhere ! appsink", "filesrc.*: Resource not found .No such file"),
        ("gst:videotestsrc ! video/x-raw,format=AYUV ! appsink", "not-negotiated.*UYVY, YUY2"),
        ("gst:videotestsrc num-buffers=0 ! appsink", "ended without a picture"),
    ],
)
def test_what_cannot_run_says_why_and_what_to_do(opened, spec, words):
    with pytest.raises(DeviceError, match=words) as caught:
        opened(spec)
    assert caught.value.hint or "ended" in words
    assert caught.value.exit_code == 5


def test_pictures_of_another_size_than_the_rigs_are_refused(opened):
    with pytest.raises(InputError, match="128x32, its calibration is for 64x32"):
        opened(LIVE.replace("width=64", "width=128"))
