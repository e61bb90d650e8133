"""The ``trunkline`` command: its subcommands and their options."""
