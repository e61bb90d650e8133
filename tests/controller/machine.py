"""A machine with a state directory, and an account whose numbers stacks have overridden."""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace
from simulation.memory_journal import MemoryJournal

from trunkline.bus.settings import Settings, load
from trunkline.controller.journal import state_dir
from trunkline.controller.journal.store import Journal
from trunkline.controller.restore_command import RestoreRun
from trunkline.controller.twilio.apply_restore import apply
from trunkline.controller.twilio.operations import Operations
from trunkline.controller.twilio.seal import SealKeys

from .fake_carrier import FakeCarrier, FakeTime, ops_for, row_for

ACCOUNT = "AC" + "1" * 32


def stack_id(name: str) -> str:
    return state_dir.prefix(ACCOUNT) + name


class Machine:
    """A state directory, and an account whose numbers were overridden by stacks that are gone."""

    def __init__(self, tmp_path: Path) -> None:
        self.time = FakeTime()
        self.carrier = FakeCarrier(self.time)
        self.directory = tmp_path / "state"
        self.settings: Settings = load(
            env_file=None, account_sid=ACCOUNT, auth_token="token", state_dir=self.directory
        )

    def ops(self, stack: str = "", journal: object = None, token: str = "token") -> Operations:
        ops = ops_for(self.time, self.carrier, journal or MemoryJournal())
        ops.stack = stack
        ops.keys = SealKeys(token)
        return ops

    async def overridden(self, number: str, stack: str, token: str = "token") -> Journal:
        """``stack`` has put an override on the number and journalled it; returns its journal."""
        sid = self.carrier.add_number(number)
        path = self.directory / "stacks" / stack / "journal.sqlite3"
        journal = await Journal.in_file(path, account=ACCOUNT, stack=stack)
        row = replace(row_for(sid, f"o-{stack}"), number=number)
        await apply(self.ops(stack, journal, token), row, self.time.now + 30)
        return journal

    def voice_url(self, number: str) -> str:
        return next(n.voice_url for n in self.carrier.numbers.values() if n.number == number)

    async def run(
        self, *, account: bool = False, force: bool = False, ops: Operations | None = None
    ) -> RestoreRun:
        run = RestoreRun(ops or self.ops(), dry_run=False, force=force)
        await run.journals(self.settings, ACCOUNT)
        if account:
            await run.seals()
        return run
