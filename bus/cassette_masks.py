"""What a cassette keeps of a call's wire traffic, and what it must not tell. No I/O.

Rules:

1. A number stands as ``+1555`` and seven digits. They are the same in every row of every cassette
   of an account. 555 is no area code in use, so nobody is called by accident. The digits come from
   a hash that is keyed by the account's auth token. So whoever has the cassette alone cannot try
   all numbers until one fits.
2. Of a form only the fields of :data:`PLAIN` keep their values, and those of :data:`PARTIES` have
   theirs masked. Any other value is ``***``, because a field that nobody foresaw may be a secret.
3. Headers are left out: signatures, Authorization and cookies stand there.
4. In texts (TwiML, errors) numbers are masked, and URLs lose their user-info and the values of
   their query. Parameters of streams lose theirs, because one of them is the token that lets a
   stream in.
5. Sound is kept. On request it is left out, and the length and the level of each 20 ms stand in its
   place, so that it is still known who spoke when.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import math
import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from .redact import is_withheld
from .sound import FRAME, LINEAR

#: In place of a secret.
HIDDEN: Final = "***"
#: In place of the account's SID.
ACCOUNT: Final = "AC" + "0" * 32
#: The level of silence, and the lowest there is.
SILENT: Final = -90
#: How each masked number begins.
MASKED: Final = "+1555"

#: Fields of webhooks and of REST that say who calls whom.
PARTIES: Final = frozenset(("From", "To", "Called", "Caller", "ForwardedFrom", "from", "to"))
#: Fields that are kept as they are, but for numbers and URLs in them.
PLAIN: Final = frozenset(
    (
        *("CallSid", "ParentCallSid", "CallStatus", "Direction", "ApiVersion", "StirVerstat"),
        "api_version",
        *("AnsweredBy", "MachineDetectionDuration", "CallbackSource", "SequenceNumber"),
        *("Timestamp", "CallDuration", "Duration", "SipResponseCode", "Digits", "ErrorCode"),
        *("StreamSid", "StreamEvent", "StreamError", "StreamName", "ErrorMessage"),
        # of REST, to Twilio
        *("Twiml", "TimeLimit", "Timeout", "StatusCallback", "StatusCallbackEvent", "Status"),
        *("StatusCallbackMethod", "MachineDetection", "AsyncAmd", "AsyncAmdStatusCallback"),
        *("AsyncAmdStatusCallbackMethod", "Url", "Method", "Track", "Parameter1.Name"),
        # and back
        *("sid", "call_sid", "parent_call_sid", "status", "direction", "answered_by"),
        *("duration", "start_time", "end_time", "date_created", "date_updated"),
        *("code", "message"),
    )
)
_COUNT: Final = re.compile(r"[0-9]{1,4}\Z")
_ACCOUNT_SID: Final = re.compile(r"AC[0-9a-f]{32}")
_URL: Final = re.compile(r"(?:https?|wss?)://[^\s\"'<>]+")
_USER_INFO: Final = re.compile(r"://[^\s/?#\"'<>@]*@")
_AND: Final = re.compile(r"(&amp;|&)")
_PARAMETER: Final = re.compile(r"(<Parameter\b[^>]*\bvalue=)(\"[^\"]*\"|'[^']*')")
_NUMBER: Final = re.compile(r"(?<![0-9A-Za-z])(\+|%2B)([0-9]{5,15})(?![0-9])", re.IGNORECASE)
_BARE: Final = re.compile(r"(?<![0-9A-Za-z+])[0-9]{10,15}(?![0-9])")
_ADDRESS: Final = re.compile(r"\b(sips?|client):([^\s\"'<>]+)", re.IGNORECASE)
_DIGITS: Final = re.compile(r"\+?[0-9*#]+\Z")


class Masks:
    """Masks what identifies somebody, and leaves secrets out. ``key``: the auth token."""

    def __init__(self, key: str) -> None:
        self._key = key.encode()

    def party(self, text: str) -> str:
        """A caller or a callee. The words for a caller who is withheld stay."""
        if not text or is_withheld(text):
            return text
        if _DIGITS.match(text):
            masked = self._number(text.lstrip("+"))
            return masked if text.startswith("+") else masked[1:]
        scheme, colon, rest = text.partition(":")
        return self._address(scheme, rest) if colon and scheme.isalpha() else HIDDEN

    def text(self, text: str) -> str:
        """Any text: numbers, addresses, what may be secret in a URL, the values of a stream's
        parameters, and the account's SID are masked in it."""
        text = _PARAMETER.sub(rf'\1"{HIDDEN}"', text)
        text = _URL.sub(lambda found: _url(found[0]), text)
        text = _ADDRESS.sub(lambda found: self._address(found[1], found[2]), text)
        text = _NUMBER.sub(lambda found: found[1] + self._number(found[2])[1:], text)
        text = _BARE.sub(lambda found: self._number(found[0])[1:], text)
        return _ACCOUNT_SID.sub(ACCOUNT, text)

    def form(self, form: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of a webhook, or of a request or an answer of REST."""
        return {name: self._field(name, value) for name, value in form.items()}

    def _field(self, name: str, value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [self._field(name, each) for each in value]
        if value is None or value == "":
            return value
        if name in PARTIES:
            return self.party(str(value))
        if name in ("AccountSid", "account_sid"):
            return ACCOUNT
        if name not in PLAIN:
            return HIDDEN
        return value if isinstance(value, int | float) else self.text(str(value))

    def message(self, text: bytes, *, sound: bool) -> dict[str, Any]:
        """One message of a Media Stream. What is no JSON object, or is nested too deeply, is told
        by its length alone."""
        try:
            message = msgspec.json.decode(text)
            if isinstance(message, dict):
                return self._message(message, sound=sound)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            pass
        return {"event": "unreadable", "bytes": len(text)}

    def _message(self, message: dict[str, Any], *, sound: bool) -> dict[str, Any]:
        event = message.get("event")
        body = message.get(event) if isinstance(event, str) else None
        if event == "media" and isinstance(body, dict):
            if not sound:
                payload = body.get("payload")
                kept = {name: value for name, value in body.items() if name != "payload"}
                sound_of = mulaw(payload)
                message["media"] = kept | {"bytes": len(sound_of), "levels": levels(sound_of)}
            return message
        if event in ("start", "stop") and isinstance(body, dict):
            if "accountSid" in body:
                body["accountSid"] = ACCOUNT
            if isinstance(given := body.get("customParameters"), dict):
                body["customParameters"] = dict.fromkeys(given, HIDDEN)
        return {name: _each_text(each, self.text) for name, each in message.items()}

    def _number(self, digits: str) -> str:
        return f"{MASKED}{int.from_bytes(self._hash(digits)[:8], 'big') % 10**7:07d}"

    def _address(self, scheme: str, rest: str) -> str:
        scheme = scheme.lower()
        host = "@masked.invalid" if scheme in ("sip", "sips") else ""
        return f"{scheme}:{self._hash(rest).hex()[:8]}{host}"

    def _hash(self, text: str) -> bytes:
        return hmac.digest(self._key, b"cassette " + text.encode(), hashlib.sha256)


def mulaw(payload: object) -> bytes:
    """The sound of a payload; b"" if the payload is not base64."""
    if not isinstance(payload, str):
        return b""
    try:
        return binascii.a2b_base64(payload.encode(), strict_mode=True)
    except (binascii.Error, UnicodeEncodeError):
        return b""


def levels(sound: bytes) -> list[int]:
    """The level of each 20 ms of mu-law in dBFS (0 and below); silence is :data:`SILENT`."""
    found = []
    for at in range(0, len(sound), FRAME):
        frame = sound[at : at + FRAME]
        power = sum(map(_POWERS.__getitem__, frame)) / len(frame)
        found.append(max(SILENT, round(10 * math.log10(power))) if power else SILENT)
    return found


#: The power of each mu-law code, where full scale has 1.
_POWERS: Final = tuple((sample / 32768) ** 2 for sample in LINEAR)


def query(text: str) -> str:
    """A raw query whose fields keep their names and lose their values. Values of up to four digits
    stay, because they count how often a call was told to wait."""
    parts = _AND.split(text)
    return "".join(part if _AND.match(part) else _pair(part) for part in parts)


def _pair(pair: str) -> str:
    name, equals, value = pair.partition("=")
    return f"{name}={value if _COUNT.match(value) else HIDDEN}" if equals else HIDDEN


def _url(text: str) -> str:
    text = _USER_INFO.sub(f"://{HIDDEN}@", text)
    before, hash_, fragment = text.partition("#")
    place, mark, asked = before.partition("?")
    return place + mark + (query(asked) if asked else "") + hash_ + fragment


def _each_text(value: Any, change: Any) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {name: _each_text(each, change) for name, each in value.items()}
    if isinstance(value, list):
        return [_each_text(each, change) for each in value]
    return value
