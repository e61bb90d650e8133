"""Webhooks and status callbacks: Twilio's fields, signature, connection overrides, retries.

Source: TD voice/twiml (request parameters), usage/webhooks/webhooks-connection-overrides: in the
URL's fragment `rc` counts retries (default 1), `rp` says on what (ct connect, rt read, 4xx, 5xx,
all; default ct), `ct`, `rt` and `tt` are timeouts in ms. A retried request carries the same
I-Twilio-Idempotency-Token.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from functools import partial
from typing import Final
from urllib.parse import parse_qs, urlencode, urlsplit, urlunsplit

import msgspec

from . import http_client
from .account import API_VERSION, Call
from .beliefs import Beliefs
from .exchange import Fetched
from .faults import Faults
from .signature import Signer

_PLACE: Final = ("City", "State", "Zip", "Country")
_RETRY_KINDS: Final = frozenset(["ct", "rt", "4xx", "5xx", "all"])

Form = list[tuple[str, str]]


class Overrides(msgspec.Struct, frozen=True):
    """Connection overrides of one URL; times in seconds."""

    retries: int = 1
    on: frozenset[str] = frozenset(["ct"])
    connect_timeout: float = 5.0
    read_timeout: float = 15.0
    total_timeout: float = 15.0


class WebhookEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One request that was sent (or lost by a fault): what and how it ended; status 0: no
    answer."""

    time: float
    kind: str
    call_sid: str
    method: str
    url: str
    form: dict[str, str]
    status: int
    attempt: int
    text: str = ""


def read_overrides(url: str, most: float = 15.0, connect: float = 10.0) -> Overrides:
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
        connect_timeout=milliseconds("ct", min(connect, 5.0), 10.0),
        read_timeout=milliseconds("rt", most, most),
        total_timeout=milliseconds("tt", most, most),
    )


def call_fields(call: Call, account_sid: str) -> Form:
    """The fields of every webhook of a call, blank ones included."""
    status = "ringing" if call.status == "queued" else call.status
    direction = call.direction
    fields: Form = [
        ("AccountSid", account_sid),
        ("ApiVersion", API_VERSION),
        ("CallSid", call.sid),
        ("CallStatus", status),
        ("Called", call.to),
        ("Caller", call.from_),
        ("Direction", direction),
        ("From", call.from_),
        ("To", call.to),
    ]
    for who, number in (
        ("Called", call.to),
        ("To", call.to),
        ("Caller", call.from_),
        ("From", call.from_),
    ):
        country = "US" if number.startswith("+1") else ""
        fields += [(who + part, country if part == "Country" else "") for part in _PLACE]
    if direction == "inbound":
        fields += [("CallToken", ""), ("StirVerstat", "TN-Validation-Passed-A")]
    if call.parent_call_sid:
        fields.append(("ParentCallSid", call.parent_call_sid))
    return fields


