"""The console in a real browser: one stack and one browser for all of these tests."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import pytest_asyncio
from axe_playwright_python.base import AXE_SCRIPT
from playwright.async_api import Browser, Page, Route, async_playwright, expect

from trunkline import Call, Line
from trunkline.bus import wav
from trunkline.carrier_sim.mulaw import decode
from trunkline.carrier_sim.wav import SPEECH_DIR
from trunkline.ear.figures import FalseYield, Interruption, Report, Side, Sides, spread

from .sound import speech
from .stack import BOB, CALLEE, Stack, calling, until

#: The browser of the machine. Playwright's own is fetched from elsewhere; Debian's is a package.
CHROMIUM: Final = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS: Final = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--no-first-run"),
    "--autoplay-policy=no-user-gesture-required",
)
#: Milliseconds that the page may take to show something.
SOON: Final = 30_000
expect.set_options(timeout=SOON)
BOT: Final = "speech:austen-0920,when_silent=0.8,repeat"


@pytest.fixture(scope="module")
def own_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One that keeps recordings and cassettes."""
    stack = Stack()
    for what in ("recordings", "cassettes"):
        stack.environment[f"TRUNKLINE_{what.upper()}_DIR"] = str(tmp_path_factory.mktemp(what))
    stack.environment["TRUNKLINE_MAX_CALLS"] = "7"
    try:
        stack.start_carrier()
        stack.up(gateways=1, codec_workers=1)
        yield stack
    finally:
        stack.close()


@pytest.fixture(scope="module")
def link(own_stack: Stack) -> str:
    """What ``trunkline console`` opens."""
    done = own_stack.command("console", "--print")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def browser() -> AsyncIterator[Browser]:
    assert CHROMIUM is not None, "apt-get install chromium"
    async with async_playwright() as playwright:
        found = await playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield found
        await found.close()


