"""`trunkline calls`, `show` and `play`: which calls are known, and what is shown of one."""

from __future__ import annotations

import json
import stat
import threading
import wave
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from rich.console import Console as RichConsole

from trunkline.bus import wav
from trunkline.bus.settings import load
from trunkline.calls import known, player, told
from trunkline.calls.known import KnownCall
from trunkline.calls.timeline import moments, strip
from trunkline.carrier_sim.wav import SPEECH_DIR
from trunkline.cli import calls as cli_calls
from trunkline.cli import tables
from trunkline.cli.calls import calls, play, show
from trunkline.cli.main import report
from trunkline.controller.journal import file
from trunkline.controller.journal.rows import DialRow
from trunkline.controller.journal.state_dir import journals
from trunkline.controller.timeline import Entry, Timeline
from trunkline.controller.viewers import Viewers
from trunkline.ear.listen import listen
from trunkline.errors import InvalidRequestError
from trunkline.gateway.recording import Recorder, listened
from trunkline.gateway.recording_file import Whose
from trunkline.reports import picture
from trunkline.reports.recordings import Heard

RATE = 8_000
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
STATUS: dict[str, Any] = {
    "controller": {"console": None},
    "calls": [
        {
            "sid": "CAlive",
            "direction": "inbound",
            "caller": "+14155550000",
            "callee": "+14155551234",
            "state": "live",
            "seconds": 60.0,
            "frames_lost": 2,
            "underruns": 1,
            "test": "test_it.py::test_[a]\x1b",
        },
        {"sid": None, "direction": "outbound", "state": "expected", "seconds": 0.0},
    ],
}


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No stack, and nothing of this user's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRUNKLINE_BUS", f"ipc://{tmp_path}/bus")
    monkeypatch.setenv("TRUNKLINE_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("TRUNKLINE_RECORDINGS_DIR", str(tmp_path / "recordings"))
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "recordings").mkdir()
    return tmp_path


def speech(name: str, at: float, seconds: float) -> wav.Samples:
    """A recording that begins so late."""
    track = np.zeros(int(seconds * RATE), np.int16)
    said = wav.read(SPEECH_DIR / f"{name}.wav", RATE)
    track[int(at * RATE) : int(at * RATE) + len(said)] = said
    return track


OURS, THEIRS = speech("austen-0880", 1.0, 9.0), speech("austen-0930", 4.8, 9.0)


def recorded(where: Path, name: str = "20260101T110000-CArec.wav") -> Path:
    path = where / "recordings" / name
    wav.write(path, THEIRS, OURS, rate=RATE)
    return path


def journal(where: Path, *rows: DialRow) -> None:
    path = where / "state/stacks/abc/journal.sqlite3"
    db = file.connect(path, "AC1", "abc")
    with db:
        for row in rows:
            values = [getattr(row, name) for name in row.__struct_fields__]
            db.execute(f"INSERT INTO dials VALUES ({', '.join('?' * len(values))})", values)
    db.close()


def dial(sid: str | None, state: Any = "closed", seconds: float | None = 30.0) -> DialRow:
    return DialRow(
        request=f"r{sid}{state}",
        session="s",
        secret_hash="h",
        call="c",
        mode="a-leg",
        callee="+14155557777",
        caller="+14155551234",
        timeout=30.0,
        max_duration=300.0,
        token_hash="t",
        sid=sid,
        state=state,
        asked=NOW.timestamp(),
        seconds=seconds,
    )


def run(command: Any, *argv: str) -> Result:
    result = CliRunner().invoke(command, argv)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


# --------------------------------------------------------------------------- which calls


def test_a_stacks_live_calls() -> None:
    (call,) = known.of_status(STATUS["calls"], NOW)
    assert call.live and call.began == "2026-01-01T11:59:00+00:00"
    assert (call.frames_lost, call.underruns) == (2, 1)


