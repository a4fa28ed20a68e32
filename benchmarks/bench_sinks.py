"""What each sink costs a set: six views of 384x640, written to memory-backed files where there are any."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest

from fsmde_edge.frames import DepthSet, Frame, FrameSet, Stamp
from fsmde_edge.sinks.mosaic import mosaic
from fsmde_edge.sinks.npz import NpzSink
from fsmde_edge.sinks.png import PngSink

VIEWS, SIZE = 6, (384, 640)
MEMORY = Path("/dev/shm")


@pytest.fixture
def folder():
    """Files that no disk slows down."""
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as name:
        yield Path(name)


@pytest.fixture(scope="module")
def result():
    """A smooth street's worth of entropy: gradients with a little noise."""
    generator = np.random.default_rng(0)
    ramp = np.linspace(2, 80, SIZE[0])[::-1, None] + np.linspace(0, 5, SIZE[1])
    depth = (ramp + generator.normal(0, 0.05, (VIEWS, *SIZE))).astype(np.float32)
    images = np.clip(depth[..., None] * 2 + generator.normal(0, 3, (VIEWS, *SIZE, 3)), 0, 255).astype(
        np.uint8
    )
    names = tuple(f"C{number}" for number in range(VIEWS))
    frames = tuple(Frame(camera=n, image=i, stamp=Stamp(0)) for n, i in zip(names, images, strict=True))
    focal = np.full(VIEWS, 300, np.float32)
    depth_set = DepthSet(depth=depth, cameras=names, stamps_ns=(0,) * VIEWS, focal=focal)
    return FrameSet(frames=frames), images, depth_set


@pytest.mark.benchmark(group="sinks: one set of six views")
@pytest.mark.parametrize("kind", [NpzSink, PngSink], ids=["npz", "png"])
def test_files(benchmark, folder, result, kind):
    """One set again and again, into the same files."""
    sink = kind(folder / "out")
    benchmark(sink.write, *result)
    sink.close()


@pytest.mark.benchmark(group="sinks: one set of six views")
def test_mosaic(benchmark, result):
    """The picture alone, without its file."""
    _, images, depth_set = result
    benchmark(mosaic, images, depth_set.depth, depth_set.cameras)
