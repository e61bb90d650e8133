"""``trunkline menu``: a menu of the stand-in carrier as text and picture, and a call in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec

from trunkline.bus.errors import SettingsError
from trunkline.bus.process import EXIT_DONE
from trunkline.bus.settings import Settings
from trunkline.carrier_sim.bots import ByMenu, bot_from
from trunkline.carrier_sim.client import SimClient, SimError
from trunkline.carrier_sim.menu import picture
from trunkline.carrier_sim.menu.steps import Step, Visit
from trunkline.carrier_sim.mulaw import RATE

from ..reports import files
from .json_text import json_text


def menu(
    settings: Settings, path: Path, svg: Path | None, call_sid: str | None, *, as_json: bool
) -> int:
    """Print the menu, and draw it in the file ``svg``; returns the exit status.

    Raises ValueError where the file is no menu, and SettingsError, ValueError or OSError where the
    carrier cannot be asked about the call, or does not know it.
    """
    spec = bot_from({"kind": "menu", "path": str(path)})
    assert isinstance(spec, ByMenu)
    assert spec.menu is not None
    way = _way(settings, call_sid) if call_sid else []
    if as_json:
        steps = {name: _step(step) for name, step in spec.menu.steps.items()}
        told = {"name": spec.menu.name, "start": spec.menu.start, "steps": steps, "way": way}
        click.echo(json_text(told))
    else:
        for line in picture.lines(spec.menu, way):
            click.echo(line)
    if svg is not None:
        files.write(svg, picture.svg(spec.menu, way))
    return EXIT_DONE


def _step(step: Step) -> dict[str, Any]:
    return {
        "said": list(step.said),
        "seconds": round(len(step.sound) / RATE, 3),
        "leads_to": [{"by": by, "step": target} for by, target in step.leads_to()],
    }


def _way(settings: Settings, call_sid: str) -> list[Visit]:
    url = settings.twilio_api_url
    if url is None:
        raise SettingsError(
            "--call asks the stand-in carrier; name it by --twilio-api-url or "
            "TRUNKLINE_TWILIO_API_URL"
        )
    with SimClient(url) as sim:
        try:
            way = sim.call(call_sid)["way"]
        except SimError as error:
            raise ValueError(f"the stand-in carrier at {url} refuses: {error}") from error
    return msgspec.convert(way, list[Visit])
