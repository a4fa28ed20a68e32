"""`import fsmde_edge as fe`: depth in a loop, closed however the loop ends."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import numpy as np
import pytest

import fsmde_edge as fe
from fsmde_edge import api
from fsmde_edge.errors import GateFailed, InputError, UsageError


def test_depth_of_every_set(small_bundle):
    sets = list(fe.run(small_bundle, source="synthetic", frames=2))
    assert [each.index for each in sets] == [0, 1]
    for depths in sets:
        assert isinstance(depths, fe.DepthSet)
        assert depths.depth.shape == (6, 96, 160)
        assert all(depths.valid)
        assert 0.5 < np.median(depths.depth) < 100


@pytest.fixture
def closed(monkeypatch):
    """Names of the sources that were closed."""
    found, real = [], api.open_source

    def opened(*args, **kwargs):
        source = real(*args, **kwargs)
        close = source.close
        monkeypatch.setattr(source, "close", lambda: (found.append(source.name), close()))
        return source

    monkeypatch.setattr(api, "open_source", opened)
    return found


def test_a_break_closes_what_it_opened(small_bundle, closed):
    for _ in fe.run(small_bundle, source="synthetic"):
        assert closed == []
        break
    assert len(closed) == 1


def test_an_exception_closes_what_it_opened(small_bundle, closed):
    def fail():
        for _ in fe.run(small_bundle, source="synthetic"):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert len(closed) == 1


def test_a_session_that_cannot_be_opened_closes_the_source(small_bundle, closed):
    with pytest.raises(UsageError, match="no backend is called abacus"):
        next(fe.run(small_bundle, source="synthetic", backend="abacus"))
    assert len(closed) == 1


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({}, UsageError, "cameras=... or source=..."),
        ({"source": "synthetic", "cameras": "/dev/video0-5"}, UsageError, "cameras=... or source=..."),
        ({"source": "nowhere"}, InputError, "nowhere"),
        ({"cameras": "/dev/video0-1"}, UsageError, "2"),
        ({"source": "gst:videotestsrc ! appsink"}, UsageError, "one pipeline for 6 cameras"),
    ],
)
def test_what_cannot_run_is_an_error_of_ours(small_bundle, given, error, words):
    with pytest.raises(error, match=words) as caught:
        next(fe.run(small_bundle, **given))
    assert isinstance(caught.value, fe.FsmdeError)


def test_a_bundle_whose_gate_failed_is_refused(small_bundle, monkeypatch):
    monkeypatch.setattr(api.Bundle, "int8_accepted", False)
    with pytest.raises(GateFailed, match="allow_failed=True"):
        next(fe.run(small_bundle, source="synthetic"))


def test_no_other_name_is_there():
    with pytest.raises(AttributeError, match="no attribute 'walk'"):
        _ = fe.walk
    assert set(fe.__all__) <= set(dir(fe))


def test_the_docstrings_example_runs(small_bundle):
    example = textwrap.dedent(fe.run.__doc__.split("closing`.")[1].split("Args:")[0])
    example = example.replace('"bundle"', repr(str(small_bundle)))
    example = example.replace('cameras="/dev/video0-5", rig="rig.yaml"', 'source="synthetic", frames=1')
    child = subprocess.run([sys.executable, "-c", example], capture_output=True, text=True, check=False)
    assert (child.returncode, child.stderr) == (0, "")
    assert child.stdout.endswith(" m\n")
