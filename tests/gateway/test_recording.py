"""Recordings: both directions on one time, in files that are whole at every moment."""

from __future__ import annotations

import stat
import wave
from pathlib import Path

import pytest

from trunkline.bus.errors import SettingsError
from trunkline.gateway.recording import Recorder, Stereo, pcm16

SILENCE = 0xFF


def sides(mulaw: bytes) -> tuple[bytes, bytes]:
    return mulaw[0::2], mulaw[1::2]


def test_what_we_said_is_played_as_the_far_end_goes_on_speaking() -> None:
    stereo = Stereo()
    stereo.said(b"\x01" * 240)
    stereo.heard(0, b"\x02" * 160)
    stereo.heard(160, b"\x03" * 160)
    left, right = sides(stereo.take())
    assert left == b"\x02" * 160 + b"\x03" * 160
    assert right == b"\x01" * 240 + bytes([SILENCE]) * 80
    assert stereo.take() == b""


def test_a_clear_is_heard_in_the_recording() -> None:
    stereo = Stereo()
    stereo.said(b"\x01" * 480)
    stereo.heard(0, b"\x02" * 160)
    stereo.cleared()
    stereo.said(b"\x04" * 160)
    stereo.heard(160, b"\x02" * 160)
    _, right = sides(stereo.take())
    assert right == b"\x01" * 160 + b"\x04" * 160


def test_a_hole_of_the_carrier_is_silence_on_its_side_and_ours_goes_on() -> None:
    stereo = Stereo()
    stereo.heard(800, b"\x02" * 160)
    stereo.said(b"\x01" * 320)
    stereo.heard(1120, b"\x03" * 160)
    left, right = sides(stereo.take())
    assert left == b"\x02" * 160 + bytes([SILENCE]) * 160 + b"\x03" * 160
    assert right == bytes([SILENCE]) * 160 + b"\x01" * 320


def test_a_frame_that_comes_again_is_not_written_twice() -> None:
    stereo = Stereo()
    stereo.heard(0, b"\x02" * 160)
    stereo.heard(0, b"\x02" * 160)
    stereo.heard(80, b"\x02" * 80 + b"\x03" * 80)
    left, _ = sides(stereo.take())
    assert left == b"\x02" * 160 + b"\x03" * 80


def test_a_position_that_cannot_be_is_not_filled() -> None:
    stereo = Stereo()
    stereo.heard(0, b"\x02" * 160)
    stereo.heard(10**12, b"\x03" * 160)
    assert len(stereo.take()) == 2 * 320


def test_mu_law_is_decoded_as_g711_says() -> None:
    """Corner values of ITU-T G.711, table 2a: the largest, the smallest, both zeros."""
    decoded = pcm16(bytes([0x00, 0x80, 0xFF, 0x7F, 0xEF]))
    values = [int.from_bytes(decoded[i : i + 2], "little", signed=True) for i in range(0, 10, 2)]
    assert values == [-32124, 32124, 0, 0, 132]


def test_files_are_readable_before_the_end_and_for_the_owner_alone(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "calls")
    name = recorder.name("CA1/../x", 2)
    assert "/" not in name and name.endswith("-CA1____x-2.wav")
    recorder.write(name, bytes([0x80, 0xFF]) * 800)
    recorder.write("other.wav", bytes([0xFF, 0x80]) * 80)
    recorder.end(name)
    recorder.close()  # without an end of the other
    with wave.open(str(tmp_path / "calls" / name)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (2, 2, 8000)
        assert file.readframes(900) == (b"\x7c\x7d" + b"\0\0") * 800
    with wave.open(str(tmp_path / "calls" / "other.wav")) as file:
        assert file.getnframes() == 80
    assert stat.S_IMODE((tmp_path / "calls" / name).stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "calls").stat().st_mode) == 0o700


def test_a_disk_that_fails_ends_that_recording_alone(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    (tmp_path / "taken.wav").write_bytes(b"somebody's")
    recorder.write("taken.wav", b"\xff\xff")
    recorder.write("free.wav", b"\xff\xff")
    recorder.close()
    assert (tmp_path / "taken.wav").read_bytes() == b"somebody's"
    with wave.open(str(tmp_path / "free.wav")) as file:
        assert file.getnframes() == 1


def test_a_directory_that_cannot_be_made_is_a_wrong_setting(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="TRUNKLINE_RECORDINGS_DIR"):
        Recorder(tmp_path / "file" / "calls")