async def test_a_stack_on_another_machine_is_not_asked_where_recordings_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def asked(settings: object) -> None:
        raise AssertionError

    monkeypatch.setattr(known, "_status", asked)
    monkeypatch.delenv("TRUNKLINE_RECORDINGS_DIR")
    there = load(env_file=None, bus="tcp://10.0.0.7:7999")
    assert await known.recordings_dir(there) is None
    assert await known.recordings_dir(there.changed(recordings_dir=Path("rec"))) == Path("rec")


def test_a_controller_of_an_older_version_does_not_say_when_a_call_began() -> None:
    row = STATUS["calls"][0] | {"over_at": NOW.timestamp()}
    (call,) = known.of_told(told.Told([row], {}))
    assert (call.state, call.began) == ("ended", "2026-01-01T11:59:00+00:00")


STREAM = """event: over
data: [{"id":"c1","sid":"CAover","direction":"inbound","caller":"+1","callee":"+2","state":"ended",
 "seconds":60.0,"frames_lost":0,"underruns":0,"reason":"hang_up",
 "test":"test_it.py::test_b","began_at":1767268740.0,"over_at":1767268800.0},
 {"id":"c2","sid":"CAbusy","direction":"outbound","caller":"+1","callee":"+2","state":"ended",
 "seconds":0.0,"frames_lost":0,"underruns":0,"reason":"busy",
 "began_at":1767268620.0,"over_at":1767268625.0}]

event: entries
data: [{"n":1,"at":1767268740.0,"kind":"call","text":"its stream is up","call":"c1"},
 {"n":2,"at":1767268741.0,"kind":"process","text":"a gateway is here","call":null}]

event: state
data: {"calls":[]}

event: levels
data: {}
""".replace("\n ", "")


