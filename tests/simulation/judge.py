"""What has to be true once a simulated stack has come to rest."""

from __future__ import annotations

from typing import Final

from trunkline.controller.twilio.calls import NOT_ANSWERED

from .client import Talk
from .exchange import SOUND, Leg
from .media import RATE, LetIn
from .world import World

#: A later stream's place in call time is by the clock: it may be off by so much (samples).
CLOCK_SLACK: Final = 2_400
#: How much of what was sent had been played when a stream broke is known but for the sound's way to
#: the carrier, 30 ms at most; and where the network broke, for the way of that news (samples).
SOUNDS_WAY: Final = 240
NEWS_WAY: Final = 240
#: An end that came so short before a timeout was told may not have been seen (seconds).
TOLD_LATE: Final = 1.0
#: Twilio's answer to a dial stands in the database so soon, if that is there (seconds).
NOTED_WITHIN: Final = 0.15
#: From the end of a dial's time until its client has been told: a tick, and the word's way
#: (seconds).
TIMEOUTS_WAY: Final = 0.3
#: A short piece may look like another place by chance.
_TELLING: Final = 8


def judge(world: World) -> list[str]:
    """Everything that is wrong, in words; an empty list is a good end."""
    wrong = [f"not at rest: {what}" for what in world.unrest()]
    wrong += world.errors + world.twilio.problems
    wrong += [f"nobody took: {failure}" for failure in world.loop.failures + world.loop.untaken()]
    wrong += _numbers(world)
    wrong += _dials(world)
    if world.peaceful:
        wrong += _known_causes(world)
        wrong += _other_legs(world)
    wrong += _requests(world)
    wrong += _untouched(world)
    for controller in world.controllers:
        if controller.failed is not None:
            wrong.append(f"{controller.process} ended with {controller.failed!r}")
    legs = {leg.sid: leg for leg in world.exchange.legs.values()}
    for client in world.clients:
        for talk in client.talks:
            leg = legs[talk.sid]
            whole = talk.over and client.process.alive
            slack = SOUNDS_WAY + (NEWS_WAY if world.counts["broken stream"] else 0)
            wrong += [f"call {talk.sid}: {what}" for what in _said(talk, leg, whole, slack)]
            # A client that was stopped does not know how long.
            counts = whole and not world.counts["paused client"]
            way = world.bus.longest
            wrong += [f"call {talk.sid}: {what}" for what in _heard(talk, leg, counts, way)]
            if whole:
                wrong += [f"call {talk.sid}: {what}" for what in _answered(world, talk, leg)]
            if not _follows(talk.digits, leg.pressed):
                wrong.append(f"call {talk.sid}: digits {talk.digits!r} of {leg.pressed!r}")
    return wrong


def _numbers(world: World) -> list[str]:
    wrong = []
    for sid, number in world.twilio.numbers.items():
        expected = world.twilio.expected[sid]
        differs = {k for k, v in number.fields.items() if v != expected.fields[k]}
        if differs:
            wrong.append(
                f"number {number.number}: {sorted(differs)} are not as before: "
                f"{[number.fields[k][:80] for k in sorted(differs)]}, "
                f"not {[expected.fields[k][:80] for k in sorted(differs)]}"
            )
    return wrong


def _dials(world: World) -> list[str]:
    return [
        f"dial {request[:6]}: {count} calls were made of it"
        for request, count in world.exchange.made.items()
        if count > 1
    ]


def _known_causes(world: World) -> list[str]:
    """Whoever was told of a timeout: Twilio had not known better by then, or could not be asked."""
    wrong = []
    for leg in world.exchange.legs.values():
        for client in world.clients:
            status, told = client.failures.get(leg.request, ("", 0.0))
            by_itself = not leg.hung_up_by and leg.status in NOT_ANSWERED
            late = status == "timeout" and by_itself and leg.ended_at < told - TOLD_LATE
            if late and not _sid_unknown(world, leg, told):
                wrong.append(f"{leg.sid} was {leg.status}, and a timeout was told")
    return wrong


def _sid_unknown(world: World, leg: Leg, told: float) -> bool:
    """REST could not be asked about this call before its dial's timeout was told. A dial's SID is
    known by a callback, or once it stands in the database. So no callback had come, and the
    database was away from Twilio's answer until the dial's time was over."""
    host = next(row.home for row in world.store.rows.values() if leg.request in row.journal.dials)
    return leg.called_back > told and any(
        host in outage.hosts
        and outage.begin < leg.made_at + NOTED_WITHIN
        and outage.end > told - TIMEOUTS_WAY
        for outage in world.outages
    )


def _other_legs(world: World) -> list[str]:
    """The other leg of a b-leg dial is taken, whatever caller is reported; where nobody else
    calls."""
    dials = world.store.dials
    b_legs, strangers = [], set()
    for leg in world.exchange.legs.values():
        parent = leg.parent
        if parent is not None and dials[parent.request].mode == "b-leg":
            b_legs.append((leg, parent))
        elif leg.direction == "inbound":
            strangers.add(leg.to)
    return [
        f"{leg.sid} (from {leg.from_!r} to {leg.to}) was answered with {leg.answers}"
        for leg, parent in b_legs
        if leg.to not in strangers and parent.sid not in world.exchange.asked_to_end
        if leg.answers and leg.answers[-1] in ("busy", "reject")
    ]


def _requests(world: World) -> list[str]:
    wrong = [f"answered twice: {what}" for what in world.answered_twice]
    for controller in world.controllers:
        for core in controller.cores:
            if errors := core.book.counts["internal errors"]:
                wrong.append(f"{controller.process}: {errors} internal errors")
    return wrong


