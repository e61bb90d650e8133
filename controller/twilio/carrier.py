"""Twilio's REST, through the real ``twilio`` package, in threads off the loop.

Every failure becomes a :class:`RestFailure` that says whether the request may have been carried
out. It was not if it got 429, a refused connection or a 4xx; it may have been after a 5xx, a
timeout or a reset. This file repeats nothing, because only whoever asks knows whether a repeat does
harm. The one exception is a 401, which did nothing at all: while the account's auth token is
rotated, the request is made once more with the other token.

For example::

    429 Too Many Requests, Retry-After: 7    repeatable, not uncertain, retry_after 7.0
    503 Service Unavailable                  repeatable, uncertain
    no answer within 8 s, or a reset         repeatable, uncertain
    connection refused                       repeatable, not uncertain
    400, error 21211 (a bad To)              neither
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import requests
from requests.adapters import HTTPAdapter
from requests.exceptions import InvalidSchema, InvalidURL, ProxyError
from twilio.base.exceptions import TwilioException, TwilioRestException, TwilioServiceException
from twilio.http.http_client import TwilioHttpClient
from twilio.http.response import Response
from twilio.rest import Client
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from trunkline.bus.cassettes import Cassettes
from trunkline.bus.clock import monotonic
from trunkline.bus.errors import CarrierError
from trunkline.bus.http import Session, causes, reason, through
from trunkline.bus.redact import mask_urls
from trunkline.bus.settings import Settings
from trunkline.bus.twilio_urls import TOKEN_PARAMETER

from .api_host import region_and_edge
from .calls import ENDED_STATUSES, CallOrder, RestFault, RestRequest
from .number_settings import VOICE_FIELDS, NumberSettings
from .threads import DaemonPool

log = logging.getLogger("trunkline.controller")

#: Seconds until a request is given up. Whether it was carried out is uncertain then.
REST_TIMEOUT: Final = 8.0
#: Requests at a time. More wait for a thread in the order in which they were asked for.
REST_THREADS: Final = 12
#: HTTP status of a resource that does not exist (any more).
GONE: Final = 404
#: HTTP status of a request whose token is not good. It was not carried out.
UNAUTHORIZED: Final = 401
#: The longest pause before another try, unless Twilio asks for more (seconds).
LONGEST_PAUSE: Final = 30.0
#: A Retry-After above this is not waited for in full (seconds): a number that is to be put back is
#: tried again before an hour has passed, whatever an answer says.
LONGEST_RETRY_AFTER: Final = 120.0

#: The events of a call for which Twilio is to call us (TD voice/api/call-resource,
#: StatusCallbackEvent). By default it would only tell "completed", and a dial that rings would look
#: like one that Twilio has forgotten.
STATUS_EVENTS: Final = ("initiated", "ringing", "answered", "completed")
_RINGING: Final = frozenset(("queued", "initiated", "ringing"))
#: 21220: the call is not in progress; 20404: gone. Ending such a call is done already.
_CODES_OF_AN_ENDED_CALL: Final = frozenset((21220, 20404))


class RestFailure(Exception):
    """A request that did not succeed.

    ``uncertain``: it may have taken effect. ``repeatable``: asking again may help.
    ``retry_after``: seconds that Twilio asked us to wait, or None.
    """

    def __init__(
        self,
        text: str,
        *,
        status: int = 0,
        code: int = 0,
        uncertain: bool = False,
        repeatable: bool = False,
        retry_after: float | None = None,
    ) -> None:
        # Twilio quotes the URLs that it refuses, and ours may hold a password.
        self.text = mask_urls(text)
        super().__init__(self.text)
        self.status = status
        self.code = code
        self.uncertain = uncertain
        self.repeatable = repeatable
        self.retry_after = retry_after

    @property
    def refused_credentials(self) -> bool:
        """The account may not do this (now): a wrong token, a suspended account."""
        return self.status in (401, 403) or self.code == 20003

    @property
    def gone(self) -> bool:
        """The resource does not exist (any more)."""
        return self.status == GONE

    @property
    def fault(self) -> RestFault:
        """Why it failed, for /metrics."""
        if self.refused_credentials:
            return "credentials"
        if self.status == 429:
            return "too many"
        if not self.status:
            return "no answer"
        return "server error" if self.status >= 500 else "refused"

    def error(self, doing: str) -> CarrierError:
        """The error for whoever asked for ``doing`` ("read +1…", …)."""
        hint = ""
        if self.status == 403:
            hint = " (the account may be suspended, or not allowed to do this)"
        elif self.refused_credentials:
            hint = " (check TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN)"
        what = f"HTTP {self.status}" if self.status else "no answer"
        code = f", error {self.code}" if self.code else ""
        return CarrierError(
            f"Twilio could not {doing}: {what}{code}: {self.text}{hint}",
            status=self.status,
            code=self.code,
            message=self.text,
        )


def backoff(attempt: int, failure: RestFailure) -> float:
    """Seconds to wait after the ``attempt``-th failure (from 1) in a row."""
    wait = min(LONGEST_PAUSE, 0.25 * 2.0 ** min(attempt - 1, 10))
    if failure.retry_after is not None:
        wait = max(wait, min(failure.retry_after, LONGEST_RETRY_AFTER))
    return wait


@dataclass(frozen=True)
class CallState:
    """A Call resource, as far as it matters here. ``created``: Unix time or None."""

    sid: str
    status: str
    to: str
    from_: str
    direction: str = ""
    created: float | None = None

    @property
    def ended(self) -> bool:
        """The call is over, by Twilio's own word."""
        return self.status in ENDED_STATUSES


