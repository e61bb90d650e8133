"""Finds the stack for the tests of a run: the one that is named, one that answers, or one that is
started for the run. Puts the far ends of its stand-in carrier on the line that the run asks for.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

if TYPE_CHECKING:
    from .. import TwilioAgentAdapter
    from ..stack.shared_stack import Wanted
    from .run import Run

T = TypeVar("T")

#: Numbers of the stand-in's account: enough for many workers whose tests each hold a line.
SIM_NUMBERS = tuple(f"+1415555{n:04d}" for n in range(100, 120))
SIM_VOICE_URL = "https://agent.example/voice"
SIM_SEED = "TRUNKLINE_SIM_SEED"
SIM_HABITS = "TRUNKLINE_SIM_HABITS"
SIM_CALLEES = (
    "+14155557777=echo",
    "+14155557778=speech:austen-0880,greets,when_silent=0.7,repeat",
    "+14155557779=busy",
)


@dataclass(frozen=True)
class PhoneStack:
    """The stack of a test. ``sim``: base URL of its stand-in carrier, None at a real one."""

    bus: str
    account_sid: str
    auth_token: str
    public_url: str
    sim: str | None = None

    def __repr__(self) -> str:
        from trunkline.bus.redact import mask_url

        url = mask_url(self.public_url)
        return f"PhoneStack(bus={self.bus!r}, public_url={url!r}, sim={self.sim!r})"

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which a Line or an adapter of this process joins the stack."""
        return {
            "TRUNKLINE_BUS": self.bus,
            "TWILIO_ACCOUNT_SID": self.account_sid,
            "TWILIO_AUTH_TOKEN": self.auth_token,
        }

    def adapter(self, phone_number: str = "any", **settings: Any) -> TwilioAgentAdapter:
        """A TwilioAgentAdapter on this stack. ``settings``: its further arguments. Needs
        ``trunkline[scenario]``."""
        from .. import TwilioAgentAdapter

        return TwilioAgentAdapter(
            account_sid=self.account_sid,
            auth_token=self.auth_token,
            phone_number=phone_number,
            bus=self.bus,
            **settings,
        )


def option(config: pytest.Config, name: str) -> Any:
    """The value of an option, or else of the setting of the same name in pytest's ini file."""
    given = config.getoption(f"--{name.replace('_', '-')}")
    return config.getini(name) if given is None else given


def find(run: Run, config: pytest.Config, *, simulated: bool) -> PhoneStack:
    """Find or start the stack, and put its far ends on the line that is asked for."""
    stack = _find_stack(run, config, simulated)
    if config.getoption("--phone-report") and run.keeps_cassettes:
        from ..gates import kept

        run.gates.seed = partial(kept.seed_of, stack.sim)
    line = option(config, "phone_line")
    if line and stack.sim is not None:
        from trunkline.carrier_sim.client import SimClient, SimError

        with SimClient(stack.sim) as sim:
            try:
                sim.set_line(line)
            except SimError as error:
                raise pytest.UsageError(f"--phone-line: {error}") from error
    elif line:
        raise pytest.UsageError("--phone-line goes with the stand-in carrier (--phone-sim)")
    return stack


