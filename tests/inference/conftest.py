"""The toy network and its lowering, shared with the tests of the compiler."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "compiler"))  # toy_depth and test_lowering lie there
