"""TwiML: a strict parser of the verbs that a trunkline call can meet.

Source: TD voice/twiml. A document that is no XML, or whose root is not <Response>, is error 12100
and gives no program. A verb or attribute that is not in the table below is 12200. It is left out,
and the rest of the document runs, as at Twilio. Names are case-sensitive.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from typing import Final

import msgspec

#: Content types that Twilio reads as TwiML (TD voice/twiml).
TYPES: Final = frozenset(["text/xml", "application/xml", "text/html"])
#: Longest TwiML that Twilio fetches (64 KB) and takes inline (4000 characters).
MAX_FETCHED: Final = 64 * 1024
MAX_INLINE: Final = 4000
#: A <Parameter>'s name and value together have to be shorter than this.
MAX_PARAMETER: Final = 500


class Say(msgspec.Struct, frozen=True, tag=True):
    text: str


class Pause(msgspec.Struct, frozen=True, tag=True):
    seconds: float = 1.0


class Play(msgspec.Struct, frozen=True, tag=True):
    """Keys. The sound of a URL is not played here."""

    digits: str


class Stream(msgspec.Struct, frozen=True, tag=True):
    url: str
    name: str = ""
    track: str = "inbound_track"
    status_callback: str = ""
    status_callback_method: str = "POST"
    parameters: dict[str, str] = {}

    def __repr__(self) -> str:
        """Without the parameters: a token is among them."""
        return f"Stream(name={self.name!r}, url={self.url!r})"


class Connect(msgspec.Struct, frozen=True, tag=True):
    stream: Stream
    action: str = ""
    method: str = "POST"


class Start(msgspec.Struct, frozen=True, tag=True):
    """A one-way stream, beside the verbs that follow."""

    stream: Stream


class Stop(msgspec.Struct, frozen=True, tag=True):
    """End of the one-way stream with that name."""

    name: str


class Redirect(msgspec.Struct, frozen=True, tag=True):
    url: str
    method: str = "POST"


class Reject(msgspec.Struct, frozen=True, tag=True):
    reason: str = "rejected"


class Hangup(msgspec.Struct, frozen=True, tag=True):
    pass


class Dial(msgspec.Struct, frozen=True, tag=True):
    number: str
    timeout: float = 30.0
    time_limit: float = 14400.0
    caller_id: str = ""
    action: str = ""
    method: str = "POST"


Verb = Say | Pause | Play | Connect | Start | Stop | Redirect | Reject | Hangup | Dial


class Problem(msgspec.Struct, frozen=True):
    code: int
    text: str


class Document(msgspec.Struct, frozen=True):
    """The verbs to run, and the problems to list. ``verbs`` is None where nothing can be run."""

    verbs: tuple[Verb, ...] | None
    problems: tuple[Problem, ...] = ()


_ATTRIBUTES: Final[dict[str, frozenset[str]]] = {
    name: frozenset(attributes.split())
    for name, attributes in {
        "Response": "",
        "Say": "voice language",
        "Pause": "length",
        "Play": "digits",
        "Connect": "action method",
        "Start": "",
        "Stop": "",
        "Stream": "url name track statusCallback statusCallbackMethod",
        "Parameter": "name value",
        "Redirect": "method",
        "Reject": "reason",
        "Hangup": "",
        "Dial": "action method timeout timeLimit callerId answerOnBridge hangupOnStar record",
        "Number": "",
    }.items()
}
_DIGITS: Final = re.compile(r"[0-9A-D*#wW]+", re.ASCII)
#: Elements that take no text.
_NO_TEXT: Final = frozenset(
    {"Response", "Connect", "Start", "Stop", "Stream", "Hangup", "Pause", "Reject"}
)


def parse(text: str | bytes) -> Document:
    """A document as fetched (bytes, XML decides the encoding) or inline (text)."""
    data = text.encode() if isinstance(text, str) else text
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        return Document(None, (Problem(12100, "a document type declaration is not taken"),))
    if not data.strip():
        return Document(None, (Problem(12100, "the document is empty"),))
    try:
        root = ET.fromstring(data.lstrip())  # noqa: S314  # of the stack that is tested
    except (ET.ParseError, LookupError, ValueError) as e:  # LookupError: an unknown encoding
        return Document(None, (Problem(12100, f"not well-formed XML: {e}"),))
    if root.tag != "Response":
        return Document(None, (Problem(12100, f"root element <{root.tag}>, not <Response>"),))
    reader = _Reader()
    reader.check(root)
    verbs = [verb for element in root if (verb := reader.verb(element)) is not None]
    return Document(tuple(verbs), tuple(reader.problems))


def parse_fetched(body: bytes, content_type: str, url: str) -> Document:
    """A document as the customer's server answered with it. Its problems name the ``url``."""
    if content_type.partition(";")[0].strip().lower() not in TYPES:
        return Document(None, (Problem(12300, f"Content-Type {content_type!r} from {url}"),))
    if len(body) > MAX_FETCHED:
        return Document(None, (Problem(11750, f"{len(body)} bytes from {url}"),))
    document = parse(body)
    if document.verbs is not None:
        return document
    (problem,) = document.problems
    return Document(None, (Problem(problem.code, f"{problem.text} ({url})"),))


