"""The pages of the console: who may do what, and what is pushed while somebody looks."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import struct
import wave
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from trunkline.bus import messages as m
from trunkline.bus.testing import until
from trunkline.controller import events as ev
from trunkline.controller import viewers as shown
from trunkline.controller.console import BOUNDS, Console
from trunkline.controller.pages import MOST_PCM, Pages
from trunkline.controller.timeline import Entry, Timeline
from trunkline.controller.viewers import MOST_LISTENERS, MOST_PAGES, Viewers

TOKEN = "the-token"
SID = "CA" + "1" * 32


class Site:
    """A console with one live call, "c1". ``done``: what was asked of the core."""

    def __init__(self, recordings: Path | None = None, cassettes: Path | None = None) -> None:
        self.done: list[ev.ByHand | ev.Look] = []
        self.timeline = Timeline(1)
        self.viewers = Viewers(lambda: {"calls": []}, self.timeline, self.done.append)
        pages = Pages(
            self.viewers, lambda call: call == "c1", self.done.append, TOKEN, recordings, cassettes
        )
        self.console = Console(dict, CollectorRegistry, pages)
        self.console.start(0)

    @property
    def orders(self) -> list[ev.ByHand]:
        return [order for order in self.done if isinstance(order, ev.ByHand)]

    async def open(
        self, path: str, method: str = "GET", body: bytes = b"", **headers: str
    ) -> tuple[int, dict[str, str], asyncio.StreamReader, asyncio.StreamWriter]:
        """Status and headers of the answer, whose body can be read."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.console.port)
        lines = {"host": f"127.0.0.1:{self.console.port}", "content-length": str(len(body))}
        head = "".join(f"{name}: {value}\r\n" for name, value in (lines | headers).items())
        writer.write(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body)
        async with asyncio.timeout(10):
            first, *rest = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        named = dict(line.split(": ", 1) for line in rest if line)
        return int(first.split()[1]), named, reader, writer

    async def ask(
        self, path: str, method: str = "GET", body: bytes = b"", **headers: str
    ) -> tuple[int, bytes]:
        status, _, reader, writer = await self.open(path, method, body, **headers)
        async with asyncio.timeout(30):
            found = await reader.read()
        writer.close()
        await writer.wait_closed()
        return status, found


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    made = Site()
    yield made
    await made.console.close()


MAY = {"authorization": f"Bearer {TOKEN}"}


# --------------------------------------------------------------------------- files


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/app.js", "text/javascript; charset=utf-8"),
        ("/style.css", "text/css; charset=utf-8"),
        ("/vendor/htm-preact.js", "text/javascript; charset=utf-8"),
        ("/vendor/LICENSES.txt", "text/plain; charset=utf-8"),
        ("/icon.svg", "image/svg+xml"),
    ],
)
async def test_a_page_has_its_own_files_and_may_have_nothing_else(
    site: Site, path: str, kind: str
) -> None:
    status, headers, _, writer = await site.open(path)
    writer.close()
    assert (status, headers["content-type"]) == (200, kind)
    policy = headers["content-security-policy"].split("; ")
    assert policy[0] == "default-src 'none'"
    assert {"script-src 'self'", "style-src 'self'", "connect-src 'self'"} <= set(policy)
    assert "require-trusted-types-for 'script'" in policy and "unsafe" not in str(policy)
    assert headers["referrer-policy"] == "no-referrer"


async def test_the_page_itself_has_no_script_and_no_style_in_it(site: Site) -> None:
    _, page = await site.ask("/")
    assert b"<title>trunkline</title>" in page
    assert b"<style" not in page and b" style=" not in page and b" on" not in page.lower()
    assert page.count(b"<script") == page.count(b'<script type="module" src=') == 1


@pytest.mark.parametrize("path", ["/../pages.py", "/vendor", "/web/app.js", "/app.js/", "/x.js"])
async def test_no_other_file_is_served(site: Site, path: str) -> None:
    assert (await site.ask(path))[0] == 404


# --------------------------------------------------------------------------- the token, the origin

GUARDED = [
    ("GET", "/api/allowed"),
    ("GET", "/api/calls/c1/sound"),
    ("POST", "/api/calls/c1/hang-up"),
    ("POST", "/api/calls/c1/interrupt"),
    ("POST", "/api/calls/c1/speak"),
    ("GET", f"/api/recordings/{SID}"),
    ("GET", f"/api/recordings/{SID}/wav"),
    ("GET", f"/api/recordings/{SID}/cassette"),
    ("GET", f"/api/recordings/{SID}/report"),
]


@pytest.mark.parametrize(("method", "path"), GUARDED)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer "},
        {"authorization": "Bearer the-token2"},
        {"authorization": TOKEN},
        {"cookie": f"token={TOKEN}"},
    ],
)
async def test_without_the_token_nothing_is_heard_and_nothing_is_done(
    site: Site, method: str, path: str, headers: dict[str, str]
) -> None:
    status, said = await site.ask(path, method, b"\0\0", **headers)
    assert (status, said) == (401, b"open the console with `trunkline console`")
    assert (await site.ask(f"{path}?token={TOKEN}", method, b"\0\0"))[0] == 401
    assert site.done == []


