"""``python -m trunkline``: the same as the ``trunkline`` command. All processes of a stack are
started like this."""

import os
import signal

from trunkline.bus.descriptors import KEEPER_FD_VARIABLE

# A process that is kept running leaves SIGINT to its keeper (bus/process.py), also while it imports
# its modules: Ctrl-C in a terminal reaches both.
if KEEPER_FD_VARIABLE in os.environ:
    signal.signal(signal.SIGINT, signal.SIG_IGN)

from trunkline.bus import imports


def start() -> None:
    with imports.that_stay():
        from .cli.main import main
    main()


if __name__ == "__main__":
    start()
