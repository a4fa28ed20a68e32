"""Tests on the kernel's virtual cameras; they run in the guest of `make kernel-test`, never here."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.register_assert_rewrite("camera_contract")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if not Path("/sys/bus/platform/drivers/vivid").is_dir():
        pytest.skip("the kernel's virtual cameras are not loaded: NOT RUN here, run make kernel-test")
