"""``python -m trunkline``: the same as the ``trunkline`` command."""

from .cli.main import main

if __name__ == "__main__":
    main()
