from __future__ import annotations

import pytest

from fsmde_edge.bundle import open_bundle
from fsmde_edge.inference.store import Store


@pytest.fixture
def bundle(small_bundle):
    return open_bundle(small_bundle)


@pytest.fixture
def store(tmp_path, monkeypatch) -> Store:
    """The user's store, which is a fresh one."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return Store()
