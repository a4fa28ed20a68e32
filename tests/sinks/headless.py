"""Headless Chromium by its own protocol (CDP): open a page, ask it things, take its picture."""

from __future__ import annotations

import asyncio
import base64
import itertools
import shutil
import subprocess
import tempfile
from contextlib import asynccontextmanager

import aiohttp
import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def browser() -> str:
    """Where one is; skips the test where none is."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("the page is looked at in headless Chromium, which is not on this machine")
    return found


class Page:
    """One page."""

    def __init__(self, socket):
        self._socket, self._numbers = socket, itertools.count(1)
        self.complaints = []

    async def ask(self, method, **parameters):
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        while True:
            answer = await self._socket.receive_json()
            if answer.get("method") in {"Runtime.exceptionThrown", "Log.entryAdded"}:
                self.complaints.append(answer["params"])
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]

    async def value(self, expression):
        answer = await self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
        return answer["result"].get("value")

    async def until(self, expression, seconds=30):
        for _ in range(seconds * 20):
            if await self.value(expression):
                return
            await asyncio.sleep(0.05)
        raise AssertionError(f"never came true: {expression}")

    async def picture(self):
        return base64.b64decode((await self.ask("Page.captureScreenshot", format="png"))["data"])


@asynccontextmanager
async def opened(url, *, size=(1500, 1000)):
    """A page of its own browser."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        line = [
            browser(), "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--remote-debugging-port=0", f"--user-data-dir={profile}",
            f"--window-size={size[0]},{size[1]}", "about:blank",
        ]  # fmt: skip
        with subprocess.Popen(line, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
            try:
                place = next(part for part in process.stderr if "DevTools listening" in part).split()[-1]
                port = place.split(":")[2].split("/")[0]
                async with aiohttp.ClientSession() as session:
                    target = f"http://127.0.0.1:{port}/json/new?about:blank"
                    where = await (await session.put(target)).json()
                    async with session.ws_connect(where["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                        page = Page(socket)
                        for domain in ("Runtime", "Log", "Page"):
                            await page.ask(f"{domain}.enable")
                        await page.ask(
                            "Emulation.setDeviceMetricsOverride",
                            width=size[0], height=size[1], deviceScaleFactor=1, mobile=False,
                        )  # fmt: skip
                        await page.ask("Page.navigate", url=url)
                        yield page
            finally:
                process.kill()
