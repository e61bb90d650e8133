"""``python -m trunkline``: the same as the ``trunkline`` command. All processes of a stack are
started like this."""

from trunkline.bus import imports


def start() -> None:
    with imports.that_stay():
        from .cli.main import main
    main()


if __name__ == "__main__":
    start()
