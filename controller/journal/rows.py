"""The rows of the journal, as values: an override of a number, a dial, and a call that is listened
to.

They stand apart from :mod:`.store`, which works with the database, because the rules carry rows
about and must not be able to reach a disk.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from trunkline.bus.wire import Shown

OverrideState = Literal["planned", "applied", "restoring", "restored", "left_alone"]
#: Seconds for which the CallSids of webhooks are kept. Twilio's signature has no time in it, so by
#: these a replayed webhook is known (:mod:`..rules.book.seen`).
SEEN_KEPT: Final = 86_400.0
OPEN_STATES: Final = ("planned", "applied", "restoring")


class OverrideRow(Shown, frozen=True, kw_only=True):
    """An override of a number. Times: seconds since the epoch, as another process reads them.

    ``prior``: the fields that we change, and the other voice fields, as they were; None until they
    were read (nothing has been written then). ``written``: the fields that we write.
    ``uncertain_until``: a write of ours may take effect until then. ``holders``: session id ->
    hash of its secret: after a restart only the session itself can claim its number again, and who
    reads the file learns no secret.

    For example, ``prior={"voice_url": "https://agent.example.com/", "voice_method": "GET", …}`` and
    ``written={"voice_url": "https://line.example.com/twilio/voice?o=…&s=…&p=…", "voice_method":
    "POST"}``: each field of ``written`` has its value from before in ``prior``.
    """

    id: str
    number: str
    number_sid: str
    session: str
    state: OverrideState
    prior: dict[str, str] | None = None
    written: dict[str, str] | None = None
    uncertain_until: float = 0.0
    since: float = 0.0
    holders: dict[str, str] = {}  # noqa: RUF012  # msgspec gives each instance one of its own

    @property
    def open(self) -> bool:
        """Something may still stand on the number."""
        return self.state in OPEN_STATES


class DialRow(msgspec.Struct, frozen=True, kw_only=True):
    """A dial, journalled before Twilio is asked. ``token_hash``: of the stream token in its TwiML;
    ``asked``: when that was, in seconds since the epoch. ``seconds``: how long its call lasted;
    None: it is not closed, or nobody has noted it.

    ``request`` is the client's own id, kept through its retries. By it a dial that is asked for
    again after a restart is known as the same dial, and does not become a second phone call.
    """

    request: str
    session: str
    secret_hash: str
    call: str
    mode: str
    callee: str
    caller: str
    timeout: float
    max_duration: float
    token_hash: str
    sid: str | None
    state: Literal["asked", "taken", "closed"]
    asked: float
    seconds: float | None = None


class ListeningRow(msgspec.Struct, frozen=True, kw_only=True):
    """A call that a session listens to, journalled before Twilio is asked for a stream of it.
    ``call`` is our id for the listening, ``sid`` names the call at Twilio, and ``name`` the newest
    stream of it that was asked for: by that it is stopped. ``theirs``: which track is the agent
    under test. ``since``: when it was asked for, in seconds since the epoch."""

    call: str
    session: str
    secret_hash: str
    sid: str
    theirs: Literal["inbound", "outbound"]
    name: str
    since: float
