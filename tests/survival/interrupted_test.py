"""A test with a private stack, in a process group of its own, as a terminal starts it::

    interrupted_test.py NUMBER PUBLIC_URL PAUSE

It waits for a call at NUMBER until Ctrl-C, cleans up while PAUSE is there, and disconnects.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

# Behind everything else: no room is to be found under another name.
sys.path += [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

from later import trunkline


async def main(number: str, public_url: str, pause: Path) -> None:
    agent = trunkline.TwilioAgentAdapter(
        account_sid=os.environ["TWILIO_ACCOUNT_SID"],
        auth_token=os.environ["TWILIO_AUTH_TOKEN"],
        phone_number=number,
        public_base_url=public_url,
        http_port=int(public_url.rpartition(":")[2]),
    )
    await agent.connect()
    try:
        print(json.dumps({"connected": True}), flush=True)
        await agent.wait_for_call(timeout=60.0)
    finally:
        print(json.dumps({"cleaning": "up"}), flush=True)
        while pause.exists():  # noqa: ASYNC110, ASYNC240  # whoever looks takes it away
            await asyncio.sleep(0.02)
        await agent.disconnect()
        print(json.dumps({"disconnected": agent.is_connected() is False}), flush=True)


if __name__ == "__main__":
    os.setpgid(0, 0)
    # A shell starts what runs in its background without it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    asyncio.run(main(sys.argv[1], sys.argv[2], Path(sys.argv[3])))
