"""HTTP requests of ours: through the proxy that the environment names, but never to this machine.

``HTTP_PROXY``, ``HTTPS_PROXY``, ``ALL_PROXY`` and ``NO_PROXY`` (in either case) mean what they mean
to the requests package, with one exception: a CI runner that sets a proxy and forgets ``NO_PROXY``
must not send what is meant for a stand-in carrier, or for our own listener, to the proxy. So a
loopback host is always spoken to directly. Where a proxy was used, an error has to name it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import requests
from requests.utils import get_environ_proxies, select_proxy

from .hosts import is_here

_LONGEST_REASON: Final = 200
#: How the URL of a proxy begins; without this it is one of http.
_KIND: Final = re.compile(r"\s*([a-z][a-z0-9+.-]*)://", re.IGNORECASE)


class Session(requests.Session):
    """A session of the requests package that sends nothing for this machine through a proxy."""

    def merge_environment_settings(
        self,
        url: str,
        proxies: dict[str, str] | None,
        stream: bool | None,
        verify: bool | str | None,
        cert: Any,
    ) -> dict[str, Any]:
        # The package writes what the environment says into the dictionary that it is given, and the
        # twilio package gives the same one with all of its requests.
        given = dict(proxies or {})
        settings = dict(super().merge_environment_settings(url, given, stream, verify, cert))
        if is_here(url):
            settings["proxies"] = {}
        return settings

    def rebuild_proxies(
        self, prepared_request: requests.PreparedRequest, proxies: dict[str, str] | None
    ) -> dict[str, str]:
        """The proxies for where a redirect leads."""
        if is_here(prepared_request.url or ""):
            return {}
        return dict(super().rebuild_proxies(prepared_request, proxies))


def proxy_for(url: str) -> str | None:
    """The proxy that a request for ``url`` goes through, as it may be shown: its URL with the
    password masked, and the variable that names it. None: the request goes there directly."""
    try:
        scheme = urlsplit(url).scheme
    except ValueError:  # nothing is sent there
        return None
    if is_here(url):
        return None
    proxy = select_proxy(url, get_environ_proxies(url))
    if not proxy:
        return None
    return f"{_masked(proxy)} ({_variable(scheme, proxy, os.environ)})"


def _masked(proxy: str) -> str:
    """The proxy's URL without its password. It has no path, so all before its last ``@`` is user
    name and password, even where there are slashes in it."""
    found = _KIND.match(proxy)
    user, at, host = proxy[found.end() if found else 0 :].strip().rpartition("@")
    name, colon, _ = user.partition(":")
    return f"{found[1] if found else 'http'}://{name}{colon and ':***'}{at}{host}"


def _variable(scheme: str, proxy: str, environment: Mapping[str, str]) -> str:
    for name in (f"{scheme}_proxy", "all_proxy"):
        for spelled in (name, name.upper()):
            if environment.get(spelled) == proxy:
                return spelled
    return "of the system's settings"


def through(url: str) -> str:
    """`` through the proxy …``, for the end of an error about ``url``; empty without a proxy."""
    proxy = proxy_for(url)
    return "" if proxy is None else f" through the proxy {proxy}"


def causes(error: BaseException) -> Iterator[BaseException]:
    """``error`` and its causes, the outermost first.

    requests and urllib3 keep a cause in ``__cause__``, in ``reason``, or among the arguments.
    """
    waiting: list[BaseException] = [error]
    seen: set[int] = set()
    while waiting:
        found = waiting.pop(0)
        if id(found) in seen:
            continue
        seen.add(id(found))
        yield found
        inner = (found.__cause__ or found.__context__, getattr(found, "reason", None), *found.args)
        waiting += [each for each in inner if isinstance(each, BaseException)]


def reason(error: BaseException) -> str:
    """Why a request failed, in the operating system's words where it is the one that says so."""
    if isinstance(error, requests.exceptions.InvalidURL) and "Failed to parse" in str(error):
        # The text that it quotes may be a part of a proxy's password.
        return (
            "an address in its way cannot be read (in a user name or password write %2F for a "
            "slash, %3F for a question mark and %23 for a number sign)"
        )
    said = [
        each.strerror or str(each)
        for each in causes(error)
        if isinstance(each, OSError) and not isinstance(each, requests.RequestException)
    ]
    text = (said[-1] if said else "") or str(error) or type(error).__name__
    return " ".join(text.split())[:_LONGEST_REASON].rstrip(".")
