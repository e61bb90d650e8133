"""``trunkline doctor``: looks at all that a call needs, changes nothing, and says what to do.

Exit status: 0 when calls can be made, 1 when something stands in their way (one line on stderr
names it), 3 when all is well but numbers are still to be put back.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import click
from rich.console import Console
from rich.text import Text

from trunkline.bus.errors import CarrierError, SettingsError, TrunklineError
from trunkline.bus.process import EXIT_DONE, EXIT_FAILED, EXIT_PENDING
from trunkline.bus.redact import mask_url
from trunkline.bus.settings import Settings
from trunkline.cli import doctor_checks as checks
from trunkline.cli.doctor_checks import Finding, Known, State
from trunkline.cli.doctor_surroundings import surroundings

_SIGNS: Final[dict[State, tuple[str, str]]] = {
    "ok": ("ok  ", "green"),
    "warn": ("warn", "yellow"),
    "fail": ("FAIL", "bold red"),
    "skip": ("-   ", "dim"),
}


async def numbers(known: Known) -> list[Finding]:
    """The account's numbers: some there, the pool's among them, none routed elsewhere."""
    if not known.account:
        return [Finding("numbers", "skip", "no access to the account")]
    from trunkline.controller.twilio.carrier import RestFailure, TwilioCarrier

    settings = known.settings
    carrier = TwilioCarrier.of(settings)
    try:
        found = await carrier.list_numbers()
    except RestFailure as failure:
        return [Finding("numbers", "fail", str(failure.error("list the numbers")))]
    finally:
        carrier.close()
    if not found:
        hint = "buy one at console.twilio.com"
        return [Finding("numbers", "fail", "the account has no phone number", hint)]
    shown = ", ".join(number.number for number in found[:5])
    more = f" and {len(found) - 5} more" if len(found) > 5 else ""
    findings = [Finding("numbers", "ok", f"{len(found)}: {shown}{more}")]
    theirs = {number.number for number in found}
    for number in settings.numbers:
        if number not in theirs:
            text = f"{number} of TRUNKLINE_NUMBERS is not the account's"
            findings.append(Finding("numbers", "fail", text, "correct TRUNKLINE_NUMBERS"))
    for routed in (n for n in found if n.routed_to):
        hint = "TRUNKLINE_TAKE_OVER_ROUTED=1 takes such numbers over, and puts them back"
        if not settings.take_over_routed:
            text = f"{routed.number} is routed to {routed.routed_to}: it cannot answer or be called"
            findings.append(Finding("numbers", "warn", text, hint))
    return findings


async def leftovers(known: Known) -> list[Finding]:
    """Overrides that nobody holds any more: in the journal, and sealed on the numbers."""
    if known.status:
        return [_held(known)]
    if not (known.settings.account_sid and known.settings.auth_token.get_secret_value()):
        return [Finding("overrides", "skip", "the seals are read with the account's token")]
    findings = [await _dry_run(known, account=False, name="journal")]
    if known.account:
        findings.append(await _dry_run(known, account=True, name="account's seals"))
    return findings


def _held(known: Known) -> Finding:
    overrides = known.status["overrides"]
    late = [o for o in overrides if o["state"] == "restoring"]
    text = f"{len(overrides)} held by the running stack"
    if late:
        shown = "; ".join(
            f"{o['number']} {o['state']} (before: {mask_url(o['prior_voice_url'])})" for o in late
        )
        return Finding("overrides", "warn", f"{text}; on their way back: {shown}")
    return Finding("overrides", "ok", text)


async def _dry_run(known: Known, *, account: bool, name: str) -> Finding:
    from trunkline.controller.restore_command import restore_command

    option = " --account" if account else ""
    try:
        status, lines = await restore_command(
            known.settings, dry_run=True, account=account, force=False
        )
    except (TrunklineError, CarrierError) as error:
        return Finding(name, "fail", str(error))
    shown = "; ".join(line.strip() for line in lines)
    if status == EXIT_DONE and not lines:
        return Finding(name, "ok", "nothing is to be put back")
    if status == EXIT_DONE:
        return Finding(name, "ok", shown)
    return Finding(name, "warn", shown, f"`trunkline restore{option}` puts it back")


#: In this order: later checks use what earlier ones learned.
CHECKS: Final[tuple[Callable[[Known], Awaitable[list[Finding]]], ...]] = (
    checks.versions,
    surroundings,
    checks.bus_directory,
    checks.stack,
    checks.ports,
    checks.credentials,
    numbers,
    checks.public_url,
    checks.refusals,
    leftovers,
)


async def run(load: Callable[[], Settings]) -> int:
    """Load the settings, run all checks, print each finding; the exit status."""
    console = Console(highlight=False)
    found: list[Finding] = []

    def note(finding: Finding) -> None:
        found.append(finding)
        print_finding(console, finding)

    try:
        known = Known(load())
    except SettingsError as error:
        note(Finding("settings", "fail", str(error), "all else is looked at once this is right"))
    else:
        for check in CHECKS:
            for finding in await check(known):
                note(finding)
    failed = [finding for finding in found if finding.state == "fail"]
    if failed:
        click.echo(
            f"trunkline doctor: {failed[0].name}: {failed[0].text}"
            + (f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""),
            err=True,
        )
        return EXIT_FAILED
    left = any(f.state == "warn" and f.name in ("journal", "account's seals") for f in found)
    return EXIT_PENDING if left else EXIT_DONE


def print_finding(console: Console, finding: Finding) -> None:
    """One line, and its hint under it."""
    sign, style = _SIGNS[finding.state]
    console.print(
        Text(sign, style=style), Text(f"{finding.name:<16}"), Text(finding.text), soft_wrap=True
    )
    if finding.hint:
        console.print(Text(f"{'':21} {finding.hint}", style="dim"), soft_wrap=True)
