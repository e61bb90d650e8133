"""Where the account's REST API is, by region and edge.

``api.twilio.com`` handles what it is asked in the United States. Another region is asked at
``api.EDGE.REGION.twilio.com``, with credentials of that region (TD
global-infrastructure/using-the-twilio-rest-api-in-a-non-us-region). The form without an edge, which
the package builds from a region alone, stopped on 28 April 2026, and has always been handled in the
United States (TD global-infrastructure/api-domain-migration-guide): so a region alone gets its own
edge here.
"""

from __future__ import annotations

from typing import Final

from trunkline.bus.errors import SettingsError

DEFAULT_API: Final = "https://api.twilio.com"
#: The region that an edge alone leads to, as in the package.
_DEFAULT_REGION: Final = "us1"
#: Region -> its own edge, as Twilio's libraries of other languages have them.
EDGES: Final = {
    "au1": "sydney",
    "br1": "sao-paulo",
    "de1": "frankfurt",
    "ie1": "dublin",
    "jp1": "tokyo",
    "jp2": "osaka",
    "sg1": "singapore",
    "us1": "ashburn",
    "us2": "umatilla",
}


def region_and_edge(region: str | None, edge: str | None) -> tuple[str | None, str | None]:
    """Both, or neither. SettingsError for a region whose edge has to be named."""
    if region is None:
        return (None, None) if edge is None else (_DEFAULT_REGION, edge)
    if edge is None and region not in EDGES:
        raise SettingsError(
            f"TWILIO_REGION={region!r}: the edge of this region is not known here: set "
            "TWILIO_EDGE too"
        )
    return region, edge or EDGES[region]


def api_url(region: str | None, edge: str | None) -> str:
    """The base URL of Twilio's REST API."""
    region, edge = region_and_edge(region, edge)
    return DEFAULT_API if region is None else f"https://api.{edge}.{region}.twilio.com"
