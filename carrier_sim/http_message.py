"""HTTP requests and answers as values, shared by the server, the REST API and the control API."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from urllib.parse import parse_qs, urlsplit

import msgspec


class Request:
    """A request with its body. ``query`` and ``form`` keep the last value of a repeated name."""

    def __init__(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes = b""
    ) -> None:
        self.method = method
        self.target = target
        self.headers = headers
        self.body = body
        self.path = urlsplit(target).path

    @functools.cached_property
    def query(self) -> dict[str, str]:
        parsed = parse_qs(urlsplit(self.target).query, keep_blank_values=True)
        return {name: values[-1] for name, values in parsed.items()}

    @functools.cached_property
    def form_lists(self) -> dict[str, list[str]]:
        """Every value of every field, in order."""
        return parse_qs(self.body.decode("utf-8", "replace"), keep_blank_values=True)

    @functools.cached_property
    def form(self) -> dict[str, str]:
        return {name: values[-1] for name, values in self.form_lists.items()}


class Response(msgspec.Struct, frozen=True):
    """An answer."""

    status: int
    body: bytes = b""
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()

    @classmethod
    def json(cls, value: object, status: int = 200) -> Response:
        """A JSON answer."""
        return cls(status, msgspec.json.encode(value))
