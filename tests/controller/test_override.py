"""The write of an override, as a pure machine: what events make of a doubt, and what follows."""

from __future__ import annotations

import itertools

import pytest
from msgspec.structs import replace

from trunkline.controller.numbers import VOICE_FIELDS, NumberSettings
from trunkline.controller.override import (
    DOUBT,
    NEXT,
    UNCERTAIN_SECONDS,
    Done,
    Event,
    Job,
    Plan,
    Put,
    Read,
    Write,
    remembered,
    row_of,
    still_ours,
    what_to_write,
)
from trunkline.controller.seal import Seal

from .test_crashes import row_for

NOW = 1000.0
WALL = 1_700_000_000.0
CERTAIN, UNCERTAIN = Done(certain=True, left=False), Done(certain=False, left=False)


def told(write: Write, events: str, now: float = NOW) -> Read | Plan | Put | Done:
    """What the machine says after the last of these events, all at one time."""
    for event in events.split():
        last = write.step(event, now)  # type: ignore[arg-type]  # words of Event
    return last


# --------------------------------------------------------------------------- apply


def test_an_apply_reads_plans_and_writes() -> None:
    write = Write("apply")
    assert write.step("other", NOW) == Plan()
    assert write.step("planned", NOW) == Put(until=NOW + UNCERTAIN_SECONDS)
    assert write.step("written", NOW) == CERTAIN


@pytest.mark.parametrize(
    ("events", "after"),
    [
        # One write without an answer, and it is there: it has landed.
        ("lost wanted", CERTAIN),
        # It is not there, and may yet land when the second one is: no one knows of which.
        ("lost replaced written", UNCERTAIN),
        ("lost replaced lost wanted", UNCERTAIN),
        ("lost unread wanted", CERTAIN),
        # What was refused cannot land.
        ("refused replaced written", CERTAIN),
        ("refused replaced lost wanted", CERTAIN),
        ("lost replaced refused wanted", CERTAIN),
    ],
)
def test_an_apply_is_certain_only_if_nothing_can_land_later(events: str, after: Done) -> None:
    write = Write("apply")
    assert told(write, f"other planned {events}") == after


@pytest.mark.parametrize("failure", ["lost", "refused"])
def test_an_apply_looks_before_it_writes_again(failure: Event) -> None:
    write = Write("apply")
    told(write, "other planned")
    assert write.step(failure, NOW) == Read()
    assert write.step("replaced", NOW) == Put(until=NOW + UNCERTAIN_SECONDS)


def test_an_apply_plans_anew_where_somebody_else_has_written_meanwhile() -> None:
    assert told(Write("apply"), "other planned refused other") == Plan()


def test_an_apply_does_not_wait_for_a_doubt_but_tells_until_when_it_lasts() -> None:
    write = Write("apply")
    told(write, "other planned lost")
    assert told(write, "replaced written", NOW + 20.0) == UNCERTAIN
    assert write.until == NOW + UNCERTAIN_SECONDS


def test_what_an_earlier_process_left_in_doubt_is_settled_by_no_read() -> None:
    assert told(Write("apply", NOW + 30.0), "wanted") == UNCERTAIN
    assert told(Write("apply", NOW + 30.0), "replaced written") == UNCERTAIN


# --------------------------------------------------------------------------- restore


def test_a_restore_compares_and_writes_what_is_still_ours() -> None:
    write = Write("restore")
    assert write.step("replaced", NOW) == Put(until=NOW + UNCERTAIN_SECONDS)
    assert write.step("written", NOW) == CERTAIN


def test_a_restore_leaves_alone_what_somebody_else_wrote() -> None:
    assert told(Write("restore"), "other") == Done(certain=True, left=True)


def test_a_restore_that_finds_the_prior_fields_writes_nothing() -> None:
    assert told(Write("restore"), "wanted") == CERTAIN


@pytest.mark.parametrize("shown", ["wanted", "other"])
def test_a_restore_reads_on_while_a_write_of_the_override_may_land(shown: Event) -> None:
    write = Write("restore", NOW + 12.0)
    assert write.step(shown, NOW) == Read(after=5.0)
    assert write.step(shown, NOW + 5.0) == Read(after=5.0)
    assert write.step(shown, NOW + 10.0) == Read(after=2.0)
    assert write.step(shown, NOW + 12.0) == Done(certain=True, left=shown == "other")


