"""Draws docs/menu.svg: the menu of docs/far-end.md, and the way of a call that pressed 1, then 2.

Run by ``make docs``. The call is a bot on its own, with no carrier around it.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from trunkline.carrier_sim.bots import ByMenu, parse_bot
from trunkline.carrier_sim.far_ends import start_bot
from trunkline.carrier_sim.menu import picture
from trunkline.carrier_sim.mulaw import SILENCE

PAGE = Path(__file__).with_name("far-end.md")
PICTURE = Path(__file__).with_name("menu.svg")
#: Seconds after the answer -> the key that is pressed then.
KEYS = {1.5: "1", 9.0: "2"}


def main() -> None:
    """Hold the call, and draw it."""
    found = re.search(r"^```toml\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert found is not None
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "bank.toml"
        path.write_text(found[1])
        spec = parse_bot(f"menu:{path}")
    assert isinstance(spec, ByMenu)
    bot = start_bot(spec)
    keys = {round(at / 0.02): key for at, key in KEYS.items()}
    for n in range(round(20 / 0.02)):
        bot.emit()
        bot.receive(SILENCE)
        if n in keys:
            bot.hear_digit(keys[n], in_sound=False)
    assert bot.menu is not None
    PICTURE.write_text(picture.svg(bot.menu, bot.way))


if __name__ == "__main__":
    main()
