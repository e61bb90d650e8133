"""Recordings: both directions on one time, in one file of a call that is whole at every moment."""

from __future__ import annotations

import errno
import logging
import os
import stat
import threading
import wave
from array import array
from pathlib import Path

import pytest

from trunkline.bus.errors import SettingsError
from trunkline.gateway import recording
from trunkline.gateway.recording import Recorder, Stereo, Track, listened, pcm16, place_of
from trunkline.gateway.recording_file import merged

SILENCE = 0xFF
#: mu-law of some sound, and the same as PCM16
LOUD, LOUDER = 0xEF, 0x80
LINEAR = {LOUD: 132, LOUDER: 32124, SILENCE: 0}


def sides(mulaw: bytes) -> tuple[bytes, bytes]:
    return mulaw[0::2], mulaw[1::2]


def test_what_we_said_is_played_as_the_far_end_goes_on_speaking() -> None:
    stereo = Stereo()
    stereo.said(b"\x01" * 240)
    stereo.heard(0, b"\x02" * 160)
    stereo.heard(160, b"\x03" * 160)
    left, right = sides(stereo.take()[1])
    assert left == b"\x02" * 160 + b"\x03" * 160
    assert right == b"\x01" * 240 + bytes([SILENCE]) * 80
    assert stereo.take() == (320, b"")


def test_a_clear_is_heard_in_the_recording() -> None:
    stereo = Stereo()
    stereo.said(b"\x01" * 480)
    stereo.heard(0, b"\x02" * 160)
    stereo.cleared()
    stereo.said(b"\x04" * 160)
    stereo.heard(160, b"\x02" * 160)
    _, right = sides(stereo.take()[1])
    assert right == b"\x01" * 160 + b"\x04" * 160


def test_a_hole_of_the_carrier_is_silence_on_its_side_and_ours_goes_on() -> None:
    stereo = Stereo()
    stereo.heard(800, b"\x02" * 160)
    stereo.said(b"\x01" * 320)
    stereo.heard(1120, b"\x03" * 160)
    left, right = sides(stereo.take()[1])
    assert left == b"\x02" * 160 + bytes([SILENCE]) * 160 + b"\x03" * 160
    assert right == bytes([SILENCE]) * 160 + b"\x01" * 320


def test_a_frame_that_comes_again_is_not_written_twice() -> None:
    stereo = Stereo()
    stereo.heard(0, b"\x02" * 160)
    stereo.heard(0, b"\x02" * 160)
    stereo.heard(80, b"\x02" * 80 + b"\x03" * 80)
    left, _ = sides(stereo.take()[1])
    assert left == b"\x02" * 160 + b"\x03" * 80


def test_a_position_that_cannot_be_is_not_filled() -> None:
    stereo = Stereo()
    stereo.heard(0, b"\x02" * 160)
    stereo.heard(10**12, b"\x03" * 160)
    assert len(stereo.take()[1]) == 2 * 320


def test_mu_law_is_decoded_as_g711_says() -> None:
    """Corner values of ITU-T G.711, table 2a: the largest, the smallest, both zeros."""
    decoded = pcm16(bytes([0x00, 0x80, 0xFF, 0x7F, 0xEF]))
    values = [int.from_bytes(decoded[i : i + 2], "little", signed=True) for i in range(0, 10, 2)]
    assert values == [-32124, 32124, 0, 0, 132]


def test_a_stream_has_its_place_in_the_call_on_a_whole_frame() -> None:
    assert [place_of(age) for age in (0.0, -0.1, 0.009, 0.011, 2.5)] == [0, 0, 0, 160, 20_000]
    assert place_of(2.5, earlier=1_600) == 18_400
    stereo = Stereo(place_of(2.5))
    stereo.heard(800, b"\x02" * 160)
    assert stereo.take()[0] == 20_000
    stereo.heard(960, b"\x02" * 160)
    assert stereo.take()[0] == 20_160


# --------------------------------------------------------------------------- files


def both(left: int, right: int, frames: int) -> bytes:
    """Interleaved mu-law of so many frames."""
    return bytes([left, right]) * (160 * frames)


def begin(recorder: Recorder, ordinal: int = 1, age: float = 0.0, sid: str = "CA1") -> Track:
    return recorder.begin(sid, ordinal, first=ordinal == 1, age=age)


