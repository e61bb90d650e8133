"""The journal of a stack on the tests' PostgreSQL server, and what the server says of it."""

from __future__ import annotations

from typing import Any

import psycopg

from trunkline.controller.journal.postgres.register import Register
from trunkline.controller.journal.store import Journal

from .machine import stack_id
from .test_journal import ACCOUNT

STACK = stack_id("aaa")


def ours(url: str, home: str = "here", holder: str = "controller (pid 7)") -> Register:
    return Register(url, ACCOUNT, holder, home)


async def opened(url: str, home: str = "here", stack: str = STACK) -> Journal:
    return await ours(url, home).take(stack)


def ask(url: str, sql: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True) as db:
        cursor = db.execute(sql.encode())
        return cursor.fetchall() if cursor.description else []
