"""What becomes of a caller on its way through other carriers: the forms of the habit "caller-id".

Twilio's support says so: "caller ID preservation cannot be guaranteed to all destinations. Some
countries require caller ID mutation to ensure delivery, and some countries append or prepend
additional digits" (International Voice Quirks); withheld numbers come as words, or as the digits
that spell them on a keypad (Why am I getting calls from these strange numbers).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

#: A gateway's own number, in place of the caller's.
GATEWAY: Final = "+811045000"

FORMS: Final[dict[str, Callable[[str], str]]] = {
    "kept": lambda caller: caller,
    "country-code-cut": lambda caller: "+" + caller[2:],
    "national": lambda caller: caller[2:],
    "digits-added": lambda caller: f"+010{caller[1:]}",
    "gateway-number": lambda caller: GATEWAY,
    "anonymous": lambda caller: "anonymous",
    "capital-anonymous": lambda caller: "Anonymous",
    "spelled-anonymous": lambda caller: "+266696687",
    "restricted": lambda caller: "RESTRICTED",
    "empty": lambda caller: "",
}
