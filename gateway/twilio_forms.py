"""How Twilio writes SIDs, numbers and statuses, and which fields a webhook of a call has. No I/O.

A form's signature covers its names and values, sorted, one behind the other, with nothing between
them. So whoever has captured one signed request can cut the same text elsewhere, and the signature
still holds::

    CallSid=CA5e…  CallStatus=ringing    as Twilio sent it
    CallSid=CA5e…CallStatusringing       the same text, and a CallSid that nobody has seen

Three rules leave one way to cut what decides whose webhook it is:

1. Each field of :data:`REQUIRED` is there, once, and in Twilio's form. A callback that says who has
   answered has those of :data:`ANSWERED` instead.
2. A name has only letters, digits and ``_.-``.
3. No other field holds the text of an AccountSid, CallSid, CallStatus or AnsweredBy field: neither
   in its name, nor in its value, nor where the two meet. So the real field cannot be hidden within
   another one, to make room for a second one that is cut out of another text, such as that of
   ``ParentCallSid``. Fields such as that one are taken: their names are letters alone, or those of
   a header of SIP, and end like one of the four. No real field can be hidden in such a name. In the
   sorted text AccountSid is the first of all, CallSid follows the digits of the API's version, and
   AnsweredBy and CallStatus follow a SID, whose 32 digits its own rule holds together.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from .signature import Form

_SID: Final = re.compile(r"(AC|CA|MZ)[0-9a-fA-F]{32}\Z")
#: A phone number, whole or national, or a short code; ``sip:…``, ``client:…`` and other addresses;
#: a word for a caller who is withheld (``anonymous``); or nothing. Carriers write callers in all of
#: these ways (docs/beliefs.md, habit ``caller-id``).
_PARTY: Final = re.compile(
    r"\+?[0-9*#]{1,32}\Z"
    r"|[A-Za-z]{2,12}:\S{1,500}\Z"
    r"|[A-Z]?[a-z]+([ _-][A-Z]?[a-z]+)*\Z|[A-Z][A-Z _-]*\Z"
    r"|\Z"
)
_LONGEST_PARTY: Final = 512
#: voice/twiml and voice/api/call-resource in Twilio's documents.
_STATUSES: Final = frozenset(
    [
        *("queued", "initiated", "ringing", "answered", "in-progress"),
        *("completed", "busy", "failed", "no-answer", "canceled"),
    ]
)
#: Who has answered, as the detection of answering machines tells it (package twilio, call:
#: machine_detection; voice/answering-machine-detection).
_ANSWERED_BY: Final = (
    *("human", "fax", "unknown"),
    *("machine_start", "machine_end_beep", "machine_end_silence", "machine_end_other"),
)
_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,256}\Z")
#: The name of a field that is like one of the four, such as ``ParentCallSid``, or a header of SIP
#: that a caller has sent, such as ``SipHeader_X-CallSid`` (voice/api/sip-twiml).
_LIKE: Final = re.compile(
    r"(?:[A-Za-z]+?|SipHeader_.*?)(AccountSid|CallSid|CallStatus|AnsweredBy)\Z"
)
#: The beginning of the text of one of the four fields.
_SWALLOWED: Final = re.compile(
    f"AccountSidAC|CallSidCA|CallStatus(?:{'|'.join(_STATUSES)})"
    f"|AnsweredBy(?:{'|'.join(_ANSWERED_BY)})"
)


def is_sid(kind: str, text: str) -> bool:
    """``text`` is a SID of this kind: two letters, then 32 hex digits."""
    return text.startswith(kind) and _SID.match(text) is not None


def is_party(text: str) -> bool:
    """``text`` is a caller or a callee as a carrier may write it."""
    return len(text) <= _LONGEST_PARTY and text.isprintable() and _PARTY.match(text) is not None


#: The fields that every voice webhook and status callback has (voice/twiml), and their forms.
REQUIRED: Final[dict[str, Callable[[str], bool]]] = {
    "AccountSid": lambda text: is_sid("AC", text),
    "CallSid": lambda text: is_sid("CA", text),
    "CallStatus": lambda text: text in _STATUSES,
    "From": is_party,
    "To": is_party,
}


#: The fields of the callback by which the detection of answering machines ends. It has no
#: CallStatus, and names neither side.
ANSWERED: Final[dict[str, Callable[[str], bool]]] = {
    "AccountSid": REQUIRED["AccountSid"],
    "CallSid": REQUIRED["CallSid"],
    "AnsweredBy": lambda text: text in _ANSWERED_BY,
}
_FORMS: Final = REQUIRED | ANSWERED


def fault(form: Form, account: str | None, *, of_voice: bool = False) -> str | None:
    """Why this is no form of Twilio's for ``account`` (None: the account is not known yet). None:
    it is one. ``of_voice``: it came as a voice webhook, and not as a callback."""
    answered = not of_voice and form.getlist("AnsweredBy") and not form.getlist("CallStatus")
    for name, is_right in (ANSWERED if answered else REQUIRED).items():
        values = form.getlist(name)
        if len(values) != 1:
            return f"{name} is given {len(values)} times"
        if not is_right(values[0]):
            return f"{name} is not written as Twilio writes it"
    if account is not None and form.getlist("AccountSid") != [account]:
        return "AccountSid is another account's"
    for name in form:
        if not _NAME.match(name):
            return "a field has a name that Twilio gives to none"
        if any(_holds_another(name, value) for value in form.getlist(name)):
            return "a field holds the text of another one"
    return None


def _holds_another(name: str, value: str) -> bool:
    """This field holds the text of one of the four fields, and is neither one of them itself nor
    like one of them."""
    if name in _FORMS:
        return _SWALLOWED.search(value) is not None
    if _SWALLOWED.search(name + value) is None:
        return False
    like = _LIKE.match(name)
    return like is None or _SWALLOWED.search(name) is not None or not _FORMS[like[1]](value)
