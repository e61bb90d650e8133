"""The streams of calls: let in, gone, come again; and which workers carry them.

A call's stream may come and go (a gateway dies, Twilio asks again): each gets the next ordinal.
Which worker is active is the gateway's decision; what it says is noted, and a call gets a new
placement when one of its workers is gone.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from trunkline.bus import messages as m

from .call import Call
from .peers import GATEWAY_LOST_AFTER
from .session import Session

if TYPE_CHECKING:
    from .core import Core

log = logging.getLogger("trunkline.controller")

#: A beat that does not list a stream says that it is gone, once the stream is this old.
BEAT_SETTLES_AFTER: Final = 2.0
#: After the start calls are not moved before their workers had time to say Hello.
SETTLING_SECONDS: Final = 3.0
#: A standby is this much of a load.
_STANDBY_LOAD: Final = 0.2


class StreamRules:
    """The streams of all calls, and where they are worked on."""

    def __init__(self, core: Core) -> None:
        self._core = core

    # ------------------------------------------------------------------ a stream begins

    def start(self, start: m.StreamStart, now: float) -> m.StreamAccepted | m.StreamRefused:
        calls = self._core.calls
        token = calls.tokens.look(start.token)
        if token is None:
            return self._refuse("its token is unknown, used up or void")
        call = calls.by_id[token.call]
        if token.sid is not None and token.sid != start.call_sid:
            return self._refuse("its token belongs to another call")
        if token.one_way:
            return self._core.digits.hears(token, start, now)
        placement = self._place(call, now)
        if placement is None:
            return self._refuse("no codec worker is there")
        why = self._shows(call, start.call_sid, now)
        if why is not None:
            return self._refuse(why)
        calls.tokens.void(call.id)
        first = call.ordinal == 0
        replaces = call.gateway if call.one_way else None
        if replaces is not None:
            self._core.digits.close_later(call, replaces, now)
        self._carries(call, start.gateway, placement, now)
        if first:
            self._first(call, now)
        else:
            self._tell_placement(call, gateway=False)
        self._core.digits.back(call, token, now)
        return m.StreamAccepted(info=call.info(now), first=first, overlaps=replaces is not None)

    def _carries(
        self,
        call: Call,
        gateway: str,
        placement: m.Placement | None,
        now: float,
        *,
        one_way: bool = False,
    ) -> None:
        """The stream at ``gateway`` is the call's from now on."""
        call.step("start")
        call.ordinal += 1
        call.placement, call.gateway, call.one_way = placement, gateway, one_way
        call.active = None if placement is None else placement.primary.id
        call.accepted, call.missing, call.checked = now, None, 0
        call.stream_reason = None

    def turn(self, call: Call, now: float) -> bool:
        """The call has lost its stream. Where a one-way stream waits (digits are being played), it
        carries the far end's sound from now on. False: there is none."""
        gateway = self._core.digits.take_listener(call, now)
        if gateway is None:
            return False
        placement = self._place(call, now) or call.placement
        self._carries(call, gateway, placement, now, one_way=True)
        if placement is not None:
            self._tell_placement(call, gateway=False)
        self._core.send(gateway, m.StreamTurn(info=call.info(now)))
        return True

    def _shows(self, call: Call, sid: str, now: float) -> str | None:
        """The token of an a-leg's inline TwiML shows which call came of the dial. Returns why the
        stream is refused all the same, or None."""
        if call.sid != sid:
            dial = self._core.dials.by_request[call.dial_request or ""]
            self._core.dials.taken(dial, sid, now)
            if call.sid != sid:
                return "its token belongs to another call"
        return "the call is over" if call.over else None

    def _refuse(self, why: str) -> m.StreamRefused:
        self._core.counts["streams refused"] += 1
        return m.StreamRefused(why=why)

    def _first(self, call: Call, now: float) -> None:
        call.started = now
        self._core.counts[f"calls {call.direction}"] += 1
        self.mark_started(call)
        session = self._core.sessions.by_id.get(call.session)
        if session is not None:
            if call.dial_request is None:
                session.step("started")
            self._core.send(session.peer, m.CallStarted(info=call.info(now)))

    def mark_started(self, call: Call) -> None:
        """The dial that it came of is a call now."""
        dial = self._core.dials.by_request.get(call.dial_request or "")
        if dial is not None:
            dial.started = True

    # ------------------------------------------------------------------ a stream ends

    def closed(self, closed: m.StreamClosed, now: float) -> None:
        calls = self._core.calls
        call = calls.by_id.get(closed.call)
        if call is None or closed.ordinal != call.ordinal or not call.live:
            return
        if call.state == "ending":
            self.over(call, now)
        elif closed.reason == "stop" and not self._may_come_back(call, now):
            calls.conclude(call, calls.stopped(call, now), now)
        elif call.state == "live":
            self.lose(call, closed.reason, now)

    def _may_come_back(self, call: Call, now: float) -> bool:
        """A ``stop`` also comes where a new document takes the stream away. A one-way stream lives
        on through documents: its ``stop`` is the call's end. Before its session has announced
        itself to a restarted controller, nobody knows whether digits are on their way."""
        if call.one_way:
            return False
        core = self._core
        unclaimed = core.claiming and call.session not in core.sessions.by_id
        return unclaimed or core.digits.moves(call, now)

    def over(self, call: Call, now: float) -> None:
        """The stream of a call that is being hung up is gone: the call is over."""
        call.step("stream_over")
        call.gateway = None
        self._core.calls.conclude(call, call.reason or "hang_up", now)

    def lose(self, call: Call, reason: m.StreamEndReason, now: float) -> None:
        """The stream is gone; the call may come back by another."""
        call.step("stream_over")
        call.gateway, call.missing, call.checked, call.one_way = None, now, 0, False
        call.stream_reason = reason
        log.info("call %s: its stream is gone (%s)", call.sid, reason)
        if self.turn(call, now) or (reason == "stop" and self._core.digits.expected(call)):
            return
        session = self._core.sessions.by_id.get(call.session)
        if session is not None:
            event = m.CallReconnecting(call=call.id, ordinal=call.ordinal)
            self._core.send(session.peer, event)

    # ------------------------------------------------------------------ what gateways say

    def switched(self, switched: m.Switched, now: float) -> None:
        call = self._core.calls.by_id.get(switched.call)
        if call is None or call.placement is None or call.gateway != switched.gateway:
            return
        if switched.generation >> 16 != call.ordinal:
            return
        log.info("call %s is now worked on by %s", call.sid, switched.worker)
        self._core.counts["calls moved"] += 1
        call.active = switched.worker
        self._replace(call, now)

    def beat(self, beat: m.Beat, now: float) -> None:
        """What the gateway still has; repairs what a lost notification left wrong."""
        there = {s.call: s for s in beat.streams}
        for call in self._core.calls.by_id.values():
            found = there.get(call.id)
            if found is not None and found.ordinal == call.ordinal:
                call.stream_stats = found
                if call.state == "reconnecting" and call.gateway is None:
                    # It had only been out of sight.
                    call.step("start")
                    call.gateway, call.missing = beat.peer, None
                elif call.state == "ended":
                    self._core.send(beat.peer, m.CloseStream(call=call.id))
            elif (
                found is None
                and call.state == "live"
                and call.gateway == beat.peer
                and now - call.accepted > BEAT_SETTLES_AFTER
            ):
                self.lose(call, "error", now)

    def tick(self, now: float) -> None:
        """Streams of gateways that are gone, and calls that lack a worker."""
        there = {g.id for g in self._core.gateways() if now - g.heard < GATEWAY_LOST_AFTER}
        for call in self._core.calls.by_id.values():
            if call.state == "live" and call.gateway not in there:
                self.lose(call, "error", now)
        self.place_all(now)

    # ------------------------------------------------------------------ placement

    def _loads(self) -> dict[str, float]:
        loads: dict[str, float] = {}
        for call in self._core.calls.by_id.values():
            if call.placement is not None and call.state in ("live", "reconnecting"):
                active = call.active or call.placement.primary.id
                loads[active] = loads.get(active, 0.0) + 1.0
                for worker in (call.placement.primary, call.placement.standby):
                    if worker is not None and worker.id != active:
                        loads[worker.id] = loads.get(worker.id, 0.0) + _STANDBY_LOAD
        return loads

    def _place(self, call: Call, now: float) -> m.Placement | None:
        """Where the call's next stream is worked on; None: nowhere."""
        placement = self._core.workers.place(now, self._loads(), call.placement, call.active)
        if placement is None or not self._core.workers.well(placement.primary.id, now):
            return None
        return placement

    def _replace(self, call: Call, now: float) -> None:
        placement = self._core.workers.place(now, self._loads(), call.placement, call.active)
        if placement is not None and placement is not call.placement:
            call.placement = placement
            self._tell_placement(call, gateway=True)

    def _tell_placement(self, call: Call, *, gateway: bool) -> None:
        assert call.placement is not None
        event = m.CallPlaced(call=call.id, placement=call.placement)
        if gateway:
            self._core.send(call.gateway, event)
        session = self._core.sessions.by_id.get(call.session)
        if session is not None:
            self._core.send(session.peer, event)

    def place_all(self, now: float) -> None:
        """Workers came or went: live calls get what they lack."""
        if now - self._core.identity.started < SETTLING_SECONDS:
            return
        workers = self._core.workers
        well = {w for w in workers.by_id if workers.well(w, now)}
        for call in self._core.calls.by_id.values():
            placement = call.placement
            if call.state != "live" or placement is None:
                continue
            lacks = placement.primary.id not in well
            if placement.standby is None:
                lacks = lacks or len(well) > 1
            else:
                lacks = lacks or placement.standby.id not in well
            if lacks:
                self._replace(call, now)

    # ------------------------------------------------------------------ after a restart

    def announced(self, hello: m.Hello, now: float) -> None:
        """A gateway's streams, as it has them."""
        calls = self._core.calls
        for stream in hello.streams:
            call = calls.by_id.get(stream.info.call)
            if call is None:
                call = calls.adopt(stream.info, now)
            if call.over or stream.info.ordinal < call.ordinal:
                self._core.send(hello.peer, m.CloseStream(call=call.id))
                continue
            if call.state == "expected":
                calls.tokens.void(call.id)  # it was used before the restart
            calls.by_sid[stream.info.sid] = call
            call.sid = stream.info.sid
            call.heard_caller(stream.info)
            call.secret = stream.info.secret
            call.ordinal = stream.info.ordinal
            call.step("start")
            call.gateway, call.missing, call.accepted = hello.peer, None, now
            call.active, call.one_way = stream.active, stream.one_way
            if call.one_way:
                call.missing = now  # the stream that takes our sound is still to come
            if stream.info.placement is not None:
                call.placement = _newer(call.placement, stream.info.placement)
            if call.started is None:
                call.started = now - (stream.info.age or 0.0)
            self.mark_started(call)
            if not self._core.claiming and call.session not in self._core.sessions.by_id:
                log.warning("call %s: nobody claims it; it is hung up", call.sid)
                calls.end(call.id, "hang_up", now)

    def claimed(self, session: Session, infos: list[m.CallInfo], now: float) -> None:
        """An adapter's calls, as it has them."""
        calls = self._core.calls
        for info in infos:
            call = calls.by_id.get(info.call)
            if call is None:
                call = calls.adopt(info, now)
                if info.mode == "originate":
                    call.step("silent")
                    self.mark_started(call)
                else:
                    # Its gateway has not said so yet, or is gone.
                    self._had_stream(call, info, now)
            elif call.state == "expected" and info.ordinal > 0:
                # A dial found in the journal, whose stream had been up.
                call.sid = call.sid or info.sid
                calls.by_sid[info.sid] = call
                self._had_stream(call, info, now)
            else:
                self._known_already(session, call, info, now)
            if info.digits and not call.over:
                self._core.digits.doubt(call, now)

    def _known_already(self, session: Session, call: Call, info: m.CallInfo, now: float) -> None:
        call.ordinal = max(call.ordinal, info.ordinal)
        if call.started is None and info.ordinal > 0:
            call.started = now - (info.age or 0.0)
        if call.state == "ended":
            # It ended before its client was back, which has not heard of it.
            assert call.reason is not None
            self._core.send(session.peer, m.CallEnded(call=call.id, reason=call.reason))

    def _had_stream(self, call: Call, info: m.CallInfo, now: float) -> None:
        self._core.calls.tokens.void(call.id)
        call.ordinal = max(call.ordinal, info.ordinal, 1)
        call.heard_caller(info)
        call.secret, call.placement = info.secret, info.placement
        call.state, call.missing = "reconnecting", now
        call.started = now - (info.age or 0.0)
        self.mark_started(call)

    def worked_on(self, stats: Iterable[m.CallStats]) -> None:
        """A worker's calls: no later stream may have an ordinal that it has seen."""
        for one in stats:
            call = self._core.calls.by_id.get(one.call)
            if call is not None:
                call.ordinal = max(call.ordinal, one.generation >> 16)


def _newer(one: m.Placement | None, other: m.Placement) -> m.Placement:
    if one is None or (other.epoch, other.n) > (one.epoch, one.n):
        return other
    return one