#: Hears of a request how many seconds it took, and why it failed, if it did.
Watcher = Callable[[RestRequest, float, RestFault | None], None]

#: Which setting each of an account's tokens is, for whoever has to change one.
_TOKEN_NAMES: Final = ("TWILIO_AUTH_TOKEN", "TWILIO_AUTH_TOKEN_SECONDARY")


class _Http(TwilioHttpClient):  # type: ignore[misc]  # the package is untyped
    """The package's HTTP client with another base, our rule for proxies, and the account's two
    tokens: after a 401 the other is tried, and the one that is taken is kept. So are some facts
    about the last answer, for each thread apart: the package's errors do not have them, and twelve
    threads share this client."""

    def __init__(self, tokens: Sequence[str], base: str | None, timeout: float) -> None:
        super().__init__(timeout=timeout)
        self._tokens = tokens
        #: index of the token that Twilio took last
        self._good = 0
        assert self.session is not None
        self.session.close()
        session = Session()
        self.session: Session | None = session
        for scheme in ("https://", "http://"):
            session.mount(scheme, HTTPAdapter(max_retries=0, pool_maxsize=REST_THREADS))
        self._base = None if base is None else urlsplit(base)
        self._seen = threading.local()
        #: where requests about calls are kept; None: nobody wants them
        self.cassettes: Cassettes | None = None

    @property
    def retry_after(self) -> float | None:
        """Of the last answer that this thread got."""
        return getattr(self._seen, "retry_after", None)

    @property
    def through(self) -> str:
        """The proxy that this thread's last request went through, for the end of an error."""
        return getattr(self._seen, "through", "")

    def forget(self) -> None:
        """Forget the facts about this thread's last answer."""
        self._seen.retry_after = None
        self._seen.through = ""

    def request(
        self, method: str, url: str, *args: Any, auth: tuple[str, str], **kwargs: Any
    ) -> Any:
        """One request of the package, sent where ``base`` leads. Refused with 401, it is sent again
        with the other token: then it was not carried out, so that it is never done twice."""
        if self._base is not None:
            parts = urlsplit(url)
            path = self._base.path.rstrip("/") + parts.path
            url = urlunsplit((self._base.scheme, self._base.netloc, path, parts.query, ""))
        self._seen.through = through(url)
        first, account = self._good, auth[0]
        for index in (first, *(i for i in range(len(self._tokens)) if i != first)):
            credentials = (account, self._tokens[index])
            asked = monotonic()
            response = super().request(method, url, *args, auth=credentials, **kwargs)
            if response.status_code != UNAUTHORIZED:
                self._keep(index)
                break
        if self.cassettes is not None:
            path, form = urlsplit(url).path, kwargs.get("data") or {}
            status, text = response.status_code, response.text
            self.cassettes.rest(method, path, form, asked=asked, status=status, answer=text)
        self._seen.retry_after = _seconds((response.headers or {}).get("Retry-After"))
        return response

    def _keep(self, index: int) -> None:
        """Twilio takes this token, so it comes first from now on: in a rotation of hours, each
        request would otherwise be made twice."""
        if index != self._good:
            refused, self._good = self._good, index
            names = _TOKEN_NAMES[refused], _TOKEN_NAMES[index]
            log.warning("Twilio refuses %s: %s is used now", *names)


