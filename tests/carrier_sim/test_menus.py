"""Menus from their file to the line: what the file may say, the bot that has one, the picture."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import msgspec
import pytest

from trunkline.carrier_sim import sounds, wav
from trunkline.carrier_sim.bots import ByMenu, bot_from, carried, parse_bot
from trunkline.carrier_sim.far_ends import Bot, start_bot
from trunkline.carrier_sim.menu import picture
from trunkline.carrier_sim.menu.steps import Visit
from trunkline.carrier_sim.mulaw import SILENCE, is_quiet

BANK = """
[main]
say = ["beep:0.1", "wav:choose.wav"]
digits = { 1 = "balance", 2 = "clerk", "*....#" = "balance" }
timeout = 1
repeats = 1
on_timeout = "lost"

[balance]
say = "speech:austen-0930"
then = "main"

[clerk]
say = ["music:0.4", "ringing:0.2"]
bot = "echo:0.06"

[lost]
end = "dead"
"""
LOUD = bytes([0x90]) * 160


@pytest.fixture
def bank(tmp_path: Path) -> Path:
    (tmp_path / "choose.wav").write_bytes(wav.write_pcm(LOUD * 10))
    (tmp_path / "bank.toml").write_text(BANK)
    return tmp_path / "bank.toml"


def spec_of(path: Path) -> ByMenu:
    spec = parse_bot(f"menu:{path}")
    assert isinstance(spec, ByMenu)
    return spec


def run(bot: Bot, seconds: float, heard: bytes = SILENCE) -> list[bytes]:
    said = []
    for _ in range(round(seconds / 0.02)):
        said.append(bot.emit())
        bot.receive(heard)
    return said


def press(bot: Bot, digits: str) -> None:
    for digit in digits:
        bot.hear_digit(digit, in_sound=False)


def test_a_call_goes_through_a_menu(bank: Path) -> None:
    bot = start_bot(spec_of(bank))
    prompt = run(bot, 0.3)
    assert not any(is_quiet(frame) for frame in prompt)
    assert run(bot, 0.1) == [SILENCE] * 5, "it waits"
    press(bot, "2")
    assert b"".join(run(bot, 0.4)) == sounds.read("music:0.4")
    assert not is_quiet(b"".join(run(bot, 0.2)))
    assert run(bot, 0.2, LOUD)[3:] == [LOUD] * 7, "the echo has the call"
    assert [(visit.step, visit.how) for visit in bot.way] == [("main", ""), ("clerk", "2")]
    assert bot.digits == "2" and len(bot.said) == len(bot.heard)


def test_a_key_cuts_the_prompt_off_and_an_account_is_a_row_of_keys(bank: Path) -> None:
    bot = start_bot(spec_of(bank))
    run(bot, 0.1)
    press(bot, "*1234#")
    assert b"".join(run(bot, 0.2)) == wav.speech("austen-0930")[:1600]
    assert bot.way[-1] == Visit(0.1, "balance", "*1234#")


def test_nobody_chooses(bank: Path) -> None:
    bot = start_bot(spec_of(bank))
    run(bot, 2 * 1.3 + 0.1)
    assert [visit.how for visit in bot.way] == ["", "again", "no key"]
    assert run(bot, 5.0) == [SILENCE] * 250 and not bot.hung_up, "a dead line"


def test_a_bot_that_rings_first_takes_a_call_over_after_that(bank: Path) -> None:
    bank.write_text('[main]\nsay = "beep:0.02"\nbot = "hand-over:beep:0.1,ring=0.1"\n')
    bot = start_bot(spec_of(bank))
    said = run(bot, 0.24)
    ringing, beep = sounds.read("ringing:0.1"), sounds.read("beep:0.1")
    assert b"".join(said[1:6]) == ringing and b"".join(said[6:11]) == beep


def test_a_menu_that_is_left_hangs_up(bank: Path) -> None:
    bank.write_text('[main]\nsay = "beep:0.04"\n')
    bot = start_bot(spec_of(bank))
    run(bot, 0.02)
    assert not bot.hung_up
    run(bot, 0.02)
    assert bot.hung_up


def test_a_menu_travels_as_json_without_a_path(bank: Path) -> None:
    spec = spec_of(bank)
    assert spec.menu is not None and spec.menu.start == "main"
    again = bot_from(msgspec.json.decode(msgspec.json.encode(carried(spec))), files=False)
    assert msgspec.json.encode(again) == msgspec.json.encode(spec)
    with pytest.raises(ValueError, match="no file is opened here"):
        parse_bot(f"menu:{bank}", files=False)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[main", "this is no TOML: "),
        ("", "there is no step; write for instance [main] and say = …"),
        ("title = 'x'", "title: a step is a table: write [title], and its fields below"),
        ("[a]\n", "a: nothing happens at this step: it needs say, digits, listen or bot"),
        ("start = 'b'\n[a]\nsay = 'beep:1'", "start: 'b' is no step of this file; there are a"),
        ("[a]\nsaay = 'x'", "a.saay: there is no such field; there are say, digits, "),
        ("[a]\nsay = 'hello'", "a.say: 'hello' is no sound: it has to begin with one of speech, "),
        ("[a]\nsay = 'wav:no.wav'", "a.say: there is no file "),
        ("[a]\nsay = 'speech:x'", "a.say: no recording 'x': there are austen-0870.wav, "),
        (
            "[a]\nsay = 'speech'",
            "a.say: speech: which recording? Write for instance speech:austen-",
        ),
        ("[a]\nsay = 'music:soon'", "a.say: music:soon: seconds from 0.02 to 600 are wanted"),
        ("[a]\nsay = 'music:nan'", "a.say: music:nan: seconds from 0.02 to 600 are wanted"),
        ("[a]\nsay = 3", "a.say: write one sound or a list of them: "),
        ("[a]\ndigits = 'b'", "a.digits: write { 1 = "),
        ("[a]\ndigits = { x = 'a' }", "a.digits.x: these are no keys; there are 0-9, *, #, A-D, "),
        ("[a]\ndigits = { 1 = 'b' }", "a.digits.1: 'b' is no step of this file; there are a"),
        ("[a]\ndigits = { 1 = 2 }", "a.digits.1: 2 is no step of this file; there are a"),
        ("[a]\nsay='beep:1'\nthen = 'b'", "a.then: 'b' is no step of this file; there are a"),
        ("[a]\ntimeout = -1", "a.timeout: -1 is no number from 0 to 600"),
        ("[a]\ntimeout = nan", "a.timeout: nan is no number from 0 to 600"),
        ("[a]\ntimeout = true", "a.timeout: True is no number from 0 to 600"),
        ("[a]\nlisten = 1\nrepeats = 1.5", "a.repeats: Expected `int`, got `float`"),
        ("[a]\nlisten = 1\nbarge_in = 'no'", "a.barge_in: Expected `bool`, got `str`"),
        ("[a]\nlisten = 1\nend = 'x'", "a.end: Invalid enum value 'x'"),
        ("[a]\nbot = 'robot'", "a.bot: no bot 'robot': there are echo, wav, speech, "),
        ("[a]\nbot = 'busy'", "a.bot: 'busy' does not answer; say it: say = "),
        ("[a]\nbot = 'menu:m.toml'", "a.bot: "),
    ],
)
def test_an_error_names_file_and_key_in_one_line(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "m.toml"
    path.write_text(text)
    with pytest.raises(ValueError) as caught:
        parse_bot(f"menu:{path}")
    message = str(caught.value)
    assert message.startswith(f"{path}: {told}"), message
    assert "\n" not in message


def test_a_menu_does_not_pass_a_call_on_to_itself(tmp_path: Path) -> None:
    (tmp_path / "m.toml").write_text('[a]\nsay = "beep:1"\nbot = "menu:m.toml"\n')
    with pytest.raises(ValueError, match="another menu: add its steps to this one"):
        parse_bot(f"menu:{tmp_path / 'm.toml'}")


def test_a_step_may_be_called_start(tmp_path: Path) -> None:
    (tmp_path / "m.toml").write_text('[start]\nsay = "beep:1"\n')
    menu = spec_of(tmp_path / "m.toml").menu
    assert menu is not None and menu.start == "start"


def test_the_picture_has_every_step_every_key_and_the_way(bank: Path) -> None:
    bot = start_bot(spec_of(bank))
    run(bot, 0.3)
    press(bot, "2")
    assert bot.menu is not None
    drawn = picture.svg(bot.menu, bot.way)
    root = ET.fromstring(drawn)
    texts = [str(each.text) for each in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"main", "balance", "clerk", "lost", "0.3 s"} <= set(texts)
    assert "1, *....#" in texts and "no key" in texts
    taken = [p for p in root.iter("{http://www.w3.org/2000/svg}path") if "taken" in str(p.attrib)]
    assert len(taken) == 1, "one arrow: main -> clerk"
    assert "url(#taken)" not in picture.svg(bot.menu)


def test_the_text_has_every_step_and_says_where_nothing_leads(bank: Path) -> None:
    menu = spec_of(bank).menu
    assert menu is not None
    said = list(picture.lines(menu, [Visit(0.0, "main", ""), Visit(2.5, "clerk", "2")]))
    assert said[0] == "bank.toml: 4 steps, begins at main"
    assert "    2 -> clerk" in said and "    2.50 s  clerk  (2)" in said
    bank.write_text('[a]\nsay = "beep:1"\n[b]\nsay = "beep:1"\n')
    menu = spec_of(bank).menu
    assert menu is not None
    assert list(picture.lines(menu))[-1] == "  no way leads to b"
    ET.fromstring(picture.svg(menu))


def test_the_pages_transfer_is_heard_as_it_is_written(tmp_path: Path) -> None:
    """The clerk listens to the question, passes the call on with music, and somebody else answers
    after three seconds of ringing."""
    page = (Path(__file__).parents[2] / "docs" / "far-end.md").read_text()
    _, transfer = re.findall(r"^```toml\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    (tmp_path / "clerk.toml").write_text(transfer)
    bot = start_bot(spec_of(tmp_path / "clerk.toml"))
    run(bot, len(sounds.read("speech:austen-0880")) / 8000)
    run(bot, 1.0, LOUD)
    run(bot, 0.7)
    row = "speech:austen-0930+music:4+silence:0.5"
    told = b"".join(run(bot, len(sounds.read(row)) / 8000))
    assert told[:32_000] == sounds.read(row)[:32_000]
    assert [visit.step for visit in bot.way] == ["clerk", "transfer"]
    ringing = b"".join(run(bot, 3.0))
    assert sounds.read("ringing:3")[160:-480] in ringing + b"".join(run(bot, 0.1))
    other = sounds.read("other-voice:austen-0890")
    assert other[2000:8000] in b"".join(run(bot, 3.0))


def test_names_of_steps_are_text_in_the_picture(tmp_path: Path) -> None:
    (tmp_path / "m.toml").write_text('["<a & b>"]\nsay = "beep:1"\n')
    menu = spec_of(tmp_path / "m.toml").menu
    assert menu is not None
    assert "&lt;a &amp; b&gt;" in picture.svg(menu)
    ET.fromstring(picture.svg(menu))
