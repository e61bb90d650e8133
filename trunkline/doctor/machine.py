"""The doctor's checks of this machine and shell: versions, ``.env``, proxies, the account's region,
open files, and the state directory.

Most of these decide where a request goes, or where a file is, although nobody has set them for
trunkline. So each is printed, even where it is as it should be.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import zmq

from trunkline.bus import descriptors
from trunkline.bus.errors import SettingsError
from trunkline.bus.hosts import is_here
from trunkline.bus.http import proxy_for
from trunkline.bus.private import WRITE, check_private
from trunkline.bus.redact import mask_url
from trunkline.bus.settings import Settings, slips
from trunkline.controller.journal.state_dir import check_writable
from trunkline.controller.twilio.api_host import api_url

from .account import rest_base
from .finding import Finding, Known

_PROXIES: Final = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")


async def machine(known: Known) -> list[Finding]:
    """The findings of the functions below, in their order."""
    settings = known.settings
    return [
        versions(),
        env_file(Path(".env")),
        *unknown(Path(".env")),
        *proxies(settings),
        region(settings),
        open_files(),
        state(settings),
    ]


def versions() -> Finding:
    """The versions of trunkline, Python, ZeroMQ, the twilio package and langwatch-scenario, and the
    tunnel programs that are installed."""
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
    return Finding("versions", "ok", ", ".join(parts))


def env_file(path: Path) -> Finding:
    """Whether there is a ``.env``. One that cannot be read has already failed the check of the
    settings."""
    where = path.absolute()
    if path.is_dir():
        return Finding(".env", "ok", f"{where} is a directory, and not read for settings")
    if path.exists():
        return Finding(".env", "ok", f"{where} is read; the environment wins over it")
    return Finding(".env", "ok", f"none in {where.parent}: settings come from the environment")


def unknown(path: Path) -> list[Finding]:
    """Names in the file and in the environment that look like settings, and are none."""
    return [
        Finding("settings", "warn", slip.text, slip.hint or "docs/settings.md has all of them")
        for slip in slips(path)
    ]


def proxies(settings: Settings) -> list[Finding]:
    """The proxy, if any, through which requests to Twilio and to the public URL go."""
    set_here = [
        name for name in (*_PROXIES, *map(str.lower, _PROXIES)) if os.environ.get(name, "").strip()
    ]
    urls = {"Twilio": rest_base(settings), "the public URL": settings.public_url}
    used = {what: proxy_for(url) for what, url in urls.items() if url}
    if not set_here and not any(used.values()):
        return [Finding("proxy", "ok", "none is set")]
    shown = "; ".join(
        f"{what} ({urlsplit(urls[what] or '').hostname}) is asked "
        + (f"through {proxy}" if proxy else "directly")
        for what, proxy in used.items()
    )
    here = [what for what, url in urls.items() if url and is_here(url)]
    hint = "requests to this machine itself never go through a proxy"
    if here:
        hint += f", and {' and '.join(here)} is here"
    findings = [Finding("proxy", "ok", f"{', '.join(set_here) or 'the system'}: {shown}", hint)]
    for proxy in sorted({proxy for proxy in used.values() if proxy}):
        if proxy.startswith("socks") and importlib.util.find_spec("socks") is None:
            text = f"{proxy} needs a package that is not installed"
            findings.append(Finding("proxy", "fail", text, "pip install pysocks"))
    return findings


def region(settings: Settings) -> Finding:
    """The region in which Twilio handles the account's calls."""
    named = [
        f"{name}={value}"
        for name, value in (("TWILIO_REGION", settings.region), ("TWILIO_EDGE", settings.edge))
        if value
    ]
    try:
        base = api_url(settings.region, settings.edge)
    except SettingsError as error:
        return Finding("region", "fail", str(error))
    if settings.twilio_api_url:
        shown = mask_url(settings.twilio_api_url)
        why = f" ({', '.join(named)} does not matter there)" if named else ""
        return Finding("region", "ok", f"TRUNKLINE_TWILIO_API_URL leads to {shown}{why}")
    if not named:
        return Finding("region", "ok", f"none is set: {base}, in the United States")
    text = f"{', '.join(named)}: {base}"
    if settings.region is None:
        return Finding(
            "region", "ok", text, "an edge alone chooses no region: calls are handled in us1"
        )
    hint = "credentials, numbers and calls are this region's own: console.twilio.com shows them"
    return Finding("region", "ok", text, hint)


def open_files() -> Finding:
    """How many file descriptors a process of a stack may have. Each process raises its own limit at
    its start, as far as it may."""
    soft, most = descriptors.limits()
    there = descriptors.for_connections(most)
    text = f"a process may have {most:,} descriptors ({soft:,} before it asks)"
    text += f", and a gateway {there:,} connections"
    if most >= descriptors.ENOUGH:
        return Finding("descriptors", "ok", text)
    hint = (
        f"allow {descriptors.ENOUGH:,} (ulimit -Hn, LimitNOFILE in a systemd unit): half are for "
        f"calls, and strangers at the public port share the rest"
    )
    return Finding("descriptors", "warn", text, hint)


def state(settings: Settings) -> Finding:
    """Whether this user can write to the state directory, or make it, and no other user can."""
    try:
        path = settings.state_path.absolute()
        check_writable(path)
        check_private(path, others_may_not=WRITE)
    except SettingsError as error:
        return Finding("state", "fail", str(error))
    return Finding("state", "ok", str(path))