@pytest.mark.parametrize("path", ["/", "/api/live", "/api/status", "/api/calls/c1/hang-up"])
@pytest.mark.parametrize("origin", ["http://elsewhere.example", "null", "https://127.0.0.1"])
async def test_another_sites_page_gets_nothing(site: Site, path: str, origin: str) -> None:
    method = "POST" if "calls" in path else "GET"
    status, said = await site.ask(path, method, origin=origin, **MAY)
    assert (status, said) == (403, b"another site's page has no business here")
    assert site.done == []


async def test_the_page_of_another_local_port_is_another_site(site: Site) -> None:
    own = f"http://127.0.0.1:{site.console.port}"
    assert (await site.ask("/api/allowed", origin=own, **MAY))[0] == 204
    assert (await site.ask("/api/allowed", origin="http://127.0.0.1:9", **MAY))[0] == 403
    assert (await site.ask("/api/allowed", origin=own, host="rebound.example", **MAY))[0] == 403


@pytest.mark.parametrize("path", ["/", "/api/status", "/api/live", f"/api/recordings/{SID}"])
async def test_only_actions_are_posted(site: Site, path: str) -> None:
    assert (await site.ask(path, "POST", **MAY))[0] == 405
    assert (await site.ask("/api/calls/c1/hang-up", "GET", **MAY))[0] == 405


# --------------------------------------------------------------------------- actions


async def test_actions_are_orders_to_the_core(site: Site) -> None:
    for path, body in (("hang-up", b""), ("interrupt", b""), ("speak", b"\1\0\2\0")):
        assert (await site.ask(f"/api/calls/c1/{path}", "POST", body, **MAY))[0] == 204
    assert site.orders == [
        ev.ByHand("c1", "hang_up"),
        ev.ByHand("c1", "interrupt"),
        ev.ByHand("c1", "speak", b"\1\0\2\0"),
    ]


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("/api/calls/c2/hang-up", b"", 404),
        ("/api/calls/c1/speak", b"", 400),
        ("/api/calls/c1/speak", b"\0", 400),
        ("/api/calls/c1/speak", bytes(MOST_PCM + 2), 400),
        ("/api/calls/c1/speak", bytes(200_000), 413),
        ("/api/calls/c1/elope", b"", 404),
    ],
)
async def test_what_cannot_be_done_is_refused(
    site: Site, path: str, body: bytes, expected: int
) -> None:
    assert (await site.ask(path, "POST", body, **MAY))[0] == expected
    assert site.done == []


# --------------------------------------------------------------------------- what is pushed


async def events(reader: asyncio.StreamReader, until_name: str) -> list[tuple[str, Any]]:
    """The events up to the first of this name."""
    found: list[tuple[str, Any]] = []
    async with asyncio.timeout(10):
        while not found or found[-1][0] != until_name:
            text = await reader.readuntil(b"\n\n")
            text = text[text.index(b"event: ") :]  # behind the length of its chunk
            name, data = text.decode().strip().split("\n")
            found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


