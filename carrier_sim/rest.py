"""Twilio's REST API for voice: the account, its numbers, its calls, and all that Twilio refuses.

No I/O: a Request in, a Response out; the effects happen in the Exchange. Paths, fields, answers and
error numbers are those that the ``twilio`` package uses (TD voice/api, usage/twilios-response).
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlencode, urlsplit

import msgspec

from .account import API_VERSION, CallOptions, CallRecord, rfc2822
from .call import Call
from .detection import Detection
from .exchange import Exchange
from .http_message import Request, Response
from .judge import NAMES
from .numbers import NUMBER_FIELDS, Number
from .signature import Credentials
from .stream import Stream as MediaStream
from .twiml import MAX_INLINE, Stream

_E164: Final = re.compile(r"\+[1-9][0-9]{6,14}", re.ASCII)
#: A host as urlsplit gives it: an IPv6 address without its brackets.
_HOST: Final = re.compile(r"[A-Za-z0-9.\-]+|[0-9A-Fa-f:.]+")
#: A number's calls may be sent elsewhere by a SID of this kind.
_SID_PREFIXES: Final = {"voice_application_sid": "AP", "trunk_sid": "TK"}
#: Fields of a number that REST shows as "" or as null when they are not set (habit unset-fields).
_EMPTY_OR_NULL: Final = ("voice_url", "voice_fallback_url", "voice_application_sid")
_EVENTS: Final = frozenset(["initiated", "ringing", "answered", "completed"])
#: Longest ring and longest call that Twilio takes (TD voice/api/call-resource).
_MAX_TIMEOUT: Final = 600
_MAX_TIME_LIMIT: Final = 86400
#: Longer URLs are refused.
_LONG_URL: Final = 2048
# Where the carrier contradicts a belief:
#: A number that was written reads as before for so many seconds.
_READS_SETTLE: Final = 3.0
#: A new call is not listed for so many seconds.
_LISTED_AFTER: Final = 30.0
#: A call that comes in cannot be read by its SID for so many seconds.
_SHOWN_AFTER: Final = 3.0
#: Longer URLs are refused.
_SHORT_URL: Final = 1000


#: Answers a request. Its other arguments are the SID in the path ("" where there is none), and now.
Handler = Callable[[Request, str, float], Response]


class Refused(Exception):
    """Twilio's error answer."""

    def __init__(self, status: int, code: int, message: str) -> None:
        assert code in NAMES, code
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


class RestLogEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One REST request, at its monotonic time, and its answer. Status 0: there was none."""

    time: float
    method: str
    path: str
    query: dict[str, str]
    form: dict[str, str]
    status: int
    code: int
    fault: str = ""


def refusal(refused: Refused) -> Response:
    """The JSON error that the ``twilio`` package turns into TwilioRestException."""
    body = {
        "code": refused.code,
        "message": refused.message,
        "more_info": f"https://www.twilio.com/docs/errors/{refused.code}",
        "status": refused.status,
    }
    return Response.json(body, refused.status)


class RestApi:
    """The routes."""

    def __init__(self, exchange: Exchange, account_sid: str, credentials: Credentials) -> None:
        self.exchange = exchange
        self.account_sid = account_sid
        self._credentials = credentials
        numbers, calls = "/IncomingPhoneNumbers", "/Calls"
        one = r"/(?P<sid>\w+)"
        routes: dict[tuple[str, str], Handler] = {
            ("GET", ""): self._fetch_account,
            ("GET", numbers): self._list_numbers,
            ("GET", numbers + one): self._fetch_number,
            ("POST", numbers + one): self._write_number,
            ("GET", calls): self._list_calls,
            ("POST", calls): self._create_call,
            ("GET", calls + one): self._fetch_call,
            ("POST", calls + one): self._update_call,
            ("POST", calls + one + "/Streams"): self._start_stream,
            ("POST", calls + r"/(?P<sid>\w+/Streams/[^/]+)"): self._stop_stream,
        }
        base = rf"/{API_VERSION}/Accounts/(?P<account>[^/]+)"
        self._routes = [
            (method, re.compile(base + path + r"\.json"), handler)
            for (method, path), handler in routes.items()
        ]

    def handle(self, request: Request, now: float) -> Response:
        """Answer one request."""
        try:
            return self._route(request, now)
        except Refused as e:
            return refusal(e)

    def _route(self, request: Request, now: float) -> Response:
        scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
        right = any(
            hmac.compare_digest(credentials.strip().encode(), self._basic(token))
            for token in self._credentials.taken_by_rest(self.exchange.beliefs)
        )
        if scheme.lower() != "basic" or not right:
            raise Refused(401, 20003, "Authenticate")
        known_path = False
        for method, pattern, handler in self._routes:
            found = pattern.fullmatch(request.path)
            if found is None:
                continue
            known_path = True
            if method != request.method:
                continue
            if found["account"] != self.account_sid:
                raise self._not_found(request)
            return handler(request, found.groupdict().get("sid") or "", now)
        if known_path:
            raise Refused(405, 20004, f"Method {request.method} is not allowed on this resource")
        raise self._not_found(request)

    def _basic(self, token: str) -> bytes:
        return base64.b64encode(f"{self.account_sid}:{token}".encode())

    @staticmethod
    def _not_found(request: Request) -> Refused:
        return Refused(404, 20404, f"The requested resource {request.path} was not found")

    def _fetch_account(self, request: Request, sid: str, now: float) -> Response:
        return Response.json(
            {
                "sid": self.account_sid,
                "friendly_name": "carrier_sim",
                "status": "active",
                "type": "Full",
                "uri": f"/{API_VERSION}/Accounts/{self.account_sid}.json",
            }
        )

    def _list_numbers(self, request: Request, sid: str, now: float) -> Response:
        wanted = request.query.get("PhoneNumber", "").lstrip("+")
        rows = [
            self._shown(number, now)
            for number in self.exchange.numbers.values()
            if wanted in number.phone_number
        ]
        return self._page(request, "incoming_phone_numbers", rows)

    def _number(self, request: Request, sid: str) -> Number:
        for number in self.exchange.numbers.values():
            if number.sid == sid:
                return number
        raise self._not_found(request)

    def _fetch_number(self, request: Request, sid: str, now: float) -> Response:
        return Response.json(self._shown(self._number(request, sid), now))

    def _shown(self, number: Number, now: float) -> dict[str, object]:
        beliefs = self.exchange.beliefs
        if not beliefs.hold("numbers-read-as-written"):
            number = self.exchange.numbers.before(number, now - _READS_SETTLE)
        shown = self._resource(number)
        if not beliefs.hold("urls-are-kept-verbatim"):
            urls = {k: v for k, v in shown.items() if k.endswith("_url") and v}
            shown |= {k: str(v).partition("#")[0] for k, v in urls.items()}
        return shown

    def _resource(self, number: Number) -> dict[str, object]:
        shown = number.resource(self.account_sid)
        unset = None if self.exchange.habits.draw("unset-fields") == "null" else ""
        return shown | {name: unset for name in _EMPTY_OR_NULL if not shown[name]}

    def _write_number(self, request: Request, sid: str, now: float) -> Response:
        number, form = self._number(request, sid), request.form
        changes: dict[str, object] = {
            attribute: self._number_field(attribute, field, form[field])
            for attribute, field in NUMBER_FIELDS.items()
            if field in form
        }
        # TD phone-numbers/api: setting one of the two deletes the other.
        if not self.exchange.beliefs.hold("one-route-deletes-the-other"):
            pass
        elif changes.get("trunk_sid"):
            changes["voice_application_sid"] = ""
        elif changes.get("voice_application_sid"):
            changes["trunk_sid"] = ""
        self.exchange.numbers.write(number, changes, form, now, self.exchange.wall())
        return Response.json(self._resource(number))

    def _number_field(self, attribute: str, field: str, value: str) -> object:
        """The value that a number's field is set to. Raises Refused."""
        if attribute.endswith("_url") or attribute == "status_callback":
            self._check_url(21402, field, value)
        elif attribute.endswith("_method"):
            return _method(field, value, 21403)
        elif attribute == "voice_receive_mode" and value not in ("voice", "fax"):
            raise Refused(400, 20001, f"VoiceReceiveMode {value} is not voice or fax")
        elif value and not value.startswith(_SID_PREFIXES.get(attribute, "")):
            raise Refused(400, 20001, f"{field} {value} is not valid")
        return value.lower() == "true" if attribute == "voice_caller_id_lookup" else value

    def _call(self, request: Request, sid: str) -> Call:
        call = self.exchange.calls.get(sid)
        if call is None:
            raise self._not_found(request)
        return call

    def _fetch_call(self, request: Request, sid: str, now: float) -> Response:
        record = self._call(request, sid).record
        is_new = record.direction == "inbound" and now - record.created_at < _SHOWN_AFTER
        if is_new and not self.exchange.beliefs.hold("rest-shows-new-calls"):
            raise self._not_found(request)
        shown = record.resource(self.account_sid)
        if not record.live and not self.exchange.beliefs.hold("rest-shows-ends"):
            shown["status"] = record.history[-2][1]
        return Response.json(shown)

    def _list_calls(self, request: Request, sid: str, now: float) -> Response:
        at_once = self.exchange.beliefs.hold("new-calls-are-listed")
        rows = [
            record.resource(self.account_sid)
            for record in (call.record for call in reversed(self.exchange.calls.values()))
            if _selected(record, request.query)
            and (at_once or now - record.created_at >= _LISTED_AFTER)
        ]
        return self._page(request, "calls", rows)

    def _create_call(self, request: Request, sid: str, now: float) -> Response:
        exchange, form = self.exchange, request.form
        to, from_ = form.get("To", ""), form.get("From", "")
        if not to:
            raise Refused(400, 21201, "No 'To' number is specified")
        if not from_:
            raise Refused(400, 21213, "No 'From' number is specified")
        if not _E164.fullmatch(to):
            text = f"The phone number you are attempting to call, {to}, is not valid."
            raise Refused(400, 21211, text)
        if not _E164.fullmatch(from_):
            raise Refused(400, 21212, f"The From phone number provided ({from_}) is not valid.")
        if from_ not in exchange.numbers and from_ not in exchange.caller_ids:
            raise Refused(
                400,
                21210,
                f"The source phone number provided, {from_}, is not yet verified for your account. "
                "You may only make calls from phone numbers that you've verified or purchased from "
                "Twilio.",
            )
        call = exchange.outbound(from_, to, self._options(request), now)
        return Response.json(call.record.resource(self.account_sid), 201)

    def _options(self, request: Request) -> CallOptions:
        form = request.form
        if form.get("ApplicationSid"):
            raise Refused(400, 21218, "Invalid ApplicationSid: carrier_sim has no applications")
        url, twiml = self._program(form, of_a_new_call=True)
        if not url and not twiml:
            raise Refused(400, 21205, "Url parameter is required")
        for field in ("FallbackUrl", "StatusCallback"):
            self._check_url(21205, field, form.get(field, ""))
        digits = form.get("SendDigits", "")
        if digits and not re.fullmatch(r"[0-9*#wW]{1,32}", digits, re.ASCII):
            raise Refused(400, 21206, f"SendDigits {digits} is not valid")
        events = request.form_lists.get("StatusCallbackEvent", [])
        chosen = frozenset(e for text in events for e in re.split(r"[ ,]+", text) if e)
        if chosen - _EVENTS:
            raise Refused(400, 21626, f"Invalid StatusCallbackEvents: {', '.join(sorted(chosen))}")

        def method(field: str) -> str:
            return _method(field, form.get(field, "POST"), 21209)

        return CallOptions(
            url=url,
            method=method("Method"),
            fallback_url=form.get("FallbackUrl", ""),
            fallback_method=method("FallbackMethod"),
            twiml=twiml,
            timeout=_integer(form, "Timeout", 60, _MAX_TIMEOUT, 21208),
            time_limit=_integer(form, "TimeLimit", 14400, _MAX_TIME_LIMIT, 20001),
            status_callback=form.get("StatusCallback", ""),
            status_callback_method=method("StatusCallbackMethod"),
            status_callback_event=chosen or frozenset(["completed"]),
            detection=self._detection(form),
        )

    def _detection(self, form: Mapping[str, str]) -> Detection | None:
        """The detection of answering machines that is asked for. Twilio ignores it beside
        SendDigits. Raises Refused."""
        mode = form.get("MachineDetection", "")
        if not mode or form.get("SendDigits"):
            return None
        if mode not in ("Enable", "DetectMessageEnd"):
            raise Refused(400, 21234, f"MachineDetection {mode} is not Enable or DetectMessageEnd")
        self._check_url(21205, "AsyncAmdStatusCallback", form.get("AsyncAmdStatusCallback", ""))

        def seconds(name: str, unit: float, least: int, default: int, most: int) -> float:
            field = f"MachineDetection{name}"
            value = _integer(form, field, default, most, 21234)
            if value < least:
                raise Refused(400, 21234, f"{field} {value} is not from {least} to {most}")
            return value * unit

        return Detection(
            mode=mode,  # type: ignore[arg-type]  # checked above
            timeout=seconds("Timeout", 1.0, 3, 30, 59),
            speech=seconds("SpeechThreshold", 0.001, 1000, 2400, 6000),
            speech_end=seconds("SpeechEndThreshold", 0.001, 500, 1200, 5000),
            silence=seconds("SilenceTimeout", 0.001, 2000, 5000, 10_000),
            is_async=form.get("AsyncAmd", "").lower() == "true",
            callback=form.get("AsyncAmdStatusCallback", ""),
            callback_method=_method(
                "AsyncAmdStatusCallbackMethod",
                form.get("AsyncAmdStatusCallbackMethod", "POST"),
                21209,
            ),
        )

    def _program(self, form: Mapping[str, str], *, of_a_new_call: bool) -> tuple[str, str]:
        """Url and Twiml of a request, at most one of them: a new call's Twiml is ignored beside its
        Url (twilio-python, rest/api/v2010/account/call). Raises Refused."""
        url, twiml = form.get("Url", ""), form.get("Twiml", "")
        if url and of_a_new_call:
            twiml = ""
        if url and twiml:
            raise Refused(400, 21205, "Url and Twiml are mutually exclusive")
        if len(twiml) > MAX_INLINE:
            raise Refused(400, 32018, f"Twiml is longer than {MAX_INLINE} characters")
        self._check_url(21205, "Url", url)
        return url, twiml

    def _update_call(self, request: Request, sid: str, now: float) -> Response:
        call, form = self._call(request, sid), request.form
        record, status = call.record, form.get("Status", "")
        if status and status not in ("canceled", "completed"):
            raise Refused(400, 20001, f"Status {status} is not canceled or completed")
        url, twiml = self._program(form, of_a_new_call=False)
        method = _method("Method", form.get("Method", "POST"), 21209)
        again = status == record.status == "completed" and not (url or twiml)
        if not record.live and not again:
            raise Refused(400, 21220, "Call is not in-progress. Cannot redirect.")
        if status == "canceled" and record.status == "in-progress":
            raise Refused(400, 21220, "Call is in-progress. Cannot cancel.")
        if (url or twiml) and not status and record.status != "in-progress":
            raise Refused(400, 21220, "Call is not in-progress. Cannot redirect.")
        if status:
            self.exchange.end_by_api(call, status, now)
        elif twiml:
            self.exchange.run_twiml(call, twiml, now)
        elif url:
            self.exchange.redirect(call, url, method, now)
        return Response.json(record.resource(self.account_sid))

    # Streams of a call (TD voice/api/stream-resource): one-way ones

    def _start_stream(self, request: Request, sid: str, now: float) -> Response:
        call, form = self._call(request, sid), request.form
        if not form.get("Url"):
            raise Refused(400, 20001, "Url is required")
        if call.record.status != "in-progress":
            raise Refused(400, 21220, "Call is not in-progress. Cannot start a stream.")
        if call.leg.doing == "stream" and not self.exchange.beliefs.hold("one-way-beside-connect"):
            raise Refused(400, 20001, "A stream cannot be started within <Connect><Stream>")
        names = [key for key in form if re.fullmatch(r"Parameter[0-9]{1,2}\.Name", key)]
        verb = Stream(
            url=form["Url"],
            name=form.get("Name", ""),
            track=form.get("Track", "inbound_track"),
            status_callback=form.get("StatusCallback", ""),
            status_callback_method=form.get("StatusCallbackMethod", "POST").upper(),
            parameters={form[key]: form.get(key[:-4] + "Value", "") for key in names},
        )
        stream = self.exchange.start_side(call, verb, now)
        return self._stream(stream, "in-progress", 201)

    def _stop_stream(self, request: Request, sid: str, now: float) -> Response:
        call_sid, _, name = sid.split("/")
        call = self._call(request, call_sid)
        if request.form.get("Status") != "stopped":
            raise Refused(400, 20001, "Status is not stopped")
        named = self.exchange.beliefs.hold("streams-stop-by-name")
        found = [s for s in call.leg.sides if name == s.sid or (named and name == s.verb.name)]
        if not found:
            raise self._not_found(request)
        self.exchange.stop_side(call, found[0], now)
        return self._stream(found[0], "stopped", 200)

    def _stream(self, stream: MediaStream, status: str, code: int) -> Response:
        calls = f"/{API_VERSION}/Accounts/{self.account_sid}/Calls"
        resource = {
            "sid": stream.sid,
            "account_sid": self.account_sid,
            "call_sid": stream.call_sid,
            "name": stream.verb.name or None,
            "status": status,
            "date_updated": rfc2822(self.exchange.wall()),
            "uri": f"{calls}/{stream.call_sid}/Streams/{stream.sid}.json",
        }
        return Response.json(resource, code)

    def _check_url(self, code: int, field: str, value: str) -> None:
        if not value:
            return
        most = _LONG_URL if self.exchange.beliefs.hold("urls-may-be-long") else _SHORT_URL
        if len(value) > most:
            raise Refused(400, code, f"{field} is longer than {most} characters")
        try:
            url = urlsplit(value)
            valid = url.scheme in ("http", "https") and bool(_HOST.fullmatch(url.hostname or ""))
            valid = valid and url.port != 0 and value.isprintable() and " " not in value
        except ValueError:
            valid = False
        if not valid:
            raise Refused(400, code, f"{field} is not a valid URL: {value[:200]}")

    def _page(self, request: Request, key: str, rows: list[dict[str, object]]) -> Response:
        size = _integer(request.query, "PageSize", 50, 1000, 20001) or 50
        page = _integer(request.query, "Page", 0, 1_000_000, 20001)
        start = page * size
        chosen = rows[start : start + size]
        filters = {
            k: v for k, v in request.query.items() if k not in ("Page", "PageSize", "PageToken")
        }

        def uri(number: int) -> str:
            query = urlencode({**filters, "PageSize": size, "Page": number})
            return f"{request.path}?{query}"

        more = start + size < len(rows)
        token = {"PageToken": f"PA{chosen[-1]['sid']}"} if more else {}
        return Response.json(
            {
                key: chosen,
                "page": page,
                "page_size": size,
                "start": start,
                "end": max(start, start + len(chosen) - 1),
                "uri": uri(page),
                "first_page_uri": uri(0),
                "next_page_uri": f"{uri(page + 1)}&{urlencode(token)}" if more else None,
                "previous_page_uri": uri(page - 1) if page else None,
            }
        )


