"""The ``trunkline`` command: what is typed, what is shown, what each command needs of its own."""
