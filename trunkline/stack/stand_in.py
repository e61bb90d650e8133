"""``trunkline up --sim``: a stand-in carrier beside the stack, and the settings that fit it.

The stand-in forgets everything when it ends, so the stack's journal is in a temporary directory
that is deleted then. The journal of a real account is never read beside a stand-in, which does not
know the account's numbers.
"""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from trunkline.bus import hosts
from trunkline.bus.errors import SettingsError
from trunkline.bus.launch import StackInfo, read_ready_file, trunkline_argv
from trunkline.bus.redact import mask_url
from trunkline.bus.settings import Settings

from .children import describe, settings_environment
from .supervisor import Supervisor

log = logging.getLogger("trunkline.stack.supervisor")

#: Numbers of the stand-in's account, and numbers outside of it with the bot that answers each. They
#: are used where neither TRUNKLINE_SIM_NUMBERS nor TRUNKLINE_SIM_CALLEES is set.
NUMBERS: Final = "+14155551234=https://agent.example/voice +14155551235=https://agent.example/other"
CALLEES: Final = (
    "+14155557777=echo +14155557778=speech:austen-0880,greets,when_silent=0.7,repeat "
    "+14155557779=busy +14155557780=no-answer"
)
#: A caller's number arrives as it is, unless ``TRUNKLINE_SIM_HABITS`` says otherwise. Carriers do
#: rewrite callers, but a test that names a caller in ``allowed_callers`` should not fail by chance.
HABITS: Final = "caller-id=kept"
#: Seconds from SIGTERM to SIGKILL. The carrier has nothing to put back.
_ENDS_WITHIN: Final = 1.0
_STEP: Final = 0.02


class StandIn:
    """The carrier as a child of a supervisor of its own: the first one up, the last one down.

    The stack's supervisor and all of its children hold the writing end of the pipe that the carrier
    reads. So when the supervisor is killed, the carrier still answers until the controller has put
    the numbers back and ended. Until then it holds ``directory`` by ``lock``, because the
    controller's journal is there, too.
    """

    def __init__(self, settings: Settings, directory: Path, lock: int) -> None:
        self._ready_file = directory / "carrier.json"
        self._supervisor = Supervisor(within=_ENDS_WITHIN)
        self.pipe = self._supervisor.pipe
        argv, environment = _command(settings, self._ready_file)
        #: Done when the carrier has ended, with its exit status.
        self.ended = self._supervisor.keep(
            "carrier_sim", argv, environment, pass_fds=(lock,), again=False
        ).ended

    async def ready(self, stop: asyncio.Event) -> StackInfo | None:
        """Wait for the carrier's ready file, and return its content. None: the carrier has ended,
        or ``stop`` is set."""
        while not self.ended.done() and not stop.is_set():
            if (info := read_ready_file(self._ready_file)) is not None:
                return info
            await asyncio.sleep(_STEP)
        return None

    def describe_end(self) -> str:
        """How the carrier ended, for a message. It has to have ended."""
        return f"the stand-in carrier ended ({describe(self.ended.result())})"

    async def close(self) -> None:
        """End the carrier."""
        await self._supervisor.end()


def _command(settings: Settings, ready_file: Path) -> tuple[list[str], dict[str, str]]:
    """Command line and environment of the stand-in.

    It listens where TRUNKLINE_TWILIO_API_URL says, else at 127.0.0.1 on TRUNKLINE_SIM_PORT, else on
    a free port there. SettingsError where the URL names another machine, https or a path.
    """
    environment = settings_environment(settings, "carrier-sim")
    for name in ("ACCOUNT_SID", "AUTH_TOKEN", "AUTH_TOKEN_SECONDARY"):
        environment.pop(f"TRUNKLINE_SIM_{name}", None)  # the carrier takes the stack's credentials
    if not {"TRUNKLINE_SIM_NUMBERS", "TRUNKLINE_SIM_CALLEES"} & environment.keys():
        environment |= {"TRUNKLINE_SIM_NUMBERS": NUMBERS, "TRUNKLINE_SIM_CALLEES": CALLEES}
    environment.setdefault("TRUNKLINE_SIM_HABITS", HABITS)
    host, port = "127.0.0.1", os.environ.get("TRUNKLINE_SIM_PORT") or "0"
    if settings.twilio_api_url is not None:
        named = urlsplit(settings.twilio_api_url)
        if named.scheme != "http" or not hosts.is_here(settings.twilio_api_url) or named.path:
            raise SettingsError(
                f"TRUNKLINE_TWILIO_API_URL={mask_url(settings.twilio_api_url)}: with --sim the "
                "carrier listens on this machine; leave it out, or name http://127.0.0.1:PORT"
            )
        host, port = hosts.reachable(named.hostname or ""), str(named.port or 80)
    argv = trunkline_argv("carrier-sim", "--host", host, "--port", port)
    return [*argv, "--ready-file", str(ready_file)], environment


def fit(settings: Settings, carrier: StackInfo, http_port: int, state_dir: Path) -> Settings:
    """The stack's settings beside the stand-in, with those filled in that are missing.

    Unless they are set, the console listens on a free port, and the public URL is that of the local
    listener. The REST base is always the stand-in's. A public URL of another machine is ignored,
    with a warning, because whoever listens there must not get the webhooks of a stand-in. A state
    directory is ignored, and the log says so, because the journal is deleted with the stand-in.
    """
    assert carrier.sim is not None
    if settings.state_dir is not None:
        log.info(
            "the state directory %s is ignored with --sim, because the journal ends with the "
            "stand-in carrier",
            settings.state_dir,
        )
    given: dict[str, object] = {
        "account_sid": carrier.account_sid,
        "auth_token": carrier.auth_token,
        "twilio_api_url": carrier.sim,
        "http_port": http_port,
        "state_dir": state_dir,
    }
    if "console_port" not in settings.given:
        given["console_port"] = 0
    if settings.public_url is None or not hosts.is_here(settings.public_url):
        url = f"http://{hosts.join(hosts.reachable(settings.http_host), http_port)}"
        if settings.public_url is not None:
            log.warning(
                "TRUNKLINE_PUBLIC_URL=%s is ignored with --sim, because it is not this machine's; "
                "the stand-in carrier calls %s",
                mask_url(settings.public_url),
                url,
            )
        given["public_url"] = url
    return settings.changed(**given)
