"""The doctor's checks of the bus, the ports, the public URL, and a running stack."""

from __future__ import annotations

from collections import Counter
from typing import Final
from urllib.parse import urlsplit

import msgspec

from trunkline.bus import hosts
from trunkline.bus.endpoints import BusAddress
from trunkline.bus.errors import SettingsError, StackUnavailableError, TrunklineError
from trunkline.bus.redact import mask_url
from trunkline.bus.runtime_dir import runtime_path, system_runtime_path
from trunkline.bus.settings import Settings
from trunkline.bus.twilio_urls import HEALTH_PATH

from ..reports.cost import counted
from ..stack.controller_client import controller_client, get_status
from ..stack.http_get import get
from .finding import Finding, Known, json_object, shown

#: Seconds for a running stack to answer on the bus.
BUS_WITHIN: Final = 1.5

#: A gateway's reason to refuse a request -> what the doctor says of it, and the hint.
_REFUSALS: Final = {
    "shared key": (
        "{count} requests were refused because a shared key has signed them (HMAC_SHA256), not the "
        "auth token",
        "one of the account's Webhook Rules matches the public URL: remove the rule's signature",
    ),
    "wrong signature": (
        "{count} requests were refused for a wrong signature",
        "some may be strangers' requests. Otherwise: is the public URL the one that Twilio was "
        "given, and is the token this account's? A gateway's log has the URL that was checked",
    ),
    "odd fields": (
        "{count} signed requests were refused because their fields are not those of a webhook",
        "somebody may have captured a request and altered it; a gateway's log names the field",
    ),
}


class _StandInNumber(msgspec.Struct):
    phone_number: str


async def bus_directory(known: Known) -> list[Finding]:
    """The bus's address: tcp, or a directory, which is made where it is missing and has to be this
    user's alone."""
    address: BusAddress = known.settings.address
    if address.directory is None:
        return [Finding("bus", "ok", f"{address.text}, encrypted by the account's token")]
    try:
        address.make_directory()
    except (SettingsError, OSError) as error:
        return [Finding("bus", "fail", str(error))]
    return [Finding("bus", "ok", address.text, _shortened(known.settings))]


def _shortened(settings: Settings) -> str:
    """The reason why the default address is not in the system's runtime directory; "" where it
    is."""
    if "bus" in settings.given:
        return ""
    system = system_runtime_path()
    if system == runtime_path():
        return ""
    if system is None:
        return "the system gives this user no runtime directory; TRUNKLINE_BUS names another"
    return f"{system} is too long a path for a socket, so a short one is used in its place"


async def stack(known: Known) -> list[Finding]:
    """Whether a stack answers on the bus, and how many processes and calls it has."""
    try:
        async with controller_client(known.settings, timeout=BUS_WITHIN) as client:
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
    parts = ((gateways, "gateway"), (workers, "codec worker"), (known.status["calls"], "call"))
    counts = ", ".join(counted(len(rows), one) for rows, one in parts)
    text = f"controller (pid {known.status['controller']['pid']}), {counts}"
    if not gateways or not workers:
        needs = "it needs one gateway and one codec worker at least"
        return [Finding("stack", "fail", text, needs), *await _carrier(known)]
    alone = "with two, a call outlives the death of one without a gap" if len(workers) == 1 else ""
    return [Finding("stack", "ok", text, alone), *await _carrier(known)]


async def _carrier(known: Known) -> list[Finding]:
    """Whether calls of the running stack go to a stand-in carrier and not to Twilio."""
    if known.stand_in is None:
        return []
    text = (
        f"the stack's is the stand-in at {known.stand_in}, which needs no account"
        f"{await _its_numbers(known.stand_in)}"
    )
    hint = "whether calls can be made at Twilio is checked while no such stack runs"
    return [Finding("carrier", "ok", text, hint)]


async def _its_numbers(stand_in: str) -> str:
    """The numbers of a stand-in carrier's account, as the end of a text; "" where it does not
    tell them."""
    answer = await get(f"{stand_in}/sim/numbers")
    try:
        rows = msgspec.json.decode(answer.body, type=list[_StandInNumber])
    except msgspec.DecodeError:
        return ""
    return f"; its numbers: {shown([row.phone_number for row in rows])}"


async def caps(known: Known) -> list[Finding]:
    """How much all clients of the running stack together may still dial."""
    found = known.status.get("caps", [])
    if not known.status:
        return [Finding("caps", "skip", "only a running stack knows what is left of its caps")]
    if not found:
        hint = "TRUNKLINE_MAX_CALLS and TRUNKLINE_MAX_MINUTES_PER_DAY bound what calls can cost"
        return [Finding("caps", "ok", "none is set", hint)]
    return [
        Finding(
            "caps",
            "ok" if cap["left"] else "warn",
            f"{cap['setting']}={cap['most']}: {cap['left']} left",
            "" if cap["left"] else "calls are refused until there is room again",
        )
        for cap in found
    ]


async def ports(known: Known) -> list[Finding]:
    """Whether the ports of the two listeners are free, or in use by the running stack."""
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
    """Try to listen at one port. ``setting`` is passed to ``hosts.listen``, whose error quotes
    it."""
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
    hint = f"IPv6 only: a tunnel or proxy has to lead to {where}" if ":" in host else ""
    return Finding(name, "ok", f"{where} is free", hint)


async def public_url(known: Known) -> list[Finding]:
    """Whether the running stack itself answers ``/healthz`` at the public URL."""
    url = (known.welcome.public_url if known.welcome else None) or known.settings.public_url
    if not url:
        hint = "`trunkline up --tunnel cloudflared` finds one by itself"
        return [Finding("public URL", "fail", "TRUNKLINE_PUBLIC_URL is not set", hint)]
    return [await _reached(known, url), *_unusual(url, known.settings)]


async def _reached(known: Known, url: str) -> Finding:
    shown = mask_url(url)
    if known.welcome is None:
        return Finding("public URL", "skip", f"{shown}: only a running stack answers there")
    answer = await get(url + HEALTH_PATH, {"User-Agent": "trunkline-doctor"})
    if answer.status == 0:
        reason = answer.body.decode(errors="replace")
        hint = "is the tunnel up, and does it lead to the public port?"
        return Finding("public URL", "fail", f"{shown} cannot be reached: {reason}", hint)
    found = json_object(answer.body)
    if answer.status != 200 or "stack" not in found:
        text = f"{shown}/healthz is answered by something else (HTTP {answer.status})"
        return Finding("public URL", "fail", text, "it has to lead to the public port")
    if known.welcome.stack not in found.get("stacks", [found["stack"]]):
        text = f"{shown} leads to another trunkline stack"
        return Finding("public URL", "fail", text, "two stacks need two public URLs")
    return Finding("public URL", "ok", f"{shown} answers in {answer.seconds * 1000:.0f} ms")


def _unusual(url: str, settings: Settings) -> list[Finding]:
    """Findings about parts of the public URL for which Twilio's documents promise no streams."""
    findings = []
    parts = urlsplit(url)
    if parts.scheme == "http" and settings.twilio_api_url is None:
        hint = "Media Streams need wss, so the URL has to be https"
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
    """How many requests the gateways refused for a reason that may be a mistake of the user's."""
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
        return [Finding("signatures", "skip", "only a running stack knows what it has refused")]
    return [Finding("signatures", "ok", "no request was refused that Twilio may have made")]
