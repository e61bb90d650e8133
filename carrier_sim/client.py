"""A client of the control API (control.py), for tests and benchmarks in other processes.

    with SimClient("http://127.0.0.1:9080") as sim:
        call = sim.place_call("+14155550000", "+14155551234", "echo")
        sim.wait_for(call["sid"], "in-progress")

Synchronous, on the standard library; in asyncio use ``asyncio.to_thread``. One connection, not for
use from several threads at once.
"""

from __future__ import annotations

import http.client
import re
import time
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import urlsplit

import msgspec

ENDED: Final = frozenset(["completed", "busy", "failed", "no-answer", "canceled"])


class SimError(RuntimeError):
    """The carrier refused a control request: ``.status`` and its reason."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def located(bot: str | dict[str, object], directory: Path) -> str | dict[str, object]:
    """The bot, with a relative path of its recording taken from ``directory``: whoever reads it may
    be another process, in another directory."""
    if isinstance(bot, dict):
        path = bot.get("path")
        return bot | {"path": str(directory / path)} if isinstance(path, str) and path else bot
    head, comma, options = bot.partition(",")
    head = re.sub(r"\b(wav|menu):([^+]+)", lambda at: f"{at[1]}:{directory / at[2]}", head)
    return head + comma + options


def _with_sound(bot: str | dict[str, object]) -> str | dict[str, object]:
    """The bot, with what its files say in the place of their paths: the carrier opens no file that
    it is told of from outside. A relative path counts from this process's directory. SimError for
    what is no bot, or no recording, or no menu."""
    if isinstance(bot, str) and not ("wav:" in bot or bot.startswith(("menu:", "{"))):
        return bot
    from .bots import bot_from, carried, parse_bot  # numpy comes with it

    try:
        return carried(parse_bot(bot) if isinstance(bot, str) else bot_from(bot))
    except ValueError as error:
        raise SimError(400, str(error)) from error


class SimClient:
    """The control API, as methods. JSON objects come back as dicts, as control.py documents
    them."""

    def __init__(self, base_url: str = "http://127.0.0.1:9080", timeout: float = 10.0) -> None:
        parts = urlsplit(base_url)
        self.base_url = base_url
        self._connection = http.client.HTTPConnection(
            parts.hostname or "127.0.0.1", parts.port or 80, timeout=timeout
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        self._connection.close()

    def request(self, method: str, path: str, body: object = None) -> bytes:
        """One request, its raw answer. Raises SimError, OSError."""
        data = None if body is None else msgspec.json.encode(body)
        try:
            self._connection.request(method, path, data)
            answer = self._connection.getresponse()
            content = answer.read()
        except (http.client.HTTPException, OSError):
            # The next request starts on a fresh connection.
            self._connection.close()
            raise
        if answer.status >= 400:
            raise SimError(answer.status, f"{method} {path}: {content.decode('utf-8', 'replace')}")
        return content

    def json(self, method: str, path: str, body: object = None) -> Any:
        """One request, its JSON answer."""
        return msgspec.json.decode(self.request(method, path, body))

    def _object(self, path: str, body: object = None) -> dict[str, Any]:
        """The JSON object that a GET shows, or that a POST of ``body`` answers with."""
        found: dict[str, Any] = self.json("GET" if body is None else "POST", path, body)
        return found

    def _rows(self, path: str) -> list[Any]:
        """The JSON list that a GET shows."""
        found: list[Any] = self.json("GET", path)
        return found

    def health(self) -> dict[str, Any]:
        return self._object("/sim/health")

    def load(self) -> dict[str, Any]:
        return self._object("/sim/load")

    def errors(self) -> list[dict[str, Any]]:
        return self._rows("/sim/errors")

    def notices(self) -> list[dict[str, Any]]:
        return self._rows("/sim/notices")

    def rest_log(self) -> list[dict[str, Any]]:
        return self._rows("/sim/rest")

    def webhook_log(self) -> list[dict[str, Any]]:
        return self._rows("/sim/webhooks")

    def promote_token(self) -> None:
        """The account's secondary auth token becomes the primary. SimError where there is none."""
        self.request("POST", "/sim/tokens/promote", {})

    def beliefs(self) -> dict[str, dict[str, Any]]:
        """All beliefs by name; ``holds`` is False where one is contradicted."""
        return self._object("/sim/beliefs")

    def contradict(self, *names: str) -> None:
        """Contradict exactly these beliefs from now on. SimError for one that there is not."""
        self.request("POST", "/sim/beliefs", {"contradict": names})

    def set_line(self, name: str) -> None:
        """The line of later far ends that name none; "": their sound stays as it is. SimError where
        there is no such line."""
        self.request("POST", "/sim/line", {"line": name})

    def reset(self) -> None:
        self.request("POST", "/sim/reset", {})

    def numbers(self) -> dict[str, dict[str, Any]]:
        """By phone number."""
        return {row["phone_number"]: row for row in self._rows("/sim/numbers")}

    def add_number(self, phone_number: str, **fields: object) -> dict[str, Any]:
        """A number of the account, in the place of one that is there already. ``fields`` are those
        of numbers.Number: a call to it asks ``voice_url``, by ``voice_method`` ("POST"), what to
        do. Thus an agent on this machine gets a number: ``voice_url="http://127.0.0.1:9333/voice"``.
        """
        body = {"phone_number": phone_number, **fields}
        return self._object("/sim/numbers", body)

    def number_writes(self) -> list[dict[str, Any]]:
        return self._rows("/sim/numbers/writes")

    def add_callee(self, phone_number: str, bot: str | dict[str, object]) -> None:
        """Who answers at a number outside of the account (bots.py). A relative path counts from
        this process's directory."""
        body = {"phone_number": phone_number, "bot": _with_sound(bot)}
        self.request("POST", "/sim/callees", body)

    def add_caller_id(self, phone_number: str) -> None:
        self.request("POST", "/sim/caller-ids", {"phone_number": phone_number})

    def place_call(
        self, from_: str, to: str, bot: str | dict[str, object] = "silence"
    ) -> dict[str, Any]:
        """Call a number of the account from outside; the bot is the caller."""
        body = {"from": from_, "to": to, "bot": _with_sound(bot)}
        return self._object("/sim/calls", body)

    def calls(self) -> list[dict[str, Any]]:
        return self._rows("/sim/calls")

    def call(self, sid: str) -> dict[str, Any]:
        return self._object(f"/sim/calls/{sid}")

    def hang_up(self, sid: str) -> None:
        self.request("POST", f"/sim/calls/{sid}/hangup", {})

    def played(self, sid: str) -> bytes:
        """μ-law that the call's far end has heard."""
        return self.request("GET", f"/sim/calls/{sid}/played.ulaw")

    def said(self, sid: str) -> bytes:
        """μ-law that the call's far end has said."""
        return self.request("GET", f"/sim/calls/{sid}/said.ulaw")

    def wav(self, sid: str, side: str = "played") -> bytes:
        """The same as a WAV file's bytes."""
        return self.request("GET", f"/sim/calls/{sid}/{side}.wav")

    def picture(self, sid: str) -> str:
        """The way that the call took through its far end's menu, as SVG. SimError where it has
        none."""
        return self.request("GET", f"/sim/calls/{sid}/menu.svg").decode()

    def streams(self) -> list[dict[str, Any]]:
        return self._rows("/sim/streams")

    def stream(self, sid: str) -> dict[str, Any]:
        return self._object(f"/sim/streams/{sid}")

    def arrivals(self, sid: str) -> list[list[float]]:
        return self._rows(f"/sim/streams/{sid}/arrivals")

    def spans(self, sid: str) -> dict[str, Any]:
        return self._object(f"/sim/streams/{sid}/spans")

    def drop_stream(self, sid: str) -> None:
        self.request("POST", f"/sim/streams/{sid}/drop", {})

    def stall_stream(self, sid: str, seconds: float) -> None:
        self.request("POST", f"/sim/streams/{sid}/stall", {"seconds": seconds})

    def wait_for(self, sid: str, *statuses: str, timeout: float = 10.0) -> dict[str, Any]:
        """Ask every 20 ms until the call has one of the statuses (any end, if none is given)."""
        wanted = frozenset(statuses) or ENDED
        deadline = time.monotonic() + timeout
        while True:
            call = self.call(sid)
            if call["status"] in wanted:
                return call
            if time.monotonic() > deadline:
                raise TimeoutError(f"{sid} is {call['status']}, not {sorted(wanted)}")
            time.sleep(0.02)

    def add_fault(self, where: str, kind: str, **fields: object) -> int:
        """Install a rule; its id."""
        rule = self._object("/sim/faults", {"where": where, "kind": kind, **fields})
        return int(rule["id"])

    def faults(self) -> list[dict[str, Any]]:
        return self._rows("/sim/faults")

    def remove_fault(self, rule: int) -> None:
        self.request("DELETE", f"/sim/faults/{rule}")

    def clear_faults(self) -> None:
        self.request("DELETE", "/sim/faults")
