from __future__ import annotations

import shutil

import numpy as np
import pytest

from fsmde_edge.errors import DeviceError
from fsmde_edge.preprocessing import kernel
from fsmde_edge.preprocessing.kernel import load_kernel
from fsmde_edge.preprocessing.prepare import open_preparation
from fsmde_edge.rig import Camera, VirtualPinhole


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of the test's own, and nothing loaded."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    load_kernel.cache_clear()
    yield tmp_path / "fsmde-edge" / "kernels"
    load_kernel.cache_clear()


needs_compiler = pytest.mark.skipif(
    not any(shutil.which(name) for name in ("cc", "gcc", "clang")), reason="no C compiler on this machine"
)


def one_view():
    k = np.array([[20.0, 0, 12], [0, 20.0, 8], [0, 0, 1]])
    camera = Camera(name="a", width=24, height=16, intrinsics=k, camera_to_vehicle=np.eye(4))
    return [camera], [VirtualPinhole.of(camera, 12, 8)]


@needs_compiler
def test_it_is_compiled_once(cache):
    load_kernel()
    (library,) = cache.glob("*.so")
    made = library.stat().st_mtime_ns
    load_kernel.cache_clear()
    load_kernel()
    assert [file.stat().st_mtime_ns for file in cache.glob("*")] == [made]
    assert cache.stat().st_mode & 0o777 == 0o700


@needs_compiler
def test_a_changed_source_is_another_library(cache, tmp_path, monkeypatch):
    load_kernel()
    changed = tmp_path / "kernel.c"
    changed.write_text(kernel.SOURCE.read_text() + "/* changed */\n")
    monkeypatch.setattr(kernel, "SOURCE", changed)
    load_kernel.cache_clear()
    load_kernel()
    assert len(list(cache.glob("*.so"))) == 2


@needs_compiler
@pytest.mark.parametrize("writable", ["file", "folder"])
def test_a_library_that_others_may_write_is_not_loaded(cache, writable):
    load_kernel()
    (library,) = cache.glob("*.so")
    (library if writable == "file" else cache).chmod(0o777)
    load_kernel.cache_clear()
    with pytest.raises(DeviceError, match="may be written by somebody else"):
        load_kernel()


def test_without_a_compiler_the_definition_works_and_says_why(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CC", raising=False)
    assert open_preparation(*one_view()).name == (
        "the definition in NumPy (no C compiler was found; install one (apt install gcc), or go on without)"
    )
    with pytest.raises(DeviceError, match="no C compiler was found"):
        open_preparation(*one_view(), how="kernel")


def test_a_compiler_that_fails_is_told_in_one_line(cache, tmp_path, monkeypatch):
    broken = tmp_path / "broken-cc"
    broken.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && echo broken 1.0 && exit\necho no such target >&2\nexit 1\n'
    )
    broken.chmod(0o755)
    monkeypatch.setenv("CC", str(broken))
    name = open_preparation(*one_view()).name
    assert name.startswith("the definition in NumPy (")
    assert "no such target" in name
    assert "\n" not in name
    assert not list(cache.glob("*"))


@needs_compiler
def test_a_damaged_library_is_told(cache, monkeypatch):
    def damaged(_compiler, path):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"not a library")

    monkeypatch.setattr(kernel, "_compile", damaged)
    with pytest.raises(DeviceError, match="cannot be loaded"):
        load_kernel()
