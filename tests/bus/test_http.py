"""Proxies: never for this machine, else as the requests package has it, and named in errors."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import requests

from trunkline.bus.http import Session, proxy_for, reason, through

PROXY = "http://me:secret@proxy.example:3128"


@pytest.fixture
def dead() -> Iterator[str]:
    """A proxy where nobody listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://me:secret@127.0.0.1:{held.getsockname()[1]}"


class Here(BaseHTTPRequestHandler):
    """A server of this machine; /away leads to /here of the same."""

    def do_GET(self) -> None:
        if self.path == "/away":
            self.send_response(302)
            self.send_header("Location", "/here")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"here")

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def here() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Here) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0", "[::ffff:127.0.0.1]"])
def test_what_is_for_this_machine_goes_there_directly(
    monkeypatch: pytest.MonkeyPatch, dead: str, here: str, name: str, host: str
) -> None:
    monkeypatch.setenv(name, dead)
    monkeypatch.setenv("NO_PROXY", "somewhere.example")
    port = here.rpartition(":")[2]
    with Session() as session:
        for path in ("here", "away"):
            answer = session.get(f"http://{host}:{port}/{path}", timeout=5)
            assert (answer.status_code, answer.text) == (200, "here")
    assert proxy_for(f"http://{host}:{port}/") is None
    assert through(f"http://{host}:{port}/") == ""


def test_a_redirect_to_this_machine_goes_there_directly_too(
    monkeypatch: pytest.MonkeyPatch, here: str
) -> None:
    """What is elsewhere goes through the proxy, for which the server stands in here."""
    monkeypatch.setenv("HTTP_PROXY", f"http://{here}")
    with Session() as session:
        answer = session.get("http://line.example.com/elsewhere", timeout=5)
        assert answer.text == "here"
        request = requests.Request("GET", f"http://{here}/").prepare()
        assert session.rebuild_proxies(request, {"http": "http://proxy.example"}) == {}
        request = requests.Request("GET", "http://line.example.com/").prepare()
        assert session.rebuild_proxies(request, {}) == {"http": f"http://{here}"}


@pytest.mark.parametrize(
    ("environment", "url", "proxy"),
    [
        ({}, "https://api.twilio.com/x", None),
        ({"HTTP_PROXY": PROXY}, "https://api.twilio.com/x", None),
        (
            {"HTTPS_PROXY": PROXY},
            "https://api.twilio.com/x",
            "http://me:***@proxy.example:3128 (HTTPS_PROXY)",
        ),
        (
            {"https_proxy": "me:secret@proxy.example:3128"},
            "https://api.twilio.com/x",
            "http://me:***@proxy.example:3128 (https_proxy)",
        ),
        (
            {"ALL_PROXY": "socks5h://proxy.example:1080"},
            "https://api.twilio.com/x",
            "socks5h://proxy.example:1080 (ALL_PROXY)",
        ),
        (
            {"http_proxy": PROXY},
            "http://line.example.com",
            "http://me:***@proxy.example:3128 (http_proxy)",
        ),
        ({"HTTPS_PROXY": PROXY, "NO_PROXY": ".twilio.com"}, "https://api.twilio.com/x", None),
        ({"HTTPS_PROXY": PROXY, "no_proxy": "*"}, "https://api.twilio.com/x", None),
    ],
)
def test_which_proxy_it_is(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], url: str, proxy: str | None
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert proxy_for(url) == proxy
    assert through(url) == ("" if proxy is None else f" through the proxy {proxy}")


def test_the_reason_is_the_systems(monkeypatch: pytest.MonkeyPatch, dead: str, here: str) -> None:
    monkeypatch.setenv("HTTPS_PROXY", dead)
    port = dead.rpartition(":")[2]
    for url, said in {
        f"http://127.0.0.1:{port}/": "Connection refused",
        "https://line.example.com/": "Connection refused",  # by the proxy
        "https://": "Invalid URL 'https://': No host supplied",
    }.items():
        with Session() as session, pytest.raises(requests.RequestException) as caught:
            session.get(url, timeout=5)
        assert reason(caught.value) == said
    monkeypatch.setenv("HTTPS_PROXY", f"http://{here}")  # it knows no CONNECT
    with Session() as session, pytest.raises(requests.RequestException) as caught:
        session.get("https://line.example.com/", timeout=5)
    assert reason(caught.value).startswith("Tunnel connection failed: 501 ")
