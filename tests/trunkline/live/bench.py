"""A live run beside a stand-in carrier, all in one loop."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from trunkline.bus.launch import free_ports
from trunkline.bus.settings import Settings, load
from trunkline.carrier_sim.sim import ACCOUNT_SID, CarrierSim
from trunkline.live.run import Outcome, Plan, run

TOKEN = "5ca1ab1e" * 4
NUMBER = "+14155551234"
#: Nobody listens there.
PRIOR = "http://127.0.0.1:9/before"


def settings_for(directory: Path, sim: CarrierSim, **given: Any) -> Settings:
    (port,) = free_ports(1)
    fields = {
        "account_sid": ACCOUNT_SID,
        "auth_token": TOKEN,
        "twilio_api_url": sim.base_url,
        "state_dir": directory / "state",
        "bus": f"ipc://{directory}/bus",
        "public_url": f"http://127.0.0.1:{port}",
        "http_port": port,
    }
    return load(env_file=None, **fields | given)


@contextlib.asynccontextmanager
async def carrier(*contradicted: str, **options: Any) -> AsyncIterator[CarrierSim]:
    """A carrier that contradicts these, with one number."""
    sim = CarrierSim(auth_token=TOKEN, contradict=contradicted, seed=7, **options)
    async with sim:
        sim.add_number(NUMBER, voice_url=PRIOR)
        yield sim


async def live(directory: Path, sim: CarrierSim, said: list[str] | None = None) -> Outcome:
    """A whole run."""
    say = (said if said is not None else []).append
    return await run(settings_for(directory, sim), Plan(NUMBER, NUMBER), say)
