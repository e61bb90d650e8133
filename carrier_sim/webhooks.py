"""Webhooks and status callbacks: Twilio's fields, signature, connection overrides, retries.

Source: TD voice/twiml (request parameters), usage/webhooks/webhooks-connection-overrides: in the
URL's fragment ``rc`` counts retries (default 1), ``rp`` says on what (ct connect, rt read, 4xx,
5xx, all; default ct), ``ct``, ``rt`` and ``tt`` are timeouts in ms. A retried request carries the
same I-Twilio-Idempotency-Token.
"""

from __future__ import annotations

import asyncio
import base64
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs, quote, urlencode, urlsplit, urlunsplit

import msgspec

from . import http_client
from .account import API_VERSION, CallRecord
from .call import Call
from .exchange import Fetched
from .signature import basic_credentials
from .stream import Stream

if TYPE_CHECKING:
    from .sim import CarrierSim

_PLACE: Final = ("City", "State", "Zip", "Country")
_RETRY_KINDS: Final = frozenset(["ct", "rt", "4xx", "5xx", "all"])
#: The SIP answer behind a call's last status; 200 where it was answered.
_SIP: Final = {"busy": "486", "no-answer": "487", "failed": "404", "canceled": "487"}

Form = list[tuple[str, str]]


def call_form(call: CallRecord, account_sid: str) -> Form:
    """The fields of every webhook of a call, blank ones included."""
    form: Form = [
        ("AccountSid", account_sid),
        ("ApiVersion", API_VERSION),
        ("CallSid", call.sid),
        ("CallStatus", "ringing" if call.status == "queued" else call.status),
        ("Called", call.to),
        ("Caller", call.from_),
        ("Direction", call.direction),
        ("From", call.from_),
        ("To", call.to),
    ]
    for names, number in ((("Called", "To"), call.to), (("Caller", "From"), call.from_)):
        country = "US" if number.startswith("+1") else ""
        for name in names:
            form += [(name + part, country if part == "Country" else "") for part in _PLACE]
    if call.direction == "inbound":
        form += [("CallToken", _call_token(call)), ("StirVerstat", "TN-Validation-Passed-A")]
    waited = call.options.detection is not None and not call.options.detection.is_async
    if waited and call.answered_by:
        form.append(("AnsweredBy", call.answered_by))
    if call.parent_call_sid:
        form.append(("ParentCallSid", call.parent_call_sid))
    return form


def _call_token(call: CallRecord) -> str:
    """A token as in TD voice/trusted-calling-with-shakenstir: JSON around a JSON Web Token that
    names the call. It is percent-encoded by itself, so a form encodes each of its ``%`` again."""
    claims = {"callSid": call.sid, "from": call.from_, "to": call.to, "iat": f"{call.created:.0f}"}
    parts = (b'{"alg":"ES256"}', msgspec.json.encode(claims), b"signature")
    web_token = ".".join(base64.urlsafe_b64encode(p).decode().rstrip("=") for p in parts)
    token = {"parentCallInfoToken": web_token, "identityHeaderTokens": []}
    return quote(msgspec.json.encode(token), safe="")


