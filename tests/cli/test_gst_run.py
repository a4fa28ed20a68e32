"""`run --source gst:...`; skipped where Python does not see GStreamer, but for what needs none."""

from __future__ import annotations

import sys

import pytest

from fsmde_edge.capture.gstreamer.library import load
from fsmde_edge.cli.main import main
from fsmde_edge.errors import DeviceError

CAPS = "video/x-raw,format=UYVY,width=320,height=180,framerate=30/1"
TEST = f"gst:videotestsrc is-live=true pattern=snow ! {CAPS} ! appsink"


def test_without_gstreamer_it_says_what_to_install(small_bundle, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gi", None)
    code = main(["run", str(small_bundle), "--source", f"{TEST} name={{camera}}"])
    said = capsys.readouterr().err
    assert (code, said.count("\n")) == (5, 1)
    assert "sudo apt install python3-gi python3-gst-1.0" in said
    assert "--system-site-packages" in said


def test_pipelines_become_depth_and_the_report_says_how(small_bundle, capsys):
    try:
        load()
    except DeviceError as error:
        pytest.skip(f"NOT RUN: {error}")
    arguments = [
        "run",
        str(small_bundle),
        "--source",
        f"{TEST} name={{camera}}",
        "--frames",
        "3",
        "--threads",
        "1",
    ]
    code = main([*arguments, "--missing", "mask"])
    said = capsys.readouterr()
    assert (code, said.err) == (0, "")
    assert "without --rig the pipelines are the bundle's views" in said.out
    assert "3 frame sets" in said.out
    assert (
        said.out.count("memory gstreamer, copies 0, 0 bytes copied (mapped where the pipeline wrote it)") == 6
    )
    assert "  age        p50" in said.out


def test_options_of_v4l2_do_not_go_with_pipelines(small_bundle, capsys):
    assert main(["run", str(small_bundle), "--source", TEST, "--memory", "copy"]) == 2
    assert "--memory goes with --cameras" in capsys.readouterr().err