class Console(BaseHTTPRequestHandler):
    """The console's stream, which does not end by itself."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/api/live" else 404)
        self.end_headers()
        self.wfile.write(STREAM.encode())

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def console(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A stack whose console tells of a call that is over."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Console) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        url = f"http://127.0.0.1:{server.server_port}"

        async def status(settings: object) -> dict[str, Any]:
            return {"controller": {"console": url}, "calls": []}

        monkeypatch.setattr(known, "_status", status)
        yield url
        server.shutdown()
        serving.join()


def test_a_running_stack_remembers_calls_that_are_over_and_their_events(console: str) -> None:
    call, busy = json.loads(run(calls, "--json").stdout)["calls"]
    assert (call["sid"], call["state"], call["reason"]) == ("CAover", "ended", "hang_up")
    assert call["began"] == "2026-01-01T11:59:00+00:00"
    said = run(show, "CAover").stdout
    assert "ended (hang_up) for 60.0 s" in said
    assert "11:59:00.000  its stream is up" in said and "gateway" not in said
    assert (busy["reason"], busy["began"]) == ("busy", "2026-01-01T11:57:00+00:00")
    assert "ended (busy) for 0.0 s, began 2026-01-01T11:57:00" in run(show, "CAbusy").stdout
    assert (call["test"], busy["test"]) == ("test_it.py::test_b", None)
    assert "\ntest_it.py::test_b\n" in said
    table = run(calls).stdout
    assert "ended (busy)" in table and "test_it.py::test_b" in table


async def test_the_consoles_own_stream_begins_as_it_is_read() -> None:
    timeline = Timeline(epoch=1)
    timeline.over.append({"id": "c1", "sid": "CA1"})
    timeline.entries.append(Entry(1, 1.5, "call", "its stream is up", "c1"))
    viewers = Viewers(lambda: {"calls": []}, timeline, lambda look: None)
    page = viewers.page()
    lines = b"".join([await anext(page) for _ in range(3)]).decode().splitlines()
    viewers.close()
    await page.aclose()
    found = told.read(line for line in lines if line)
    assert found.events == {"CA1": [told.Event(1.5, "its stream is up")]}
    assert found.over == list(timeline.over)


@pytest.mark.parametrize(
    "stream", ["", "event: over\ndata: {", "event: over\ndata: [1]\n\nevent: entries\ndata: []"]
)
def test_a_console_that_tells_something_else_is_passed_over(
    stream: str, console: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "STREAM", stream)
    assert told.ask(console) is None
    assert told.ask(f"{console}/elsewhere") is None
    assert run(calls).stdout == "no calls\n"


def test_what_one_source_does_not_know_the_next_one_tells() -> None:
    live = KnownCall(sid="CA1", state="live", caller="+1", seconds=3.0)
    kept = KnownCall(sid="CA1", began="2026-01-01", seconds=2.5, recording="a.wav")
    older = KnownCall(sid="CA2", began="2025-01-01")
    newer = KnownCall(sid="CA3", began="2026-02-01")
    found = known.joined([live], [kept, older], [newer])
    assert [call.sid for call in found] == ["CA1", "CA3", "CA2"], "those that live come first"
    assert (found[0].state, found[0].seconds, found[0].recording) == ("live", 3.0, "a.wav")


def test_journals_know_the_calls_that_were_dialled(surroundings: Path) -> None:
    journal(surroundings, dial("CA1"), dial("CA2", "taken", None), dial(None, "asked", None))
    listed = json.loads(run(calls, "--json").stdout)["calls"]
    assert [(c["sid"], c["state"], c["seconds"]) for c in listed] == [
        ("CA1", "ended", 30.0),
        ("CA2", "unknown", None),
    ]
    assert listed[0]["caller"] == "+14155551234" and listed[0]["callee"] == "+14155557777"


def test_a_journal_that_cannot_be_read_is_said_and_the_rest_is_shown(surroundings: Path) -> None:
    journal(surroundings, dial("CA1"))
    torn = surroundings / "state/private/x/stacks/def/journal.sqlite3"
    torn.parent.mkdir(parents=True)
    torn.write_bytes(b"no journal")
    assert len(journals(surroundings / "state")) == 2
    result = run(calls)
    assert "no readable trunkline journal" in result.stderr and "CA1" in result.stdout


def test_a_recording_says_itself_whose_call_it_has(surroundings: Path) -> None:
    recorder = Recorder(surroundings / "recordings")
    whose = Whose(
        direction="inbound", caller="anonymous", callee="+14155551234", test="test_it.py::test_a"
    )
    track = recorder.begin("CA7", 1, first=True, age=0.0, whose=whose)
    recorder.write(track, 0, b"\xff" * 2 * RATE)
    recorder.close()
    recorded(surroundings, "20200101T000000-CAother.wav")
    (surroundings / "recordings/20200101T000000-CAtorn.wav").write_bytes(b"RIFF")
    damaged = recorded(surroundings, "20200101T000000-CArate.wav")
    data = damaged.read_bytes()
    damaged.write_bytes(data[:24] + bytes(4) + data[28:])  # no sample a second
    listed = json.loads(run(calls, "--json").stdout)["calls"]
    assert [(c["sid"], c["direction"], c["caller"]) for c in listed] == [
        ("CA7", "inbound", "anonymous"),
        ("CAother", None, None),
    ]
    assert [c["test"] for c in listed] == ["test_it.py::test_a", None]
    assert listed[0]["seconds"] == 1.0 and listed[1]["began"] == "2020-01-01T00:00:00+00:00"


def test_the_running_stack_says_where_its_recordings_are(
    surroundings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only ``trunkline up`` was told, in another terminal. This shell's own setting wins, and a
    directory of another machine is not looked into."""
    monkeypatch.delenv("TRUNKLINE_RECORDINGS_DIR")
    sid = f"CA{1:032d}"
    path = recorded(surroundings, f"20260101T110000-{sid}.wav")

    async def status(settings: object) -> dict[str, Any]:
        return {"controller": {"console": None, "recordings_dir": str(path.parent)}, "calls": []}

    assert run(calls).stdout == "no calls\n"
    assert "set TRUNKLINE_RECORDINGS_DIR" in str(CliRunner().invoke(report, [sid]).exception)
    monkeypatch.setattr(known, "_status", status)
    assert path.name in run(calls).stdout.replace("\n", "")
    assert "not recorded" not in run(show, sid).stdout
    assert json.loads(run(report, sid, "--json").stdout)["seconds"] == 9.0
    (surroundings / "own").mkdir()
    assert run(calls, "--recordings-dir", "own").stdout == "no calls\n"
    assert run(calls, "--bus", "tcp://192.0.2.1:5").stdout == "no calls\n"


