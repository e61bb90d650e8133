"""The checks of ``trunkline doctor``: each looks at one thing and changes nothing.

A check returns findings: ok, warn (it works, but …), fail (calls will not work until this is put
right) or skip (cannot be told, because something before it failed).
"""

from __future__ import annotations

import base64
import json
import platform
import re
import shutil
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import zmq

from trunkline.bus import hosts
from trunkline.bus import messages as m
from trunkline.bus.endpoints import BusAddress
from trunkline.bus.errors import SettingsError, StackUnavailableError, TrunklineError
from trunkline.bus.redact import mask_url
from trunkline.bus.runtime_dir import runtime_path, system_runtime_path
from trunkline.bus.settings import Settings
from trunkline.cli.http_get import Answer, get
from trunkline.controller.twilio.api_host import api_url
from trunkline.stack.ask import controller, get_status

State = Literal["ok", "warn", "fail", "skip"]

#: Seconds for a running stack to answer on the bus.
BUS_WITHIN: Final = 1.5
#: A clock that is off by more than this is worth a word, and by more than that is wrong.
SKEW_WARNS: Final = 5.0
SKEW_FAILS: Final = 60.0

#: Reason of a gateway's refusals -> what it means, and what to do.
_REFUSALS: Final = {
    "shared key": (
        "{count} requests were refused because a shared key has signed them (HMAC_SHA256), not the "
        "auth token",
        "one of the account's Webhook Rules matches the public URL: take the rule's signature off",
    ),
    "wrong signature": (
        "{count} requests were refused for a wrong signature",
        "strangers' apart: is the public URL the one that Twilio was given, and the token this "
        "account's? A gateway's log has the URL that was checked",
    ),
}

_SID = re.compile(r"AC[0-9a-f]{32}\Z")
_TOKEN = re.compile(r"[0-9a-f]{32}\Z")


@dataclass(frozen=True)
class Finding:
    """What one check found; ``hint`` says what to do about it."""

    name: str
    state: State
    text: str
    hint: str = ""


@dataclass
class Known:
    """What earlier checks learned for later ones."""

    settings: Settings
    #: credentials were accepted
    account: bool = False
    #: the running stack's welcome and status
    welcome: m.Welcome | None = None
    status: dict[str, Any] = field(default_factory=dict)


async def versions(known: Known) -> list[Finding]:
    """trunkline, Python, ZeroMQ, the twilio package, and scenario where it is installed."""
    parts = [
        f"trunkline {version('trunkline')}",
        f"Python {platform.python_version()}",
        f"libzmq {zmq.zmq_version()}",
        f"twilio {version('twilio')}",
    ]
    try:
        parts.append(f"langwatch-scenario {version('langwatch-scenario')}")
    except PackageNotFoundError:
        parts.append("no langwatch-scenario (pip install 'trunkline[scenario]')")
    tunnels = [name for name in ("cloudflared", "ngrok") if shutil.which(name)]
    parts.append("tunnels: " + (", ".join(tunnels) or "none installed"))
    return [Finding("versions", "ok", ", ".join(parts))]


def rest_base(settings: Settings) -> str | None:
    """Where Twilio's REST, or the stand-in's, is asked; None where the region does not say."""
    try:
        return settings.twilio_api_url or api_url(settings.region, settings.edge)
    except SettingsError:
        return None


async def credentials(known: Known) -> list[Finding]:
    """SID and token: there, well-formed, accepted by Twilio; and the clock by its Date header."""
    settings = known.settings
    try:
        sid, token = settings.require("account_sid"), settings.require("auth_token")
    except SettingsError as error:
        return [Finding("credentials", "fail", str(error), "console.twilio.com shows both")]
    base = rest_base(settings)
    if base is None:
        return [Finding("credentials", "skip", "it is not known where to ask (see region)")]
    findings = []
    if not _SID.match(sid):
        findings.append(
            Finding("credentials", "warn", "TWILIO_ACCOUNT_SID is not AC and 32 hex digits")
        )
    tokens = {"TWILIO_AUTH_TOKEN": token}
    if secondary := settings.auth_token_secondary.get_secret_value():
        tokens["TWILIO_AUTH_TOKEN_SECONDARY"] = secondary
    url = f"{base}/2010-04-01/Accounts/{sid}.json"
    answers = {}
    for name, each in tokens.items():
        if not _TOKEN.match(each):
            findings.append(Finding("credentials", "warn", f"{name} is not 32 hex digits"))
        basic = base64.b64encode(f"{sid}:{each}".encode()).decode()
        answers[name] = await get(url, {"Authorization": f"Basic {basic}"})
    taken = [name for name, answer in answers.items() if answer.status == 200]
    answer = answers[taken[0] if taken else "TWILIO_AUTH_TOKEN"]
    findings.append(_account(known, answer, base))
    if secondary and taken:
        findings.append(_rotation(taken, answers))
    findings.append(_clock(answer, base))
    return findings


