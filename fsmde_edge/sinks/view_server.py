"""The web server behind the live picture: one page, one WebSocket, and who may have them."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import secrets
import socket
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import suppress
from importlib import resources
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from fsmde_edge.errors import MissingExtra, OutputError

if TYPE_CHECKING:
    from aiohttp.web import Request, StreamResponse, WebSocketResponse

LOCAL = ("127.0.0.1", "::1")
"""Addresses that nobody but this machine's users can reach: no token is needed."""

MOST_WATCHERS = 8
SECURE = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Sent with everything: the address holds the token, and no other page is to learn or frame it."""

GOODBYE_S = 2.0
"""What a watcher's connection may take to close."""

Handler = Callable[["Request"], Awaitable["StreamResponse"]]


class ViewServer:
    """Serves in a thread of its own; every watcher gets the newest message that it can keep up with."""

    def __init__(self, host: str, port: int, *, greeting: str) -> None:
        """Listen; returns once the address is taken.

        Args:
            host: address or name to listen at.
            port: 0 takes a free one.
            greeting: text that every watcher gets first.

        Errors:
            OutputError: the address cannot be had.
            MissingExtra: without aiohttp.
        """
        try:
            import aiohttp.web  # noqa: F401
        except ImportError as error:
            raise MissingExtra("aiohttp", extra="view", why="the live view (--view)") from error
        self._host, self._greeting = host, greeting
        self._token = None if host in LOCAL else secrets.token_urlsafe(24)
        self._watchers: set[_Watcher] = set()
        self._loop = asyncio.new_event_loop()
        self._end = asyncio.Event()
        self._listening: Future[int] = Future()
        self._thread = threading.Thread(target=self._serve, args=(port,), name="view server", daemon=True)
        self._thread.start()
        try:
            self._port = self._listening.result()
        except OSError as error:
            self._thread.join()
            raise OutputError(
                f"the live view cannot listen there ({error.strerror or error})",
                where=f"{host}:{port}",
                hint="choose another port, or an address of this machine",
            ) from error

    @property
    def url(self) -> str:
        """Where the page is."""
        host = socket.gethostname() if self._host in ("0.0.0.0", "::") else self._host  # noqa: S104, compared
        host = f"[{host}]" if ":" in host else host
        return f"http://{host}:{self._port}/" + (f"?token={self._token}" if self._token else "")

    @property
    def watchers(self) -> int:
        """How many look at it now."""
        return len(self._watchers)

    def publish(self, message: bytes) -> None:
        """Send to all who look; one who is slow misses messages rather than getting them late."""
        self._loop.call_soon_threadsafe(self._offer, message)

    def close(self) -> None:
        """Say goodbye and stop; may be called twice."""
        if self._thread.is_alive():
            with suppress(RuntimeError):  # it ended between the two
                self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()

    def _offer(self, message: bytes) -> None:
        for watcher in self._watchers:
            watcher.offer(message)

    def _serve(self, port: int) -> None:
        try:
            self._loop.run_until_complete(self._run(port))
        except Exception as error:
            if self._listening.done():
                raise
            self._listening.set_exception(error)
        finally:
            self._loop.close()

    async def _run(self, port: int) -> None:
        from aiohttp import web

        @web.middleware
        async def guard(request: Request, handler: Handler) -> StreamResponse:
            return await self._guard(request, handler)

        app = web.Application(middlewares=[guard])
        app.add_routes([web.get("/", self._page), web.get("/live", self._live)])
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=GOODBYE_S)
        await runner.setup()
        try:
            await web.TCPSite(runner, self._host, port).start()
            self._listening.set_result(runner.addresses[0][1])
            await self._end.wait()
            await asyncio.gather(*(watcher.goodbye() for watcher in self._watchers), return_exceptions=True)
        finally:
            await runner.cleanup()

    async def _guard(self, request: Request, handler: Handler) -> StreamResponse:
        """Nobody without the token; no other web page on a watcher's behalf.

        Without a token only names of this machine are answered, or a page of somebody else could have its
        own name point here and read along (DNS rebinding).
        """
        from aiohttp import web

        why = self._refusal(request)
        if why:
            return web.Response(status=403, text=f"refused: {why}\n", headers=SECURE)
        return await handler(request)

    def _refusal(self, request: Request) -> str:
        if self._token is not None:
            given = request.query.get("token", "")
            if not hmac.compare_digest(given.encode(), self._token.encode()):
                return "this address needs the token that the run printed"
        elif not _of_this_machine(urlsplit(f"//{request.host}").hostname):
            return "this view is for this machine alone"
        origin = request.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != request.host:
            return "another page may not look"
        return ""

    async def _page(self, _: Request) -> StreamResponse:
        from aiohttp import web

        nonce = secrets.token_urlsafe(16)
        policy = (
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; "
            "connect-src 'self'; base-uri 'none'; form-action 'none'"
        )
        page = resources.files("fsmde_edge.sinks").joinpath("view.html").read_text("utf-8")
        return web.Response(
            text=page.replace("NONCE", nonce),
            content_type="text/html",
            headers={**SECURE, "Content-Security-Policy": policy},
        )

    async def _live(self, request: Request) -> StreamResponse:
        from aiohttp import web

        if len(self._watchers) >= MOST_WATCHERS:
            return web.Response(status=503, text="too many are looking already\n", headers=SECURE)
        browser = web.WebSocketResponse(heartbeat=10, max_msg_size=1024, compress=False)
        watcher = _Watcher(browser)
        self._watchers.add(watcher)
        try:
            await browser.prepare(request)
            await browser.send_str(self._greeting)
            await watcher.feed()
        except ConnectionError:
            pass  # it went away
        finally:
            self._watchers.discard(watcher)
        return browser


class _Watcher:
    """One browser: what it gets next."""

    def __init__(self, socket: WebSocketResponse) -> None:
        self._socket = socket
        self._newest: bytes | None = None
        self._bell = asyncio.Event()

    def offer(self, message: bytes) -> None:
        self._newest = message
        self._bell.set()

    async def feed(self) -> None:
        """Send until it goes away."""
        listening = asyncio.ensure_future(self._listen())
        try:
            while not listening.done():
                ringing = asyncio.ensure_future(self._bell.wait())
                await asyncio.wait((ringing, listening), return_when=asyncio.FIRST_COMPLETED)
                ringing.cancel()
                self._bell.clear()
                message, self._newest = self._newest, None
                if message is not None and not self._socket.closed:
                    await self._socket.send_bytes(message)
        finally:
            listening.cancel()

    async def goodbye(self) -> None:
        """Tell it that the run has ended."""
        await asyncio.wait_for(self._socket.close(message=b"the run has ended"), GOODBYE_S)

    async def _listen(self) -> None:
        """The page has nothing to say; this ends when it is gone."""
        async for _ in self._socket:
            pass


def _of_this_machine(host: str | None) -> bool:
    if host is None:
        return False
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"
