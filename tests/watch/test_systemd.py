"""What systemd hears, over real sockets, by file and by abstract name."""

from __future__ import annotations

import os
import socket
from contextlib import closing

import pytest

from fsmde_edge.watch.systemd import FEEDS, Notifier

SECOND = 1_000_000_000


@pytest.fixture(params=["file", "abstract"])
def systemd(request, tmp_path):
    """(NOTIFY_SOCKET, what it heard since the last look)."""
    name = str(tmp_path / "notify") if request.param == "file" else f"@fsmde-edge-test-{os.getpid()}"
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as listener:
        listener.bind(name.replace("@", "\0", 1))
        listener.setblocking(False)

        def heard() -> list[str]:
            words = []
            while True:
                try:
                    words.append(listener.recv(4096).decode())
                except BlockingIOError:
                    return words

        yield name, heard


def test_it_is_ready_once_and_says_how_it_fares_and_why_it_stops(systemd):
    name, heard = systemd
    notifier = Notifier({"NOTIFY_SOCKET": name})
    notifier.status("starting")
    notifier.ready()
    notifier.ready()
    notifier.close("stopped: a signal")
    notifier.close("again")
    notifier.status("nobody hears this")
    assert heard() == ["STATUS=starting", "READY=1", "STOPPING=1\nSTATUS=stopped: a signal"]


def test_the_watchdog_is_fed_several_times_a_period_and_no_more_often(systemd):
    name, heard = systemd
    environment = {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "2000000", "WATCHDOG_PID": str(os.getpid())}
    with_watchdog = Notifier(environment)
    words = []
    for tick in range(100, 300):  # ten times a second for twenty seconds
        with_watchdog.feed(tick * SECOND // 10)
        words += heard()
    assert words == ["WATCHDOG=1"] * (20 * FEEDS // 2)


def test_one_who_does_not_move_goes_hungry(systemd):
    name, heard = systemd
    Notifier({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "1000"})
    assert heard() == []


@pytest.mark.parametrize("environment", [{}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "soon"},
                                         {"WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}])  # fmt: skip
def test_a_watchdog_that_waits_for_nobody_or_another_is_not_fed(systemd, environment):
    name, heard = systemd
    Notifier({"NOTIFY_SOCKET": name, **environment}).feed(5 * SECOND)
    assert heard() == []


def test_without_systemd_nothing_happens():
    notifier = Notifier({"WATCHDOG_USEC": "1000"})
    notifier.feed(SECOND)
    notifier.ready()
    notifier.close("")


def test_a_socket_that_is_gone_is_told_of_once_and_tried_again(tmp_path):
    said: list[str] = []
    path = tmp_path / "notify"
    notifier = Notifier({"NOTIFY_SOCKET": str(path)}, said.append)
    notifier.status("one")
    notifier.status("two")
    assert said == ["systemd cannot be told anything (No such file or directory); the run goes on"]
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as listener:
        listener.bind(str(path))
        notifier.status("three")
        assert listener.recv(100) == b"STATUS=three"


def test_a_systemd_that_does_not_listen_delays_nothing(systemd):
    name, heard = systemd
    notifier = Notifier({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "4000000000"}, say=pytest.fail)
    for number in range(5000):  # more than its queue holds
        notifier.status(str(number))
    notifier.ready()
    notifier.feed(SECOND * 5000)
    assert set(heard()) <= {f"STATUS={number}" for number in range(5000)}
    notifier.ready()
    notifier.feed(SECOND * 5001)
    assert heard() == ["READY=1", "WATCHDOG=1"]  # what it missed that matters is told again
