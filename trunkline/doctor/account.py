"""The doctor's checks at Twilio: credentials, clock, numbers, overrides that were left behind."""

from __future__ import annotations

import base64
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from trunkline.bus.errors import SettingsError, TrunklineError
from trunkline.bus.process import EXIT_DONE
from trunkline.bus.redact import mask_url
from trunkline.bus.settings import Settings
from trunkline.controller.twilio.api_host import api_url

from ..stack.http_get import Answer, get
from .finding import Finding, Known, json_object, shown

#: Seconds by which a clock may be off before the doctor warns, and before the check fails.
SKEW_WARNS: Final = 5.0
SKEW_FAILS: Final = 60.0

_SID = re.compile(r"AC[0-9a-f]{32}\Z")
_TOKEN = re.compile(r"[0-9a-f]{32}\Z")


def rest_base(settings: Settings) -> str | None:
    """The base URL of Twilio's REST, or of the stand-in's. None where TWILIO_REGION and TWILIO_EDGE
    are wrong."""
    try:
        return settings.twilio_api_url or api_url(settings.region, settings.edge)
    except SettingsError:
        return None


async def credentials(known: Known) -> list[Finding]:
    """Whether SID and tokens are set, well-formed, and accepted by Twilio. The answer's Date header
    also shows whether the clock is right."""
    settings = known.settings
    try:
        sid, token = settings.require("account_sid"), settings.require("auth_token")
    except SettingsError as error:
        return [Finding("credentials", "fail", str(error), "console.twilio.com shows both")]
    base = rest_base(settings)
    if base is None:
        return [Finding("credentials", "skip", "where to ask is not known: see `region` above")]
    findings = []
    if not _SID.match(sid):
        findings.append(
            Finding("credentials", "warn", "TWILIO_ACCOUNT_SID is not AC and 32 hex digits")
        )
    tokens = {"TWILIO_AUTH_TOKEN": token}
    if secondary := settings.auth_token_secondary:
        tokens["TWILIO_AUTH_TOKEN_SECONDARY"] = secondary
    url = f"{base}/2010-04-01/Accounts/{sid}.json"
    answers = {}
    for name, each in tokens.items():
        if not _TOKEN.match(each):
            findings.append(Finding("credentials", "warn", f"{name} is not 32 hex digits"))
        basic = base64.b64encode(f"{sid}:{each}".encode()).decode()
        answers[name] = await get(url, {"Authorization": f"Basic {basic}"})
    taken = [name for name, answer in answers.items() if answer.status == 200]
    answer = answers[taken[0] if taken else "TWILIO_AUTH_TOKEN"]
    findings.append(_account(known, answer, base))
    if secondary and taken:
        findings.append(_rotation(taken, answers))
    findings.append(_clock(answer, base))
    return findings


def _rotation(taken: list[str], answers: dict[str, Answer]) -> Finding:
    """Which of the two tokens Twilio accepts. It accepts at least one."""
    if len(taken) == 2:
        return Finding("tokens", "ok", "Twilio takes both auth tokens")
    (refused,) = (name for name in answers if name not in taken)
    text = f"Twilio takes {taken[0]}, and answers HTTP {answers[refused].status} to {refused}"
    if taken == ["TWILIO_AUTH_TOKEN"]:
        hint = "a former token is needed only to put back what was changed under it"
        return Finding("tokens", "ok", text, hint)
    hint = (
        "make it TWILIO_AUTH_TOKEN, keep the former as TWILIO_AUTH_TOKEN_SECONDARY until all "
        "numbers are put back, and start the whole stack anew"
    )
    return Finding("tokens", "warn", text, hint)


def _account(known: Known, answer: Answer, base: str) -> Finding:
    if answer.status == 0:
        return Finding(
            "credentials", "fail", f"{base} does not answer: {answer.body.decode(errors='replace')}"
        )
    if answer.status in (401, 403):
        return Finding(
            "credentials",
            "fail",
            f"Twilio refuses them (HTTP {answer.status})",
            "check TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN; test credentials cannot call"
            + _regional(known.settings),
        )
    if answer.status != 200:
        return Finding("credentials", "fail", f"Twilio answers HTTP {answer.status}")
    known.account = True
    account = json_object(answer.body)
    status, kind = account.get("status", "?"), account.get("type", "?")
    text = f"accepted; account {status}, {kind}"
    if status != "active":
        return Finding("credentials", "fail", text, "console.twilio.com says why")
    if kind == "Trial":
        hint = (
            "a trial account calls verified numbers alone, and speaks a notice first. Users report "
            "that it refuses calls with TwiML of one's own, and takes <Stream> out of answers: "
            "then no call has sound before the account is upgraded"
        )
        return Finding("credentials", "warn", text, hint)
    return Finding("credentials", "ok", text)


def _regional(settings: Settings) -> str:
    if settings.twilio_api_url or not settings.region:
        return ""
    return f"; the token has to be region {settings.region}'s own, each region has another"


def _clock(answer: Answer, base: str) -> Finding:
    try:
        date = parsedate_to_datetime(answer.date or "")
    except (ValueError, OverflowError):
        return Finding("clock", "skip", f"{base} does not tell the time")
    # The header has whole seconds, so it is half a second old on average, and half a round trip.
    theirs = date.timestamp() + 0.5 + answer.seconds / 2
    skew = datetime.now(UTC).timestamp() - theirs
    text = f"{abs(skew):.1f} s {'ahead of' if skew > 0 else 'behind'} Twilio's"
    if abs(skew) > SKEW_FAILS:
        return Finding("clock", "fail", text, "set the clock: turn on NTP")
    if abs(skew) > SKEW_WARNS:
        return Finding("clock", "warn", text, "turn on NTP")
    return Finding("clock", "ok", "right to the second")


async def numbers(known: Known) -> list[Finding]:
    """Whether the account has numbers, has those of TRUNKLINE_NUMBERS, and routes none of them to a
    TwiML app or a SIP trunk."""
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
    listed = shown([number.number for number in found])
    findings = [Finding("numbers", "ok", f"{len(found)}: {listed}")]
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
    """Overrides that no stack holds any more, by the journal and by the seals on the numbers. Where
    a stack runs, how many it holds."""
    if known.status:
        return [_held(known)]
    if not (known.settings.account_sid and known.settings.auth_token):
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
    except TrunklineError as error:
        return Finding(name, "fail", str(error))
    shown = "; ".join(line.strip() for line in lines)
    if status == EXIT_DONE and not lines:
        return Finding(name, "ok", "nothing is to be put back")
    if status == EXIT_DONE:
        return Finding(name, "ok", shown)
    return Finding(name, "warn", shown, f"`trunkline restore{option}` puts it back")
