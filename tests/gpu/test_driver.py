"""The CUDA driver and the board, as the driver itself and `doctor` see them."""

from __future__ import annotations

import ctypes

import pytest

from fsmde_edge.doctor import examine

COMPUTE_CAPABILITY = (75, 76)  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR


@pytest.fixture
def driver() -> ctypes.CDLL:
    library = ctypes.CDLL("libcuda.so.1")
    assert library.cuInit(0) == 0
    return library


def finding(what: str):
    return next(found for found in examine() if found.what == what)


@pytest.mark.cuda
def test_doctor_reports_as_many_devices_as_the_driver(driver):
    count = ctypes.c_int()
    assert driver.cuDeviceGetCount(ctypes.byref(count)) == 0
    assert count.value >= 1
    assert f"{count.value} device(s)" in finding("CUDA").detail
    assert finding("CUDA").level != "problem"


@pytest.mark.orin
def test_doctor_recognises_the_board():
    assert finding("Jetson").level == "ok"
    assert "JetPack" in finding("Jetson").detail
    assert "unknown" not in finding("Jetson").detail


@pytest.mark.orin
def test_the_gpu_is_the_one_that_the_orin_targets_name(driver):
    found = []
    for attribute in COMPUTE_CAPABILITY:
        value = ctypes.c_int()
        assert driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, 0) == 0
        found.append(value.value)
    assert found == [8, 7]
