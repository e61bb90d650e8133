"""The far ends, frame by frame."""

from __future__ import annotations

from pathlib import Path

import pytest

from trunkline.carrier_sim import sounds, tones, wav
from trunkline.carrier_sim.bots import (
    Busy,
    Echo,
    NoAnswer,
    Noise,
    Play,
    Record,
    Silence,
    Voicemail,
    parse_bot,
)
from trunkline.carrier_sim.far_ends import Bot, start_bot
from trunkline.carrier_sim.mulaw import SILENCE, decode, frames, is_quiet
from trunkline.ear.listen import listen

LOUD = bytes([0x90]) * 160


def run(bot: Bot, heard: list[bytes]) -> list[bytes]:
    said = []
    for frame in heard:
        said.append(bot.emit())
        bot.receive(frame)
    return said


def test_echo_after_its_delay() -> None:
    heard = [bytes([n]) * 160 for n in range(10)]
    assert run(start_bot(Echo()), heard)[1:] == heard[:9]
    assert run(start_bot(Echo(0.06)), heard)[3:] == heard[:7]


def test_record_keeps_what_it_heard_by_position() -> None:
    bot = start_bot(Record())
    run(bot, [SILENCE, LOUD, SILENCE])
    assert bot.heard == SILENCE + LOUD + SILENCE
    assert bot.said == SILENCE * 3


def test_play_after_a_while_once_or_for_ever() -> None:
    audio = b"\x01" * 320
    said = b"".join(run(start_bot(Play(audio=audio, after=0.04)), [SILENCE] * 6))
    assert said == SILENCE * 2 + audio + SILENCE * 2
    said = b"".join(run(start_bot(Play(audio=audio, loop=True)), [SILENCE] * 6))
    assert said == audio * 3


def test_play_when_the_other_side_falls_silent() -> None:
    audio = b"\x01" * 160
    bot = start_bot(Play(audio=audio, when_silent=0.04, repeat=True))
    heard = [SILENCE] * 5 + [LOUD] * 3 + [SILENCE] * 5 + [LOUD] + [SILENCE] * 4
    said = run(bot, heard)
    assert [n for n, f in enumerate(said) if f == audio] == [10, 16]


def test_play_greets_and_then_waits_its_turn() -> None:
    audio = b"\x01" * 160
    bot = start_bot(Play(audio=audio, after=0.04, greets=True, when_silent=0.04, repeat=True))
    said = run(bot, [SILENCE] * 5 + [LOUD] * 3 + [SILENCE] * 5)
    assert [n for n, f in enumerate(said) if f == audio] == [2, 10]


@pytest.mark.parametrize("heard", [[LOUD] * 8, [LOUD] + [SILENCE] * 7])
@pytest.mark.parametrize("again", [{}, {"repeat": True}, {"loop": True}])
def test_it_yields_so_long_after_the_other_side_has_begun(
    heard: list[bytes], again: dict[str, bool]
) -> None:
    bot = start_bot(Play(audio=LOUD * 20, yields=0.06, **again))
    assert run(bot, [SILENCE] * 4 + heard) == [LOUD] * 8 + [SILENCE] * 4
    assert run(bot, [SILENCE] * 9) == [SILENCE] * 9


def test_it_plays_again_once_the_other_side_that_broke_in_is_silent() -> None:
    bot = start_bot(Play(audio=LOUD * 20, greets=True, yields=0.06, when_silent=0.1, repeat=True))
    said = run(bot, [SILENCE] * 4 + [LOUD] * 8 + [SILENCE] * 30)
    first, waits, again = [LOUD] * 8, [SILENCE] * (4 + 5), [LOUD] * 20
    assert said == first + waits + again + [SILENCE] * 5, "it heard words before its recording"


def test_words_at_the_very_end_break_nothing_off() -> None:
    bot = start_bot(Play(audio=LOUD * 5, repeat=True, yields=0.4))
    said = run(bot, [SILENCE] * 4 + [LOUD] * 20)
    assert said.count(LOUD) > 10


def test_words_before_its_recording_are_not_yielded_to() -> None:
    bot = start_bot(Play(audio=LOUD * 4, after=0.06, yields=0.02))
    assert run(bot, [LOUD] * 2 + [SILENCE] * 6) == [SILENCE] * 3 + [LOUD] * 4 + [SILENCE]


@pytest.mark.parametrize(("option", "seconds"), [(",yields=0.4", 0.4), ("", None)])
def test_the_ear_measures_how_fast_it_yields(option: str, seconds: float | None) -> None:
    bot = start_bot(parse_bot(f"speech:austen-0870{option}"))
    words = frames(wav.speech("austen-0930")[:10_400])
    run(bot, [SILENCE] * 100 + words + [SILENCE] * 300)
    theirs, ours = (decode(side) for side in (bot.said, bot.heard))
    (found,) = listen(ours, theirs).yields
    assert found.seconds == (seconds if seconds is None else pytest.approx(seconds, abs=0.1))


def test_hang_up_mid_sentence() -> None:
    bot = start_bot(Play(audio=LOUD * 10, hang_up_at=0.06))
    said = run(bot, [SILENCE] * 3)
    assert said == [LOUD] * 3 and not bot.hung_up
    bot.emit()
    assert bot.hung_up


def test_hang_up_when_done_and_after() -> None:
    bot = start_bot(Play(audio=LOUD, hang_up_when_done=True))
    run(bot, [SILENCE] * 2)
    assert bot.hung_up
    bot = start_bot(Silence(hang_up_after=0.04))
    run(bot, [SILENCE])
    assert not bot.hung_up
    run(bot, [SILENCE])
    assert bot.hung_up


