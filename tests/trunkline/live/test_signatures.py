"""A live run's judgement of signatures: each kind speaks against one belief alone."""

from __future__ import annotations

from collections import Counter

import pytest
from starlette.datastructures import Headers

from trunkline.live.listener import Signed, _by_headers
from trunkline.live.probes import _judge_signatures
from trunkline.live.verdicts import Verdicts

WEBHOOKS = "webhooks-are-signed"
TOKEN = "the-auth-token-signs"
URL = "signed-url-is-the-given-one"
FRAGMENT = "fragment-is-not-signed"


@pytest.mark.parametrize(
    ("webhooks", "streams", "contradicted", "unknown"),
    [
        ({"right": 9}, {"right": 2}, [], []),
        ({"right": 9}, {}, [], []),
        ({"missing": 9}, {"right": 2}, [WEBHOOKS], [FRAGMENT, URL]),
        ({"missing": 1, "right": 8}, {"right": 2}, [WEBHOOKS], []),
        ({"shared-key": 9}, {"shared-key": 2}, [TOKEN], [FRAGMENT, URL]),
        ({"right": 9}, {"shared-key": 2}, [TOKEN], []),
        ({"wrong": 8, "right": 1}, {"right": 2}, [URL], []),
        ({"wrong": 9}, {"right": 2}, [URL], [FRAGMENT]),
        ({"right": 9}, {"wrong": 2}, [URL], []),
        ({"with-fragment": 9}, {"right": 2}, [FRAGMENT], []),
    ],
)
def test_each_kind_of_signature_speaks_against_one_belief(
    webhooks: dict[Signed, int],
    streams: dict[Signed, int],
    contradicted: list[str],
    unknown: list[str],
) -> None:
    verdicts = Verdicts()
    _judge_signatures(Counter(webhooks), Counter(streams), verdicts)
    found = {name: verdicts.all[name].judgement for name in (WEBHOOKS, TOKEN, URL, FRAGMENT)}
    assert [name for name, found in found.items() if found == "contradicted"] == contradicted
    assert sorted(name for name, found in found.items() if found == "unknown") == unknown


def test_the_headers_alone_tell_of_a_shared_key_and_of_no_signature() -> None:
    settings = "key=webhooks_sharedkey_1,algorithm=HMAC_SHA256"
    key = {"X-Twilio-Signature": "c2ln", "X-Twilio-Webhooks-Signature-Settings": settings}
    assert _by_headers(Headers(key)) == ("shared-key", b"")
    assert _by_headers(Headers({})) == ("missing", b"")
    assert _by_headers(Headers({"X-Twilio-Signature": "c2ln"})) == (None, b"c2ln")
