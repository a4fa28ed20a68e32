"""What `run` shows in a browser, and which addresses it takes."""

from __future__ import annotations

import argparse
import re
import socket

import pytest

from fsmde_edge.cli.main import main
from fsmde_edge.cli.outputs import address

ONE_SET = ("--source", "synthetic", "--frames", "1", "--threads", "1")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("8080", ("127.0.0.1", 8080)),
        ("0", ("127.0.0.1", 0)),
        ("192.168.1.7:8080", ("192.168.1.7", 8080)),
        ("orin.local:80", ("orin.local", 80)),
        ("[::1]:8080", ("::1", 8080)),
        ("[::]:8080", ("::", 8080)),
    ],
)
def test_an_address_is_a_port_or_a_host_with_one(text, found):
    assert address(text) == found


@pytest.mark.parametrize(
    "text", ["", "host", "65536", "-1", ":80", "::1:80", "[::1:80", "[host]:80", "1.5", "²"]
)
def test_what_is_no_address_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError):
        address(text)


@pytest.mark.parametrize(
    ("given", "printed"),
    [
        ("0", r"live view: http://127\.0\.0\.1:\d+/\n"),
        ("127.0.0.2:0", r"live view: http://127\.0\.0\.2:\d+/\?token=[\w-]{32}\n"),
    ],
)
def test_run_prints_where_the_view_is_once(small_bundle, capfd, given, printed):
    assert main(["run", str(small_bundle), *ONE_SET, "--view", given]) == 0
    assert len(re.findall(printed, capfd.readouterr().out)) == 1


def test_a_port_that_is_taken_is_one_line_and_leaves_no_other_output_half_made(small_bundle, capfd, tmp_path):
    record = ["--record", str(tmp_path / "a.mcap")]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["run", str(small_bundle), *ONE_SET, *record, "--view", port]) == 3
    line = capfd.readouterr().err
    assert line.startswith(f"fsmde-edge: 127.0.0.1:{port}: the live view cannot listen there (")
    assert line.count("\n") == 1
    assert not list(tmp_path.iterdir())
