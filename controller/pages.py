"""The pages of the console: its files, what is pushed to them, and what they may do.

Anybody on this machine may look. To hear a call, to read a recording and to act, a request has to
bring the token of ``trunkline console`` in its ``Authorization`` header. So neither another user of
this machine, nor a page of another site in this one's browser, can hang up a call; and no URL, log
or Referer ever has the token in it.

An action is an event of the core (:class:`.instructions.ByHand`). The core hangs a call up by
itself. To interrupt or to speak it asks the call's client, which alone knows how far it has spoken.
Nothing here knows the state of a call.

For example, with ``c1`` as trunkline's own id of a live call::

    GET  /api/live                      -> 200, text/event-stream (see viewers.py)
    POST /api/calls/c1/hang-up          -> 401, "open the console with `trunkline console`"
    POST /api/calls/c1/hang-up          -> 204; 404 once the call is over
      Authorization: Bearer <token>
    GET  /api/recordings/CA…/report     -> 200, the JSON of `trunkline report --json`
      Authorization: Bearer <token>
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from trunkline.bus.launch import clean_environment, trunkline_argv

from . import events as ev
from .viewers import Viewers

#: The page's own files. They are read at the start, so nothing in a request can name another one.
_WEB: Final = Path(__file__).with_name("web")
#: By ending. The browser takes nothing by its looks (``nosniff``), so each has to be right; a file
#: with another ending fails the start, and with it the tests.
_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
#: The most of one SpeakByHand: two seconds of PCM16 at 24 kHz. The page sends a file in pieces of
#: half a second, each well below this and below the listener's bound.
MOST_PCM: Final = 96_000
#: Seconds after which a report is given up. One of a call of five minutes takes a second or two.
REPORT_WITHIN: Final = 60.0
#: A file is sent in pieces of so many bytes.
_PIECE: Final = 64 * 1024

Endpoint = Callable[[Request], Awaitable[Response]]


class Pages:
    """``is_live``: whether a call of this id (trunkline's own) lives. ``act``: gives the core an
    order. ``token``: made at each start of the controller, and told by the bus alone, so who has it
    could end the call by the bus as well. ``recordings``, ``cassettes``: their directories; None:
    none are kept."""

    def __init__(
        self,
        viewers: Viewers,
        is_live: Callable[[str], bool],
        act: Callable[[ev.ByHand], object],
        token: str,
        recordings: Path | None,
        cassettes: Path | None = None,
    ) -> None:
        self._viewers = viewers
        self._is_live = is_live
        self._act = act
        self._token = token
        self._recordings = recordings
        self._cassettes = cassettes
        self._reporting = asyncio.Semaphore(1)

    def routes(self) -> list[Route]:
        """Files by their names, and the rest under /api. What is guarded stands in one list, so
        that a new action cannot forget the token."""
        found = [self._file(path) for path in sorted(_WEB.rglob("*.*"))]
        guarded: list[tuple[str, Endpoint, str]] = [
            ("/api/allowed", self._allowed, "GET"),
            ("/api/calls/{call}/sound", self._sound, "GET"),
            ("/api/calls/{call}/hang-up", self._order("hang_up"), "POST"),
            ("/api/calls/{call}/interrupt", self._order("interrupt"), "POST"),
            ("/api/calls/{call}/speak", self._order("speak"), "POST"),
            ("/api/recordings/{sid}", self._kept, "GET"),
            ("/api/recordings/{sid}/wav", self._recording, "GET"),
            ("/api/recordings/{sid}/cassette", self._cassette, "GET"),
            ("/api/recordings/{sid}/report", self._report, "GET"),
        ]
        found += [Route(path, self._guard(do_it), methods=[how]) for path, do_it, how in guarded]
        return [*found, Route("/api/live", self._live)]

    def close(self) -> None:
        """End the answers that are pushed. They have no end of their own, and the listener would
        wait for them."""
        self._viewers.close()

    def _file(self, path: Path) -> Route:
        """``web/app.js`` is ``/app.js``, and ``web/index.html`` is ``/``."""
        content, kind = path.read_bytes(), _TYPES[path.suffix]

        async def show(request: Request) -> Response:
            return Response(content, media_type=kind)

        name = path.relative_to(_WEB).as_posix()
        return Route("/" if name == "index.html" else f"/{name}", show)

    def _guard(self, endpoint: Endpoint) -> Endpoint:
        """The endpoint, for requests that bring the token. It is compared in constant time, so that
        no other user of this machine can find it out character by character."""

        async def guarded(request: Request) -> Response:
            given = request.headers.get("authorization", "")
            wanted = f"Bearer {self._token}"
            if not secrets.compare_digest(given.encode(), wanted.encode()):
                return PlainTextResponse("open the console with `trunkline console`", 401)
            return await endpoint(request)

        return guarded

    # ------------------------------------------------------------------ what is pushed

    async def _live(self, request: Request) -> Response:
        """All that is pushed to a page; it takes no token, because anybody may look."""
        if self._viewers.pages_full:
            return PlainTextResponse("as many pages are open as may be", 503)
        return StreamingResponse(self._viewers.page(), media_type="text/event-stream")

    async def _sound(self, request: Request) -> Response:
        """A live call's sound, for as long as the browser listens
        (:meth:`.viewers.Viewers.listen`)."""
        call = request.path_params["call"]
        if not self._is_live(call):
            return PlainTextResponse("there is no such call", 404)
        if self._viewers.listeners_full:
            return PlainTextResponse("as many listen as may", 503)
        sound = self._viewers.listen(call)
        return StreamingResponse(sound, media_type="application/octet-stream")

    # ------------------------------------------------------------------ what may be done

    async def _allowed(self, request: Request) -> Response:
        """204: the token is the right one. The page asks this before it shows its buttons."""
        return Response(status_code=204)

    def _order(self, order: Literal["hang_up", "interrupt", "speak"]) -> Endpoint:
        """204 says that the order was given, and not that it is done: what became of it comes with
        the next state. A body counts for ``speak`` alone, as raw PCM16 (mono, 24 kHz)."""

        async def give(request: Request) -> Response:
            call, pcm = request.path_params["call"], await request.body()
            if order == "speak" and (not pcm or len(pcm) % 2 or len(pcm) > MOST_PCM):
                return PlainTextResponse(f"PCM16, mono, 24 kHz; {MOST_PCM} bytes at most", 400)
            if not self._is_live(call):
                return PlainTextResponse("there is no such call", 404)
            self._act(ev.ByHand(call, order, pcm if order == "speak" else b""))
            return Response(status_code=204)

        return give

    # ------------------------------------------------------------------ recordings

    def _find(self, directory: Path | None, pattern: str, sid: str) -> Path | None:
        """The newest file of the call. ``pattern`` has ``{}`` for the SID. Nothing but
        letters, digits and ``_`` gets into a path: no ``..``, and no ``*`` that finds others'."""
        if directory is None or re.fullmatch(r"[A-Za-z0-9_]{1,64}", sid) is None:
            return None
        found = sorted(directory.glob(pattern.format(sid)))
        return found[-1] if found else None

    def _wav(self, sid: str) -> Path | None:
        """``20260301T101500-CA….wav``: names begin with the time, so the last by name is the newest
        (``gateway/recording.py`` gives them)."""
        return self._find(self._recordings, "*-{}.wav", sid)

    def _tape(self, sid: str) -> Path | None:
        return self._find(self._cassettes, "{}.cassette", sid)

    async def _kept(self, request: Request) -> Response:
        """What there is of a call, and whether any is kept at all, so that the page can say which
        setting is missing: ``{"recordings": true, "wav": "20260301T101500-CA….wav", "cassettes":
        false, "cassette": null}``."""
        sid = request.path_params["sid"]
        wav, tape = self._wav(sid), self._tape(sid)
        kept: dict[str, Any] = {
            "recordings": self._recordings is not None,
            "wav": None if wav is None else wav.name,
            "cassettes": self._cassettes is not None,
            "cassette": None if tape is None else tape.name,
        }
        return JSONResponse(kept)

    async def _recording(self, request: Request) -> Response:
        return _whole(self._wav(request.path_params["sid"]), "audio/wav")

    async def _cassette(self, request: Request) -> Response:
        return _whole(self._tape(request.path_params["sid"]), "application/octet-stream")

    async def _report(self, request: Request) -> Response:
        """What the ear says of the recording. A call that goes on is reported as far as it has got.

        A process of its own listens, at a low priority: during a second of arithmetic on the
        controller's loop no webhook would be answered, and callers would go on hearing it ring. One
        report is made at a time; 422 has the command's last words.
        """
        wav = self._wav(request.path_params["sid"])
        if wav is None:
            return PlainTextResponse("there is no recording of this call", 404)
        async with self._reporting:
            child = await asyncio.create_subprocess_exec(
                *("nice", "-n", "10", *trunkline_argv("report", str(wav), "--json")),
                env=clean_environment(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            try:
                async with asyncio.timeout(REPORT_WITHIN):
                    said, why = await child.communicate()
            finally:
                if child.returncode is None:
                    child.kill()
        if child.returncode:
            return PlainTextResponse(why.decode(errors="replace")[-500:], 422)
        return Response(said, media_type="application/json")


def _whole(path: Path | None, kind: str) -> Response:
    """The file, for the browser to play or to save under its name. While the call goes on it grows,
    also while it is being sent, so as much is sent as it has now."""
    if path is None:
        return PlainTextResponse("there is none", 404)
    size = path.stat().st_size
    headers = {
        "content-length": str(size),
        "content-disposition": f"attachment; filename*=utf-8''{quote(path.name)}",
    }
    return StreamingResponse(_first(path, size), media_type=kind, headers=headers)


async def _first(path: Path, size: int) -> AsyncIterator[bytes]:
    """So many bytes of the file, in pieces. A file that has become shorter ends the answer early,
    and the browser sees that."""
    with path.open("rb") as file:
        while size > 0 and (piece := await asyncio.to_thread(file.read, min(size, _PIECE))):
            size -= len(piece)
            yield piece
