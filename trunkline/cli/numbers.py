"""Numbers that the user has typed, and errors about them in the words of the command line.

They are shown in full, so that the user sees the slip. The errors of the stack also go into logs,
and so show the last four digits alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import click

from trunkline.bus.errors import NumberNotFoundError
from trunkline.bus.messages import ANY_NUMBER
from trunkline.bus.redact import is_e164, not_e164


class PhoneNumber(click.ParamType[str]):
    """A number in E.164. With ``or_any`` also the word for any number of the pool."""

    name = "number"

    def __init__(self, *, or_any: bool = False) -> None:
        self._or_any = or_any

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        number = str(value)
        if not is_e164(number) and not (self._or_any and number == ANY_NUMBER):
            self.fail(f"{not_e164(number)}.", param, ctx)
        return number


@contextlib.contextmanager
def of_the_account(number: str, option: str, callee: str = "") -> Iterator[None]:
    """Say which number is not the account's: ``number``, which ``option`` has given, or the one
    that is called on its own leg."""
    try:
        yield
    except NumberNotFoundError as error:
        if error.number == ANY_NUMBER:
            raise
        if error.number == number:
            text = (
                f"{option} {number} is not a number of this account (`trunkline doctor` lists them)"
            )
        elif error.number == callee:
            text = (
                f"{callee} is not a number of this account, and --attach b-leg calls no other: use "
                "--attach a-leg"
            )
        else:
            raise
        raise NumberNotFoundError(text, number=error.number) from error
