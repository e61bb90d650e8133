"""Components die under honcho, which ends everything when one of its own children does."""

from __future__ import annotations

from collections.abc import Callable

from e2e.stack import ALICE, Stack, until

from .conversations import BROKEN, UNREACHED, kill, talking


async def test_a_component_under_honcho(new_stack: Callable[[], Stack]) -> None:
    stack = new_stack()
    stack.provoked |= BROKEN | UNREACHED
    honcho = stack.honcho("-c", "gateway=1,codec_worker=1")
    await until(lambda: stack.complete(1, 1), "the stack is complete", 30.0)
    async with talking(stack, 1) as conversations:
        for section in ("codec_workers", "gateways", "controller"):
            found = stack.status()[section]
            victim = (found if section == "controller" else found[0])["pid"]
            kill(victim)

            def back(section: str = section, victim: int = victim) -> bool:
                try:
                    status = stack.status()
                except OSError:
                    return False
                rows = [status[section]] if section == "controller" else status[section]
                return any(row["pid"] != victim for row in rows)

            await until(back, f"{section}: another one is there")
            # The next one dies when the call has its stream again, so that it breaks once.
            await conversations.both_ways(0.5)
        assert honcho.poll() is None
    conversations.check(streams=2)
    assert not stack.held(ALICE)
    honcho.terminate()
    await until(lambda: honcho.poll() is not None, "honcho has ended")
    assert honcho.returncode == 0
    stack.check_nothing_left()