def status_form(call: Call, account_sid: str, event: str, status: str) -> Form:
    """The fields of a status callback."""
    form = [field for field in call_form(call.record, account_sid) if field[0] != "CallStatus"]
    form += [
        ("CallStatus", status),
        ("CallbackSource", "call-progress-events"),
        ("SequenceNumber", str(call.callbacks)),
        ("Timestamp", time.strftime("%a, %d %b %Y %H:%M:%S +0000", time.gmtime())),
    ]
    if event == "completed":
        seconds = call.record.duration or 0
        form += [("CallDuration", str(seconds)), ("Duration", str(-(-seconds // 60)))]
        form.append(("SipResponseCode", _SIP.get(status, "200")))
    return form


def stream_form(stream: Stream, account_sid: str, event: str) -> Form:
    """The fields of a stream's status callback."""
    return [
        ("AccountSid", account_sid),
        ("CallSid", stream.call_sid),
        ("StreamSid", stream.sid),
        ("StreamName", stream.verb.name or stream.sid),
        ("StreamEvent", event),
        ("StreamError", stream.ended_by if event == "stream-error" else ""),
        ("Timestamp", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())),
    ]


class Overrides(msgspec.Struct, frozen=True):
    """Connection overrides of one URL; times in seconds."""

    retries: int = 1
    on: frozenset[str] = frozenset(["ct"])
    connect_timeout: float = 5.0
    read_timeout: float = 15.0
    total_timeout: float = 15.0


def read_overrides(url: str, most: float = 15.0) -> Overrides:
    """The overrides in a URL's fragment; unknown names and bad values are left out."""
    given = {k: v[-1] for k, v in parse_qs(urlsplit(url).fragment).items()}

    def milliseconds(name: str, default: float, highest: float) -> float:
        text = given.get(name, "")
        return min(highest, max(0.1, int(text) / 1000)) if text.isdigit() else default

    retries = given.get("rc", "")
    on = frozenset(given.get("rp", "ct").split(",")) & _RETRY_KINDS
    return Overrides(
        retries=min(5, int(retries)) if retries.isdigit() else 1,
        on=on or frozenset(["ct"]),
        connect_timeout=milliseconds("ct", 5.0, 10.0),
        read_timeout=milliseconds("rt", most, most),
        total_timeout=milliseconds("tt", most, most),
    )


class WebhookEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One request, sent or lost by a fault, and how it ended ``seconds`` after the first try began.
    Status 0: there was no answer."""

    time: float
    seconds: float
    kind: str
    call_sid: str
    method: str
    url: str
    form: dict[str, str]
    status: int
    attempt: int
    text: str = ""


class Webhooks:
    """Sends them, with the faults that are installed, and keeps the log."""

    def __init__(self, sim: CarrierSim) -> None:
        self._sim = sim
        self.log: list[WebhookEntry] = []

    async def post(self, kind: str, call_sid: str, method: str, url: str, form: Form) -> Fetched:
        """Send one, with retries. ``kind`` is webhook or status (for the faults' ``where``)."""
        fault = self._sim.faults.match(kind, method, url)
        sending = _Sending(self._sim, self.log, kind, call_sid, method, url, form)
        if fault is not None and fault.kind == "drop":
            sending.note(0, 1, "dropped by a fault rule")
            return Fetched(code=11205, text=f"{url}: dropped by a fault rule")
        if fault is not None and fault.kind == "delay":
            await asyncio.sleep(fault.seconds)
        return await sending.send(twice=fault is not None and fault.kind == "duplicate")


@dataclass
class _Sending:
    """One webhook under way: all its tries."""

    sim: CarrierSim
    log: list[WebhookEntry]
    kind: str
    call_sid: str
    method: str
    url: str
    form: Form

    def __post_init__(self) -> None:
        self._hold = self.sim.exchange.beliefs.hold
        followed = self.url if self._hold("fragment-is-followed") else ""
        most = self.sim.options.webhook_timeout if self._hold("webhooks-may-take-15-s") else 2.0
        self._overrides = read_overrides(followed, most)
        self._token = self.sim.exchange.sids.new("IT")
        self._began = self.sim.now()

    async def send(self, *, twice: bool) -> Fetched:
        """Try until an answer counts. ``twice``: one more request goes before it, for nothing."""
        overrides = self._overrides
        result = Fetched(code=11200, text=f"{self.url}: not sent")
        try:
            async with asyncio.timeout(overrides.total_timeout):
                if twice:
                    await self._try(0)
                for attempt in range(1, overrides.retries + 2):
                    result, wrong = await self._try(attempt)
                    if not wrong or not {wrong, "all"} & overrides.on:
                        break
        except TimeoutError:
            text = f"{self.url}: no answer in {overrides.total_timeout:g} s in all"
            self.note(0, 0, text)
            return Fetched(code=11205, text=text)
        return result

    async def _try(self, attempt: int) -> tuple[Fetched, str]:
        """One try: the result, and its fault for the retry policy (ct, rt, 4xx, 5xx; "": none)."""
        url, headers, body = self._request()
        request = partial(
            http_client.request,
            self.method,
            url,
            body=body,
            connect_timeout=self._overrides.connect_timeout,
            read_timeout=self._overrides.read_timeout,
            tls=self.sim.tls,
        )
        try:
            answer = await request(headers)
            asks = answer.status == 401 and "www-authenticate" in answer.headers
            credentials = basic_credentials(url) if self._hold("webhook-user-info") else None
            if asks and credentials:
                # TD usage/security: the same request again, now with its Authorization header.
                answer = await request([*headers, ("Authorization", credentials)])
        except http_client.NotReached as e:
            self.note(0, attempt, str(e))
            code = {"connect": 11205, "read": 11205, "host": 11210}[e.stage]
            return Fetched(code=code, text=str(e)), "rt" if e.stage == "read" else "ct"
        self.note(answer.status, attempt)
        if 200 <= answer.status < 300:
            return Fetched(answer.body, answer.headers.get("content-type", "")), ""
        text = f"{self.url} answered {answer.status}"
        return Fetched(code=11200, text=text), f"{answer.status // 100}xx"

    def _request(self) -> tuple[str, Form, bytes]:
        """The URL, headers and body that are sent."""
        parts = urlsplit(self.url)
        fragment = f"#{parts.fragment}" if parts.fragment else ""
        parts = parts._replace(fragment="")
        if not self._hold("query-is-kept"):
            parts = parts._replace(query="")
        headers = [
            ("User-Agent", "TwilioProxy/1.1"),
            ("Accept", "*/*"),
            ("I-Twilio-Idempotency-Token", self._token),
        ]
        form = self.form
        if not self._hold("webhooks-name-their-call"):
            form = [field for field in form if field[0] != "CallStatus"]
        body, signed_form = b"", Form()
        if self.method == "GET":
            query = "&".join(q for q in (parts.query, urlencode(form)) if q)
            parts = parts._replace(query=query)
        else:
            body, signed_form = urlencode(form).encode(), form
            headers.append(("Content-Type", "application/x-www-form-urlencoded; charset=UTF-8"))
        url = urlunsplit(parts)
        if self._hold("webhooks-are-signed"):
            signed_too = "" if self._hold("fragment-is-not-signed") else fragment
            headers += self.sim.signer.headers(url, signed_form, fragment=signed_too)
        return url, headers, body

    def note(self, status: int, attempt: int, text: str = "") -> None:
        """Add an entry to the log."""
        self.log.append(
            WebhookEntry(
                time=self.sim.now(),
                seconds=self.sim.now() - self._began,
                kind=self.kind,
                call_sid=self.call_sid,
                method=self.method,
                url=self.url,
                form=dict(self.form),
                status=status,
                attempt=attempt,
                text=text,
            )
        )