def test_a_restore_undoes_what_landed_late_and_waits_for_the_rest_of_the_time() -> None:
    write = Write("restore", NOW + 12.0)
    assert write.step("wanted", NOW) == Read(after=5.0)
    assert write.step("replaced", NOW + 5.0) == Put(until=NOW + 5.0 + UNCERTAIN_SECONDS)
    assert write.step("written", NOW + 5.0) == Read(after=5.0)
    assert write.step("wanted", NOW + 12.0) == CERTAIN


def test_a_restores_own_write_without_an_answer_is_settled_by_a_read() -> None:
    write = Write("restore")
    assert told(write, "replaced lost") == Read()
    assert write.step("wanted", NOW) == CERTAIN


def test_a_write_that_was_repeated_in_doubt_is_waited_for() -> None:
    """It puts back what was there, but would undo the number's next override."""
    write = Write("restore")
    told(write, "replaced lost replaced written")
    assert write.step("wanted", NOW + 59.0) == Read(after=1.0)
    assert write.step("wanted", NOW + 60.0) == CERTAIN


@pytest.mark.parametrize(
    ("job", "event"), list(itertools.product(NEXT, ("lost", "refused", "unread")))
)
def test_after_any_failure_the_number_is_read(job: Job, event: Event) -> None:
    for doubt in DOUBT:
        write = Write(job)
        write.doubt = doubt
        assert write.step(event, NOW) == Read()


def test_a_restore_never_plans() -> None:
    with pytest.raises(KeyError):
        Write("restore").step("planned", NOW)


# --------------------------------------------------------------------------- what the journal says


@pytest.mark.parametrize(
    ("ahead", "waits"),
    [(-5.0, None), (0.0, None), (12.0, 12.0), (60.0, 60.0), (61.0, 60.0), (10 * 86_400.0, 60.0)],
)
def test_no_doubt_of_the_journal_lasts_longer_than_one_that_began_now(
    ahead: float, waits: float | None
) -> None:
    row = replace(row_for("PN1"), state="restoring", prior={}, uncertain_until=WALL + ahead)
    assert remembered(row, WALL, NOW) == (None if waits is None else NOW + waits)


def test_a_row_that_was_planned_may_have_been_written_just_now() -> None:
    row = row_for("PN1")
    assert remembered(row, WALL, NOW) is None  # its prior was never read
    assert remembered(replace(row, prior={}), WALL, NOW) == NOW + UNCERTAIN_SECONDS


# --------------------------------------------------------------------------- fields


def fields(**known: str) -> dict[str, str]:
    return {name: "" for name in VOICE_FIELDS} | known


@pytest.mark.parametrize("fallback", [True, False])
@pytest.mark.parametrize(
    "prior",
    [
        fields(voice_url="https://a.example.com", voice_method="GET"),
        fields(voice_url="https://a.example.com", voice_fallback_url="https://b.example.com"),
        fields(voice_application_sid="AP1", status_callback="https://s.example.com"),
        fields(trunk_sid="TK1", voice_receive_mode="fax"),
    ],
)
def test_a_seal_holds_all_that_is_needed_to_tell_what_was_written(
    prior: dict[str, str], fallback: bool
) -> None:
    written = what_to_write(
        prior, fallback_to_prior=fallback, take_over_routed=True, number="+14155551234"
    )
    written["voice_url"] = url = "https://line.example.com/twilio/voice?o=o1&s=s1&p=x"
    number = NumberSettings("PN1", "+14155551234", prior | written)
    row = row_of(number, Seal("", "o1", "s1", "x"), {name: prior[name] for name in written})
    assert (row.id, row.number_sid, row.written, row.prior) == ("o1", "PN1", written, prior)
    assert number.voice_url == url


def test_only_what_stands_as_we_wrote_it_is_put_back() -> None:
    prior = fields(voice_url="https://a.example.com", voice_method="POST")
    written = what_to_write(
        prior, fallback_to_prior=True, take_over_routed=False, number="+14155551234"
    )
    row = replace(row_for("PN1"), prior=prior, written=written)
    found = NumberSettings("PN1", "+14155551234", prior | written)
    # voice_method was POST before as well, so it needs no write.
    assert still_ours(row, found) == {"voice_fallback_url": "", "voice_fallback_method": ""}
    theirs = replace(found, fields=found.fields | {"voice_fallback_url": "https://t.example.com"})
    assert still_ours(row, theirs) == {"voice_fallback_method": ""}
