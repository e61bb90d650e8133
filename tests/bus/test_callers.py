"""Callers as carriers report them: compared, checked, and shown."""

from __future__ import annotations

import pytest

from trunkline.bus.callers import caller_error, caller_key
from trunkline.bus.redact import printable, redact_number


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("+14155551234", " +14155551234 ", True),
        ("+14155551234", "+4155551234", False),
        ("anonymous", "Anonymous", True),
        ("RESTRICTED", "restricted", True),
        ("client:joe", "CLIENT:joe", True),
        ("client:joe", "client:Joe", False),
        ("sip:alice@example.com", "SIP:alice@Example.COM", True),
        ("sip:alice@example.com", "sip:Alice@example.com", False),
        ("12345", "+12345", False),
        ("+266696687", "anonymous", False),
        ("", " ", True),
    ],
)
def test_which_reports_are_of_one_caller(one: str, other: str, same: bool) -> None:
    assert (caller_key(one) == caller_key(other)) is same


@pytest.mark.parametrize(
    "caller",
    [
        "+14155551234",
        "sip:alice@example.com",
        "client:joe",
        "anonymous",
        "Anonymous",
        "12345",
        "+266696687",
        "",
        " +14155551234\n",
    ],
)
def test_what_a_carrier_may_report(caller: str) -> None:
    assert caller_error(caller) is None


@pytest.mark.parametrize(
    ("caller", "why"),
    [(None, "NoneType, not text"), ("a\x1b[31mb", "control characters"), ("a" * 513, "512")],
)
def test_what_no_carrier_reports(caller: object, why: str) -> None:
    said = caller_error(caller)
    assert said is not None and why in said


@pytest.mark.parametrize(
    ("caller", "shown"),
    [
        ("+14155551234", "***1234"),
        ("(415) 555-1234", "***1234"),
        ("+1415x551234", "***1234"),
        ("12345", "***2345"),
        ("+266696687", "***6687"),
        ("sip:alice1234@example.com", "sip:***"),
        ("SIPS:+14155551234@pbx.example.com", "sips:***"),
        ("client:joe1987", "client:***"),
        ("Anonymous", "anonymous"),
        ("RESTRICTED", "restricted"),
        ("Alice Smith 1987", "***"),
        ("<b>+14155551234</b>", "***"),
        ("\x1b[31m+14155551234", "***"),
        ("https://me:pw@example.com", "***"),
        ("", "***"),
        (None, "***"),
    ],
)
def test_nothing_that_identifies_a_caller_is_shown(caller: str | None, shown: str) -> None:
    assert redact_number(caller) == shown


def test_a_terminal_gets_nothing_that_it_would_obey() -> None:
    assert printable("client:joe\x1b[2J\r\n\u202e") == "client:joe\\x1b[2J\\r\\n\\u202e"
    assert printable("sip:zoë@example.com") == "sip:zoë@example.com"