def heard(path: Path) -> tuple[array[int], array[int]]:
    """Both channels of a recording."""
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (2, 2, 8000)
        samples = array("h", file.readframes(file.getnframes()))
    return samples[0::2], samples[1::2]


def frames(channel: array[int]) -> list[int]:
    """The first sample of each frame; a frame is all of one kind here."""
    for at in range(0, len(channel), 160):
        assert len(set(channel[at : at + 160])) == 1
    return channel[::160].tolist()


def test_a_file_is_readable_before_its_end_and_for_the_owner_alone(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "calls")
    ended, open_still = begin(recorder, sid="CA1/../x"), begin(recorder, sid="CA2")
    recorder.write(ended, 0, both(LOUDER, SILENCE, 5))
    recorder.write(open_still, 0, both(SILENCE, LOUD, 1))
    recorder.end(ended)
    recorder.close()
    one, other = sorted((tmp_path / "calls").iterdir(), key=lambda path: path.name[16:])
    assert one.name.endswith("-CA1____x.wav") and other.name.endswith("-CA2.wav")
    left, right = heard(one)
    assert (frames(left), frames(right)) == ([32124] * 5, [0] * 5)
    assert frames(heard(other)[1]) == [132]
    assert stat.S_IMODE(one.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "calls").stat().st_mode) == 0o700


def test_two_gateways_write_a_call_into_one_file_with_silence_between_its_streams(
    tmp_path: Path,
) -> None:
    lost, other = Recorder(tmp_path), Recorder(tmp_path)
    first = begin(lost)
    lost.write(first, 0, both(LOUD, SILENCE, 3))
    lost.close()  # the gateway is gone, and nobody has said that the stream is over
    second = begin(other, 2, age=0.1)
    other.write(second, place_of(0.1), both(LOUDER, LOUD, 2))
    other.end(second)
    other.close()
    (path,) = tmp_path.iterdir()
    left, right = heard(path)
    assert frames(left) == [132] * 3 + [0] * 2 + [32124] * 2
    assert frames(right) == [0] * 5 + [132] * 2


def test_a_stream_that_listens_only_silences_nothing(tmp_path: Path) -> None:
    """Digits by REST: for a while two streams bring the far end, and the late end of the first one
    has words of ours."""
    recorder = Recorder(tmp_path)
    talks, listens = begin(recorder), begin(recorder, 2, age=0.04)
    recorder.write(talks, 0, both(LOUD, LOUD, 3))
    recorder.write(listens, 320, both(LOUDER, SILENCE, 4))
    recorder.write(talks, 480, both(LOUD, LOUD, 2))
    recorder.close()
    (path,) = tmp_path.iterdir()
    left, right = heard(path)
    assert frames(left) == [132] * 3 + [32124] * 3, "the first to write a frame wins"
    assert frames(right) == [132] * 5 + [0]


