"""The write of an override, as a pure machine: what events make of a doubt, and what follows."""

from __future__ import annotations

import itertools

import pytest
from msgspec.structs import replace

from trunkline.controller.twilio.number_settings import VOICE_FIELDS, NumberSettings
from trunkline.controller.twilio.override import (
    DOUBT,
    LANDED,
    UNCERTAIN_SECONDS,
    Done,
    Event,
    Job,
    Put,
    Read,
    Write,
    row_of,
    still_ours,
    what_to_write,
)
from trunkline.controller.twilio.seal import Seal

from .fake_carrier import row_for

NOW = 1000.0
WALL = 1_700_000_000.0
CERTAIN, UNCERTAIN = Done(certain=True, left=False), Done(certain=False, left=False)


def told(write: Write, events: str, now: float = NOW) -> Read | Put | Done:
    """What the machine says after the last of these events, all at one time."""
    for event in events.split():
        last = write.step(event, now)  # type: ignore[arg-type]  # words of Event
    return last


# --------------------------------------------------------------------------- apply


def test_an_apply_reads_and_writes() -> None:
    write = Write("apply")
    assert write.step("other", NOW) == Put(until=NOW + UNCERTAIN_SECONDS, anew=True)
    assert write.step("written", NOW) == CERTAIN


@pytest.mark.parametrize(
    ("events", "after"),
    [
        # One write without an answer, and it is there: it has landed.
        ("lost ours", CERTAIN),
        # It is not there, and may yet land when the second one is: no one knows of which.
        ("lost prior written", UNCERTAIN),
        ("lost prior lost ours", UNCERTAIN),
        ("lost unread ours", CERTAIN),
        # What was refused cannot land.
        ("refused prior written", CERTAIN),
        ("refused prior lost ours", CERTAIN),
        ("lost prior refused ours", CERTAIN),
    ],
)
def test_an_apply_is_certain_only_if_nothing_can_land_later(events: str, after: Done) -> None:
    assert told(Write("apply"), f"other {events}") == after


@pytest.mark.parametrize("failure", ["lost", "refused"])
def test_an_apply_looks_before_it_writes_again(failure: Event) -> None:
    write = Write("apply")
    write.step("other", NOW)
    assert write.step(failure, NOW) == Read()
    assert write.step("prior", NOW) == Put(until=NOW + UNCERTAIN_SECONDS, anew=False)


def test_an_apply_plans_anew_where_somebody_else_has_written_meanwhile() -> None:
    assert told(Write("apply"), "other refused other") == Put(NOW + UNCERTAIN_SECONDS, anew=True)


def test_an_apply_does_not_wait_for_a_doubt_but_tells_until_when_it_lasts() -> None:
    write = Write("apply")
    told(write, "other lost")
    assert told(write, "prior written", NOW + 20.0) == UNCERTAIN
    assert write.until == NOW + UNCERTAIN_SECONDS


def test_what_an_earlier_process_left_in_doubt_is_settled_by_no_read() -> None:
    assert told(Write("apply", NOW + 30.0), "ours") == UNCERTAIN
    assert told(Write("apply", NOW + 30.0), "prior written") == UNCERTAIN


# --------------------------------------------------------------------------- restore


def test_a_restore_compares_and_writes_what_is_still_ours() -> None:
    write = Write("restore")
    assert write.step("ours", NOW) == Put(until=NOW + UNCERTAIN_SECONDS, anew=False)
    assert write.step("written", NOW) == CERTAIN


def test_a_restore_leaves_alone_what_somebody_else_wrote() -> None:
    assert told(Write("restore"), "other") == Done(certain=True, left=True)


def test_a_restore_that_finds_the_prior_fields_writes_nothing() -> None:
    assert told(Write("restore"), "prior") == CERTAIN


@pytest.mark.parametrize("shown", ["prior", "other"])
def test_a_restore_reads_on_while_a_write_of_the_override_may_land(shown: Event) -> None:
    write = Write("restore", NOW + 12.0)
    assert write.step(shown, NOW) == Read(after=5.0)
    assert write.step(shown, NOW + 5.0) == Read(after=5.0)
    assert write.step(shown, NOW + 10.0) == Read(after=2.0)
    assert write.step(shown, NOW + 11.99) == Read(after=0.1)
    assert write.step(shown, NOW + 12.0) == Done(certain=True, left=shown == "other")


