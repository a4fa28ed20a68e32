"""Fixtures that all rooms share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real recordings beside the repository (never copied into it): ../shared/data, or $FSMDE_SHARED/data."""
    root = Path(os.environ.get("FSMDE_SHARED", REPOSITORY.parent / "shared")) / "data"
    if not root.is_dir():
        pytest.skip(f"real recordings are not on this machine (looked for {root}; set FSMDE_SHARED)")
    return root
