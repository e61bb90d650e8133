"""Where the ``trunkline`` command starts, and ``python -m trunkline``, which is the same. All
processes of a stack are started in the second way."""

import os
import signal

from trunkline.bus.descriptors import KEEPER_FD_VARIABLE

# A process that is kept running leaves SIGINT to its keeper (bus/process.py), also while it imports
# its modules: Ctrl-C in a terminal reaches both.
if KEEPER_FD_VARIABLE in os.environ:
    signal.signal(signal.SIGINT, signal.SIG_IGN)

from trunkline.bus import imports


def start() -> None:
    """Import the command line, and run it. Ctrl-C during the imports ends the process like any
    program that does not know the signal, without a traceback."""
    interruptible = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if interruptible:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    with imports.that_stay():
        from .cli.main import main
    if interruptible:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    main()


if __name__ == "__main__":
    start()