def test_a_restore_undoes_what_landed_late_and_waits_for_the_rest_of_the_time() -> None:
    write = Write("restore", NOW + 12.0)
    assert write.step("prior", NOW) == Read(after=5.0)
    assert write.step("ours", NOW + 5.0) == Put(NOW + 5.0 + UNCERTAIN_SECONDS, anew=False)
    assert write.step("written", NOW + 5.0) == Read(after=5.0)
    assert write.step("prior", NOW + 12.0) == CERTAIN


def test_a_restores_own_write_without_an_answer_is_settled_by_a_read() -> None:
    write = Write("restore")
    assert told(write, "ours lost") == Read()
    assert write.step("prior", NOW) == CERTAIN


def test_a_write_that_was_repeated_in_doubt_is_waited_for() -> None:
    """It puts back what was there, but would undo the number's next override."""
    write = Write("restore")
    told(write, "ours lost ours written")
    assert write.step("prior", NOW + 59.0) == Read(after=1.0)
    assert write.step("prior", NOW + 60.0) == CERTAIN


@pytest.mark.parametrize(
    ("job", "event"), list(itertools.product(LANDED, ("lost", "refused", "unread")))
)
def test_after_any_failure_the_number_is_read(job: Job, event: Event) -> None:
    for doubt in DOUBT:
        write = Write(job)
        write.doubt = doubt
        assert write.step(event, NOW) == Read()


# --------------------------------------------------------------------------- what the journal says


@pytest.mark.parametrize(
    ("ahead", "waits"),
    [(-5.0, None), (0.0, None), (12.0, 12.0), (60.0, 60.0), (61.0, 60.0), (10 * 86_400.0, 60.0)],
)
def test_no_doubt_of_the_journal_lasts_longer_than_one_that_began_now(
    ahead: float, waits: float | None
) -> None:
    row = replace(row_for("PN1"), state="restoring", prior={}, uncertain_until=WALL + ahead)
    write = Write.of("restore", row, WALL, NOW)
    if waits is None:
        assert write.step("prior", NOW) == CERTAIN
    else:
        assert isinstance(write.step("prior", NOW + waits - 0.5), Read)
        assert write.step("prior", NOW + waits) == CERTAIN


@pytest.mark.parametrize("job", LANDED)
def test_a_row_that_was_planned_may_have_been_written_just_now(job: Job) -> None:
    row = row_for("PN1")
    assert Write.of(job, row, WALL, NOW).doubt == "none"  # its prior was never read
    write = Write.of(job, replace(row, prior={}), WALL, NOW)
    assert (write.doubt, write.until) == ("many", NOW + UNCERTAIN_SECONDS)


@pytest.mark.parametrize(("made", "ahead"), [(-3.0, 12.0), (0.0, 15.0), (10 * 86_400.0, 15.0)])
def test_a_read_that_does_not_show_a_fresh_override_is_not_believed(
    made: float, ahead: float
) -> None:
    row = replace(row_for("PN1"), state="applied", prior={}, since=WALL + made)
    write = Write.of("restore", row, WALL, NOW)
    assert write.step("prior", NOW) == Read(after=1.0)
    assert write.step("prior", NOW + ahead - 0.1) == Read(after=1.0)
    assert write.step("prior", NOW + ahead) == CERTAIN


def test_what_a_read_shows_is_believed_once_we_have_put_the_number_back() -> None:
    row = replace(row_for("PN1"), state="applied", prior={}, since=WALL, uncertain_until=WALL + 9.0)
    write = Write.of("restore", row, WALL, NOW)
    assert told(write, "prior ours written") == Read(after=5.0)
    assert write.step("prior", NOW + 9.0) == CERTAIN


def test_somebody_elses_change_to_a_fresh_override_is_believed() -> None:
    row = replace(row_for("PN1"), state="applied", prior={}, since=WALL)
    assert Write.of("restore", row, WALL, NOW).step("other", NOW) == Done(certain=True, left=True)


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