def _rotation(taken: list[str], answers: dict[str, Answer]) -> Finding:
    """Which of the two tokens Twilio takes; it takes one of them at least."""
    if len(taken) == 2:
        return Finding("tokens", "ok", "Twilio takes both auth tokens")
    (refused,) = (name for name in answers if name not in taken)
    text = f"Twilio takes {taken[0]}, and answers HTTP {answers[refused].status} to {refused}"
    if taken == ["TWILIO_AUTH_TOKEN"]:
        hint = "a former token is needed only to put back what was changed under it"
        return Finding("tokens", "ok", text, hint)
    hint = (
        "make it TWILIO_AUTH_TOKEN, keep the former as TWILIO_AUTH_TOKEN_SECONDARY until all "
        "numbers are put back, and start the whole stack anew"
    )
    return Finding("tokens", "warn", text, hint)


def _account(known: Known, answer: Answer, base: str) -> Finding:
    if answer.status == 0:
        return Finding(
            "credentials", "fail", f"{base} does not answer: {answer.body.decode(errors='replace')}"
        )
    if answer.status in (401, 403):
        return Finding(
            "credentials",
            "fail",
            f"Twilio refuses them (HTTP {answer.status})",
            "check TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN; test credentials cannot call"
            + _regional(known.settings),
        )
    if answer.status != 200:
        return Finding("credentials", "fail", f"Twilio answers HTTP {answer.status}")
    known.account = True
    account = _object(answer.body)
    status, kind = account.get("status", "?"), account.get("type", "?")
    text = f"accepted; account {status}, {kind}"
    if status != "active":
        return Finding("credentials", "fail", text, "console.twilio.com says why")
    if kind == "Trial":
        hint = "a trial account can only call verified numbers, and says so before each call"
        return Finding("credentials", "warn", text, hint)
    return Finding("credentials", "ok", text)


def _regional(settings: Settings) -> str:
    if settings.twilio_api_url or not settings.region:
        return ""
    return f"; the token has to be region {settings.region}'s own, each region has another"


def _clock(answer: Answer, base: str) -> Finding:
    if answer.date is None:
        return Finding("clock", "skip", f"{base} told no time")
    # The header has whole seconds and is about half a round trip old.
    theirs = parsedate_to_datetime(answer.date).timestamp() + 0.5 + answer.seconds / 2
    skew = datetime.now(UTC).timestamp() - theirs
    text = f"{abs(skew):.1f} s {'ahead of' if skew > 0 else 'behind'} Twilio's"
    if abs(skew) > SKEW_FAILS:
        return Finding("clock", "fail", text, "set the clock: turn on NTP")
    if abs(skew) > SKEW_WARNS:
        return Finding("clock", "warn", text, "turn on NTP")
    return Finding("clock", "ok", "right to the second")


async def stack(known: Known) -> list[Finding]:
    """Whether a stack answers on the bus, and what it is made of."""
    try:
        async with controller(known.settings, timeout=BUS_WITHIN) as client:
            known.welcome = client.welcome
            known.status = await get_status(client)
    except StackUnavailableError:
        return [
            Finding(
                "stack",
                "warn",
                f"none is running at {known.settings.bus}",
                "`trunkline up` or `honcho start`; an adapter without one starts its own",
            )
        ]
    except TrunklineError as error:
        return [Finding("stack", "fail", str(error))]
    gateways, workers = known.status["gateways"], known.status["codec_workers"]
    text = (
        f"controller (pid {known.status['controller']['pid']}), {_count(gateways, 'gateway')}, "
        f"{_count(workers, 'codec worker')}, {_count(known.status['calls'], 'call')}"
    )
    if not gateways or not workers:
        return [
            Finding("stack", "fail", text, "it needs one gateway and one codec worker at least")
        ]
    if len(workers) == 1:
        hint = "with two, a call outlives the death of one without a gap"
        return [Finding("stack", "ok", text, hint)]
    return [Finding("stack", "ok", text)]


def _count(things: list[Any], one: str) -> str:
    return f"{len(things)} {one}" + ("" if len(things) == 1 else "s")


async def ports(known: Known) -> list[Finding]:
    """The two listeners: free, or the running stack's own."""
    settings = known.settings
    running = known.welcome is not None
    public, console = settings.http_port, settings.console_port
    named = f"TRUNKLINE_CONSOLE_PORT={console}"
    return [
        _port("public port", settings.http_host, public, running, "TRUNKLINE_HTTP_PORT"),
        _port("console port", "127.0.0.1", console, running, "TRUNKLINE_CONSOLE_PORT", named),
    ]