def _find_stack(run: Run, config: pytest.Config, simulated: bool) -> PhoneStack:
    from trunkline.bus import settings as bus_settings

    from ..stack import shared_stack

    settings = bus_settings.load(bus=option(config, "phone_bus") or None)
    sim = _sim_of(settings.twilio_api_url)
    asked = "bus" in settings.given
    if sim is not None or not simulated:
        joined = run_apart(_join(settings, required=asked))
        if joined is not None:
            account, public_url = joined
            token = settings.auth_token
            run.keeps_cassettes = settings.cassettes_dir is not None
            return PhoneStack(settings.bus, account, token, public_url, sim)
    if config.getoption("--phone-bus") and option(config, "phone_sim"):
        raise pytest.UsageError(
            "--phone-sim starts a stack of its own, and joins the one at --phone-bus only if "
            "TRUNKLINE_TWILIO_API_URL names the stand-in carrier of that stack"
        )
    directory = run.directory
    settings = settings.changed(cassettes_dir=run.cassettes(directory))
    run.keeps_cassettes = settings.cassettes_dir is not None
    wanted: Wanted
    if simulated:
        callees = dict(
            _callee(item, config.rootpath) for item in config.getini("phone_sim_callees")
        )
        numbers, pool = _numbers(config.getini("phone_sim_numbers"))
        wanted = shared_stack.simulated(
            directory,
            numbers,
            pool,
            callees,
            **_wishes_of_the_stand_in(config.getoption("--phone-seed")),
            **shared_stack.kept_settings(settings),
        )
    else:
        settings.require("account_sid")
        settings.require("auth_token")
        wanted = shared_stack.twilio(directory, settings, option(config, "phone_tunnel") or None)
    info = shared_stack.acquire(directory, "sim" if simulated else "twilio", wanted)
    return PhoneStack(info.bus, info.account_sid, info.auth_token, info.public_url, info.sim)


def _wishes_of_the_stand_in(seed: int | None) -> dict[str, str]:
    """How the user wants it to vary, by the environment and by ``--phone-seed``, which wins."""
    wishes = {name: os.environ[name] for name in (SIM_SEED, SIM_HABITS) if name in os.environ}
    return wishes if seed is None else wishes | {SIM_SEED: str(seed)}


def _numbers(items: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """The account's numbers with their voice URLs, from ``NUMBER[=VOICE_URL]``, and those of them
    that are the pool. A number with a URL is that of the user's own agent, and in no pool. Where
    all have one, the pool is the default numbers."""
    from trunkline.bus.redact import is_e164, not_e164

    named = {number: url for number, _, url in (item.partition("=") for item in items)}
    for number in named:
        if not is_e164(number):
            raise pytest.UsageError(f"phone_sim_numbers: {not_e164(repr(number))}")
    pool = [number for number, url in named.items() if not url]
    pool = pool or [number for number in SIM_NUMBERS if number not in named]
    return {**named, **dict.fromkeys(pool, SIM_VOICE_URL)}, pool


def _callee(item: str, root: Path) -> tuple[str, str]:
    """Number and bot of ``NUMBER=BOT``. A relative path of a recording starts at the run's root
    directory."""
    from trunkline.carrier_sim.client import located

    number, _, bot = item.partition("=")
    return number, str(located(bot, root))


def _sim_of(api_url: str | None) -> str | None:
    """``api_url``, if a stand-in carrier answers there."""
    if api_url is None:
        return None
    from trunkline.carrier_sim.client import SimClient, SimError

    with SimClient(api_url, timeout=2.0) as sim:
        try:
            sim.health()
        except (OSError, SimError):
            return None
    return api_url


async def _join(settings: Any, *, required: bool) -> tuple[str, str] | None:
    """Account and public URL of the stack that runs at the bus address.

    Without ``required`` (the address is the default one), None where no stack answers or it is
    another account's. With it (the user has named the address), StackUnavailableError where none
    answers.
    """
    from trunkline.bus.control import UNAVAILABLE_AFTER
    from trunkline.bus.errors import StackUnavailableError

    from ..stack.controller_client import controller_client

    directory = settings.address.directory
    if not required and not (directory / "control").exists():
        return None
    try:
        async with controller_client(
            settings, timeout=UNAVAILABLE_AFTER if required else 2.0
        ) as client:
            assert client.welcome is not None
            account, public_url = client.welcome.account, client.welcome.public_url
    except StackUnavailableError:
        if required:
            raise
        return None
    if not required and settings.account_sid and account != settings.account_sid:
        return None
    return account, public_url or ""


def run_apart(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on an event loop in a thread of its own, so that the test's loop and its
    policy, whichever plugin made them, are not touched."""
    result: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            result.append(asyncio.run(work))
        except BaseException as error:  # noqa: BLE001  # raised below, in the thread that asked
            failure.append(error)

    thread = threading.Thread(target=run, name="trunkline-fixture")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return result[0]