def test_recordings_of_who_listened_do_not_hide_a_calls_own(surroundings: Path) -> None:
    """In whichever order the directory has them."""
    sids = [f"CA{n:032d}" for n in range(4)]
    recorder = Recorder(surroundings / "recordings")
    for sid in sids:
        whose = Whose(sid, "outbound", "+14155551234", "+14155557777")
        for n, name in enumerate((listened(sid, "a" * 8), listened(sid, "b" * 8), sid)):
            track = recorder.begin(name, 1, first=True, age=100.0 * (3 - n), whose=whose)
            recorder.write(track, 0, b"\xff" * 2 * 800)
    recorder.close()
    told = json.loads(run(calls, "--json").stdout)["calls"]
    assert sorted(call["sid"] for call in told) == sids
    for call in told:
        names = [Path(path).stem[16:] for path in (call["recording"], *call["also_recorded"])]
        assert names == [
            call["sid"],
            f"{call['sid']}_listened_aaaaaaaa",
            f"{call['sid']}_listened_bbbbbbbb",
        ]
    assert "and 2 more" in run(calls).stdout
    shown = run(show, sids[0]).stdout.replace("\n", "")
    assert "also recorded in" in shown and "_listened_bbbbbbbb.wav" in shown


def test_a_recording_whose_name_has_no_date_is_listed_without_one(surroundings: Path) -> None:
    """Somebody has named it so: there is no 13th month."""
    recorded(surroundings, "20201399T000000-CAother.wav")
    (listed,) = json.loads(run(calls, "--json").stdout)["calls"]
    assert (listed["sid"], listed["began"]) == ("CAother", None)


def test_the_list_is_as_long_as_is_asked_and_commands_no_terminal(surroundings: Path) -> None:
    recorder = Recorder(surroundings / "recordings")
    for n in range(3):
        whose = Whose(direction="inbound", caller="\x1b[2J[red]", callee="+14155551234")
        recorder.begin(f"CA{n}", 1, first=True, age=float(n), whose=whose)
    recorder.close()
    said = run(calls, "--limit", "2").stdout
    assert len(said.splitlines()) == 3 and "CA2" not in said
    assert "\\x1b[2J[red]" in said
    assert "no stack answers at ipc://" in run(calls).stderr


@pytest.mark.parametrize(("columns", "lines"), [(200, 2), (100, 2), (80, 3), (40, 4)])
def test_a_terminal_of_any_width_breaks_no_sid_number_or_file_name(
    surroundings: Path, monkeypatch: pytest.MonkeyPatch, columns: int, lines: int
) -> None:
    """So each can be copied. A name that is wider than the terminal is the terminal's to wrap."""
    sid = "CA" + "0123456789abcdef" * 2
    recorder = Recorder(surroundings / "recordings")
    whose = Whose(direction="inbound", caller="+14155550000", callee="+14155551234")
    recorder.begin(sid, 1, first=True, age=0.0, whose=whose)
    recorder.close()
    (name,) = [path.name for path in (surroundings / "recordings").iterdir()]

    def terminal() -> RichConsole:
        return RichConsole(highlight=False, width=columns)

    monkeypatch.setattr(tables, "output", terminal)
    said = run(calls).stdout
    words = said.split()
    assert {sid, "+14155550000", "+14155551234", name} <= set(words)
    found = said.splitlines()
    assert len(found) == lines
    assert all(len(line) <= columns or line.strip() == name for line in found)
    assert "UTC" in said and "- s" not in said


