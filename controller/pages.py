"""The pages of the console: its files, what is pushed to them, and what they may do.

Anybody on this machine may look. To hear a call, to read a recording and to act, a request has to
bring the token of ``trunkline console`` in its ``Authorization`` header. So neither another user of
this machine, nor a page of another site in this one's browser, can hang up a call; and no URL, log
or Referer ever has the token in it.

An action is an event of the core, or a message to the call's client, whose own ``hang_up``,
``interrupt`` and ``send_audio`` then do it. Nothing here knows the state of a call.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, Literal

from starlette.requests import Request
from starlette.responses import (
    FileResponse,
    JSONResponse,
    PlainTextResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Route

from trunkline.bus.launch import clean_environment, trunkline_argv

from . import instructions as do
from .viewers import Viewers

_WEB: Final = Path(__file__).with_name("web")
_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
#: The most of one SpeakByHand: two seconds of PCM16 at 24 kHz.
MOST_PCM: Final = 96_000
#: A report of five minutes takes a second or two; one is made at a time.
REPORT_WITHIN: Final = 60.0

Endpoint = Callable[[Request], Awaitable[Response]]


class Pages:
    """``is_live``: whether a call of this id (trunkline's own) lives. ``act``: gives the core an
    order. ``recordings``, ``cassettes``: their directories; None: none are kept."""

    def __init__(
        self,
        viewers: Viewers,
        is_live: Callable[[str], bool],
        act: Callable[[do.ByHand], object],
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
        """Files by their names, and the rest under /api."""
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
        """Push nothing any more."""
        self._viewers.close()

    def _file(self, path: Path) -> Route:
        content, kind = path.read_bytes(), _TYPES[path.suffix]

        async def show(request: Request) -> Response:
            return Response(content, media_type=kind)

        name = path.relative_to(_WEB).as_posix()
        return Route("/" if name == "index.html" else f"/{name}", show)

    def _guard(self, endpoint: Endpoint) -> Endpoint:
        """Only with the token."""

        async def guarded(request: Request) -> Response:
            given = request.headers.get("authorization", "")
            wanted = f"Bearer {self._token}"
            if not secrets.compare_digest(given.encode(), wanted.encode()):
                return PlainTextResponse("open the console with `trunkline console`", 401)
            return await endpoint(request)

        return guarded

    # ------------------------------------------------------------------ what is pushed

    async def _live(self, request: Request) -> Response:
        if self._viewers.pages_full:
            return PlainTextResponse("as many pages are open as may be", 503)
        return StreamingResponse(self._viewers.page(), media_type="text/event-stream")

    async def _sound(self, request: Request) -> Response:
        call = request.path_params["call"]
        if not self._is_live(call):
            return PlainTextResponse("there is no such call", 404)
        if self._viewers.listeners_full:
            return PlainTextResponse("as many listen as may", 503)
        sound = self._viewers.listen(call)
        return StreamingResponse(sound, media_type="application/octet-stream")

    # ------------------------------------------------------------------ what may be done

    async def _allowed(self, request: Request) -> Response:
        """The token is the right one."""
        return Response(status_code=204)

    def _order(self, order: Literal["hang_up", "interrupt", "speak"]) -> Endpoint:
        async def give(request: Request) -> Response:
            call, pcm = request.path_params["call"], await request.body()
            if order == "speak" and (not pcm or len(pcm) % 2 or len(pcm) > MOST_PCM):
                return PlainTextResponse(f"PCM16, mono, 24 kHz; {MOST_PCM} bytes at most", 400)
            if not self._is_live(call):
                return PlainTextResponse("there is no such call", 404)
            self._act(do.ByHand(call, order, pcm if order == "speak" else b""))
            return Response(status_code=204)

        return give

    # ------------------------------------------------------------------ recordings

    def _find(self, directory: Path | None, pattern: str, sid: str) -> Path | None:
        """The newest file of the call."""
        if directory is None or re.fullmatch(r"[A-Za-z0-9_]{1,64}", sid) is None:
            return None
        found = sorted(directory.glob(pattern.format(sid)))
        return found[-1] if found else None

    def _wav(self, sid: str) -> Path | None:
        return self._find(self._recordings, "*-{}.wav", sid)

    def _tape(self, sid: str) -> Path | None:
        return self._find(self._cassettes, "{}.cassette", sid)

    async def _kept(self, request: Request) -> Response:
        """What there is of a call."""
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
        """What the ear says of the recording, as it is by now. A process of its own listens, so
        that no call has to wait for it, and only one at a time."""
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
    if path is None:
        return PlainTextResponse("there is none", 404)
    return FileResponse(path, media_type=kind, filename=path.name)