def _seconds(text: object) -> float | None:
    """A Retry-After in seconds; the form with a date is not used by Twilio."""
    try:
        return max(0.0, float(str(text)))
    except ValueError:
        return None


def classify(error: Exception, retry_after: float | None = None, through: str = "") -> RestFailure:
    """The meaning of a failed request of the package. ``through``: the proxy that it went through.
    It is named where the answer, or the silence, may be the proxy's rather than Twilio's."""
    if isinstance(error, TwilioRestException | TwilioServiceException):
        text = str(error.msg if isinstance(error, TwilioRestException) else error.title)
        for what in _PREFIXES:
            text = text.removeprefix(what)
        return _answered(int(error.status or 0), text, int(error.code or 0), retry_after, through)
    if isinstance(error, requests.RequestException):
        text, uncertain = reason(error), not _never_sent(error)
        return RestFailure(text + through, uncertain=uncertain, repeatable=True)
    if isinstance(error, TwilioException):
        # The package raises this for a page of a list that it did not get.
        for found in error.args:
            if isinstance(found, Response):
                return _of_response(found, retry_after, through)
    # The package could not make sense of the answer: the effect is unknown.
    text = f"unreadable answer ({type(error).__name__})"
    return RestFailure(text + through, uncertain=True, repeatable=True)


#: How the package begins the texts of its errors, before Twilio's own.
_PREFIXES: Final = tuple(
    f"Unable to {what}: "
    for what in ("create record", "update record", "fetch record", "fetch page")
)


def _answered(
    status: int, text: str, code: int, retry_after: float | None, through: str
) -> RestFailure:
    """An answer with an error. 429 was not carried out; from 500 on nobody knows. Only Twilio has
    a ``code``: where there is one, the answer is not the proxy's."""
    code = 0 if code == status else code
    again = status == 429 or status >= 500
    return RestFailure(
        text if code else text + through,
        status=status,
        code=code,
        uncertain=status >= 500,
        repeatable=again,
        retry_after=retry_after if again else None,
    )


def _of_response(response: Response, retry_after: float | None, through: str) -> RestFailure:
    """An answer that the package has not understood: perhaps a proxy's page."""
    status = int(response.status_code)
    text, code = f"HTTP {status}", 0
    with contextlib.suppress(ValueError):  # an answer of a proxy need not be JSON
        found = json.loads(response.text)
        if isinstance(found, dict):
            text, code = str(found.get("message", text)), int(found.get("code") or 0)
    return _answered(status, text, code, retry_after, through)


def _never_sent(error: BaseException) -> bool:
    """True where no connection was ever made, to Twilio or through the proxy."""
    kinds = (
        *(requests.ConnectTimeout, ProxyError, NewConnectionError, ConnectTimeoutError),
        *(InvalidSchema, InvalidURL),  # of the proxy: SOCKS without its package
    )
    return any(isinstance(cause, kinds) for cause in causes(error))