def test_piped_output_of_show_breaks_no_path(surroundings: Path) -> None:
    path = recorded(surroundings, f"20260101T110000-CA{'0' * 80}.wav")
    said = run(show, "CA0").stdout.splitlines()
    assert f"recording {path}" in said


def test_nothing_is_known() -> None:
    assert run(calls).stdout == "no calls\n"


# --------------------------------------------------------------------------- one call


def test_a_call_is_named_by_its_sid_or_a_beginning_that_no_other_has() -> None:
    found = known.Found(False, "", None, [KnownCall(sid=sid) for sid in ("CA1", "CA12", "CA3")])
    assert known.of_sid(found, "CA1").sid == "CA1"
    assert known.of_sid(found, "CA3").sid == known.of_sid(found, "CA3"[:3]).sid
    for sid, why in (("CA", "3 calls begin with"), ("CB", "no call CB"), ("", "name a call")):
        with pytest.raises(InvalidRequestError, match=why):
            known.of_sid(found, sid)


def test_the_course_of_a_call_is_shown_in_order(surroundings: Path) -> None:
    recorded(surroundings)
    result = run(show, "CAr")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].startswith("CArec  call  ? -> ?")
    (answered,) = [line for line in lines if "answer after" in line]
    assert "theirs" in answered
    assert lines[-1].split() == ["9.00", "s", "end"]
    assert [line[0] for line in lines if "█" in line] == ["o", "t"]


