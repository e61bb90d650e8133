"""``trunkline report``: recordings of all kinds, a report in lines, JSON and HTML."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from trunkline.bus import wav
from trunkline.carrier_sim.wav import SPEECH_DIR
from trunkline.cli.main import cli
from trunkline.ear.levels import RATE
from trunkline.ear.listen import listen
from trunkline.gateway.recording_file import Key, RecordingFile
from trunkline.reports import recordings
from trunkline.reports.page import section
from trunkline.reports.recordings import Heard

SID = "CA" + "0123456789abcdef" * 2


def track(seconds: float, *words: tuple[float, str], rate: int = RATE) -> wav.Samples:
    sound = np.zeros(round(seconds * rate), np.int16)
    for at, name in words:
        said = wav.read(SPEECH_DIR / f"{name}.wav", rate)
        sound[round(at * rate) :][: len(said)] = said
    return sound


def recording(path: Path, rate: int = RATE) -> Path:
    """We ask at 1 s, and they answer at 8 s: ours right, as we record."""
    ours = track(12, (1.0, "austen-0920"), rate=rate)
    theirs = track(12, (8.0, "austen-0930"), rate=rate)
    wav.write(path, theirs, ours, rate=rate)
    return path


def run(*argv: object) -> Result:
    return CliRunner().invoke(cli, ["report", *map(str, argv)])


def report(*argv: object) -> dict[str, object]:
    result = run(*argv, "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, object] = json.loads(result.output)
    return found


def test_a_recording_is_reported(tmp_path: Path) -> None:
    found = report(recording(tmp_path / "call.wav"))
    assert found["seconds"] == 12.0 and found["reliable"] is True
    (answer,) = found["answers"]  # type: ignore[misc]  # a list of one
    assert 6.0 < answer["after"] < 8.0 < answer["start"] < 8.5
    assert answer["latency"] == pytest.approx(answer["start"] - answer["after"], abs=0.002)


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_every_rate_says_the_same(tmp_path: Path, rate: int) -> None:
    at_8000 = report(recording(tmp_path / "a.wav"))
    at_another = report(recording(tmp_path / "b.wav", rate))
    for one, other in zip(at_8000["answers"], at_another["answers"], strict=True):  # type: ignore[call-overload]  # lists
        assert one["latency"] == pytest.approx(other["latency"], abs=0.02)


def test_ours_may_be_left(tmp_path: Path) -> None:
    path = recording(tmp_path / "call.wav")
    assert report(path, "--ours", "left")["answers"] == []


def test_keys_that_no_sound_brings_are_named(tmp_path: Path) -> None:
    """A recording of ours tells of them. Whoever turns its sides around turns its keys around."""
    path = tmp_path / "20260101T110000-CArec.wav"
    file = RecordingFile(path, new=True)
    file.press([Key(1.25, "ours", "1"), Key(0.5, "theirs", "#")])
    file.write(0, bytes(4 * 16_000))
    file.close()
    keys = report(path)["digits"]
    assert keys == [
        {"at": 0.5, "side": "theirs", "digit": "#"},
        {"at": 1.25, "side": "ours", "digit": "1"},
    ]
    turned = report(path, "--ours", "left")["digits"]
    assert [key["side"] for key in turned] == ["ours", "theirs"]  # type: ignore[attr-defined]  # a list
    shown = CliRunner().invoke(cli, ["show", "CArec", "--recordings-dir", str(tmp_path)]).stdout
    assert re.search(r"1\.25 s +ours +key 1", shown), shown


def test_the_lines_say_first_what_is_wrong_with_the_recording(tmp_path: Path) -> None:
    wav.write(tmp_path / "a.wav", track(12), track(12, (1.0, "austen-0880")), rate=RATE)
    lines = run(tmp_path / "a.wav").output.splitlines()
    assert lines[0] == "a.wav: 12.0 s"
    assert lines[1] == "  UNRELIABLE: there is no speech on their side"
    good = run(recording(tmp_path / "b.wav")).output
    assert "UNRELIABLE" not in good
    assert re.search(r"latency +max \d\.\d\d s of 1 \(percentiles need 20\)", good)


def test_a_directory_and_a_call_by_its_sid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in (1, 2):
        recording(tmp_path / f"20260101T00000{n}-{SID}.wav")
    recording(tmp_path / "20260101T000009-CAother.wav")
    assert len(report(tmp_path)) == 3
    assert len(report(SID, "--recordings-dir", tmp_path)) == 2, "of two machines, for example"
    monkeypatch.setenv("TRUNKLINE_RECORDINGS_DIR", str(tmp_path))
    assert len(report(SID)) == 2
    assert report("CAother")["seconds"] == 12.0, "a call of one recording is one report"


def test_one_of_several_that_cannot_be_heard_is_named_and_the_others_are_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recording(tmp_path / "good.wav")
    (tmp_path / "bad.wav").write_text("words")
    (tmp_path / "gone.wav").symlink_to(tmp_path / "nowhere")  # a stack deletes old ones
    with pytest.raises(SystemExit) as ended:
        cli.main(["report", str(tmp_path), "--json"], standalone_mode=False)
    told = capsys.readouterr()
    assert ended.value.code == 1
    assert list(json.loads(told.out)) == ["good.wav"]
    assert "bad.wav is no PCM WAV file" in told.err
    assert "gone.wav: No such file or directory" in told.err


def test_several_recordings_are_reports_by_their_names_even_if_one_alone_can_be_heard(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recording(tmp_path / f"20260101T000001-{SID}.wav")
    (tmp_path / f"20260101T000002-{SID}.wav").write_text("words")
    argv = ["report", SID, "--recordings-dir", str(tmp_path), "--json"]
    with pytest.raises(SystemExit):
        cli.main(argv, standalone_mode=False)
    assert list(json.loads(capsys.readouterr().out)) == [f"20260101T000001-{SID}.wav"]


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("nobody.wav", "no file, no directory and no CallSid: `trunkline calls` lists"),
        (SID, "set TRUNKLINE_RECORDINGS_DIR"),
        ("empty", "has no recording *.wav"),
        ("mono.wav", "each side has to be on a channel of its own"),
        ("text.wav", "is no PCM WAV file"),
    ],
)
def test_what_cannot_be_reported_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRUNKLINE_BUS", f"ipc://{tmp_path}/bus")  # no stack of this user's
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.wav").write_text("words")
    wav.write(tmp_path / "mono.wav", track(1), rate=RATE)
    result = run(what)
    assert result.exit_code == 1
    assert said in str(result.exception)


def test_the_page_stands_by_itself(tmp_path: Path) -> None:
    path = recording(tmp_path / "a<b>.wav")
    run(path, "--html", tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "a&lt;b&gt;.wav" in page and "<b>" not in page
    assert "Answers, the worst first" in page
    assert page.count("data:audio/wav;base64,") == 1 and "<polygon" in page
    links = re.findall(r"(?:src|href)=\"(?!data:)[^\"]*\"|https?://[^\s\"<]+", page)
    assert links == [], "it opens without a network"


def test_a_page_gets_its_directory_or_is_refused_before_anything_is_listened_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = recording(tmp_path / "call.wav")
    assert run(path, "--html", tmp_path / "new" / "report.html").exit_code == 0
    assert (tmp_path / "new" / "report.html").exists()
    monkeypatch.setattr(recordings, "hear", lambda *_: pytest.fail("it was listened to"))
    refused = run(path, "--html", path / "report.html")
    said = f"--html {path / 'report.html'} cannot be written ({path}: File exists): name another"
    assert str(refused.exception).startswith(said)


def test_the_page_says_what_is_wrong_with_the_recording_before_anything_of_the_agent() -> None:
    ours, theirs = track(12, (1.0, "austen-0880")), track(12, (5.0, "austen-0880"))
    call = Heard("a.wav", ours, theirs, listen(ours, theirs, frames_lost=3))
    made = section(call, verdict="latency_p95 is 2.31 s, over 2 s")
    places = [made.index(part) for part in ("the line lost 3 frames", "latency_p95", "<svg")]
    assert places == sorted(places)