class TwilioCarrier:
    """Twilio's REST of one account, at ``base`` or else where ``region`` and ``edge`` lead. Every
    request may raise RestFailure.

    ``secondary``: the account's other token, while the two are rotated. ``cassettes``: where
    requests about calls are kept.
    """

    def __init__(
        self,
        account_sid: str,
        auth_token: str,
        base: str | None = None,
        timeout: float = REST_TIMEOUT,
        *,
        secondary: str = "",
        region: str | None = None,
        edge: str | None = None,
        cassettes: Cassettes | None = None,
    ) -> None:
        tokens = [auth_token, secondary] if secondary else [auth_token]
        self._http = _Http(tokens, base, timeout)
        self._http.cassettes = cassettes
        region, edge = region_and_edge(region, edge)
        self._client: Any = Client(
            account_sid,
            auth_token,
            http_client=self._http,
            region=region,
            edge=edge,
            # Without this the package reads region and edge from the process's environment, past
            # our settings.
            environment={"TWILIO_ACCOUNT_SID": account_sid},
        )
        self._pool = DaemonPool("trunkline-rest", REST_THREADS)
        self._told: Watcher = _nobody

    @classmethod
    def of(cls, settings: Settings, cassettes: Cassettes | None = None) -> TwilioCarrier:
        """The REST of the account that the settings name. SettingsError where one is missing."""
        return cls(
            settings.require("account_sid"),
            settings.require("auth_token"),
            settings.twilio_api_url,
            secondary=settings.auth_token_secondary,
            region=settings.region,
            edge=settings.edge,
            cassettes=cassettes,
        )

    def watched_by(self, told: Watcher) -> None:
        """From now on each request is counted, by its duration and its fault: for /metrics."""
        self._told = told

    def close(self) -> None:
        """Let requests under way end by themselves: their threads hold up nobody."""
        self._pool.close()
        if self._http.session is not None:
            self._http.session.close()

    async def _do(self, request: RestRequest, call: Callable[[], Any]) -> Any:
        """Run a request of the package in a thread. Its exceptions come back as RestFailure."""

        def work() -> Any:
            self._http.forget()
            try:
                return call()
            except (
                TwilioException,
                requests.RequestException,
                ValueError,
                KeyError,
                TypeError,
                AttributeError,
            ) as error:
                http = self._http
                raise classify(error, http.retry_after, http.through) from error

        began, failure = monotonic(), None
        try:
            return await self._pool.run(work)
        except RestFailure as raised:
            failure = raised
            raise
        finally:
            self._told(request, monotonic() - began, None if failure is None else failure.fault)

    async def find_number(self, number: str) -> NumberSettings | None:
        """The account's number; None: it has no such one."""
        numbers = self._client.incoming_phone_numbers
        # Twilio's filter matches parts and patterns; only the exact number is meant, and longer
        # ones may come before it.
        found = await self._do("find_number", lambda: numbers.list(phone_number=number, limit=50))
        exact = [n for n in found if n.phone_number == number]
        return _settings(exact[0]) if exact else None

    async def list_numbers(self) -> list[NumberSettings]:
        """All numbers of the account; the package asks for one page after the other."""
        numbers = self._client.incoming_phone_numbers
        return [
            _settings(n)
            for n in await self._do("list_numbers", lambda: numbers.list(page_size=200))
        ]

    async def read_number(self, sid: str) -> NumberSettings:
        """How the number is set at the moment, by its SID (PN…)."""
        return _settings(
            await self._do("read_number", self._client.incoming_phone_numbers(sid).fetch)
        )

    async def write_number(self, sid: str, fields: dict[str, str]) -> NumberSettings:
        """Set these of :data:`VOICE_FIELDS`, by the package's names (``voice_url=…``); the others
        stay as they are. "" clears a field."""
        number = self._client.incoming_phone_numbers(sid)
        return _settings(await self._do("write_number", lambda: number.update(**fields)))

    async def create_call(self, order: CallOrder) -> CallState:
        """Ask for a call; its SID and its first status ("queued") come back."""
        # Who answers is found out in the background (AsyncAmd). Without that Twilio would run our
        # TwiML, and so start the stream, only once it has decided.
        detection = {}
        if order.machine_detection is not None:
            detection = {
                "machine_detection": order.machine_detection,
                "async_amd": "true",
                "async_amd_status_callback": order.status_callback,
                "async_amd_status_callback_method": "POST",
            }

        def create() -> Any:
            return self._client.calls.create(
                to=order.to,
                from_=order.from_,
                twiml=order.twiml,
                time_limit=order.time_limit,
                timeout=order.ring_timeout,
                status_callback=order.status_callback,
                status_callback_event=list(STATUS_EVENTS),
                status_callback_method="POST",
                **detection,
            )

        return _state(await self._do("create_call", create))

    async def fetch_call(self, sid: str) -> CallState:
        """How the call stands. A RestFailure that is ``gone``: Twilio has no such call (yet)."""
        return _state(await self._do("fetch_call", self._client.calls(sid).fetch))

    async def end_call(self, sid: str) -> None:
        """Hang up; a call that is over already is no error."""
        call = self._client.calls(sid)
        try:
            if (await self.complete_call(sid)).status in _RINGING:
                # That `completed` ends a call that still rings is inferred; `canceled` is
                # documented for just these calls, and leaves others alone.
                await self._do("end_call", lambda: call.update(status="canceled"))
        except RestFailure as failure:
            if failure.gone or failure.code in _CODES_OF_AN_ENDED_CALL:
                return
            raise

    async def complete_call(self, sid: str) -> CallState:
        """Ask once for Status=completed; the call as Twilio shows it then. :meth:`end_call` is what
        ends one for certain."""
        call = self._client.calls(sid)
        return _state(await self._do("end_call", lambda: call.update(status="completed")))

    async def instruct_call(self, sid: str, twiml: str) -> None:
        """Have a live call leave its document and run this one. A ``<Connect>`` stream of the
        document that it leaves ends; one-way streams go on."""
        call = self._client.calls(sid)
        await self._do("instruct_call", lambda: call.update(twiml=twiml))

    async def start_stream(self, sid: str, url: str, token: str) -> None:
        """Start a one-way stream of the far end's sound (voice/api/stream-resource)."""
        streams = self._client.calls(sid).streams
        await self._do(
            "start_stream",
            lambda: streams.create(
                url=url,
                track="inbound_track",
                parameter1_name=TOKEN_PARAMETER,
                parameter1_value=token,
            ),
        )

    async def listen(self, sid: str, url: str, token: str, name: str) -> None:
        """Start a one-way stream of both sides of a call, which its ``name`` stops."""
        streams = self._client.calls(sid).streams
        await self._do(
            "listen",
            lambda: streams.create(
                url=url,
                name=name,
                track="both_tracks",
                parameter1_name=TOKEN_PARAMETER,
                parameter1_value=token,
            ),
        )

    async def stop_stream(self, sid: str, name: str) -> None:
        """Stop a one-way stream of a call by its name. One that is over already is no error."""
        stream = self._client.calls(sid).streams(name)
        try:
            await self._do("stop_stream", lambda: stream.update(status="stopped"))
        except RestFailure as failure:
            if not failure.gone and failure.code not in _CODES_OF_AN_ENDED_CALL:
                raise

    async def list_calls(self, to: str, from_: str, since: float) -> list[CallState]:
        """Calls with this To and From that were asked for at ``since`` (Unix time) or later."""
        calls = self._client.calls
        # Twilio filters by day only.
        after = datetime.fromtimestamp(since - 86_400, UTC)

        def both() -> dict[str, Any]:
            # A call that waits for its turn has not started, so a filter of that time may leave it
            # out. Those are asked for first, because one may start meanwhile.
            waiting = calls.list(to=to, from_=from_, status="queued", limit=100)
            started = calls.list(to=to, from_=from_, start_time_after=after, limit=100)
            return {call.sid: call for call in (*waiting, *started)}

        states = [_state(call) for call in (await self._do("list_calls", both)).values()]
        return [s for s in states if s.created is None or s.created >= since - 2.0]


def _nobody(request: RestRequest, seconds: float, fault: RestFault | None) -> None:
    """A command that asks Twilio counts nothing."""


def _settings(instance: Any) -> NumberSettings:
    """The package has None where Twilio shows null; here it is "", which can be written back."""
    return NumberSettings(
        str(instance.sid),
        str(instance.phone_number),
        {name: str(getattr(instance, name) or "") for name in VOICE_FIELDS},
    )


def _state(instance: Any) -> CallState:
    """A call, as far as the package's versions agree on it."""
    # `start_time` of a call that is still queued is null at Twilio.
    date = instance.date_created or instance.start_time
    created = date.timestamp() if isinstance(date, datetime) else None
    # The package declares `_from` and `from_` in different versions.
    sender = getattr(instance, "from_", None) or getattr(instance, "_from", None)
    return CallState(
        sid=str(instance.sid),
        status=str(instance.status or ""),
        to=str(instance.to or ""),
        from_=str(sender or ""),
        direction=str(instance.direction or ""),
        created=created,
    )
