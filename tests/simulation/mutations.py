"""Faults put into the product on purpose, to see that the simulation finds them: one rule of its
own left out each, by name."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any
from unittest import mock

from msgspec.structs import replace

from trunkline.adapter.client.call_audio import CallAudio, HeardDigit, Lost
from trunkline.bus import messages as m
from trunkline.codec_worker.playout import Interruption, Playout, Range
from trunkline.controller import events as ev
from trunkline.controller.core import HEARS, Core, Rule
from trunkline.controller.rules import calls, dials, restart, sessions, webhooks
from trunkline.controller.rules import facts as f
from trunkline.controller.rules.book import Book
from trunkline.controller.rules.book.dial import Dial
from trunkline.controller.rules.moment import Moment
from trunkline.controller.shell import Shell
from trunkline.controller.twilio import apply_restore, operations
from trunkline.controller.twilio.carrier import RestFailure

from .memory_journal import MemoryJournal

Patch = AbstractContextManager[Any]


def _nothing(*args: Any, **kwargs: Any) -> None:
    """Left out."""


def _heard(rows: dict[type, tuple[Rule, ...]]) -> Patch:
    """Others hear these."""
    return mock.patch.dict(HEARS, rows)


def _unheard(rule: Rule) -> Patch:
    """One rule hears nothing."""
    rows = {what: tuple(r for r in row if r is not rule) for what, row in HEARS.items()}
    return _heard({what: row for what, row in rows.items() if row != HEARS[what]})


# --------------------------------------------------------------------------- numbers and dials


def journal_after_rest() -> list[Patch]:
    """What a number was, and what is written, is journalled once Twilio has taken the write."""
    intend, set_state = MemoryJournal.intend, MemoryJournal.set_state
    kept: dict[str, tuple[Any, ...]] = {}

    async def later(journal: MemoryJournal, override: str, *what: Any) -> None:
        kept[override] = what

    async def noted(journal: MemoryJournal, override: str, state: str, *rest: Any) -> None:
        if state == "applied" and override in kept:
            await intend(journal, override, *kept.pop(override))
        await set_state(journal, override, state, *rest)

    return [
        mock.patch.object(MemoryJournal, "intend", later),
        mock.patch.object(MemoryJournal, "set_state", noted),
    ]


def restore_without_compare() -> list[Patch]:
    """A number is put back whatever stands there by now."""

    is_on = apply_restore.override_is_on

    async def always(*args: Any, earlier: bool) -> bool:
        # Only a restore asks for earlier overrides too; an apply is as it was.
        return earlier or await is_on(*args, earlier=earlier)

    return [mock.patch.object(apply_restore, "override_is_on", always)]


def dialled_again_in_doubt() -> list[Patch]:
    """Twilio is asked for a call again where the answer never came."""
    create = operations.create

    class Sure:
        """A carrier whose failures are never uncertain."""

        def __init__(self, carrier: Any) -> None:
            self._carrier = carrier

        async def create_call(self, order: Any) -> Any:
            try:
                return await self._carrier.create_call(order)
            except RestFailure as failure:
                failure.uncertain = False
                raise

    async def create_surely(ops: Any, *args: Any) -> Any:
        sure = copy.copy(ops)
        sure.carrier = Sure(ops.carrier)
        return await create(sure, *args)

    return [mock.patch.object(operations, "create", create_surely)]


def doubt_never_settled() -> list[Patch]:
    """Nobody looks for the call that a dial may have become."""

    async def settle(*args: Any) -> None:
        """It is left as it is."""

    return [mock.patch.object(operations, "settle", settle)]


def other_leg_by_caller() -> list[Patch]:
    """The other leg of a dial must come from the very number that was dialled from."""
    found = webhooks._b_leg

    def exact(book: Book, caller: str, *rest: Any) -> Any:
        call = found(book, caller, *rest)
        is_exact = call is None or not webhooks._is_rewritten(book, call, caller)
        return call if is_exact else None

    return [mock.patch.object(webhooks, "_b_leg", exact)]


def dials_to_a_number_at_once() -> list[Patch]:
    """B-leg dials to one number do not wait for one another."""
    return [mock.patch.object(Dial, "may_ring", False)]


def ends_by_callback_alone() -> list[Patch]:
    """REST is not asked what became of a dial."""
    return [mock.patch.object(dials, "_poll", _nothing), _heard({ev.Fetched: (_looked_only,)})]


def _looked_only(at: Moment, result: ev.Fetched) -> None:
    dial = at.book.dial_of(at.book.calls[result.call])
    if dial is not None:
        at.tell(f.Looked(dial))


# --------------------------------------------------------------------------- sessions


def lease_not_renewed() -> list[Patch]:
    """Beats do not renew the leases of sessions."""
    return [_unheard(sessions.renew)]


def claims_never_over() -> list[Patch]:
    """What nobody claims after a restart is held for ever."""
    return [_unheard(restart.unclaimed_numbers)]


def sessions_not_known_again() -> list[Patch]:
    """A restarted controller does not listen to what clients say of their sessions."""
    return [_heard({f.ClientHere: (_nothing_announced,)})]


def _nothing_announced(at: Moment, here: f.ClientHere) -> None:
    at.tell(f.Announced(here.hello, []))


def answered_again() -> list[Patch]:
    """A request that is asked again while it is worked on is taken for another one."""
    ask = Core._request

    def forgetful(core: Core, request: m.Request, now: float) -> None:
        peer = core.book.peers.get(request.peer)
        if peer is not None:
            peer.working.discard(request.id)
        ask(core, request, now)

    return [mock.patch.object(Core, "_request", forgetful)]


# --------------------------------------------------------------------------- sound


def loss_not_counted() -> list[Patch]:
    """What was never heard does not count as lost."""
    add = Lost.add

    def count(lost: Lost, direction: m.Direction, samples: int, why: str) -> None:
        if direction == "outbound":
            add(lost, direction, samples, why)

    return [mock.patch.object(Lost, "add", count)]


def newcomers_overtake() -> list[Patch]:
    """A client that was stopped believes its workers in whatever order it reads them."""
    return [mock.patch.object(CallAudio, "may_overtake", lambda *_: False)]


def ends_are_read_in_time() -> list[Patch]:
    """A worker reckons by its own clock what lay at the carrier when a stream ended."""
    freeze = Playout.freeze

    def by_the_clock(playout: Playout, now: int, unplayed: object = None, **told: bool) -> Range:
        return freeze(playout, now, **told)

    return [mock.patch.object(Playout, "freeze", by_the_clock)]


def resume_without_interrupt() -> list[Patch]:
    """A Resume does not tell which sound was interrupted."""
    send = CallAudio._send

    def tell(audio: CallAudio, message: m.ToWorker) -> None:
        if isinstance(message, m.Resume):
            message = replace(message, floor=0, interrupt=0)
        send(audio, message)

    return [mock.patch.object(CallAudio, "_send", tell)]


def cleared_sound_again() -> list[Patch]:
    """What an interrupt took back is said where the next sound begins."""
    interrupt = Playout.interrupt

    def keep(playout: Playout, *args: int) -> Interruption | None:
        held = playout._held.sound(playout.acknowledged, playout.end)
        done = interrupt(playout, *args)
        if done is not None:
            playout.speak(playout.end, held)
        return done

    return [mock.patch.object(Playout, "interrupt", keep)]


def digits_told_again() -> list[Patch]:
    """Each Resume brings the call's digits once more."""

    def heard(audio: CallAudio, worker: str, message: m.DigitHeard) -> None:
        if audio._current(worker, message.generation):
            audio._effects.append(HeardDigit(message.digit.digit))

    return [mock.patch.object(CallAudio, "digit_heard", heard)]


