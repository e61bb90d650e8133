"""What is fuzzed: one table, from a target's name to what it is given and how it is checked.

A target that takes bytes has a corpus beside this file, and atheris leads new bytes through its
code by coverage. The other targets take built values: odd.py draws messages of the bus, because
its decoder is C. A check returns, or raises: whatever it raises is a fault.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import sqlite3
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
from hypothesis import strategies as st

# As pytest has it: stand-ins of one folder of tests import those of another by its name alone.
sys.path.append(str(Path(__file__).parents[1]))

from tests.codec_worker.peers import ADAPTER, CALL, GATEWAY, SECRET, TICK, FakeGateway, tick
from tests.controller.fake_carrier import OURS
from tests.controller.stage import Stage
from tests.gateway.model import G1, A, B, Bench, accepted, placement
from tests.gateway.stack import BASE, sign
from tests.gateway.test_app import Client, Controller
from tests.gateway.test_websocket import piped
from trunkline.bus import messages as m
from trunkline.bus.errors import InvalidRequestError
from trunkline.carrier_sim import twiml as carrier_twiml
from trunkline.codec_worker.calls import Calls
from trunkline.controller import instructions as do
from trunkline.controller.journal.database import JournalError
from trunkline.controller.journal.store import Journal
from trunkline.gateway import media_streams as ms
from trunkline.gateway import twiml
from trunkline.gateway.signature import Form
from trunkline.replay import cassette
from trunkline.replay.carrier import Carrier
from trunkline.replay.compare import Tolerance, differences
from trunkline.replay.mirror import mirrored
from trunkline.replay.ourselves import actions

from .odd import Known

CORPUS: Final = Path(__file__).parent / "corpus"
#: Answers that a stranger, or Twilio, may get to a webhook.
ANSWERS: Final = frozenset((200, 204, 400, 403, 404, 405, 408, 413, 503))
_LOOP: Final = asyncio.new_event_loop()


@dataclass(frozen=True)
class Target:
    """``draws`` None: bytes, with a corpus."""

    check: Callable[[Any], None]
    draws: st.SearchStrategy[Any] | None = None


def corpus(name: str) -> list[bytes]:
    """The bytes that a target begins with, and those that once were a fault."""
    return [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]


# --------------------------------------------------------------------------- bytes


def media_streams(data: bytes) -> None:
    """Each line is a text message of one Media Streams socket."""
    stream = ms.MediaStream()
    for text in data.split(b"\n"):
        stream.receive(text)
    if stream.started:
        json.loads(stream.media(bytes(160)))
        json.loads(stream.mark("m"))
        json.loads(stream.clear)


def cassettes(data: bytes) -> None:
    """A cassette that somebody sent us. Whatever can be read is like itself, and can be played."""
    try:
        found = cassette.parse(data)
    except InvalidRequestError:
        return
    assert differences(found, cassette.parse(data), Tolerance()) == []
    assert differences(found, cassette.parse(data), Tolerance(timed=False)) == []
    ours = actions(found)
    if found.streams:
        json.dumps(mirrored(found.streams, ours, longest=1.0).heard)
    for stream in found.streams:
        carrier = Carrier(stream, "AC1", {})
        for at, message in stream.said:
            carrier.answered(at - stream.opened, message)
        json.dumps([*carrier.due(1e9), *carrier.stop()])


def websocket(data: bytes) -> None:
    """Frames mean the same however they are cut. The first byte says where."""

    async def heard(step: int) -> tuple[list[bytes], list[str], bool]:
        socket, recorder, pipe = piped()
        for begin in range(0, len(data), step):
            socket.data_received(data[begin : begin + step])
        found = recorder.texts, recorder.wrong, pipe.ended
        socket.connection_lost(None)
        return found

    if data:
        whole = _LOOP.run_until_complete(heard(len(data)))
        assert _LOOP.run_until_complete(heard(1 + data[0] % 50)) == whole


def forms(data: bytes) -> None:
    """A signed webhook: the query, a line's end, the body. Whatever it holds has an answer."""
    query, _, body = data.partition(b"\n")
    text = query.decode("latin-1")
    is_json = body.startswith(b"{")
    try:
        fields = {} if is_json else Form.parse(body).first()
    except ValueError:
        fields = {}

    async def post(path: str, answer: m.ReplyBody) -> int:
        controller = Controller()
        controller.answer = answer
        client = Client(controller)
        url = f"{BASE}{path}" + (f"?{text}" if text else "")
        headers = {"content-type": "application/json" if is_json else "", "x-twilio-signature": ""}
        with contextlib.suppress(UnicodeEncodeError):
            headers["x-twilio-signature"] = sign(url, fields)
        status, _, _ = await client.request("POST", path, query=text, body=body, headers=headers)
        return status

    stream = m.VoiceAnswer(kind="stream", token="t", redirect_query={"c": "1"})
    for path, answer in (("/twilio/voice", stream), ("/twilio/status", m.Done())):
        status = _LOOP.run_until_complete(post(path, answer))
        assert status in ANSWERS, status


