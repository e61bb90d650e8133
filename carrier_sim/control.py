"""The local control API under /sim/, JSON: for tests in other processes, benchmarks and the command
line.

| route | does |
|---|---|
| GET /sim/health | {"ok", "failures", "account_sid", "base_url", "calls", "streams", "now", …} |
| GET /sim/load | lateness of the media clock in ms, CPU seconds of this process |
| GET /sim/errors, /sim/notices; DELETE /sim/errors | the judge's lists |
| GET /sim/rest, /sim/webhooks | every REST request; every webhook and callback that was sent |
| GET, POST /sim/numbers | numbers with all fields; add {"phone_number", "voice_url", …} |
| GET /sim/numbers/writes | every change through REST |
| GET, POST /sim/callees | who answers; set {"phone_number", "bot"} |
| POST /sim/caller-ids | verify {"phone_number"} as a From |
| GET, POST /sim/calls | all calls, without metrics; place one {"from", "to", "bot"} |
| GET /sim/calls/{sid} | one call: resource, history, streams, keys heard, media times |
| POST /sim/calls/{sid}/hangup | the far end hangs up |
| GET /sim/calls/{sid}/menu.svg | the way that the call took through its far end's menu |
| GET /sim/calls/{sid}/played[.wav\\|.ulaw], /said[.wav\\|.ulaw] | what the far end heard, said |
| GET /sim/streams, /sim/streams/{sid} | streams with metrics |
| GET /sim/streams/{sid}/arrivals | [[time, samples, samples buffered before], …] |
| GET /sim/streams/{sid}/spans | stretches played to the far end; clears |
| POST /sim/streams/{sid}/drop, /stall {"seconds"} | break the socket; hold messages back |
| GET, POST, DELETE /sim/faults; DELETE /sim/faults/{id} | fault rules |
| GET, POST /sim/beliefs | all beliefs; contradict exactly {"contradict": [name, …]} |
| POST /sim/line | far ends that name no line are on this one: {"line": "street"}, "" for none |
| POST /sim/tokens/promote | the secondary auth token becomes the primary, the former is void |
| POST /sim/reset | hang up, and forget calls, streams, logs, errors and faults |

``bot`` is a text or an object, as in bots.py, and names no file: the client sends its sound. Times
are monotonic seconds of this machine, except for the dates of Twilio's resources. What a browser
sends for a site's page is refused.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import msgspec

from .beliefs import BELIEFS
from .bots import BotSpec, bot_from, parse_bot
from .call import Call
from .faults import Fault
from .http_message import Request, Response
from .menu import picture
from .pacing import percentile
from .stream import Stream
from .wav import write_pcm

if TYPE_CHECKING:
    from .sim import CarrierSim

_CALL: Final = re.compile(r"/sim/calls/(?P<sid>\w+)(?:/(?P<what>[\w.]+))?")
_STREAM: Final = re.compile(r"/sim/streams/(?P<sid>\w+)(?:/(?P<what>\w+))?")
_FAULT: Final = re.compile(r"/sim/faults/(?P<id>\d+)")


class _NotFound(Exception):
    pass


class ControlApi:
    """The routes, on one CarrierSim."""

    def __init__(self, sim: CarrierSim) -> None:
        self._sim = sim

    async def handle(self, request: Request) -> Response:
        """Answer one request. Unknown things give 404, bad input gives 400 with the reason, and
        what a browser sends for a site's page gives 403."""
        why = self._foreign(request)
        if why is not None:
            return Response.json({"error": why}, 403)
        try:
            return await self._route(request)
        except _NotFound as e:
            return Response.json({"error": str(e)}, 404)
        except (KeyError, ValueError, TypeError, msgspec.MsgspecError) as e:
            return Response.json({"error": str(e.args[0]) if e.args else repr(e)}, 400)

    def _foreign(self, request: Request) -> str | None:
        """Why the request may come from a page that a browser on this machine shows. Such a page's
        site may make a name of its own point at this machine; an address is nobody's name."""
        if "origin" in request.headers:
            return "the control API is not for browsers, which send an Origin"
        host = request.headers.get("host", "")
        name = re.sub(r":[0-9]*\Z", "", host)
        here = urlsplit(self._sim.base_url).hostname or ""
        if _is_ours(here, loopback=True) and not _is_ours(name):
            return f"Host {host!r} is neither localhost nor an address"
        return None

    async def _route(self, request: Request) -> Response:
        method, path = request.method, request.path.rstrip("/")
        if found := _CALL.fullmatch(path):
            return self._one_call(method, found["sid"], found["what"] or "")
        if (found := _STREAM.fullmatch(path)) is not None:
            return self._one_stream(request, method, found["sid"], found["what"] or "")
        if (found := _FAULT.fullmatch(path)) is not None and method == "DELETE":
            self._sim.faults.remove(int(found["id"]))
            return Response.json({"ok": True})
        if method == "GET" and path == "/sim/streams":
            return Response.json(await self._all_streams())
        if method == "GET":
            return Response.json(self._read(path))
        if method == "DELETE":
            return Response.json(self._delete(path))
        return await self._write(path, _body(request) if request.body else {})

    def _read(self, path: str) -> object:
        sim = self._sim
        match path:
            case "/sim/health":
                return {
                    "ok": not sim.failures,
                    "failures": [repr(f) for f in sim.failures],
                    "account_sid": sim.account_sid,
                    "base_url": sim.base_url,
                    "calls": sum(call.live for call in sim.calls.values()),
                    "streams": sum(s.live for s in sim.streams.values()),
                    "now": sim.now(),
                    "seed": sim.exchange.seed,
                }
            case "/sim/load":
                late = sorted(x * 1000 for x in sim.lateness)
                times = os.times()
                return {
                    "ticks": len(late),
                    "late_p50_ms": percentile(late, 0.5),
                    "late_p99_ms": percentile(late, 0.99),
                    "late_max_ms": late[-1] if late else 0.0,
                    "cpu_seconds": times.user + times.system,
                }
            case "/sim/errors":
                return sim.judge.errors
            case "/sim/notices":
                return sim.judge.notices
            case "/sim/rest":
                return sim.rest_log
            case "/sim/webhooks":
                return sim.webhook_log
            case "/sim/numbers":
                return [n.resource(sim.account_sid) for n in sim.numbers.values()]
            case "/sim/numbers/writes":
                return sim.number_writes
            case "/sim/callees":
                return {n: msgspec.to_builtins(b) for n, b in sim.exchange.callees.items()}
            case "/sim/calls":
                return [self.describe_call(call, metrics=False) for call in sim.calls.values()]
            case "/sim/faults":
                return [rule.describe() for rule in sim.faults.rules]
            case "/sim/beliefs":
                holds = sim.exchange.beliefs.hold
                return {
                    name: {"contradicted": contradicted, "holds": holds(name)}
                    for name, contradicted in BELIEFS.items()
                }
        raise _NotFound(f"no GET {path}")

    async def _all_streams(self) -> list[dict[str, object]]:
        """Metrics of long calls take a while each: the media clock must get in between."""
        described = []
        for stream in list(self._sim.streams.values()):
            described.append(self.describe_stream(stream))
            await asyncio.sleep(0)
        return described

    def _delete(self, path: str) -> object:
        match path:
            case "/sim/errors":
                self._sim.judge.clear()
            case "/sim/faults":
                self._sim.faults.clear()
            case _:
                raise _NotFound(f"no DELETE {path}")
        return {"ok": True}

    async def _write(self, path: str, body: dict[str, Any]) -> Response:
        sim = self._sim
        match path:
            case "/sim/numbers":
                number = sim.add_number(**body)
                return Response.json(number.resource(sim.account_sid), 201)
            case "/sim/callees":
                sim.add_callee(body["phone_number"], _bot(body["bot"]))
            case "/sim/caller-ids":
                sim.add_caller_id(body["phone_number"])
            case "/sim/calls":
                bot = _bot(body.get("bot", "silence"))
                call = await sim.place_inbound_call(body["from"], body["to"], bot)
                return Response.json(self.describe_call(call), 201)
            case "/sim/faults":
                rule = sim.faults.add(msgspec.convert(body, Fault))
                return Response.json(rule.describe(), 201)
            case "/sim/beliefs":
                sim.exchange.beliefs.contradict(body["contradict"])
            case "/sim/line":
                sim.set_line(body["line"])
            case "/sim/tokens/promote":
                sim.credentials.promote()
            case "/sim/reset":
                sim.reset()
            case _:
                raise _NotFound(f"no POST {path}")
        return Response.json({"ok": True})

    def _one_call(self, method: str, sid: str, what: str) -> Response:
        call = self._sim.calls.get(sid)
        if call is None:
            raise _NotFound(f"no call {sid}")
        if method == "POST" and what == "hangup":
            self._sim.hang_up(call)
            return Response.json(self.describe_call(call))
        if method != "GET":
            raise _NotFound(f"no {method} /sim/calls/{{sid}}/{what}")
        if not what:
            return Response.json(self.describe_call(call))
        if what == "menu.svg":
            if call.bot is None or call.bot.menu is None:
                raise _NotFound(f"the far end of {sid} has no menu")
            drawn = picture.svg(call.bot.menu, call.bot.way)
            return Response(200, drawn.encode(), "image/svg+xml")
        name, _, form = what.partition(".")
        if name not in ("played", "said") or form not in ("", "wav", "ulaw"):
            raise _NotFound(f"no {what} of a call: played or said, as .wav or .ulaw, or menu.svg")
        audio = bytes(call.said if name == "said" else call.played)
        if form == "ulaw":
            return Response(200, audio, "audio/basic")
        return Response(200, write_pcm(audio), "audio/wav")

    def _one_stream(self, request: Request, method: str, sid: str, what: str) -> Response:
        sim = self._sim
        stream = sim.streams.get(sid)
        if stream is None:
            raise _NotFound(f"no stream {sid}")
        if method == "POST" and what in ("drop", "stall"):
            if not stream.live:
                raise ValueError(f"stream {sid} is not live")
            if what == "drop":
                sim.drop_stream(stream)
            else:
                sim.stall_stream(stream, float(_body(request)["seconds"]))
            return Response.json(self.describe_stream(stream))
        buffer = stream.playback
        match what if method == "GET" else "none":
            case "":
                return Response.json(self.describe_stream(stream))
            case "arrivals":
                a = buffer.arrivals
                return Response.json(list(zip(a.times, a.sizes, a.depths, strict=True)))
            case "spans":
                spans = buffer.all_spans(sim.now())
                return Response.json({"spans": spans, "clears": buffer.clears})
        raise _NotFound(f"no {method} /sim/streams/{{sid}}/{what}")

    def describe_call(self, call: Call, *, metrics: bool = True) -> dict[str, object]:
        """One call as JSON."""
        record, bot = call.record, call.bot
        return record.resource(self._sim.account_sid) | {
            "end_reason": record.end_reason,
            "history": record.history,
            "media_started": call.started,
            "played_ms": len(call.played) / 8,
            "digits_heard": bot.digits if bot else "",
            "way": bot.way if bot else [],
            "doing": call.leg.doing,
            "streams": [self.describe_stream(s, metrics=metrics) for s in call.streams],
        }

    def describe_stream(self, stream: Stream, *, metrics: bool = True) -> dict[str, object]:
        """One stream as JSON."""
        measured = {"metrics": stream.metrics(self._sim.now())} if metrics else {}
        return measured | {
            "sid": stream.sid,
            "call_sid": stream.call_sid,
            "url": stream.verb.url,
            "parameters": stream.verb.parameters,
            "state": stream.state,
            "opened_at": stream.opened_at,
            "ended_at": stream.ended_at,
            "ended_by": stream.ended_by,
            "invalid_messages": stream.invalid,
            "pending_marks": stream.playback.pending_marks,
            "digits_sent": stream.digits_sent,
            "frames_in": stream.frames_in,
            "frames_out": len(stream.playback.arrivals.times),
        }


def _is_ours(host: str, *, loopback: bool = False) -> bool:
    """``localhost`` or an address, which nobody else's name stands for; ``loopback``: an address of
    the loopback."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return address.is_loopback or not loopback


def _bot(given: object) -> BotSpec:
    """A bot of a request. Whoever sends one may be another user: no file is opened for it."""
    if isinstance(given, str):
        return parse_bot(given, files=False)
    return bot_from(given, files=False)


def _body(request: Request) -> dict[str, Any]:
    value = msgspec.json.decode(request.body or b"{}")
    if not isinstance(value, dict):
        raise ValueError("the body has to be a JSON object")
    return value