def test_both_tracks_of_a_call_that_is_listened_to_share_one_file(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    name = listened("CA1", "0123456789abcdef")
    inbound = Stereo(place_of(0.0), begins=0, ours=True)
    outbound = Stereo(place_of(0.0), begins=0)
    tracks = [recorder.begin(name, 1, first=first, age=0.0) for first in (True, False)]
    # The outbound one begins 20 ms later, by the stream's clock.
    inbound.heard(0, bytes([LOUD]) * 320)
    outbound.heard(160, bytes([LOUDER]) * 160)
    for track, sound in zip(tracks, (inbound, outbound), strict=True):
        recorder.write(track, *sound.take())
        recorder.end(track)
    recorder.close()
    (path,) = tmp_path.glob("*.wav")
    assert path.name.endswith("-CA1_listened_01234567.wav")
    left, right = heard(path)
    assert list(left) == [0] * 160 + [LINEAR[LOUDER]] * 160
    assert list(right) == [LINEAR[LOUD]] * 320


def test_what_is_no_silence_stays() -> None:
    there = array("h", [1, 0] * 160 + [0, 2] * 100).tobytes()
    new = array("h", [5, 6] * 400).tobytes()
    found = array("h", merged(there, new))
    assert found[0::2].tolist() == [1] * 160 + [5] * 240
    assert found[1::2].tolist() == [6] * 160 + [2] * 100 + [6] * 140


def test_a_block_that_was_dropped_is_a_hole_and_moves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(recording, "_WAITING", 2)
    recorder = Recorder(tmp_path)
    track = begin(recorder)
    recorder.close()  # nothing is taken any more: the disk does not keep up
    for at in range(4):
        recorder.write(track, at * 160, both(LOUD, LOUD, 1))
    assert recorder.dropped == 2
    assert len([r for r in caplog.records if "does not keep up" in r.message]) == 1
    later = Recorder(tmp_path)
    later.write(Track("CA1", 2, False, track.began), 4 * 160, both(LOUD, LOUD, 1))
    later.close()
    (path,) = tmp_path.iterdir()
    assert frames(heard(path)[0]) == [0] * 4 + [132]


def test_the_end_of_a_stream_is_taken_however_much_waits_for_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the file of each such stream would stay open for as long as the process lives."""
    monkeypatch.setattr(recording, "_WAITING", 2)
    slow, goes_on, closed = threading.Event(), threading.Event(), threading.Event()
    write, close = recording.RecordingFile.write, recording.RecordingFile.close

    def write_late(file: recording.RecordingFile, at: int, pcm: bytes) -> None:
        slow.set()
        goes_on.wait(10)
        write(file, at, pcm)

    def told(file: recording.RecordingFile) -> None:
        close(file)
        closed.set()

    monkeypatch.setattr(recording.RecordingFile, "write", write_late)
    monkeypatch.setattr(recording.RecordingFile, "close", told)
    recorder = Recorder(tmp_path)
    track = begin(recorder)
    recorder.write(track, 0, both(LOUD, LOUD, 1))
    assert slow.wait(10)
    for at in range(1, 4):
        recorder.write(track, at * 160, both(LOUD, LOUD, 1))
    recorder.end(track)
    goes_on.set()
    assert closed.wait(5)
    assert recorder.dropped == 1
    assert not recorder._files
    recorder.close()


def test_a_header_that_a_death_left_behind_is_mended(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    begin(recorder)
    recorder.close()
    (path,) = tmp_path.iterdir()
    with path.open("ab") as file:
        file.write(b"\1" * (4 * 160 + 3))  # it died after the sound, in the middle of a sample
    assert len(heard(path)[0]) == 0
    recorder = Recorder(tmp_path)
    begin(recorder, 2, age=1.0)
    recorder.close()
    assert len(heard(path)[0]) == 160


def test_a_call_of_the_same_sid_that_begins_again_has_a_file_of_its_own(tmp_path: Path) -> None:
    """A stand-in carrier with the same seed gives the same CallSids."""
    (tmp_path / "20200101T000000-CA1.wav").write_bytes(b"an earlier one")
    recorder = Recorder(tmp_path)
    begin(recorder)
    late = begin(recorder, 2, age=0.02)
    recorder.write(late, 160, both(LOUD, LOUD, 1))
    recorder.close()
    earlier, path = sorted(tmp_path.iterdir())
    assert earlier.read_bytes() == b"an earlier one"
    assert frames(heard(path)[0]) == [0, 132]


def test_a_disk_that_fails_is_told_once_and_costs_its_blocks_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    full = True
    pwrite = os.pwrite

    def fails(descriptor: int, data: bytes, at: int) -> int:
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return pwrite(descriptor, data, at)

    monkeypatch.setattr(os, "pwrite", fails)
    recorder = Recorder(tmp_path)
    tracks = [begin(recorder, sid=f"CA{n}") for n in range(3)]
    while recorder.failed < 3:
        pass
    assert list(tmp_path.iterdir()) == []
    full = False
    for track in tracks:
        recorder.write(track, 320, both(LOUD, LOUD, 1))
    recorder.close()
    assert len(caplog.records) == 1 and caplog.records[0].levelno == logging.ERROR
    assert "No space left" in caplog.text
    for path in tmp_path.iterdir():
        assert frames(heard(path)[0]) == [0, 0, 132]


def test_a_directory_that_cannot_be_made_is_a_wrong_setting(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="TRUNKLINE_RECORDINGS_DIR"):
        Recorder(tmp_path / "file" / "calls")
