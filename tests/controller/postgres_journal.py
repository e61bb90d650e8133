"""The journal of a stack on the tests' PostgreSQL server, and what the server says of it."""

from __future__ import annotations

from typing import Any

import psycopg

from trunkline.controller.journal.postgres.register import Register
from trunkline.controller.journal.postgres.stacks import Place
from trunkline.controller.journal.store import Journal
from trunkline.controller.usage import Caps

from .machine import stack_id
from .test_journal import ACCOUNT

STACK = stack_id("aaa")
PLACE = Place("tcp://here:7000", "https://line.example.com")


def ours(url: str, home: str = "here", holder: str = "controller (pid 7)") -> Register:
    return Register(url, ACCOUNT, holder, home)


async def opened(url: str, home: str = "here", stack: str = STACK) -> Journal:
    return await ours(url, home).take(stack)


def stand_still(journal: Journal) -> None:
    """The journal shows no longer that its stack lives: its beats are over. No transaction is begun
    but for what is asked for."""
    assert journal._beating is not None
    journal._beating.cancel()


def ask(url: str, sql: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True) as db:
        cursor = db.execute(sql.encode())
        return cursor.fetchall() if cursor.description else []


def in_fleet(url: str, n: int, caps: Caps | None = None, rate: float = 1.0) -> Register:
    place = Place(f"tcp://host{n}:7000", PLACE.public_url, caps or Caps(), rate)
    return Register(url, ACCOUNT, f"controller {n}", f"home{n}", place)
