"""X-Twilio-Signature: the carrier's own HMAC over a webhook or an upgrade.

Source: TD usage/webhooks/webhooks-security. The URL is the one that Twilio was given, without its
fragment (connection overrides stand there and are never sent); the form's fields follow, sorted by
name, name and value joined, blank values included, repeated values once each and sorted.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterable


def sign(token: str, url: str, form: Iterable[tuple[str, str]] = (), *, fragment: str = "") -> str:
    """The value of the header for a POST form to url, or for a GET or an upgrade with no form.

    ``fragment``: signed behind the URL, which nobody believes that Twilio does.
    """
    text = (
        url.partition("#")[0]
        + fragment
        + "".join(name + value for name, value in sorted(set(form)))
    )
    digest = hmac.new(token.encode(), text.encode(), hashlib.sha1).digest()
    return base64.b64encode(digest).decode("ascii")
