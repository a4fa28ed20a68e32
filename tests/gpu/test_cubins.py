"""NVRTC compiles every kernel for every architecture that we name, without a GPU."""

from __future__ import annotations

import sys

import pytest

from fsmde_edge.errors import DeviceError
from fsmde_edge.gpu import nvrtc
from fsmde_edge.gpu.nvrtc import Cubin, compile_cubin, load_cubin, nvrtc_version, resources
from fsmde_edge.preprocessing.launch import FUNCTION, SOURCE, THREADS

ARCHITECTURES = ("sm_87", "sm_86", "sm_90")
REGISTERS = 65536  # of a multiprocessor, on each of them: CUDA C++ Programming Guide, compute capabilities


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of the test's own; without NVRTC nothing here can run."""
    try:
        nvrtc_version()
    except DeviceError as error:
        pytest.skip(str(error))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "fsmde-edge" / "kernels"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_kernel_compiles_without_spills_and_two_blocks_fit(architecture):
    made = compile_cubin(SOURCE, architecture)
    assert made.code.startswith(b"\x7fELF")
    assert FUNCTION.encode() in made.code
    used = resources(made)
    assert (used.stack, used.spill_stores, used.spill_loads, used.shared) == (0, 0, 0, 0)
    assert used.registers * THREADS * 2 <= REGISTERS


def test_a_cubin_is_compiled_once_and_kept_for_its_architecture(cache, monkeypatch):
    first = load_cubin(SOURCE, "sm_87")
    (file,) = cache.glob("prepare-sm_87-*.cubin")
    assert file.read_bytes() == first.code
    monkeypatch.setattr(nvrtc, "compile_cubin", None)
    assert load_cubin(SOURCE, "sm_87") == Cubin(
        code=first.code, architecture="sm_87", version=first.version, log=""
    )
    with pytest.raises(TypeError):
        load_cubin(SOURCE, "sm_86")


@pytest.mark.parametrize("writable", ["file", "folder"])
def test_a_cubin_that_others_may_write_is_not_loaded(cache, writable):
    load_cubin(SOURCE, "sm_87")
    (file,) = cache.glob("*.cubin")
    (file if writable == "file" else cache).chmod(0o777)
    with pytest.raises(DeviceError, match="may be written by somebody else"):
        load_cubin(SOURCE, "sm_87")


def test_a_changed_source_is_another_cubin(cache, tmp_path):
    load_cubin(SOURCE, "sm_87")
    changed = tmp_path / SOURCE.name
    changed.write_text(SOURCE.read_text() + "/* changed */\n")
    load_cubin(changed, "sm_87")
    assert len(list(cache.glob("*.cubin"))) == 2


def test_what_does_not_compile_is_one_line(tmp_path):
    broken = tmp_path / "broken.cu"
    broken.write_text("__global__ void f() { nonsense; }\n")
    with pytest.raises(DeviceError, match=r'broken\.cu.*identifier "nonsense" is undefined') as caught:
        compile_cubin(broken, "sm_87")
    assert "\n" not in str(caught.value)
    with pytest.raises(DeviceError, match="does not compile it for sm_10"):
        compile_cubin(SOURCE, "sm_10")


def test_without_the_bindings_the_extras_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    with pytest.raises(DeviceError, match=r"'cuda-bindings', which does not load.*fsmde-edge\[cuda12\]"):
        nvrtc_version()