class Window:
    """A page, and what the browser complained of."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on(
            "console",
            lambda said: self.complaints.append(said.text) if said.type == "error" else None,
        )
        page.on("dialog", lambda dialog: asyncio.ensure_future(dialog.accept()))

    async def axe(self) -> None:
        """axe-core finds no violation, in light and dark, wide and on a phone."""
        await self.page.evaluate(AXE_SCRIPT)
        for width, scheme in ((1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")):
            await self.page.set_viewport_size({"width": width, "height": 900})
            await self.page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]  # one of its words
            found = await self.page.evaluate("axe.run({resultTypes: ['violations']})")
            shown = [
                (rule["id"], [node["html"][:160] for node in rule["nodes"][:3]])
                for rule in found["violations"]
            ]
            assert shown == [], (width, scheme)
            room = await self.page.evaluate("document.documentElement.scrollWidth")
            assert room <= width, "nothing is wider than the page"


@pytest_asyncio.fixture(loop_scope="module")
async def window(browser: Browser) -> AsyncIterator[Window]:
    context = await browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(SOON)
    shown = Window(await context.new_page())
    yield shown
    await context.close()
    assert shown.complaints == []


async def talk(call: Call) -> None:
    """Speak and be silent, until the call is over."""
    while call.ended_reason is None:
        await call.send_audio(speech(1.0))
        await asyncio.sleep(1.0)


def test_the_link_is_opened_by_a_file_that_only_we_can_read(
    own_stack: Stack, link: str, tmp_path: Path
) -> None:
    shown = tmp_path / "opened"
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {shown}\n')
    browser.chmod(0o700)
    done = own_stack.command("console", BROWSER=f"{browser} %s", TMPDIR=str(tmp_path))
    assert (done.returncode, done.stdout) == (0, ""), done
    path = Path(shown.read_text().strip().removeprefix("file://"))
    assert "token" not in str(path)
    assert link in path.read_text() and path.stat().st_mode & 0o077 == 0


@pytest.mark.asyncio(loop_scope="module")
async def test_the_stack_is_shown_live_to_whoever_looks(
    own_stack: Stack, link: str, window: Window
) -> None:
    page, stack = window.page, own_stack
    await page.goto(link.split("#")[0])
    await expect(page.get_by_text("live", exact=True)).to_be_visible()
    await expect(page.get_by_text("you may look")).to_be_visible()
    await expect(page.get_by_text("No call lives now.")).to_be_visible()
    for role in ("controller", "gateway", "codec worker"):
        row = page.get_by_role("region", name="Processes").get_by_role("row", name=role)
        await expect(row).to_contain_text("well")
    await expect(page.get_by_role("region", name="Caps")).to_contain_text("TRUNKLINE_MAX_CALLS")
    async with Line(BOB, bus=stack.bus) as waiting, calling(stack, BOT) as call:
        answer = asyncio.ensure_future(waiting.wait_for_call(90.0))
        talking = asyncio.ensure_future(talk(call))
        overrides = page.get_by_role("region", name="Numbers that call us")
        await expect(overrides).to_contain_text(BOB)
        calls = page.get_by_role("region", name="Live calls")
        row = calls.get_by_role("row", name=CALLEE)
        await expect(row).to_contain_text("live")
        meter = row.get_by_role("meter", name="they, level")
        await expect(meter).to_have_attribute("aria-valuetext", re.compile("dBFS"))
        await expect(row).to_contain_text(re.compile(r"\d+ ms"))
        # Search hides what does not match, by the keyboard alone.
        await page.keyboard.press("/")
        await page.keyboard.type("no such thing")
        await expect(calls).to_contain_text("None matches.")
        await page.keyboard.press("Escape")
        await expect(row).to_be_visible()
        await window.axe()
        await page.keyboard.press("j")
        await page.keyboard.press("Enter")
        await expect(page.get_by_text("open this page with trunkline console")).to_be_visible()
        assert await page.get_by_role("button", name="Hang up").count() == 0
        await page.keyboard.press("Escape")
        answer.cancel()
        talking.cancel()
    await expect(overrides).to_contain_text("Every number is as it was.")
    over = page.get_by_role("region", name="Calls that are over")
    await expect(over).to_contain_text(CALLEE)
    events = page.get_by_role("list", name="What has happened")
    for words in ("our override is on", "the number is as it was", "over (hang_up)"):
        await expect(events).to_contain_text(words)
    await page.get_by_label("Show").select_option("number")
    await expect(events).not_to_contain_text("over (hang_up)")


@pytest.mark.asyncio(loop_scope="module")
async def test_a_call_is_seen_heard_spoken_into_and_hung_up(
    own_stack: Stack, link: str, window: Window
) -> None:
    page, stack = window.page, own_stack
    await page.goto(link)
    await expect(page.get_by_text("you may act")).to_be_visible()
    assert "token" not in page.url
    async with calling(stack, BOT) as call:
        calls = page.get_by_role("region", name="Live calls")
        await calls.get_by_role("link", name=CALLEE).click()
        await call.send_audio(speech(1.0))
        await expect(page.get_by_role("list", name="Turns", exact=True)).to_contain_text("they")
        await page.get_by_role("button", name="Listen", exact=True).click()
        await expect(page.get_by_text("You hear both sides.")).to_be_visible()
        await expect(page.locator("[data-heard]")).to_have_attribute(
            "data-heard", re.compile(r"[1-9]")
        )
        await page.get_by_role("button", name="Listen", exact=True).click()
        # The test's own words are dropped by hand; a file is said behind them.
        sending = asyncio.ensure_future(call.send_audio(speech(20.0)))
        await until(lambda: stack.sim.played(call.sid), "our words are heard")
        await page.get_by_role("button", name="Interrupt").click()
        assert await asyncio.wait_for(sending, 30.0) < 20.0 * 24_000
        before = len(stack.sim.played(call.sid))
        await page.get_by_label("Speak a sound file").set_input_files(
            SPEECH_DIR / "austen-0870.wav"
        )
        await expect(page.get_by_text("are on their way")).to_be_visible()
        await until(lambda: loud(stack.sim.played(call.sid)[before:]) > 0.5, "the file is heard")
        await window.axe()
        await page.set_viewport_size({"width": 1280, "height": 900})
        await call.send_dtmf("5")
        await page.get_by_role("button", name="Hang up").click()
        await until(lambda: call.ended_reason, "it is hung up")
        assert call.ended_reason == "hang_up"
        await expect(page.get_by_role("button", name="Hang up")).to_be_disabled()
        # After it: the recording, and what the ear says of it.
        await expect(page.get_by_text("both spoke")).to_be_visible()
        heard = page.get_by_role("list", name="Turns, as the ear heard them")
        await expect(heard.get_by_role("listitem").filter(has_text="wepressed 5")).to_have_count(1)
        await expect(page.locator("audio")).to_have_js_property("paused", True)
        async with page.expect_download() as saved:
            await page.get_by_role("button", name="Save the cassette").click()
        assert (await saved.value).suggested_filename == f"{call.sid}.cassette"
        await window.axe()


def loud(sound: bytes) -> float:
    """Seconds in this mu-law that are not silent."""
    return float(np.count_nonzero(np.abs(decode(sound)) > 500)) / 8_000


@pytest.mark.asyncio(loop_scope="module")
async def test_what_a_caller_sends_stays_words(link: str, window: Window) -> None:
    """Every text that the page gets is markup here, and none of it becomes an element."""
    words = '<img src="x" onerror="window.caught=1"><b>bold</b>'
    row: dict[str, Any] = dict.fromkeys(
        ("sid", "session", "caller", "callee", "state", "gateway", "codec_worker", "mode"), words
    )
    row |= {"id": "c1", "direction": "inbound", "seconds": 1.0, "reason": words}
    row |= dict.fromkeys(("frames_in", "frames_out", "frames_lost", "underruns"), 1)
    names = ("id", "number", "mode", "state", "client", "since", "prior_voice_url", "session")
    test = "test_it.py::test_a[<b>]"
    row["test"] = test
    thing = dict.fromkeys(names, words) | {"test": test}
    state = {
        "controller": {"pid": 1, "epoch": 1},
        "stack": words,
        "stopping": False,
        "now": 1.0,
        "counts": {},
        "unhealthy": [],
        "gateways": [{"id": words, "pid": 1, "streams": 1, "dropped": {words: 1}}],
        "codec_workers": [],
        "sessions": [thing],
        "overrides": [thing],
        "calls": [row],
        "listening": [row | {"id": "c3", "theirs": words}],
        "pool": {"numbers": 1, "waiting": [{"session": words, "place": 1}]},
        "queue": [],
        "caps": [{"setting": words, "most": 1, "used": 1, "left": 0}],
    }
    entry = {"n": 1, "at": 1.0, "kind": words, "text": words, "call": None, "number": words}
    told = (("over", [row | {"id": "c2", "over_at": 1.0}]), ("entries", [entry]), ("state", state))
    body = "".join(f"event: {name}\ndata: {json.dumps(data)}\n\n" for name, data in told)
    page = window.page
    await page.route(
        "**/api/live",
        lambda route: route.fulfill(status=200, content_type="text/event-stream", body=body),
    )
    await page.goto(link.split("#")[0])
    await expect(page.get_by_role("region", name="Live calls")).to_contain_text(words)
    await expect(page.get_by_role("region", name="Calls listened to")).to_contain_text(words)
    await expect(page.get_by_role("list", name="What has happened")).to_contain_text(words)
    for table in ("Live calls", "Sessions", "Calls that are over", "Calls listened to"):
        await expect(page.get_by_role("region", name=table)).to_contain_text(test)
    await page.goto(link.split("#")[0] + "#/call/c1")
    await expect(page.get_by_role("heading", name=words)).to_be_visible()
    await expect(page.get_by_text(test)).to_be_visible()
    assert await page.locator("img, main b").count() == 0
    assert await page.evaluate("window.caught") is None


@pytest.mark.asyncio(loop_scope="module")
async def test_a_call_that_is_over_has_all_of_its_report(
    link: str, window: Window, tmp_path: Path
) -> None:
    """Its turns lie before its end, for however long the page stays open. A stack without a pool
    shows none."""
    over = dict.fromkeys(("frames_in", "frames_out", "frames_lost", "underruns"), 0)
    row = over | {"id": "c1", "sid": "CA1", "direction": "inbound", "state": "ended"}
    row |= {"reason": "stop", "seconds": 3.0, "over_at": 1.0}
    empty = "gateways codec_workers sessions overrides calls listening unhealthy queue caps"
    state: dict[str, Any] = dict.fromkeys(empty.split(), ())
    state |= {"controller": {"pid": 1, "epoch": 1}, "stack": "st1", "stopping": False}
    state["pool"] = {"numbers": 0, "waiting": []}
    spoke = f"{'6e' * 10}{'00' * 20}"
    told = (
        *(("over", [row]), ("entries", []), ("state", state)),
        ("levels", {"c1": [60, 1, spoke, "00" * 30]}),
    )
    body = "".join(f"event: {name}\ndata: {json.dumps(data)}\n\n" for name, data in told)
    wav.write(tmp_path / "1-CA1.wav", *2 * [np.zeros(24_000, np.int16)], rate=8_000)
    heard = Report(
        seconds=3.0,
        reliable=True,
        unreliable_because=[],
        sides=Sides(
            **dict.fromkeys(
                ("ours", "theirs"),
                Side(segments=[], speech_seconds=0.0, level_dbfs=None, clipped_frames=0),
            )
        ),
        answers=[],
        yields=[],
        false_yields=[FalseYield(at=1.0)],
        interruptions_by_them=[Interruption(at=2.0, seconds=0.75)],
        talk_over_seconds=0.75,
        silences=[],
        digits=[],
        frames_lost=0,
        jitter_ms=None,
        latency=spread([]),
        time_to_yield=spread([]),
    )
    kept = {"recordings": True, "wav": "1-CA1.wav", "cassettes": False, "cassette": None}
    page = window.page
    for path, answer in (
        ("live", {"content_type": "text/event-stream", "body": body}),
        ("recordings/CA1", {"json": kept}),
        ("recordings/CA1/wav", {"path": tmp_path / "1-CA1.wav"}),
        ("recordings/CA1/report", {"content_type": "application/json", "body": heard.to_json()}),
    ):
        await page.route(f"**/api/{path}", partial(fulfil, answer=answer))
    await page.goto(link)
    processes = page.get_by_role("region", name="Processes")
    await expect(processes).to_be_visible()
    await expect(page.get_by_role("region", name="pool")).to_have_count(0)
    await page.goto(link.split("#")[0] + "#/call/c1")
    turns = page.get_by_role("list", name="Turns", exact=True)
    await expect(turns).to_contain_text("3.0 s before its end")
    ear = page.get_by_role("list", name="Turns, as the ear heard them")
    await expect(ear).to_contain_text("stopped for a backchannel")
    await expect(ear).to_contain_text("interrupted us for 0.75 s")


async def fulfil(route: Route, answer: dict[str, Any]) -> None:
    await route.fulfill(status=200, **answer)


@pytest.mark.asyncio(loop_scope="module")
async def test_turns_are_taken_from_the_levels(link: str, window: Window) -> None:
    """A pause within a sentence ends no turn, a click is none, and an answer has its latency."""
    ours = [0] * 5 + [110] * 20 + [0] * 3 + [100] * 10 + [0] * 62
    far = [0] * 2 + [110] + [0] * 47 + [105] * 30 + [0] * 20
    await window.page.goto(link.split("#")[0])
    found = await window.page.evaluate(
        "([far, ours]) => import('/turns.js').then((found) => found.turns(far, ours))", [far, ours]
    )
    assert found == [
        {"who": "we", "begin": 5, "end": 38},
        {"who": "they", "begin": 50, "end": 80, "latency": 1.2},
    ]
