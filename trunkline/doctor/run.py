"""Runs the doctor's checks, and prints what they find with what to do about it.

Exit status: 0 when calls can be made, 1 when something stands in their way (one line on stderr
names it), 3 when calls can be made but numbers are still to be put back.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from rich.console import Console
from rich.text import Text

from trunkline.bus.errors import SettingsError
from trunkline.bus.process import EXIT_DONE, EXIT_FAILED, EXIT_PENDING, complain
from trunkline.bus.redact import printable
from trunkline.bus.settings import Settings

from ..cli.json_text import json_text
from . import account, machine, stack
from .finding import Finding, Known, State

_SIGNS: Final[dict[State, tuple[str, str]]] = {
    "ok": ("ok  ", "green"),
    "warn": ("warn", "yellow"),
    "fail": ("FAIL", "bold red"),
    "skip": ("-   ", "dim"),
}


#: The checks in their order, because later ones use what earlier ones found out.
CHECKS: Final[tuple[Callable[[Known], Awaitable[list[Finding]]], ...]] = (
    machine.machine,
    stack.bus_directory,
    stack.stack,
    stack.caps,
    stack.ports,
    account.credentials,
    account.numbers,
    stack.public_url,
    stack.refusals,
    account.leftovers,
)


#: Checks of the account, and of what has to be right for Twilio to reach this machine.
_AT_TWILIO: Final = (stack.ports, account.credentials, account.numbers, stack.public_url)


async def run(load: Callable[[], Settings], *, as_json: bool = False) -> int:
    """Load the settings, run all checks, and print each finding at once, or at the end all of them
    as one JSON object. Returns the exit status."""
    console = Console(highlight=False)
    found: list[Finding] = []

    def note(finding: Finding) -> None:
        found.append(finding)
        if not as_json:
            print_finding(console, finding)

    try:
        known = Known(load())
    except SettingsError as error:
        note(Finding("settings", "fail", str(error), "all else is checked once this is right"))
    else:
        for check in CHECKS:
            if known.stand_in is not None and check in _AT_TWILIO:
                continue
            for finding in await check(known):
                note(finding)
    if as_json:
        print(json_text({"findings": found}))
    failed = [finding for finding in found if finding.state == "fail"]
    if failed:
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        complain("doctor", f"{failed[0].name}: {failed[0].text}{more}")
        return EXIT_FAILED
    left = any(f.state == "warn" and f.name in ("journal", "account's seals") for f in found)
    return EXIT_PENDING if left else EXIT_DONE


def print_finding(console: Console, finding: Finding) -> None:
    """Print a finding in one line, and its hint in the next."""
    sign, style = _SIGNS[finding.state]
    console.print(
        Text(sign, style=style),
        Text(f"{finding.name:<16}"),
        Text(printable(finding.text)),
        soft_wrap=True,
    )
    if finding.hint:
        console.print(Text(f"{'':21} {finding.hint}", style="dim"), soft_wrap=True)
