"""Where the REST API is, by region and edge; and that the package asks there, with our settings."""

from __future__ import annotations

import pytest

from trunkline.bus.errors import SettingsError
from trunkline.bus.settings import load
from trunkline.controller.twilio.api_host import api_url
from trunkline.controller.twilio.carrier import TwilioCarrier

CASES = [
    (None, None, "https://api.twilio.com"),
    ("ie1", "dublin", "https://api.dublin.ie1.twilio.com"),
    ("ie1", None, "https://api.dublin.ie1.twilio.com"),
    ("au1", None, "https://api.sydney.au1.twilio.com"),
    ("us1", None, "https://api.ashburn.us1.twilio.com"),
    ("xy9", "nowhere", "https://api.nowhere.xy9.twilio.com"),
    (None, "frankfurt", "https://api.frankfurt.us1.twilio.com"),
]


def test_a_region_without_a_known_edge_is_named() -> None:
    with pytest.raises(SettingsError, match=r"^TWILIO_REGION='xy9': .* set TWILIO_EDGE too$"):
        api_url("xy9", None)


@pytest.mark.parametrize(("region", "edge", "url"), CASES)
def test_the_package_asks_there(
    monkeypatch: pytest.MonkeyPatch, region: str | None, edge: str | None, url: str
) -> None:
    """By our settings alone, whatever the process's environment says."""
    settings = load(env_file=None, account_sid="AC1", auth_token="t", region=region, edge=edge)
    monkeypatch.setenv("TWILIO_REGION", "br1")
    monkeypatch.setenv("TWILIO_EDGE", "sao-paulo")
    carrier = TwilioCarrier.of(settings)
    assert carrier._client.get_hostname("https://api.twilio.com/2010") == f"{url}/2010"
    assert carrier._client.auth == ("AC1", "t")
    carrier.close()