#: What may end a call, or lose some of its sound or a session; a controller's death may not.
_TOUCHES: Final = ("killed g", "killed cl", "killed cod", "paused", "stopped", "drained", "broken")


def _untouched(world: World) -> list[str]:
    """Calls and sessions go on where nothing died but controllers."""
    if any(world.counts[what] for what in world.counts if what.startswith(_TOUCHES)):
        return []
    wrong = []
    for talk in (talk for client in world.clients for talk in client.talks):
        if talk.lost.inbound and world.exchange.legs[talk.sid].streams == 1:
            wrong.append(f"call {talk.sid}: {talk.lost.inbound} samples were lost for nothing")
    for controller in world.controllers:
        # After a restart the number of one that had not been answered yet may be another's.
        first = controller is world.controllers[0]
        if first and any(core.book.counts["sessions lost"] for core in controller.cores):
            wrong.append(f"{controller.process}: sessions were lost for nothing")
    return wrong


#: A word that a controller has taken is on its way to the client for so long (seconds). If it dies
#: within that time, nobody else has the word.
WORDS_WAY: Final = 0.5
#: A call that ends so soon after the word may be over before its client reads it (seconds).
ENDS_FIRST: Final = 1.0


def _answered(world: World, talk: Talk, leg: Leg) -> list[str]:
    """Its client knows who has answered, where Twilio has told that in time."""
    if talk.answered_by not in (None, leg.answered_by):
        return [f"answered by {leg.answered_by}, and its client knows of {talk.answered_by}"]
    taken = leg.answer_taken
    ended_at = min(leg.ended_at, talk.ended_at)
    if talk.answered_by is not None or taken is None or taken + ENDS_FIRST > ended_at:
        return []
    died = world.controller_deaths
    cut_off = world.counts["broken connection"] + world.counts["paused client"]
    if (died and cut_off) or any(abs(at - taken) < WORDS_WAY for at in died):
        return []
    return [f"answered by {leg.answered_by}, and its client does not know"]


# --------------------------------------------------------------------------- sound


def _streams(talk: Talk, leg: Leg) -> list[LetIn]:
    """The call's streams that were let in. An earlier one is not the user's: the controller that
    let it in died before it told anybody, and its gateway died too. The user's call begins with
    the first stream of which the client was told."""
    return [s for s in leg.let_in if s.call == talk.call and s.ordinal >= talk.first]


def _said(talk: Talk, leg: Leg, whole: bool, slack: int) -> list[str]:
    """What the person heard is what was said, in order, once; what is missing is counted, but for
    ``slack`` samples with each later stream."""
    said = bytes(talk.said)
    later = max(0, len(_streams(talk, leg)) - 1)
    position, missing = 0, 0
    for piece in leg.heard:
        found = said.find(piece, position)
        if found < 0 or (len(piece) < _TELLING and found > position):
            if len(piece) < _TELLING:
                continue
            earlier = said.find(piece)
            if earlier >= 0:
                return [f"{len(piece)} samples at {earlier} came again, after {position}"]
            return [f"the person heard {len(piece)} samples that nobody said, after {position}"]
        missing += found - position
        position = found + len(piece)
    if whole and not talk.interrupted and missing > talk.lost.outbound + slack * later:
        return [f"{missing} samples were not played, {talk.lost.outbound} are counted as lost"]
    return []


def _heard(talk: Talk, leg: Leg, whole: bool, way: float) -> list[str]:
    """What was heard is what the person said, in order, once; what is missing is counted. Where the
    first stream broke before any of it was heard, the client knows only from the controller when
    it came up. That word has two ways, from the gateway and to the client, of ``way`` seconds at
    most."""
    streams = _streams(talk, leg)
    if not streams:
        return [] if not talk.heard else ["heard something, and no stream was let in"]
    # A worker may be left that has sound of a stream of which the client was never told.
    position = min(stream.base for stream in leg.let_in if stream.call == talk.call)
    counted = streams[0].accepted
    missing = 0
    first = None
    for taken in talk.heard:
        piece = taken
        while piece:  # what was taken in one go may have gaps
            known = _longest_prefix(piece, position)
            if known < min(_TELLING, len(piece)):
                earlier = SOUND.find(piece[: 10 * _TELLING])
                if earlier >= 0:
                    return [f"{len(piece)} samples at {earlier} came again, after {position}"]
                return [f"heard {len(piece)} samples that nobody said, after {position}"]
            found = SOUND.find(piece[:known], position)
            first = found if first is None else first
            missing += max(0, found - max(position, counted))
            position = found + known
            piece = piece[known:]
    slack = CLOCK_SLACK * (len(streams) - 1)
    if len(streams) > 1 and (first is None or first >= streams[1].base):
        slack += round(2 * way * RATE)
    if whole and missing > talk.lost.inbound + slack:
        return [f"{missing} samples were not heard, {talk.lost.inbound} are counted as lost"]
    return []


def _longest_prefix(piece: bytes, position: int) -> int:
    """How much of ``piece`` the person said in one go, at ``position`` or later."""
    if SOUND.find(piece, position) >= 0:
        return len(piece)
    least, most = 0, len(piece)
    while most - least > 1:
        half = (least + most) // 2
        if SOUND.find(piece[:half], position) >= 0:
            least = half
        else:
            most = half
    return least


def _follows(digits: str, pressed: str) -> bool:
    """``digits`` are some of ``pressed``, in order, each once."""
    rest = iter(pressed)
    return all(digit in rest for digit in digits)
