"""Takes the pictures of docs/console.md: a stack of its own, three calls that talk, a real browser.

Run by ``make docs``; it needs Chromium (``apt-get install chromium``).
"""

from __future__ import annotations

import asyncio
import shutil
import sys
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).parent.parent))

from playwright.async_api import Page, async_playwright

from benchmarks.processes import OWN_NUMBER, Run, callee
from trunkline import Call, Line
from trunkline.bus import wav
from trunkline.bus.launch import trunkline_argv
from trunkline.bus.sound import LINE_RATE
from trunkline.carrier_sim.wav import SPEECH_DIR

HERE: Final = Path(__file__).parent
WAITING: Final = "+14155551235"
FLAGS: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
)
CALLS: Final = 3


async def talk(call: Call, n: int) -> None:
    """Say a sentence, hear the answer out, and again."""
    said = wav.read(SPEECH_DIR / f"austen-08{(7, 8, 9)[n % 3]}0.wav", LINE_RATE)
    while call.ended_reason is None:
        await call.send_audio(said[: LINE_RATE * (2 + n)].tobytes())
        await asyncio.sleep(4.0)


async def shoot(page: Page, name: str, width: int, height: int, scheme: str) -> None:
    await page.set_viewport_size({"width": width, "height": height})
    await page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]  # one of its words
    await page.wait_for_timeout(800)
    await page.screenshot(path=HERE / f"{name}.png")


async def pictures(link: str, bus: str) -> None:
    """The calls, and the page while they talk and after one has ended."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    callees = [callee(n) for n in range(CALLS)]
    async with (
        Line(WAITING, bus=bus) as waiting,
        Line(OWN_NUMBER, allowed_callees=callees, bus=bus) as line,
        async_playwright() as playwright,
    ):
        answer = asyncio.ensure_future(waiting.wait_for_call(300))
        browser = await playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        page = await browser.new_page(device_scale_factor=1)
        await page.goto(link)
        dials = (line.place_call(to, timeout=30, attach_stream="a-leg") for to in callees)
        calls = await asyncio.gather(*dials)
        talks = [asyncio.ensure_future(talk(call, n)) for n, call in enumerate(calls)]
        await asyncio.sleep(21)
        await shoot(page, "console", 1280, 860, "light")
        await shoot(page, "console-phone", 390, 780, "dark")
        await page.get_by_role("link", name=callees[0]).first.click()
        await shoot(page, "console-call", 1280, 900, "dark")
        await calls[0].hang_up()
        await page.get_by_text("both spoke").wait_for()
        await page.get_by_role("heading", name="Recording and report").scroll_into_view_if_needed()
        await page.evaluate("window.scrollTo(0, document.querySelector('audio').offsetTop - 320)")
        await shoot(page, "console-report", 1280, 760, "light")
        await browser.close()
        for task in (*talks, answer):
            task.cancel()


def main() -> None:
    run = Run("tl-docs-")
    try:
        run.environment["TRUNKLINE_RECORDINGS_DIR"] = str(run.directory / "recordings")
        run.environment["TRUNKLINE_MAX_CALLS"] = "20"
        run.start_carrier("--number", f"{OWN_NUMBER}=http://x/voice")
        run.sim.add_number(WAITING, voice_url="https://agent.example/voice")
        for n in range(CALLS):
            run.sim.add_callee(callee(n), "speech:austen-0920,when_silent=0.8,repeat")
        run.up()
        run.run(trunkline_argv("console", "--print"), "console").wait()
        link = run.logs[-1].read_text().splitlines()[-1]
        asyncio.run(pictures(link, run.environment["TRUNKLINE_BUS"]))
    finally:
        run.close()


if __name__ == "__main__":
    main()