def answers_untold() -> list[Patch]:
    """Who has answered a call is not told to its client."""
    return [_unheard(calls.answered_by)]


def any_stack_will_do() -> list[Patch]:
    """A client with sessions of another host's stack is welcomed as a new one."""
    shell_of = Shell._shell_of

    def of_any(shell: Shell, hello: m.Hello) -> Shell | None:
        return shell if hello.role == "adapter" else shell_of(shell, hello)

    return [mock.patch.object(Shell, "_shell_of", of_any)]


#: Those that show where there are two hosts.
IN_FLEET = frozenset(("any_stack_will_do",))
#: The first seed to try, for those that few seeds show. All others are tried from 0 on.
FIRST_SEED = {"ends_are_read_in_time": 11_700, "newcomers_overtake": 700}

MUTATIONS: dict[str, Callable[[], list[Patch]]] = {
    mutation.__name__: mutation
    for mutation in (
        journal_after_rest,
        restore_without_compare,
        dialled_again_in_doubt,
        doubt_never_settled,
        other_leg_by_caller,
        dials_to_a_number_at_once,
        ends_by_callback_alone,
        lease_not_renewed,
        claims_never_over,
        sessions_not_known_again,
        answered_again,
        loss_not_counted,
        newcomers_overtake,
        ends_are_read_in_time,
        resume_without_interrupt,
        cleared_sound_again,
        digits_told_again,
        answers_untold,
        any_stack_will_do,
    )
}


@contextlib.contextmanager
def mutated(name: str | None) -> Iterator[None]:
    """The product with this mutation; None: as it is."""
    with contextlib.ExitStack() as stack:
        for patch in [] if name is None else MUTATIONS[name]():
            stack.enter_context(patch)
        yield
