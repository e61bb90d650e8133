"""The doctor's checks of bus, ports and public URL, and of a stack that runs."""

from __future__ import annotations

from collections import Counter
from typing import Final
from urllib.parse import urlsplit

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
from .finding import Finding, Known, json_object

#: Seconds for a running stack to answer on the bus.
BUS_WITHIN: Final = 1.5

#: Reason of a gateway's refusals -> its meaning, and the remedy.
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
    "odd fields": (
        "{count} signed requests were refused because their fields are not those of a webhook",
        "somebody may have captured one, and cut it elsewhere; a gateway's log names the field",
    ),
}


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
        return [
            Finding("stack", "fail", text, "it needs one gateway and one codec worker at least")
        ]
    if len(workers) == 1:
        hint = "with two, a call outlives the death of one without a gap"
        return [Finding("stack", "ok", text, hint)]
    return [Finding("stack", "ok", text)]


async def caps(known: Known) -> list[Finding]:
    """How much all clients of the stack together may still dial."""
    found = known.status.get("caps", [])
    if not known.status:
        return [Finding("caps", "skip", "only a running stack knows how much is left of them")]
    if not found:
        hint = "TRUNKLINE_MAX_CALLS and TRUNKLINE_MAX_MINUTES_PER_DAY bound what calls can cost"
        return [Finding("caps", "ok", "none is set", hint)]
    return [
        Finding(
            "caps",
            "ok" if cap["left"] else "warn",
            f"{cap['setting']}={cap['most']}: {cap['left']} left",
            "" if cap["left"] else "calls are refused until some of it is free again",
        )
        for cap in found
    ]


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
    """``setting`` names the address in an error, where it cannot be had (``hosts.listen``)."""
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
    answer = await get(url + HEALTH_PATH, {"User-Agent": "trunkline-doctor"})
    if answer.status == 0:
        reason = answer.body.decode(errors="replace")
        hint = "is the tunnel up, and does it lead to the public port?"
        return Finding("public URL", "fail", f"{shown} is not reached: {reason}", hint)
    found = json_object(answer.body)
    if answer.status != 200 or "stack" not in found:
        text = f"{shown}/healthz is answered by something else (HTTP {answer.status})"
        return Finding("public URL", "fail", text, "it has to lead to the public port")
    if known.welcome.stack not in found.get("stacks", [found["stack"]]):
        text = f"{shown} leads to another trunkline stack"
        return Finding("public URL", "fail", text, "two stacks need two public URLs")
    return Finding("public URL", "ok", f"{shown} answers in {answer.seconds * 1000:.0f} ms")


def _unusual(url: str, settings: Settings) -> list[Finding]:
    """Warnings about parts of the public URL that Twilio's documents do not promise for streams."""
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
    """Requests that the gateways refused for their signature, where that tells of a mistake."""
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