def test_a_live_call_without_a_recording_shows_how_it_stands(
    surroundings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def status(settings: object) -> dict[str, Any]:
        return STATUS

    monkeypatch.setattr(known, "_status", status)
    said = run(show, "CAlive").stdout
    assert "inbound  +14155550000 -> +14155551234" in said
    assert "live for 60.0 s" in said and "2 frames lost, 1 underruns so far" in said
    assert "not recorded" in said
    told = json.loads(run(show, "CAlive", "--json").stdout)
    assert told["call"]["state"] == "live" and told["report"] is None
    assert told["call"]["test"] == "test_it.py::test_[a]\x1b"
    assert "\ntest_it.py::test_[a]\\x1b\n" in said


def test_a_recording_of_somebody_elses_sends_no_control_characters(
    surroundings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evil = "\x1b[31mX\x07"
    call = KnownCall(
        sid=evil, direction=evil, caller=evil, callee=evil, state=evil, began=evil, recording=evil
    )
    monkeypatch.setattr(known, "of_recording", lambda path: call)
    monkeypatch.setattr(cli_calls, "_hear", lambda path: None)
    result = run(show, str(recorded(surroundings)))
    assert "\x1b" not in result.stdout and "\x07" not in result.stdout


def test_a_callers_text_commands_no_terminal(surroundings: Path) -> None:
    recorder = Recorder(surroundings / "recordings")
    whose = Whose(direction="inbound", caller="\x1b[2J", callee="\x07")
    recorder.write(recorder.begin("CA7", 1, first=True, age=0.0, whose=whose), 0, b"\xff" * RATE)
    recorder.close()
    said = run(show, "CA7").stdout
    assert "\\x1b[2J -> \\x07" in said and not {"\x1b", "\x07"} & set(said)


def test_json_has_the_report_and_the_moments(surroundings: Path) -> None:
    told = json.loads(run(show, str(recorded(surroundings)), "--json").stdout)
    assert told["call"]["recording"].endswith("CArec.wav")
    assert told["report"]["answers"][0]["latency"] > 0
    times = [moment["at"] for moment in told["moments"]]
    assert times == sorted(times)


def test_a_picture_is_a_file_of_its_own_without_any_library(surroundings: Path) -> None:
    recorded(surroundings)
    run(show, "CArec", "--svg", str(surroundings / "call.svg"))
    drawn = (surroundings / "call.svg").read_text()
    assert drawn.startswith('<svg xmlns="http://www.w3.org/2000/svg"')
    assert drawn.count("<polygon") == 2 and "CArec" in drawn


def test_the_picture_on_a_page_and_in_a_file_are_one_drawing() -> None:
    heard = Heard('a"<b>.wav', OURS, THEIRS, listen(OURS, THEIRS))
    part = picture.svg(heard).partition(">")[2].removesuffix("</svg>")
    assert part and part in picture.whole(heard)
    assert "<b>" not in picture.whole(heard)


def test_a_picture_of_a_call_that_was_not_recorded(surroundings: Path) -> None:
    journal(surroundings, dial("CA1"))
    with pytest.raises(InvalidRequestError, match="CA1 was not recorded"):
        run(show, "CA1", "--svg", "x.svg")
    with pytest.raises(InvalidRequestError, match="CA1 was not recorded"):
        run(play, "CA1")


def test_a_strip_is_as_wide_as_asked_and_loud_where_somebody_speaks() -> None:
    drawn = strip(OURS, 90)
    assert len(drawn) == 90
    assert drawn[:9].strip() == "" and drawn[15] != " "
    assert strip(np.zeros(100, np.int16), 10).strip() == ""
    assert len(strip(np.ones(3, np.int16), 10)) == 3
    assert strip(np.zeros(0, np.int16), 4) == "    "


def test_every_kind_of_moment_has_its_words() -> None:
    them = np.concatenate([THEIRS, speech("austen-0890", 0.2, 8.0)])
    us = np.concatenate([OURS, speech("austen-0930", 1.0, 8.0)])
    said = [moment.text for moment in moments(listen(us, them))]
    assert any(text.startswith("are interrupted, and") for text in said)
    assert any(text.startswith("silence of") for text in said)
    assert said[-1] == "end"


# --------------------------------------------------------------------------- play


@pytest.fixture
def a_player(surroundings: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine whose one player writes down what it is to play."""
    program = surroundings / "bin/aplay"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" > {surroundings}/played\ncp "$2" {surroundings}/it\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}:/bin:/usr/bin")
    monkeypatch.setattr(player, "PLAYERS", (("no-such-player",), ("aplay", "-q")))
    return program


def test_a_recording_is_played_by_the_machines_player(surroundings: Path, a_player: Path) -> None:
    path = recorded(surroundings)
    assert run(play, "CArec").stdout == f"played {path} (both)\n"
    assert (surroundings / "played").read_text() == f"-q {path}\n"


def test_a_recordings_name_is_never_an_option_of_the_player(
    surroundings: Path, a_player: Path
) -> None:
    recorded(surroundings).rename("-d.wav")
    run(play, "--", "-d.wav")
    assert (surroundings / "played").read_text() == f"-q {surroundings}/-d.wav\n"


@pytest.mark.parametrize(("side", "sound"), [("ours", OURS), ("theirs", THEIRS)])
def test_a_side_is_played_alone(
    surroundings: Path, a_player: Path, side: str, sound: wav.Samples
) -> None:
    run(play, str(recorded(surroundings)), "--side", side)
    with wave.open(str(surroundings / "it")) as played:
        assert played.getnchannels() == 1
        assert played.readframes(played.getnframes()) == sound.tobytes()
    assert not Path((surroundings / "played").read_text().split()[1]).exists()


def test_a_player_that_fails_is_named_with_its_words(surroundings: Path, a_player: Path) -> None:
    a_player.write_text("#!/bin/sh\necho 'no sound card' >&2\nexit 3\n")
    recorded(surroundings)
    with pytest.raises(player.NoPlayerError, match="aplay ended with status 3: no sound card"):
        run(play, "CArec")


def test_a_machine_without_a_player_says_what_to_install(
    surroundings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded(surroundings)
    monkeypatch.setattr(player, "PLAYERS", (("no-such-player",),))
    with pytest.raises(player.NoPlayerError, match="none of no-such-player: install"):
        run(play, "CArec")
