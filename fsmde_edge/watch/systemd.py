"""What a service tells systemd: that it is ready, that it moves, that it stops (sd_notify's protocol).

One datagram of NAME=VALUE lines to the socket in $NOTIFY_SOCKET; see sd_notify(3) and sd_watchdog_enabled(3).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping

FEEDS = 4
"""The watchdog is fed so many times as often as it has to be, where the run moves that often."""


class Notifier:
    """Tells systemd how a service fares; nothing where no systemd asks."""

    def __init__(
        self, environment: Mapping[str, str] = os.environ, say: Callable[[str], None] = lambda _: None
    ) -> None:
        """Find out what is asked for.

        Args:
            environment: NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID.
            say: is told, in a line, if systemd cannot be told anything.
        """
        self._say = say
        self._address = _address(environment.get("NOTIFY_SOCKET", ""))
        self._socket: socket.socket | None = None
        if self._address is not None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)  # systemd that is too slow does not delay the run
        self._every_ns = _watchdog_ns(environment) // FEEDS
        self._fed_ns = 0
        self._ready = self._told = False

    def feed(self, now_ns: int) -> None:
        """Feed the watchdog, if one waits. Called where the run moves, so one that hangs goes hungry.

        Args:
            now_ns: on CLOCK_MONOTONIC.
        """
        hungry = self._every_ns and now_ns - self._fed_ns >= self._every_ns
        if hungry and self._send("WATCHDOG=1"):
            self._fed_ns = now_ns

    def ready(self) -> None:
        """The first depth is there; after the first call that is heard it says no more."""
        self._ready = self._ready or self._send("READY=1")

    def status(self, line: str) -> None:
        """What `systemctl status` shows."""
        self._send(f"STATUS={line}")

    def close(self, line: str) -> None:
        """It stops; may be called twice.

        Args:
            line: why.
        """
        self._send(f"STOPPING=1\nSTATUS={line}")
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, text: str) -> bool:
        """Whether it was taken: a queue of few datagrams may be full."""
        if self._socket is None or self._address is None:
            return True
        try:
            self._socket.sendto(text.encode(), self._address)
        except BlockingIOError:
            return False
        except OSError as error:
            if not self._told:
                self._say(f"systemd cannot be told anything ({error.strerror}); the run goes on")
            self._told = True
            return False
        return True


def _address(name: str) -> str | None:
    """The socket's address; `@` begins a name without a file."""
    if name.startswith("@"):
        return "\0" + name[1:]
    return name or None


def _watchdog_ns(environment: Mapping[str, str]) -> int:
    """How often the watchdog has to be fed; 0 for never, or where it waits for another process."""
    period, pid = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    if not period.isdecimal() or (pid and pid != str(os.getpid())):
        return 0
    return int(period) * 1000