class Webhooks:
    """Sends them, with the faults that are installed, and keeps the log."""

    def __init__(
        self,
        signer: Signer,
        authorization: Callable[[str], str | None],
        faults: Faults,
        clock: Callable[[], float],
        new_sid: Callable[[str], str],
        *,
        timeout: float,
        connect_timeout: float,
        tls: ssl.SSLContext,
        beliefs: Beliefs,
    ) -> None:
        self._beliefs = beliefs
        self._signer = signer
        self._authorization = authorization
        self._faults = faults
        self._clock = clock
        self._new_sid = new_sid
        self._timeout = timeout
        self._connect_timeout = connect_timeout
        self._tls = tls
        self.log: list[WebhookEntry] = []

    async def post(self, kind: str, call_sid: str, method: str, url: str, form: Form) -> Fetched:
        """Send one, with retries. kind is webhook or status (for the faults' `where`)."""
        timeout = self._timeout if self._beliefs.hold("webhooks-may-take-15-s") else 2.0
        followed = url if self._beliefs.hold("fragment-is-followed") else ""
        overrides = read_overrides(followed, timeout, self._connect_timeout)
        fault = self._faults.match(kind, method, url)
        if fault is not None and fault.kind == "drop":
            self._note(kind, call_sid, method, url, form, 0, 1, "dropped by a fault rule")
            return Fetched(code=11205, text=f"{url}: dropped by a fault rule")
        if fault is not None and fault.kind == "delay":
            await asyncio.sleep(fault.seconds)
        token = self._new_sid("IT")
        result = Fetched(code=11200, text=f"{url}: not sent")
        try:
            async with asyncio.timeout(overrides.total_timeout):
                if fault is not None and fault.kind == "duplicate":
                    await self._attempt(kind, call_sid, method, url, form, token, overrides, 0)
                for attempt in range(1, overrides.retries + 2):
                    result, stage = await self._attempt(
                        kind, call_sid, method, url, form, token, overrides, attempt
                    )
                    if not stage or not {stage, "all"} & overrides.on:
                        break
        except TimeoutError:
            text = f"{url}: no answer in {overrides.total_timeout:g} s in all"
            self._note(kind, call_sid, method, url, form, 0, 0, text)
            return Fetched(code=11205, text=text)
        return result

    async def _attempt(
        self,
        kind: str,
        call_sid: str,
        method: str,
        url: str,
        form: Form,
        token: str,
        overrides: Overrides,
        attempt: int,
    ) -> tuple[Fetched, str]:
        """One try: the result, and for the retry policy what was wrong (ct, rt, 4xx, 5xx or "")."""
        parts = urlsplit(url)
        fragment = f"#{parts.fragment}" if parts.fragment else ""
        signed_too = "" if self._beliefs.hold("fragment-is-not-signed") else fragment
        parts = parts._replace(fragment="")
        if not self._beliefs.hold("query-is-kept"):
            parts = parts._replace(query="")
        headers = [
            ("User-Agent", "TwilioProxy/1.1"),
            ("Accept", "*/*"),
            ("I-Twilio-Idempotency-Token", token),
        ]
        if method == "GET":
            query = "&".join(q for q in (parts.query, urlencode(form)) if q)
            sent = urlunsplit(parts._replace(query=query))
            body, signed_form = b"", Form()
        else:
            sent = urlunsplit(parts)
            body, signed_form = urlencode(form).encode(), form
            headers.append(("Content-Type", "application/x-www-form-urlencoded; charset=UTF-8"))
        if self._beliefs.hold("webhooks-are-signed"):
            headers += self._signer.headers(sent, signed_form, fragment=signed_too)
        request = partial(
            http_client.request,
            method,
            sent,
            body=body,
            connect_timeout=overrides.connect_timeout,
            read_timeout=overrides.read_timeout,
            tls=self._tls,
        )
        try:
            answer = await request(headers)
            credentials = self._authorization(sent)
            if answer.status == 401 and "www-authenticate" in answer.headers and credentials:
                # TD usage/security: the same request again, now with its Authorization header.
                answer = await request([*headers, ("Authorization", credentials)])
        except http_client.NotReached as e:
            self._note(kind, call_sid, method, url, form, 0, attempt, str(e))
            code = {"connect": 11205, "read": 11205, "host": 11210}[e.stage]
            return Fetched(code=code, text=str(e)), "rt" if e.stage == "read" else "ct"
        self._note(kind, call_sid, method, url, form, answer.status, attempt, "")
        if 200 <= answer.status < 300:
            return Fetched(answer.body, answer.headers.get("content-type", "")), ""
        text = f"{url} answered {answer.status}"
        return Fetched(code=11200, text=text), f"{answer.status // 100}xx"

    def _note(
        self,
        kind: str,
        call_sid: str,
        method: str,
        url: str,
        form: Form,
        status: int,
        attempt: int,
        text: str,
    ) -> None:
        self.log.append(
            WebhookEntry(
                time=self._clock(),
                kind=kind,
                call_sid=call_sid,
                method=method,
                url=url,
                form=dict(form),
                status=status,
                attempt=attempt,
                text=text,
            )
        )