def documents(data: bytes) -> None:
    """TwiML: the carrier reads anything, and what a gateway renders is well-formed XML."""
    carrier_twiml.parse(data)
    query = data.decode("latin-1")
    for answer in (
        m.VoiceAnswer(kind="pause", redirect_query={"c": query}),
        m.VoiceAnswer(kind="stream", token="t", redirect_query={query: query}),
    ):
        ET.fromstring(twiml.render(answer, BASE, query))


# --------------------------------------------------------------------------- messages of the bus


def _decoded(
    messages: list[Any], *unions: Any, known: Iterable[tuple[str, str]] = ()
) -> Iterator[Any]:
    """The messages as their receiver gets them. What it cannot decode it drops. ``known``: texts
    that stand for others, of the same length, which the target has made."""
    for message in messages:
        union = next(union for union in unions if isinstance(message, union))
        payload = msgspec.msgpack.encode(message)
        for text, real in known:
            payload = payload.replace(text.encode(), real.encode())
        with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            yield msgspec.msgpack.decode(payload, type=union)


#: They stand for the ids that a controller's session has.
_SESSION: Final = "5" * 32
_SESSION_SECRET: Final = "6" * 32
_GENERATION: Final = m.first_generation(1)


def worker(messages: list[Any]) -> None:
    """A worker that has one good call goes on with it, whatever else it is told."""
    calls = Calls("w1")
    gateway = FakeGateway()
    now = TICK
    for peer, message in (
        (GATEWAY, m.MediaHello("gateway", "g1")),
        (ADAPTER, m.MediaHello("adapter", "a1")),
        (ADAPTER, m.Attach(CALL, SECRET)),
        (GATEWAY, gateway.open_call()),
        (ADAPTER, m.Resume(CALL, _GENERATION, 0, 0, 0, 0.0, 0, 0, 0)),
        (ADAPTER, m.Gather(CALL, _GENERATION, 800)),
        (ADAPTER, m.Speak(CALL, _GENERATION, 0, bytes(4_800))),
    ):
        calls.receive(peer, message, now)
    for n, message in enumerate(_decoded(messages, m.ToWorker)):
        calls.receive((GATEWAY, ADAPTER, b"rogue")[n % 3], message, now)
        now += TICK
        calls.all_read(now)
        tick(calls, now)
        while calls.work(now, now + TICK):
            pass
        calls.beat(now)
        for _, said in calls.take_instructions():
            msgspec.msgpack.encode(said)
        msgspec.msgpack.encode(m.Beat(peer="w1", calls=calls.stats(now)))


def gateway(messages: list[Any]) -> None:
    """A gateway that has one good stream, and hears odd things of workers and the controller."""
    bench = Bench()
    bench.accept(1, accepted(placement(1, A, B)))
    bench.up(A)
    bench.up(B)
    bench.tick(A, B)
    bench.sound(A, G1, 0, 160)
    for message in _decoded(messages, m.WorkerToGateway, m.CallPlaced):
        bench.now += 0.02
        if isinstance(message, m.CallPlaced):
            bench.run(bench.streams.call_placed(message, bench.now))
        elif isinstance(message, m.WorkerToGateway):
            bench.say(A, message)
        bench.run(bench.streams.flush())
        bench.run(bench.streams.check(bench.now))
        for sent in bench.sent.values():
            for told in sent:
                msgspec.msgpack.encode(told)
            sent.clear()
        for told in bench.told:
            msgspec.msgpack.encode(told)
        msgspec.msgpack.encode(bench.streams.stats())


