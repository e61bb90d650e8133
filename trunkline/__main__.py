"""``python -m trunkline``: the same as the ``trunkline`` command.

All processes of a stack start so. What they import stays to their end, so no collection of garbage
looks at it meanwhile: that would take a sixth of their start.
"""

import gc


def start() -> None:
    gc.disable()
    from .cli.main import main

    gc.freeze()
    gc.enable()
    main()


if __name__ == "__main__":
    start()