def _integer(values: Mapping[str, str], name: str, default: int, most: int, code: int) -> int:
    text = values.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdigit()) or int(text) > most:
        raise Refused(400, code, f"{name} {text} is not a number from 0 to {most}")
    return int(text)


def _method(field: str, value: str, code: int) -> str:
    value = value.upper()
    if value not in ("GET", "POST"):
        raise Refused(400, code, f"{field} {value} is not GET or POST")
    return value


def _selected(record: CallRecord, query: Mapping[str, str]) -> bool:
    """Whether a call passes the list's filters. StartTime is a day, or a limit with < or >."""
    exact = {
        "To": record.to,
        "From": record.from_,
        "Status": record.status,
        "ParentCallSid": record.parent_call_sid,
    }
    if any(query.get(name, value) not in (value, "") for name, value in exact.items()):
        return False
    wanted = {sign: time for sign in ("", "<", ">") if (time := query.get(f"StartTime{sign}"))}
    if record.started is None:
        return not wanted
    # Twilio's dates have whole seconds.
    started = datetime.fromtimestamp(int(record.started), UTC)
    return all(_time_matches(started, sign, time) for sign, time in wanted.items())


def _time_matches(when: datetime, sign: str, wanted: str) -> bool:
    try:
        limit = datetime.fromisoformat(wanted)
    except ValueError:
        raise Refused(400, 20001, f"StartTime{sign} {wanted} is not a date") from None
    limit = limit if limit.tzinfo else limit.replace(tzinfo=UTC)
    if sign == "<":
        return when <= limit
    return when >= limit if sign else when.date() == limit.date()