def test_keys_at_their_time() -> None:
    bot = start_bot(Silence(dtmf=((0.1, "4#"),)))
    pressed = []
    said = b""
    for n in range(30):
        said += bot.emit()
        pressed += [(n, key) for key in bot.take_pressed()]
    assert pressed == [(9, "4"), (19, "#")]
    assert said[5 * 160 :].startswith(tones.dtmf("4#"))


def test_noise_is_there_and_low() -> None:
    said = run(start_bot(Noise(-60.0)), [SILENCE] * 300)
    assert all(is_quiet(frame) for frame in said)
    assert said[0] != SILENCE and said[0] == said[200]


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("echo", Echo()),
        ("echo:0.2,ring=3", Echo(0.2, ring=3.0)),
        ("record", Record()),
        ("noise:-50,seed=4", Noise(-50.0, 4)),
        ("busy", Busy()),
        ("no-answer", NoAnswer()),
        ("dtmf:12#@2.5", Silence(dtmf=((2.5, "12#"),))),
        (
            "speech:austen-0880,when_silent=0.7,repeat,hang_up_at=1.5",
            Play(speech="austen-0880", when_silent=0.7, repeat=True, hang_up_at=1.5),
        ),
        ('{"kind":"silence","dtmf":[[1,"5"]]}', Silence(dtmf=((1.0, "5"),))),
    ],
)
def test_text_forms(text: str, spec: object) -> None:
    assert parse_bot(text) == spec


@pytest.mark.parametrize(
    "text",
    ["", "robot", "echo:x", "echo,colour=1", "wav:/nowhere.wav", "busy:3", "wav:", "dtmf:1x@1"],
)
def test_text_forms_that_are_wrong(text: str) -> None:
    with pytest.raises(ValueError):
        parse_bot(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("speach:austen-0880", "no bot 'speach': there are echo, wav, speech, hand-over, menu,"),
        ("robot,ring=2", "no bot 'robot': there are echo, wav, "),
        ("echo,hangup_after=3", "bot 'echo' has no option 'hangup_after': there are delay, ring, "),
        ("speech:austen-0880,when_silnt=1", "bot 'speech' has no option 'when_silnt': there are "),
        ('{"kind":"echo","hangup_after":3}', "bot 'echo' has no option 'hangup_after': there are "),
        ("no-answer,ring=2", "bot 'no-answer' has no option 'ring': it has none"),
    ],
)
def test_a_slip_in_a_text_is_told_with_what_there_is(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=f"^{reason}"):
        parse_bot(text)


def test_wav_file(tmp_path: object) -> None:
    path = f"{tmp_path}/hello.wav"
    with open(path, "wb") as f:  # noqa: PTH123  # users write a str path
        f.write(wav.write_pcm(LOUD * 2))
    assert run(start_bot(parse_bot(f"wav:{path}")), [SILENCE] * 2) == [LOUD] * 2  # type: ignore[arg-type]  # it answers


def test_a_voicemail_greets_beeps_and_records_until_the_caller_is_silent() -> None:
    bot = start_bot(Voicemail(greeting="speech:austen-0880+silence:0.02", beep=0.1, silence=1.0))
    greeting = wav.speech("austen-0880") + b"\xff" * 160 + sounds.read("beep:0.1")
    count = -(-len(greeting) // 160)
    assert b"".join(run(bot, [SILENCE] * count))[: len(greeting)] == greeting
    assert [visit.step for visit in bot.way] == ["greeting", "message"]
    run(bot, [SILENCE] * 100 + [LOUD] * 20 + [SILENCE] * 48)
    assert not bot.hung_up
    run(bot, [SILENCE] * 2)
    assert bot.hung_up


def test_a_voicemail_hangs_up_on_a_caller_who_does_not_stop() -> None:
    bot = start_bot(Voicemail(greeting="beep:0.02", beep=0.02, longest=1.0))
    run(bot, [LOUD] * 51)
    assert not bot.hung_up
    run(bot, [LOUD] * 2)
    assert bot.hung_up


def test_a_full_mailbox_hangs_up_after_the_greeting_with_no_beep() -> None:
    spec = parse_bot("voicemail:beep:0.1,full")
    assert isinstance(spec, Voicemail)
    bot = start_bot(spec)
    assert b"".join(run(bot, [SILENCE] * 5)) == sounds.read("beep:0.1")
    assert bot.hung_up


def test_a_hand_over_is_a_row_of_sounds_and_then_a_dead_line() -> None:
    spec = parse_bot("hand-over:music:0.1+ringing:0.1+other-voice:austen-0930,after=0.04")
    assert isinstance(spec, Play)
    said = b"".join(run(start_bot(spec), [SILENCE] * 300))
    row = sounds.read("music:0.1+ringing:0.1+other-voice:austen-0930")
    assert said[320 : 320 + len(row)] == row
    assert set(said[320 + len(row) :]) == {0xFF}


def test_a_greeting_of_files_is_read_here_and_not_by_the_carrier(tmp_path: Path) -> None:
    (tmp_path / "hello.wav").write_bytes(wav.write_pcm(LOUD))
    spec = parse_bot("voicemail:wav:hello.wav", directory=tmp_path)
    assert isinstance(spec, Voicemail) and spec.audio == LOUD
    assert parse_bot("hand-over:wav:hello.wav", directory=tmp_path) == Play(audio=LOUD)
    for text in ("voicemail:wav:hello.wav", "hand-over:wav:hello.wav", "wav:hello.wav"):
        with pytest.raises(ValueError, match="no file is opened here"):
            parse_bot(text, files=False)
