"""Standard output that goes away, is full, or speaks ASCII alone; Ctrl-C in commands that measure."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from hearing import HEARING

COMMAND = [sys.executable, "-m", "fsmde_edge"]


def test_a_reader_that_went_away_does_not_stop_the_work(small_bundle, tmp_path):
    out = tmp_path / "depth"
    words = ["run", small_bundle, "--source", "synthetic", "--frames", "1", "--threads", "1", "--out", out]
    read, write = os.pipe()
    os.close(read)
    child = subprocess.run([*COMMAND, *words], stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (child.returncode, child.stderr) == (0, "")
    assert len(list(out.rglob("*.png"))) == 6


@pytest.mark.parametrize("words", [["inspect", "{bundle}", "--plan"], ["doctor", "--json"], ["--help"]])
def test_a_full_standard_output_is_one_line(small_bundle, words):
    filled = [word.format(bundle=small_bundle) for word in words]
    with open("/dev/full", "w") as full:  # noqa: PTH123
        child = subprocess.run(
            [*COMMAND, *filled], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert len(child.stderr.splitlines()) == 1, child.stderr
    assert "standard output cannot be written (No space left on device)" in child.stderr
    assert child.returncode == (5 if words[0] == "doctor" and child.returncode == 5 else 3)


def test_a_full_standard_error_changes_no_exit_code(tmp_path):
    with open("/dev/full", "w") as full:  # noqa: PTH123
        child = subprocess.run([*COMMAND, "inspect", tmp_path / "absent"], stderr=full, check=False)
    assert child.returncode == 3


def test_a_closed_standard_output_is_no_error(small_bundle):
    child = subprocess.run(
        ["/bin/sh", "-c", '"$@" >&-', "sh", *COMMAND, "inspect", small_bundle],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert (child.returncode, child.stderr) == (0, "")


def test_an_ascii_terminal_gets_question_marks(tmp_path):
    from fsmde_edge.cli.main import COMMANDS

    script = f"""
import fsmde_edge.cli.{next(iter(COMMANDS))}, fsmde_edge.cli.inspect as command
command.run = lambda args: print("S\u00fcd 96\u00d7160") or 0
from fsmde_edge.cli.main import main
raise SystemExit(main(["inspect"]))
"""
    child = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (child.returncode, child.stdout) == (0, "S?d 96?160\n"), child.stderr


def test_control_c_ends_bench_with_what_there_is(small_bundle, tmp_path):
    words = ["bench", small_bundle, "--runs", "100000", "--warmup", "1", "--threads", "1"]
    child = subprocess.Popen(
        [*HEARING, *COMMAND, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(timeout=4)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate()
    assert child.returncode == 0, err
    assert "p50" in out or "stopped before" in out + err


@pytest.mark.parametrize(("command", "code"), [("run", 0), ("bench", 0), ("build", 130), ("check", 130)])
def test_control_c_before_there_is_a_result(monkeypatch, capfd, command, code):
    import importlib

    from fsmde_edge.cli.main import main

    def interrupted(_args):
        raise KeyboardInterrupt

    monkeypatch.setattr(importlib.import_module(f"fsmde_edge.cli.{command}"), "run", interrupted)
    assert main([command, *(["--source", "synthetic"] if command == "run" else [])]) == code
    assert len(capfd.readouterr().err.splitlines()) == 1
