"""The JSON that commands print."""

from __future__ import annotations

import json

import msgspec


def json_text(told: object) -> str:
    """``told`` in one line of JSON.

    The name of a file may hold bytes that are no UTF-8. msgspec refuses those, and json writes them
    as escapes.
    """
    try:
        return msgspec.json.encode(told).decode()
    except UnicodeEncodeError:
        return json.dumps(msgspec.to_builtins(told))
