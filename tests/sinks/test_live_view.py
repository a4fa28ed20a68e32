"""The live view: what a browser gets, who is refused, and that the run never waits for it."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import threading
import time
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace

import aiohttp
import cv2
import numpy as np
import pytest
from headless import opened
from surround import result, ring

from fsmde_edge.errors import MissingExtra, OutputError
from fsmde_edge.frames import Clock, RawFrame, Stamp
from fsmde_edge.preprocessing.raw import RawLayout
from fsmde_edge.sinks import view_server
from fsmde_edge.sinks.mosaic import colour_depth, far_end
from fsmde_edge.sinks.points import CloudMaker, PointChoice
from fsmde_edge.sinks.view import ViewSink

RIG = ring(width=640, height=384, fx=330, fy=330)


@contextmanager
def view(host="127.0.0.1"):
    sink = ViewSink(host, 0)
    try:
        yield sink
    finally:
        sink.close()


@asynccontextmanager
async def watching(sink, **headers):
    async with aiohttp.ClientSession(headers=headers) as session:
        address = sink.url.replace("/?", "/live?") if "?" in sink.url else sink.url + "live"
        async with session.ws_connect(address, max_msg_size=0) as browser:
            assert len(json.loads((await browser.receive()).data)["colours"]) == 32
            yield browser


async def answers(url, **headers):
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as answer:
        return answer.status, await answer.text(), answer.headers


async def shown(sink, browser, one):
    """Write until the browser gets something; its message."""
    waiting = asyncio.ensure_future(browser.receive())
    while not waiting.done():
        await asyncio.to_thread(sink.write, *one)
        await asyncio.sleep(0.02)
    return taken_apart(waiting.result().data)


def taken_apart(data):
    length = int.from_bytes(data[:4], "little")
    head, place, pictures = json.loads(data[4 : 4 + length]), 4 + length, {}
    for each in head["views"]:
        for what in ("picture", "depth"):
            jpeg = np.frombuffer(data[place : place + each[what]], np.uint8)
            pictures[each["camera"], what] = cv2.imdecode(jpeg, cv2.IMREAD_COLOR)[..., ::-1].astype(int)
            place += each[what]
    return head, pictures, data[place : place + head["points"]]


def steady(index=7, **options):
    """Smooth depth and pictures, which JPEG tells well."""
    frame_set, images, depth_set = result(RIG, index=index, **options)
    images = np.broadcast_to(np.linspace(20, 220, 640, dtype=np.uint8)[:, None], images.shape)
    depth = np.stack([np.full((384, 640), 3.0 + 5 * view, np.float32) for view in range(6)])
    return frame_set, images, replace(depth_set, depth=depth)


def test_a_browser_gets_views_depth_and_points_in_ring_order():
    one = steady()

    async def look():
        with view() as sink:
            async with watching(sink) as browser:
                return await shown(sink, browser, one)

    head, pictures, points = asyncio.run(look())
    assert (head["set"], head["name"], head["rows"]) == (7, "scene/7", [[1, 0, 5], [2, 3, 4]])
    assert [each["camera"] for each in head["views"]] == list(RIG.names)
    assert head["far"] == far_end(one[2].depth)
    for number, name in enumerate(RIG.names):
        expected = colour_depth(one[2].depth[number], head["far"])[0, 0].astype(int)
        assert np.abs(pictures[name, "depth"] - expected).max() < 12
        assert pictures[name, "picture"].shape == (192, 320, 3)
        assert np.abs(pictures[name, "picture"][:, 160, 0] - 120).max() < 5
    cloud = CloudMaker(PointChoice(stride=8)).cloud(one[1], one[2])
    packed = np.frombuffer(points, [("xy", "<i2", 2), ("rgb", "u1", 3)])
    np.testing.assert_allclose(packed["xy"] / 100, cloud.xyz[:, :2], atol=0.006)
    np.testing.assert_array_equal(packed["rgb"], cloud.rgb)


def test_views_that_are_not_current_and_ages_are_told():
    now = time.monotonic_ns()
    frame_set, images, depth_set = steady(
        clock=Clock.MONOTONIC, offset=0, start=now, valid=(True, True, False, False, True, True)
    )
    layout = RawLayout(code="UYVY", width=640, height=384)
    gone = RawFrame(camera="back", raw=None, layout=layout, stamp=Stamp(now, Clock.MONOTONIC))
    frames = (*frame_set.frames[:3], gone, *frame_set.frames[4:])
    one = replace(frame_set, frames=frames), images, depth_set

    async def look():
        with view() as sink:
            async with watching(sink) as browser:
                return await shown(sink, browser, one)

    head, _, _ = asyncio.run(look())
    assert [each["valid"] for each in head["views"]] == [True, True, False, False, True, True]
    assert [each["seen"] for each in head["views"]] == [True, True, True, False, True, True]
    ages = [each["age_ms"] for each in head["views"]]
    assert ages[3] is None
    assert all(0 <= age < 60_000 for age in ages[:3] + ages[4:])


def test_nothing_is_made_while_nobody_looks():
    with view() as sink:
        for _ in range(3):
            sink.write(*steady())
        assert sink._newest is None
        assert sink._maker._far == 0


def test_a_watcher_who_does_not_read_holds_nothing_up_and_gets_the_newest_later(monkeypatch):
    monkeypatch.setattr("fsmde_edge.sinks.view.MOST_RATE", 1e9)
    rig = ring(width=640, height=384, fx=330, fy=330)
    noisy = [result(rig, index=n, seed=n) for n in range(4)]

    async def look():
        with view() as sink:
            async with watching(sink, **{}) as browser:
                for n in range(60):  # the socket's buffers fill long before
                    frame_set, images, depth_set = noisy[n % 4]
                    numbered = replace(depth_set, index=n)
                    await asyncio.to_thread(sink.write, frame_set, images, numbered)
                await asyncio.sleep(0.5)
                got = []
                while not got or got[-1] != 59:
                    got.append(taken_apart((await browser.receive(timeout=20)).data)[0]["set"])
                return got

    got = asyncio.run(look())
    assert got == sorted(set(got))
    assert got[-1] == 59


def test_a_rate_beyond_what_people_see_is_not_shown():
    one = steady()

    async def look():
        with view() as sink:
            async with watching(sink) as browser:
                await shown(sink, browser, one)
                sink._last_taken = time.monotonic()
                sink.write(*one)
                return sink._newest

    assert asyncio.run(look()) is None


def test_beyond_this_machines_own_address_the_token_is_needed():
    async def look(sink):
        base = sink.url.partition("?")[0]
        refused = [
            base, f"{base}live", f"{base}nowhere", f"{base}?token=", f"{base}?token=wrong",
            f"{base}?token=%C3%A9", sink.url[:-1],
        ]  # fmt: skip
        statuses = [(await answers(url))[0] for url in refused]
        status, page, headers = await answers(sink.url)
        async with watching(sink) as browser:
            assert not browser.closed
        with pytest.raises(aiohttp.WSServerHandshakeError) as told:
            async with aiohttp.ClientSession() as session, session.ws_connect(f"{base}live"):
                pass
        return statuses, status, page, headers, told.value.status

    with view("127.0.0.2") as sink:
        assert "?token=" in sink.url
        assert len(sink._server._token) >= 32
        statuses, status, page, headers, socket_status = asyncio.run(look(sink))
        assert statuses == [403] * 7
        assert (status, socket_status) == (200, 403)
        assert sink._server._token not in page
        assert headers["Referrer-Policy"] == "no-referrer"
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", sink._server._port), timeout=5)
    with view("127.0.0.2") as another:
        assert another._server._token != sink._server._token


def test_the_token_is_compared_in_constant_time(monkeypatch):
    compared = []

    def compare(*both):
        compared.append(both)
        return False

    monkeypatch.setattr(view_server.hmac, "compare_digest", compare)
    with view("127.0.0.2") as sink:
        assert asyncio.run(answers(sink.url))[0] == 403
        token = sink._server._token.encode()
    assert compared == [(token, token)]


def test_no_other_page_looks_through_a_watchers_browser():
    async def look(sink):
        port = sink._server._port
        return [
            (await answers(sink.url, Host=host, **({"Origin": origin} if origin else {})))[0]
            for host, origin in (
                (f"127.0.0.1:{port}", None),
                (f"localhost:{port}", f"http://localhost:{port}"),
                ("localhost:9999", None),  # through a tunnel
                (f"evil.example:{port}", None),
                (f"127.0.0.1:{port}", "http://evil.example"),
                (f"127.0.0.1:{port}", f"http://127.0.0.1:{port + 1}"),
                (f"127.0.0.1:{port}", "null"),
            )
        ]

    with view() as sink:
        assert "token" not in sink.url
        assert asyncio.run(look(sink)) == [200, 200, 200, 403, 403, 403, 403]


def test_the_page_asks_nobody_else_for_anything():
    with view() as sink:
        _, page, headers = asyncio.run(answers(sink.url))
    policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
    assert (policy["default-src"], policy["connect-src"]) == ("'none'", "'self'")
    nonce = policy["script-src"].removeprefix("'nonce-").removesuffix("'")
    assert page.count(f'nonce="{nonce}"') == 2
    assert "NONCE" not in page
    assert "http" not in page


def test_no_more_watchers_than_it_was_made_for():
    async def look(sink):
        async with aiohttp.ClientSession() as session:
            many = [await session.ws_connect(f"{sink.url}live") for _ in range(view_server.MOST_WATCHERS)]
            status = (await answers(f"{sink.url}live"))[0]
            await many[0].close()
            for _ in range(100):
                if sink._server.watchers < len(many):
                    break
                await asyncio.sleep(0.05)
            async with watching(sink):
                return status

    with view() as sink:
        assert asyncio.run(look(sink)) == 503


def test_the_end_is_told_and_nothing_is_left_running():
    before = set(threading.enumerate())

    async def look():
        sink = ViewSink("127.0.0.1", 0)
        async with watching(sink) as browser:
            await asyncio.to_thread(sink.close)
            message = await browser.receive()
            return sink, message.type, message.extra

    sink, kind, why = asyncio.run(look())
    assert (kind, why) == (aiohttp.WSMsgType.CLOSE, "the run has ended")
    sink.close()
    assert {
        thread for thread in set(threading.enumerate()) - before if thread.name.startswith("view")
    } == set()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", sink._server._port), timeout=5)


def test_what_goes_wrong_in_the_thread_is_the_runs_to_raise(monkeypatch):
    def broken(_):
        raise RuntimeError("no picture")

    async def look(sink):
        monkeypatch.setattr(sink._maker, "message", broken)
        async with watching(sink):
            sink.write(*steady())
            sink._thread.join()

    sink = ViewSink("127.0.0.1", 0)
    asyncio.run(look(sink))
    with pytest.raises(RuntimeError, match="no picture"):
        sink.write(*steady())
    with pytest.raises(RuntimeError, match="no picture"):
        sink.close()
    sink.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "192.0.2.1", "no-such-host.invalid"])
def test_an_address_that_cannot_be_had_is_one_clear_line(host):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            OutputError, match=rf"^{host}:{port}: the live view cannot listen there \(.+\); choose"
        ):
            ViewSink(host, port)


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "aiohttp.web", None)
    with pytest.raises(MissingExtra, match=r"fsmde-edge\[view\]"):
        ViewSink()


MARKED_BAD = (
    "[...document.querySelectorAll('.view')].filter(v => getComputedStyle(v.querySelector('.bad')).display "
    "!== 'none').map(v => v.dataset.camera).join()"
)


async def feed(sink, one, stop):
    while not stop.is_set():
        await asyncio.to_thread(sink.write, *one)
        await asyncio.sleep(0.03)


def test_headless_chromium_shows_it():
    one = steady(valid=(True, True, True, False, True, True))

    async def look(sink):
        async with opened(sink.url) as page:
            await page.until("document.body.dataset.state === 'waiting'")
            stop = asyncio.Event()
            feeding = asyncio.ensure_future(feed(sink, one, stop))
            await page.until("Number(document.body.dataset.shown) >= 3")
            await page.until(f"{MARKED_BAD} === 'back'")  # all of them while a busy machine keeps it waiting
            found = {
                "set": await page.value("document.body.dataset.set"),
                "order": await page.value(
                    "[...document.querySelectorAll('.view')].map(v => v.dataset.camera).join()"
                ),
                "size": await page.value("document.querySelector('.view canvas').width"),
                "scale": await page.value(
                    "getComputedStyle(document.getElementById('scale')).backgroundImage"
                ),
                "above": await page.value(
                    "document.getElementById('above').getContext('2d').getImageData(0, 0, 460, 460)"
                    ".data.filter(v => v > 100 && v < 255).length"
                ),
                "picture": await page.picture(),
            }
            stop.set()
            await feeding
            await page.until("document.body.dataset.state === 'stale'")
            found["stale"] = await page.value(
                "[...document.querySelectorAll('.bad')].every(b => getComputedStyle(b).display !== 'none')"
            )
            await asyncio.to_thread(sink.close)
            await page.until("document.getElementById('state').textContent === 'the run has ended'")
            return found, [entry for entry in page.complaints if "ERR_CONNECTION_REFUSED" not in str(entry)]

    with view() as sink:
        found, complaints = asyncio.run(look(sink))
    assert complaints == []
    assert found["set"] == "7"
    assert found["order"] == "front-left,front,front-right,back-left,back,back-right"
    assert found["size"] == 320
    assert found["scale"].startswith("linear-gradient")
    assert found["above"] > 500
    assert found["stale"]
    screen = cv2.imdecode(np.frombuffer(found["picture"], np.uint8), cv2.IMREAD_COLOR)
    assert screen.shape == (1000, 1500, 3)


def test_headless_chromium_is_refused_without_the_token():
    async def look(sink):
        async with opened(sink.url.partition("?")[0]) as page:
            await page.until("document.body && document.body.innerText.includes('refused')")
            await page.ask("Page.navigate", url=sink.url)
            await page.until("document.getElementById('scale').style.background !== ''")

    with view("127.0.0.2") as sink:
        asyncio.run(look(sink))
