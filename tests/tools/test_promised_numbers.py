"""The numbers that the pages promise of bounds and times are those of the code."""

from __future__ import annotations

from pathlib import Path

import pytest

from trunkline.adapter.client import media_link
from trunkline.bus import control, listener, sockets
from trunkline.codec_worker import calls, playout
from trunkline.gateway import admission, app, links, media_streams, pace, websocket
from trunkline.gateway.process import BOUNDS
from trunkline.stack.children import SILENT_FOR

ROOT = Path(__file__).parents[2]

GATEWAY = [
    f"request, {listener.HEAD_BYTES >> 10} KB each while its head is not whole "
    f"| {BOUNDS.waiting:,} | {BOUNDS.waiting_of_one} |",
    f"bodies that are being read, {app.MAX_BODY_BYTES >> 10} KB each "
    f"| {app.MAX_READING} | {app.MAX_READING_OF_ONE} |",
    f"wait for the controller | {app.MAX_ASKING} | {app.MAX_ASKING_OF_ONE} of one call |",
    f"each may send {websocket.STRANGER_BYTES >> 10} KB, and holds "
    f"{websocket.MAX_MESSAGE_BYTES >> 10} KB of them at most "
    f"| {admission.MAX_STRANGERS:,} | {admission.MAX_OF_ONE} |",
    f"takes {listener.AT_ONCE} connections, and reads {listener.AT_ONCE} requests and "
    f"{websocket._MOST_AT_ONCE} messages of one socket",
]
SECURITY = [
    f"a `start` within {admission.START_WITHIN:g} s",
    f"At most {BOUNDS.waiting:,} wait for a request ({BOUNDS.waiting_of_one} of one public "
    "address)",
    f"At most {app.MAX_READING} bodies are read at a time "
    f"({app.MAX_BODY_BYTES >> 10} KB each, {app.BODY_WITHIN:g} s)",
    f"{admission.MAX_STRANGERS:,} sockets that were not let in ({admission.MAX_OF_ONE} of one "
    f"public address), {admission.START_WITHIN:g} s each",
    f"It has as long as a request may take ({BOUNDS.request_within:g} s)",
    f"More than {('once', 'twice')[int(pace.MOST) - 1]} real time in {pace.WINDOW:g} s is cut off",
    f"A turn of the loop reads {websocket._MOST_AT_ONCE} messages of one socket",
    f"up to {pace.ARREARS:g} s of sound",
    f"Over {websocket._LONGEST_SKIPPED >> 20} MB the connection is closed (1009); over "
    f"{websocket.MAX_MESSAGE_BYTES >> 10} KB a message is skipped",
    f"{media_streams.MAX_DIGITS:,} of one stream are believed",
    f"runs ahead of the clock by more than {pace.AHEAD:g} s",
    f"It is disconnected {websocket.CLOSE_WITHIN:g} s later",
    f"{calls.MOST_ATTACHED:,} a connection; all gone with it",
    f"{sockets.MAX_MESSAGE_BYTES >> 20} MiB a message, not read beyond",
    f"{control.DEAF_AFTER:g} s after the last word no sign of life",
]
SURVIVAL = [
    f"its calls move after {links.TICK_LIMIT * 1000:g} ms",
    f"kills it after {SILENT_FOR['codec-worker']:g} s",
    f"wakes within {SILENT_FOR['gateway']:g} s, nothing is lost",
    f"the lead and {playout.AHEAD_NS / 1e6:g} ms ahead of the last acknowledgement",
    f"wait up to {control.UNAVAILABLE_AFTER:g} s for it "
    f"({control.UNAVAILABLE_IN_FLEET_AFTER:g} s in a [fleet]",
    f"new connection {control.SILENT_BEATS * control.BEAT_SECONDS:g} s after",
    f"stops its signs of life {control.DEAF_AFTER:g} s after",
    f"did not run for {media_link.STALLED * 1000:g} ms waits another "
    f"{media_link.CATCH_UP * 1000:g} ms",
]
PROMISES = {
    "gateway/README.md": GATEWAY,
    "docs/security.md": SECURITY,
    "docs/survival.md": SURVIVAL,
}


@pytest.mark.parametrize(
    ("page", "promise"), [(page, each) for page, them in PROMISES.items() for each in them]
)
def test_the_page_says_what_the_code_holds_to(page: str, promise: str) -> None:
    assert promise in " ".join((ROOT / page).read_text().split())