async def test_a_page_is_told_all_and_then_what_is_new(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shown, "LEVELS_EVERY", 0.01)
    site.timeline.entries.append(Entry(1, 1.0, "call", "<b>hello</b>"))
    assert site.done == [], "nothing looks before"
    status, headers, reader, writer = await site.open("/api/live")
    assert (status, headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    first = await events(reader, "state")
    assert [name for name, _ in first] == ["over", "entries", "state"]
    assert first[1][1][0]["text"] == "<b>hello</b>"
    await until(lambda: site.done == [ev.Look(shown.WATCH_SECONDS, ())])
    level = m.Level(call="c1", far=b"\1\2", ours=b"\0\x7f", lead_ms=60, jitter_ms=3)
    site.viewers.shown(m.Levels(gateway="g1", levels=[level]))
    assert (await events(reader, "levels"))[-1][1] == {"c1": [60, 3, "0102", "007f"]}
    site.timeline.over.append({"id": "c1"})
    site.timeline.count_over += 1
    assert (await events(reader, "over"))[-1][1] == [{"id": "c1"}]
    writer.close()
    await until(lambda: not site.viewers.looking)
    await until(lambda: all(task.done() for task in site.viewers.tasks))
    assert site.done[-1] == ev.Look(0.0, ()), "gateways need not wait for the Watch's end"


async def test_the_sound_of_a_call_is_streamed_to_who_may_hear_it(site: Site) -> None:
    status, _, reader, writer = await site.open("/api/calls/c1/sound", **MAY)
    await until(lambda: ev.Look(shown.WATCH_SECONDS, ("c1",)) in site.done)
    for call, sound in (("c2", b"xxxx"), ("c1", b"abcd")):
        site.viewers.shown(m.CallSound(gateway="g1", call=call, at=160, mulaw=sound))
    wanted = struct.pack("<QI", 160, 4) + b"abcd"
    async with asyncio.timeout(10):
        assert status == 200 and wanted in await reader.readuntil(b"abcd")
    assert (await site.ask("/api/calls/c2/sound", **MAY))[0] == 404
    writer.close()
    await until(lambda: not site.viewers.looking)


@pytest.mark.parametrize(
    ("path", "most"), [("/api/live", MOST_PAGES), ("/api/calls/c1/sound", MOST_LISTENERS)]
)
async def test_only_so_many_may_look_and_listen(site: Site, path: str, most: int) -> None:
    writers = [(await site.open(path, **MAY))[3] for _ in range(most)]
    await until(lambda: site.viewers.pages_full or site.viewers.listeners_full)
    assert (await site.ask(path, **MAY))[0] == 503
    for writer in writers:
        writer.close()
        await writer.wait_closed()
    await until(lambda: not site.viewers.looking)
    status, *_, writer = await site.open(path, **MAY)
    assert status == 200
    writer.close()
    await writer.wait_closed()


async def test_a_page_that_does_not_read_is_closed_and_costs_no_other(site: Site) -> None:
    pages = site.viewers.page()
    assert (await anext(pages)).startswith(b"event: over")
    for _ in range(3 * shown.MOST_WAITING):
        site.viewers.shown(m.Levels(gateway="g1", levels=[m.Level(call="c1", far=b"", ours=b"")]))
        site.viewers._push(1)
    left = [chunk async for chunk in pages]
    assert len(left) == shown.MOST_WAITING
    assert not site.viewers.looking


async def test_open_pages_do_not_hold_up_the_end(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They end by themselves, and so the listener need not cut them off."""
    monkeypatch.setattr(BOUNDS, "leave_within", 3600.0)
    *_, reader, writer = await site.open("/api/live")
    await events(reader, "state")
    with contextlib.closing(writer):
        async with asyncio.timeout(10.0):
            await site.console.close()
        assert (await reader.read()).endswith(b"0\r\n\r\n"), "the answer came to its end"


# --------------------------------------------------------------------------- recordings


async def test_where_nothing_is_kept_the_page_can_say_so(site: Site) -> None:
    _, said = await site.ask(f"/api/recordings/{SID}", **MAY)
    assert json.loads(said) == {
        "recordings": False,
        "wav": None,
        "cassettes": False,
        "cassette": None,
    }
    for what in ("wav", "cassette", "report"):
        assert (await site.ask(f"/api/recordings/{SID}/{what}", **MAY))[0] == 404


async def test_a_recording_is_found_heard_and_reported_on(tmp_path: Path) -> None:
    path = tmp_path / f"20260101T000000-{SID}.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(4 * 8000))
    (tmp_path / f"{SID}.cassette").write_bytes(b"tape")
    site = Site(tmp_path, tmp_path)
    kept = json.loads((await site.ask(f"/api/recordings/{SID}", **MAY))[1])
    assert (kept["wav"], kept["cassette"]) == (path.name, f"{SID}.cassette")
    assert (await site.ask(f"/api/recordings/{SID}/cassette", **MAY))[1] == b"tape"
    assert (await site.ask(f"/api/recordings/{SID}/wav", **MAY))[1] == path.read_bytes()
    status, said = await site.ask(f"/api/recordings/{SID}/report", **MAY)
    assert (status, json.loads(said)["seconds"]) == (200, 1.0)
    path.write_bytes(b"no WAV")
    assert (await site.ask(f"/api/recordings/{SID}/report", **MAY))[0] == 422
    # A name that is no CallSid finds nothing, wherever it leads.
    for sid in ("..", "*", "%2e%2e%2fx", "CA1*"):
        assert (await site.ask(f"/api/recordings/{sid}/wav", **MAY))[0] == 404
    await site.console.close()


async def test_a_recording_that_grows_while_it_is_sent_is_sent_as_it_was(tmp_path: Path) -> None:
    """A live call's, over a slow line: a browser takes an answer of another length for none."""
    path = tmp_path / f"20260101T000000-{SID}.wav"
    path.touch()
    size = 40_000_000  # more than the sockets between the two hold
    os.truncate(path, size)
    site = Site(tmp_path)
    _, headers, reader, writer = await site.open(f"/api/recordings/{SID}/wav", **MAY)
    assert await reader.readexactly(4) == bytes(4)
    os.truncate(path, size + 16_000)
    assert headers["content-length"] == str(size)
    assert headers["content-disposition"].endswith(path.name)
    async with asyncio.timeout(30):
        assert len(await reader.read()) == size - 4
    writer.close()
    await site.console.close()
