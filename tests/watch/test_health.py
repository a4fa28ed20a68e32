from __future__ import annotations

import json
import threading

import pytest

from fsmde_edge.errors import OutputError
from fsmde_edge.watch import health as module
from fsmde_edge.watch.health import HealthFile


def test_the_newest_state_is_there_once_it_is_closed(tmp_path):
    file = HealthFile(tmp_path / "folder" / "health.json", pytest.fail)
    for number in range(50):
        file.put({"number": number})
    file.close()
    file.close()
    assert json.loads((tmp_path / "folder/health.json").read_text()) == {"number": 49}
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["health.json"]


def test_a_slow_disk_delays_nobody_and_gets_the_newest(tmp_path, monkeypatch):
    written, busy, go_on = [], threading.Event(), threading.Event()

    def slowly(_path, data) -> None:
        busy.set()
        go_on.wait(10)
        written.append(json.loads(data))

    monkeypatch.setattr(module, "atomic_write", slowly)
    file = HealthFile(tmp_path / "health.json", pytest.fail)
    file.put({"number": 0})
    busy.wait(10)
    for number in range(1, 1000):
        file.put({"number": number})
    assert written == []
    go_on.set()
    file.close()
    assert [state["number"] for state in written] == [0, 999]


def test_a_file_that_cannot_be_written_is_refused_at_the_start(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="choose a folder"):
        HealthFile(tmp_path / "file" / "health.json", pytest.fail)


def test_a_disk_that_fills_up_is_told_of_once_and_the_last_state_stays_whole(tiny_disk):
    said: list[str] = []
    file = HealthFile(tiny_disk / "health.json", said.append)
    file.put({"filler": "x" * 10})
    file.close()
    file = HealthFile(tiny_disk / "health.json", said.append)
    for _ in range(3):
        file.put({"filler": "x" * 1_000_000})
    file.close()
    (line,) = said
    assert line.startswith("--health: ")
    assert "No space left on device" in line
    assert line.endswith("the run goes on without it")
    assert json.loads((tiny_disk / "health.json").read_text()) == {"filler": "x" * 10}


def test_after_a_disk_has_room_again_the_file_is_kept_and_a_new_failure_is_new(tmp_path, monkeypatch):
    said, written, done = [], [], threading.Semaphore(0)
    full = True

    def write(_path, data) -> None:
        try:
            if full:
                raise OutputError("is full", where="disk")
            written.append(data)
        finally:
            done.release()

    monkeypatch.setattr(module, "atomic_write", write)
    file = HealthFile(tmp_path / "health.json", said.append)
    for full in (True, True, False, True, True):  # noqa: B007
        file.put({})
        assert done.acquire(timeout=10)
    file.close()
    assert len(said) == 2
    assert len(written) == 1
