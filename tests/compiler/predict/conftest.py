"""The toy network and its lowering, shared with the tests of the compiler."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))  # toy_depth and test_lowering lie there


@pytest.fixture(scope="session")
def toy():
    """The toy network in float32, as wide as INT8 maps are packed."""
    from toy_depth import depth_network

    return depth_network(channels=32, height=64, width=96)


@pytest.fixture(scope="session")
def toy_int8(toy):
    """The toy network as Q/DQ model, rest float32."""
    from test_lowering import compile_int8

    return compile_int8(toy)[1]
