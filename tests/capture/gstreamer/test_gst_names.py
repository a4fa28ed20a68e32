"""Which pipeline is which camera's: no GStreamer needed."""

from __future__ import annotations

import pytest

from fsmde_edge.capture.gstreamer.names import is_pipeline, match_pipelines
from fsmde_edge.errors import UsageError


@pytest.mark.parametrize(
    ("spec", "so"),
    [("gst:a ! b", True), ("front=gst:a ! b", True), ("rec/gst:x.mp4", False), ("front=a.mp4", False)],
)
def test_a_pipeline_is_known_by_its_prefix(spec, so):
    assert is_pipeline(spec) is so


def test_one_description_is_filled_in_for_every_camera(two_cameras):
    found = match_pipelines(
        ["gst:v4l2src device=/dev/video{index} ! video/x-raw,format={UYVY} ! {camera}"], two_cameras
    )
    assert found == {
        name: f"v4l2src device=/dev/video{index} ! video/x-raw,format={{UYVY}} ! {name}"
        for index, name in enumerate(two_cameras.names)
    }


def test_one_a_camera_goes_by_name_or_by_ring_order(two_cameras):
    first, second = two_cameras.names
    assert match_pipelines(["gst:a", "gst:b"], two_cameras) == {first: "a", second: "b"}
    assert match_pipelines([f"{second}=gst:b", f"{first}=gst:a"], two_cameras) == {first: "a", second: "b"}


@pytest.mark.parametrize(
    ("specs", "words"),
    [
        (["gst:a"], "one pipeline for 2 cameras"),
        (["gst:a", "gst:b", "gst:c"], "3 pipelines do not go with the cameras c0, c1"),
        (["c0=gst:a", "c0=gst:b"], "2 pipelines do not go"),
        (["c0=gst:a", "gst:b"], "2 pipelines do not go"),
        (["gst:a", "front.mp4"], "beside other sources"),
    ],
)
def test_what_does_not_go_together_says_so(two_cameras, specs, words):
    with pytest.raises(UsageError, match=words):
        match_pipelines(specs, two_cameras)
