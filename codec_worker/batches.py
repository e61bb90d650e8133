"""The sound of all calls of a worker, in batches: one product decodes what came in one read of the
sockets, one product encodes what was spoken, one tick sends what is due. No I/O.

``heard``, ``speaking`` and ``acknowledged`` note for which calls there is something to do, so that
silent calls cost nothing but a look at their playout in each tick. Messages are only collected, in
``instructions``, as (identity, message).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from trunkline.bus import messages as m
from trunkline.bus.sound import FRAME, POSITION_BYTES, TOGETHER, TOO_MUCH_QUEUED

from .call import Call
from .inbound import hand_out
from .playout import FlushTail, Frame
from .resample import Downsampler, Upsampler

#: One go encodes about this many bytes of speech, of all calls together: 8 s, or 0.6 ms of work.
ENCODED_AT_ONCE: Final = 400 * FRAME * POSITION_BYTES
#: A call gets at least this share of one go: 0.2 s, with which it can begin to play. So calls that
#: all begin to speak at one moment begin to be heard at nearly one moment too, long before all
#: their speech is encoded.
LEAST_SHARE: Final = 10 * FRAME * POSITION_BYTES

ToPeer = m.WorkerToGateway | m.WorkerToAdapter


class Batches:
    """Decodes, encodes and paces the sound of many calls at once. Times are integer ns."""

    def __init__(self) -> None:
        #: messages to send, in order
        self.instructions: list[tuple[bytes, ToPeer]] = []
        #: by call id: calls with inbound sound, or the end of their stream, to hand out
        self.heard: dict[str, Call] = {}
        #: when a call last ran out of sound
        self.ended_at = 0
        #: by call id: calls with speech to encode
        self.speaking: dict[str, Call] = {}
        #: by call id: calls whose client is to get an AcknowledgedTo
        self.acknowledged: dict[str, Call] = {}
        #: by call id: calls whose sound could not be paced, and why
        self._broken: dict[str, Exception] = {}
        self._down = Downsampler()
        self._up = Upsampler()

    def take_broken(self) -> list[tuple[str, Exception]]:
        """The ids of the calls whose sound could not be paced since the last time, by a mistake of
        ours, and why."""
        broken = list(self._broken.items())
        self._broken.clear()
        return broken

    def forget(self, call: Call) -> None:
        """Do nothing more for the call: it is gone, or nothing is sent before the next Resume."""
        for waiting in (self.heard, self.speaking, self.acknowledged):
            waiting.pop(call.id, None)

    def tell_loss(self, call: Call, samples: int, why: str) -> None:
        """Report lost outbound sound to the client."""
        if samples and call.adapter is not None:
            loss = m.Loss(call.id, call.generation, "outbound", samples, why)
            self.instructions.append((call.adapter, loss))

    # ------------------------------------------------------------------ inbound, and reports

    def report(self) -> None:
        """Hand out what came for all calls in ``heard``, and report the acknowledgements."""
        calls = list(self.heard.values())
        self.heard.clear()
        self.hand_out(calls)

    def hand_out(self, calls: list[Call]) -> None:
        """Decode what waits for ``calls``, send it to their clients with all acknowledgements, and
        then report the ends of their streams."""
        sounds: dict[bytes, list[m.Sound]] = {}
        for piece in hand_out(self._up, [call.inbound for call in calls]):
            call = calls[piece.call]
            if call.adapter is not None:
                sound = m.Sound(
                    call.id,
                    call.generation,
                    piece.position,
                    piece.ordinal,
                    piece.stream_end,
                    piece.lost,
                    piece.pcm,
                    piece.codes,
                )
                if call.adapter in sounds:
                    sounds[call.adapter].append(sound)
                else:
                    sounds[call.adapter] = [sound]
        acknowledged = self._acknowledged()
        for peer in {**sounds, **acknowledged}:  # in an order that follows from the events alone
            heard = m.Heard(sounds.get(peer, []), acknowledged.get(peer, []))
            self.instructions.append((peer, heard))
        for call in calls:
            if call.tell_end and call.resumed and call.adapter is not None:
                assert call.ended is not None
                call.tell_end = False
                ordinal, reason = call.ended.ordinal, call.ended.reason
                over = m.StreamOver(call.id, call.generation, ordinal, reason, call.late)
                self.instructions.append((call.adapter, over))

    def tell_acknowledged(self) -> None:
        """Report the acknowledgements, ahead of the sound that waits."""
        for peer, told in self._acknowledged().items():
            self.instructions.append((peer, m.Heard([], told)))

    def _acknowledged(self) -> dict[bytes, list[m.AcknowledgedTo]]:
        """The acknowledgements since the last time, by client."""
        told: dict[bytes, list[m.AcknowledgedTo]] = {}
        for call in self.acknowledged.values():
            playout, adapter = call.playout, call.adapter
            if adapter is not None and call.resumed:
                assert playout is not None
                position = playout.acknowledged
                to = m.AcknowledgedTo(call.id, call.generation, position, call.idle)
                if adapter in told:
                    told[adapter].append(to)
                else:
                    told[adapter] = [to]
        self.acknowledged.clear()
        return told

    # ------------------------------------------------------------------ outbound

    def encode(self, now: int, until: int) -> None:
        """Encode some of the speech that waits in ``speaking``, and send as much of it as falls due
        before ``until``."""
        share = max(LEAST_SHARE, ENCODED_AT_ONCE // len(self.speaking))
        share -= share % POSITION_BYTES
        calls: list[Call] = []
        histories = []
        chunks: list[bytes] = []
        size = 0
        for call in self.speaking.values():
            playout = call.playout
            assert playout is not None
            if not playout.unsent + playout.tail and not playout.joins(now):
                call.silence_before()
            history, chunk = call.next_chunk(share)
            calls.append(call)
            histories.append(history)
            chunks.append(chunk)
            size += len(chunk)
            if size >= ENCODED_AT_ONCE:
                break
        for call, payload in zip(calls, self._down.run(histories, chunks), strict=True):
            self.tell_loss(call, call.encoded(payload), TOO_MUCH_QUEUED)
            del self.speaking[call.id]
            if call.waiting:
                self.speaking[call.id] = call  # behind the others
            self.acknowledged[call.id] = call
        self.pace(calls, now, until)

    def pace(self, calls: Iterable[Call], now: int, until: int, together: int = TOGETHER) -> None:
        """Send the frames of ``calls`` that fall due before ``until``, up to ``together`` of them
        in one message."""
        frames: dict[bytes, list[m.OutFrame]] = {}
        ends: set[bytes] = set()
        starved: list[Call] = []
        for call in calls:
            playout, gateway = call.playout, call.gateway
            if playout is None or not call.resumed or gateway is None:
                continue
            try:
                payload = playout.one_message(now, until, together)
                if payload is not None:
                    if not payload:
                        continue
                    position = playout.position - len(payload)
                    frame = m.OutFrame(call.id, call.generation, position, payload)
                    if gateway in frames:
                        frames[gateway].append(frame)
                    else:
                        frames[gateway] = [frame]
                    continue
                next_due = playout.next_due()
                if next_due is None or next_due >= until:
                    continue
                starves = self._due(call, now, until, together, frames)
            except Exception as error:  # noqa: BLE001  # the other calls' sound goes on
                self._broken[call.id] = error
                continue
            # If speech of this call still has to be encoded, the short rest is not its last sound.
            if starves and not call.waiting:
                starved.append(call)
            if playout.unsent < FRAME and not call.waiting:
                ends.add(gateway)
                self.ended_at = now
        if starved:
            tails = self._down.flush([call.history for call in starved], joined=True)
            for call, tail in zip(starved, tails, strict=True):
                assert call.playout is not None
                self.tell_loss(call, call.playout.flushed(tail), TOO_MUCH_QUEUED)
                self._due(call, now, until, together, frames)
        for peer, batch in frames.items():
            self.instructions.append((peer, m.Outbound(batch, peer in ends)))

    def _due(
        self,
        call: Call,
        now: int,
        until: int,
        together: int,
        frames: dict[bytes, list[m.OutFrame]],
    ) -> bool:
        """Collect the call's due frames. True: the call needs what its filter holds back."""
        assert call.playout is not None
        assert call.gateway is not None
        for instruction in call.playout.due(now, until, together):
            if isinstance(instruction, Frame):
                frame = m.OutFrame(call.id, call.generation, *instruction)
                frames.setdefault(call.gateway, []).append(frame)
            elif isinstance(instruction, FlushTail):
                return True
            else:
                # A mark follows what was sent so far, so that sound goes first.
                sent = frames.pop(call.gateway, None)
                if sent:
                    self.instructions.append((call.gateway, m.Outbound(sent)))
                mark = m.Mark(call.id, call.generation, instruction.name)
                self.instructions.append((call.gateway, mark))
        return False