def _port(
    name: str, host: str, port: int, running: bool, variable: str, setting: str | None = None
) -> Finding:
    """``setting``: what an address that cannot be had is named by (``hosts.listen``)."""
    if port == 0:
        return Finding(name, "ok", "any free one")
    where = hosts.join(host, port)
    try:
        hosts.listen(host, port, setting).close()
    except hosts.PortTakenError:
        if running:
            return Finding(name, "ok", f"{where} is in use, as it is while a stack runs")
        hint = f"end what listens there, or set {variable}"
        return Finding(name, "fail", f"{where} is taken by another process", hint)
    except SettingsError as error:
        return Finding(name, "fail", str(error))
    if running:
        hint = f"was the stack started with another {variable}?"
        return Finding(name, "warn", f"nobody listens on {where} though a stack runs", hint)
    hint = f"IPv6 only: what leads there has to say {where}" if ":" in host else ""
    return Finding(name, "ok", f"{where} is free", hint)


async def public_url(known: Known) -> list[Finding]:
    """``/healthz`` through the public URL: reached, and answered by this very stack."""
    url = (known.welcome.public_url if known.welcome else None) or known.settings.public_url
    if not url:
        hint = "`trunkline up --tunnel cloudflared` finds one by itself"
        return [Finding("public URL", "fail", "TRUNKLINE_PUBLIC_URL is not set", hint)]
    return [await _reached(known, url), *_unusual(url, known.settings)]


async def _reached(known: Known, url: str) -> Finding:
    shown = mask_url(url)
    if known.welcome is None:
        return Finding("public URL", "skip", f"{shown}: it is answered by a running stack only")
    answer = await get(f"{url}/healthz", {"User-Agent": "trunkline-doctor"})
    if answer.status == 0:
        reason = answer.body.decode(errors="replace")
        hint = "is the tunnel up, and does it lead to the public port?"
        return Finding("public URL", "fail", f"{shown} is not reached: {reason}", hint)
    found = _object(answer.body)
    if answer.status != 200 or "stack" not in found:
        text = f"{shown}/healthz is answered by something else (HTTP {answer.status})"
        return Finding("public URL", "fail", text, "it has to lead to the public port")
    if found["stack"] != known.welcome.stack:
        text = f"{shown} leads to another trunkline stack"
        return Finding("public URL", "fail", text, "two stacks need two public URLs")
    return Finding("public URL", "ok", f"{shown} answers in {answer.seconds * 1000:.0f} ms")


def _unusual(url: str, settings: Settings) -> list[Finding]:
    """What in the public URL Twilio's documents do not promise for streams."""
    findings = []
    parts = urlsplit(url)
    if parts.scheme == "http" and settings.twilio_api_url is None:
        hint = "Media Streams need wss, so https"
        findings.append(Finding("public URL", "fail", f"{mask_url(url)} is not https", hint))
    if parts.scheme == "https" and parts.port not in (None, 443):
        text = (
            f"port {parts.port}: signatures are taken with it and without, but Twilio's documents "
            "ask for port 443 where streams go"
        )
        hint = "if calls get no stream (errors 31901, 31910), use port 443"
        findings.append(Finding("public URL", "warn", text, hint))
    if parts.username is not None:
        text = (
            "it has a user name: signatures are taken with it and without, and Twilio sends it in "
            "webhooks to a server that asks (401), but documents no such thing for streams"
        )
        hint = (
            "let /twilio/stream through without a password: signature and one-time token guard it"
        )
        findings.append(Finding("public URL", "warn", text, hint))
    return findings


async def refusals(known: Known) -> list[Finding]:
    """What the running gateways have refused for its signature, where that tells of a mistake."""
    counts: Counter[str] = Counter()
    for gateway in known.status.get("gateways", []):
        counts.update(gateway.get("refused", {}))
    findings = [
        Finding("signatures", "warn", text.format(count=counts[reason]), hint)
        for reason, (text, hint) in _REFUSALS.items()
        if counts[reason]
    ]
    if findings:
        return findings
    if not known.status:
        return [Finding("signatures", "skip", "only a running stack has refused any")]
    return [Finding("signatures", "ok", "none was refused that Twilio may have made")]


async def bus_directory(known: Known) -> list[Finding]:
    """The bus address: a private directory, or tcp."""
    address: BusAddress = known.settings.address
    if address.directory is None:
        return [Finding("bus", "ok", f"{address.text}, encrypted by the account's token")]
    try:
        address.make_directory()
    except (SettingsError, OSError) as error:
        return [Finding("bus", "fail", str(error))]
    return [Finding("bus", "ok", address.text, _shortened(known.settings))]


def _shortened(settings: Settings) -> str:
    """Why the default address is not in the system's runtime directory, where it is not."""
    if "bus" in settings.model_fields_set:
        return ""
    system = system_runtime_path()
    if system == runtime_path():
        return ""
    if system is None:
        return "the system gives this user no runtime directory; TRUNKLINE_BUS names another"
    return f"{system} is too long a path for a socket, so a short one is used in its place"


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
