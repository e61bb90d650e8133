"""X-Twilio-Signature: the carrier's own HMAC over a webhook or an upgrade, and whose key it is.

No I/O. Source: TD usage/webhooks/webhooks-security. The URL is the one that Twilio was given,
without its fragment (connection overrides stand there and are never sent), in one of the forms of
the habit signed-url; the form's fields follow, sorted by name, name and value joined, blank values
included, repeated values once each and sorted.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable, Iterable
from typing import Any, Final
from urllib.parse import urlsplit

from .beliefs import Beliefs
from .habits import Habits

_DEFAULT_PORTS: Final = {"https": 443, "wss": 443, "http": 80, "ws": 80}
#: The key that signs the account's webhooks where its auth token does not.
SHARED_KEY_ID: Final = "webhooks_sharedkey_01carriersim"
SHARED_KEY: Final = "carrier-sim-shared-key"


def sign(
    key: str,
    url: str,
    form: Iterable[tuple[str, str]] = (),
    digest: Callable[..., Any] = hashlib.sha1,
    *,
    fragment: str = "",
) -> str:
    """The value of the header for a POST form to url, or for a GET or an upgrade with no form.

    ``fragment`` is signed behind the URL where the carrier contradicts fragment-is-not-signed.
    """
    fields = "".join(name + value for name, value in sorted(set(form)))
    text = url.partition("#")[0] + fragment + fields
    return base64.b64encode(hmac.new(key.encode(), text.encode(), digest).digest()).decode("ascii")


def signed_url(url: str, form: str) -> str:
    """The text that is signed for url, in a form of the habit signed-url."""
    parts = urlsplit(url)
    if form == "given":
        return url
    user, at, place = parts.netloc.rpartition("@")
    if parts.port is not None:
        place = place[: -len(f":{parts.port}")]
    if form in ("port", "port-no-user"):
        place += f":{parts.port or _DEFAULT_PORTS.get(parts.scheme, 80)}"
    if form in ("port", "no-port"):
        place = user + at + place
    return url.replace(f"//{parts.netloc}", f"//{place}", 1)


class Credentials:
    """The account's auth tokens (TD iam/api/authtoken): one, or two while they are rotated."""

    def __init__(self, primary: str, secondary: str = "") -> None:
        self.primary, self.secondary = primary, secondary

    def promote(self) -> None:
        """The secondary token becomes the primary; the former primary is good for nothing now.
        ValueError where there is no secondary."""
        if not self.secondary:
            raise ValueError("the account has no secondary auth token")
        self.primary, self.secondary = self.secondary, ""

    def taken_by_rest(self, beliefs: Beliefs) -> list[str]:
        """The tokens that REST takes."""
        both = beliefs.hold("rest-takes-both-tokens")
        return [token for token in (self.primary, self.secondary if both else "") if token]


class Signer:
    """Signs requests, each in the form and with the token that the habits draw for it."""

    def __init__(self, credentials: Credentials, habits: Habits, beliefs: Beliefs) -> None:
        self._credentials, self._habits, self._beliefs = credentials, habits, beliefs

    def headers(
        self, url: str, form: Iterable[tuple[str, str]] = (), *, fragment: str = ""
    ) -> list[tuple[str, str]]:
        """The headers of a request to url: a POST form, or a GET or an upgrade with none."""
        signed = signed_url(url, self._habits.draw("signed-url"))
        is_upgrade = urlsplit(url).scheme in ("ws", "wss")
        if is_upgrade and self._habits.draw("signed-upgrade") == "slash":
            signed += "/"
        if not self._beliefs.hold("signed-url-is-the-given-one"):
            signed = signed.partition("?")[0]
        if not self._beliefs.hold("the-auth-token-signs"):
            settings = f"key={SHARED_KEY_ID},algorithm=HMAC_SHA256"
            signature = sign(SHARED_KEY, signed, form, hashlib.sha256, fragment=fragment)
            return [
                ("X-Twilio-Signature", signature),
                ("X-Twilio-Webhooks-Signature-Settings", settings),
            ]
        return [("X-Twilio-Signature", sign(self._token(), signed, form, fragment=fragment))]

    def _token(self) -> str:
        credentials = self._credentials
        if credentials.secondary and self._habits.draw("signing-token") == "secondary":
            return credentials.secondary
        return credentials.primary


def basic_credentials(url: str) -> str | None:
    """The value of an Authorization header for the user-info of url, None where it has none."""
    parts = urlsplit(url)
    if parts.username is None and parts.password is None:
        return None
    user_info = f"{parts.username or ''}:{parts.password or ''}"
    return "Basic " + base64.b64encode(user_info.encode()).decode("ascii")