class _Reader:
    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def warn(self, text: str) -> None:
        self.problems.append(Problem(12200, text))

    def check(self, element: ET.Element) -> dict[str, str]:
        """List unknown attributes and stray text; the known attributes come back."""
        known = _ATTRIBUTES[element.tag]
        for name in element.attrib:
            if name not in known:
                self.warn(f"attribute {name!r} is not allowed on <{element.tag}>")
        if element.tag in _NO_TEXT:
            stray = (element.text or "") + "".join(child.tail or "" for child in element)
            if stray.strip():
                self.warn(f"text {stray.strip()[:40]!r} is not allowed in <{element.tag}>")
        return {k: v for k, v in element.attrib.items() if k in known}

    def no_children(self, element: ET.Element) -> None:
        for child in element:
            self.warn(f"<{child.tag}> is not allowed in <{element.tag}>")

    def integer(self, element: ET.Element, name: str, default: int, most: int = 86400) -> int:
        value = element.attrib.get(name)
        if value is None:
            return default
        if not (value.isascii() and value.isdigit()) or int(value) > most:
            self.warn(f"{name}={value!r} on <{element.tag}> is no number from 0 to {most}")
            return default
        return int(value)

    def choice(self, element: ET.Element, name: str, allowed: tuple[str, ...]) -> str:
        value = element.attrib.get(name, allowed[0])
        if value not in allowed:
            self.warn(f"{name}={value!r} on <{element.tag}>: allowed are {', '.join(allowed)}")
            return allowed[0]
        return value

    def verb(self, element: ET.Element) -> Verb | None:
        tag = str(element.tag)
        if tag in ("Stream", "Parameter", "Number", "Response") or tag not in _ATTRIBUTES:
            self.warn(f"<{tag}> is no verb of <Response> that is known here")
            return None
        attributes = self.check(element)
        if tag not in ("Connect", "Start", "Stop", "Dial"):
            self.no_children(element)
        body = (element.text or "").strip()
        method = self.choice(element, "method", ("POST", "GET"))
        match tag:
            case "Say":
                if not body:
                    self.warn("<Say> without text")
                    return None
                return Say(body)
            case "Pause":
                return Pause(float(self.integer(element, "length", 1)))
            case "Play":
                digits = element.attrib.get("digits", "")
                if not _DIGITS.fullmatch(digits):
                    self.warn(f"digits={digits!r} on <Play>: allowed are 0-9, A-D, *, #, w and W")
                    return None
                return Play(digits)
            case "Connect":
                stream, action = self.stream(element), attributes.get("action", "")
                return None if stream is None else Connect(stream, action, method)
            case "Start":
                stream = self.stream(element)
                return None if stream is None else Start(stream)
            case "Stop":
                return self.stop(element)
            case "Redirect":
                return Redirect(body, method)
            case "Reject":
                return Reject(self.choice(element, "reason", ("rejected", "busy")))
            case "Hangup":
                return Hangup()
            case _:
                return self.dial(element, attributes, body, method)

    def only_stream(self, element: ET.Element) -> ET.Element | None:
        streams = [child for child in element if child.tag == "Stream"]
        for child in element:
            if child.tag != "Stream":
                self.warn(f"<{child.tag}> in <{element.tag}> is not known here")
        if len(streams) != 1:
            self.warn(f"<{element.tag}> with {len(streams)} <Stream>: exactly one is allowed")
            return None
        return streams[0]

    def stream(self, element: ET.Element) -> Stream | None:
        stream = self.only_stream(element)
        if stream is None:
            return None
        a = self.check(stream)
        if "url" not in a:
            self.warn("<Stream> without url")
            return None
        callback_method = self.choice(stream, "statusCallbackMethod", ("POST", "GET"))
        return Stream(
            url=a["url"],
            name=a.get("name", ""),
            track=a.get("track", "inbound_track"),
            status_callback=a.get("statusCallback", ""),
            status_callback_method=callback_method,
            parameters=self.parameters(stream),
        )

    def stop(self, element: ET.Element) -> Stop | None:
        stream = self.only_stream(element)
        name = "" if stream is None else self.check(stream).get("name", "")
        if not name:
            self.warn("<Stop> without the name of a <Stream>")
            return None
        return Stop(name)

    def parameters(self, stream: ET.Element) -> dict[str, str]:
        found: dict[str, str] = {}
        for child in stream:
            if child.tag != "Parameter":
                self.warn(f"<{child.tag}> is not allowed in <Stream>")
                continue
            a = self.check(child)
            self.no_children(child)
            name, value = a.get("name", ""), a.get("value", "")
            if not name:
                self.warn("<Parameter> without a name")
            elif len(name) + len(value) >= MAX_PARAMETER:
                self.warn(
                    f"<Parameter> {name!r}: name and value are {MAX_PARAMETER} or more together"
                )
            else:
                found[name] = value
        return found

    def dial(self, element: ET.Element, a: dict[str, str], body: str, method: str) -> Dial | None:
        numbers = [child for child in element if child.tag == "Number"]
        for child in element:
            if child.tag != "Number":
                self.warn(f"<{child.tag}> in <Dial> is not known here")
            else:
                self.check(child)
        number = body or ((numbers[0].text or "").strip() if numbers else "")
        if not number:
            self.warn("<Dial> without a number")
            return None
        return Dial(
            number,
            float(self.integer(element, "timeout", 30, 600)),
            float(self.integer(element, "timeLimit", 14400)),
            a.get("callerId", ""),
            a.get("action", ""),
            method,
        )