def controller(messages: list[Any]) -> None:
    """A controller with a session that waits for a call goes on, whatever its peers say."""
    stage = Stage()
    session = stage.open(OURS)
    stage.ask("a1", m.Arm(session=session.session))
    known = (_SESSION, session.session), (_SESSION_SECRET, session.secret)
    for message in _decoded(messages, m.ToController, known=known):
        stage.feed(message)
        stage.pass_time(0.5)
        for sent in stage.sent.values():
            for told in sent:
                msgspec.msgpack.encode(told)
        stage.sent.clear()
        stage.work = [x for x in stage.work if isinstance(x, do.LookUp)][:3]


# --------------------------------------------------------------------------- rows of the journal

_CELLS: Final = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.text(max_size=20),
    st.binary(max_size=20),
    st.sampled_from(["planned", "applied", "restoring", "asked", "taken", "{}", '{"a": 1}', "["]),
)


@functools.cache
def _empty_journal() -> bytes:
    """The file of a journal in which nothing happened yet."""

    async def make(path: Path) -> None:
        await (await Journal.in_file(path, account="AC1", stack="s")).close()

    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "journal.sqlite3"
        _LOOP.run_until_complete(make(path))
        assert list(Path(directory).iterdir()) == [path]
        return path.read_bytes()


def journal(rows: list[tuple[str, dict[str, Any]]]) -> None:
    """A journal with odd rows is read, or refused by name."""

    async def read(path: Path) -> None:
        store = await Journal.in_file(path, account="AC1", stack="s")
        try:
            await store.open_overrides()
            await store.open_dials()
            await store.closed_dials(0.0)
            await store.override("o1")
        finally:
            await store.close()

    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "journal.sqlite3"
        path.write_bytes(_empty_journal())
        with contextlib.closing(sqlite3.connect(path)) as db, db:
            db.execute("PRAGMA foreign_keys = OFF")
            for table, cells in rows:
                names = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
                values = [cells.get(name, "planned") for name in names]
                marks = ", ".join("?" * len(names))
                with contextlib.suppress(sqlite3.Error):  # a row that the table itself refuses
                    db.execute(f"INSERT INTO {table} VALUES ({marks})", values)
        try:
            _LOOP.run_until_complete(read(path))
        except JournalError as error:
            assert "journal" in str(error)


_COLUMNS: Final = {
    "overrides": "id number number_sid prior written session state uncertain_until since changed",
    "holders": "override session secret_hash",
    "dials": "request session secret_hash call mode callee caller timeout max_duration token_hash "
    "sid state asked",
    "epochs": "epoch pid started",
    "meta": "name value",
}


def _row(table: str) -> st.SearchStrategy[tuple[str, dict[str, Any]]]:
    cells = st.fixed_dictionaries({name: _CELLS for name in _COLUMNS[table].split()})
    return st.tuples(st.just(table), cells)


TARGETS: Final[dict[str, Target]] = {
    "media-streams": Target(media_streams),
    "cassettes": Target(cassettes),
    "websocket": Target(websocket),
    "forms": Target(forms),
    "twiml": Target(documents),
    "worker": Target(
        worker, Known([CALL, SECRET], [1, 2, _GENERATION, _GENERATION + 1]).messages(m.ToWorker)
    ),
    "gateway": Target(
        gateway,
        Known(["c1", A.id, B.id], [1, G1, G1 + 1, 160, 320]).messages(
            m.WorkerToGateway, m.CallPlaced
        ),
    ),
    "controller": Target(
        controller,
        Known(
            ["g1", "w1", "a1", _SESSION, _SESSION_SECRET, OURS, "CallSid", "From", "To", "ringing"]
        ).messages(m.ToController),
    ),
    "journal": Target(
        journal, st.lists(st.one_of([_row(table) for table in _COLUMNS]), min_size=1, max_size=4)
    ),
}
