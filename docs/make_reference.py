"""Writes docs/commands.md from the commands' own help, and docs/settings.md from the settings.

Run by ``make docs``; with ``--check`` it changes nothing and exits 1 where a page is out of date.
Names, defaults and options of settings come from the code. Their meaning comes from the README's
table, which has to have each of them.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click
from make_bus import keep

from trunkline.bus.settings import FIELDS, Settings, env_name
from trunkline.carrier_sim.command import command as carrier_sim
from trunkline.cli.main import cli
from trunkline.cli.options import OPTIONS

DOCS: Final = Path(__file__).parent
_ROW: Final = re.compile(r"^\| (`[A-Z].*?) \| (.*?) ?\| (.*) \|$", re.MULTILINE)
#: As wide as a terminal of the reader's.
_WIDTH: Final = 80


def commands(
    command: click.Command, name: str, parent: click.Context | None = None
) -> Iterator[tuple[str, str]]:
    """(name, help) of a command, and of those in it."""
    if command is cli.commands["carrier-sim"]:
        command = carrier_sim  # to which that one passes its arguments on
    context = click.Context(
        command,
        info_name=name,
        parent=parent,
        terminal_width=_WIDTH,
        **command.context_settings,
    )
    yield context.command_path, command.get_help(context)
    if isinstance(command, click.Group):
        for each in sorted(command.list_commands(context)):
            found = command.get_command(context, each)
            if found is not None and not found.hidden:
                yield from commands(found, each, context)


def commands_page() -> str:
    """All commands."""
    parts = [
        "# Commands",
        "",
        "Written by `make docs` from what `--help` says. Exit status: 0 done, 1 failed with one "
        "line on stderr,\n2 wrong usage, 3 something is still to be put back. An option that "
        "names a [setting](settings.md) wins over\nthe environment. For example, nothing is left "
        "to be put back:",
        "",
        "```console",
        '$ trunkline restore --dry-run --state-dir state; echo "status $?"',
        "status 0",
        "```",
        "",
    ]
    for name, text in commands(cli, "trunkline"):
        parts += [f"## {name}", "", "```text", text.rstrip(), "```", ""]
    return "\n".join(parts)


def _meanings() -> dict[str, str]:
    """Variable -> what the README says of it."""
    text = (DOCS.parent / "README.md").read_text()
    table = text[text.index("\n## Settings") : text.index("\n## Measured")]
    return {
        name: meaning.replace("](docs/", "](")
        for names, _, meaning in _ROW.findall(table)
        for name in re.findall(r"`([A-Z_]+)`", names)
    }


def _default(field: dataclasses.Field[Any]) -> str:
    if field.name in ("bus", "state_dir"):
        return "a directory of the user's"
    if field.name == "host":
        return "the machine's id of this boot"
    value = field.default
    if value in (None, "", ()) or isinstance(value, type(dataclasses.MISSING)):
        return ""
    return f"`{int(value) if isinstance(value, bool) else value}`"


def stand_in_rows() -> Iterator[str]:
    """The variables of the stand-in carrier that ``trunkline up --sim`` leaves to the user."""
    prefix = carrier_sim.context_settings["auto_envvar_prefix"]
    for option in carrier_sim.params:
        assert isinstance(option, click.Option) and option.name is not None
        if option.envvar is None and option.help and option.name not in ("grace", "ready_file"):
            meaning = option.help.replace("](docs/", "](").replace(" Repeatable.", "")
            several = "; several with blanks between" if option.multiple else ""
            form = f" `{option.metavar}`{several}." if option.multiple else ""
            yield f"| `{prefix}_{option.name.upper()}` | `{option.opts[0]}` | {meaning}{form} |"


def settings_page() -> str:
    """All settings, in the code's order."""
    meanings = _meanings()
    fields = {field.name: field for field in dataclasses.fields(Settings)}
    rows = []
    for name in FIELDS:
        variable = env_name(name)
        option = f"`--{name.replace('_', '-')}`" if name in OPTIONS else ""
        default = _default(fields[name])
        rows.append(f"| `{variable}` | {option} | {default} | {meanings.pop(variable)} |")
    assert not meanings, f"the README has settings that there are not: {sorted(meanings)}"
    return "\n".join(
        [
            "# Settings",
            "",
            "Written by `make docs` from the code. An option wins over the environment, and the "
            "environment over `.env`.\nA setting that is missing or wrong ends the process at its "
            "start, with one line that names it:",
            "",
            "```console",
            '$ TRUNKLINE_LEAD_MS=0.06 trunkline status 2>&1 || echo "status $?"',
            "trunkline: TRUNKLINE_LEAD_MS='0.06': expected whole milliseconds, from 20 to 1000",
            "status 1",
            "```",
            "",
            "| name | option | default | meaning |",
            "|---|---|---|---|",
            *rows,
            "",
            "## Of the stand-in carrier",
            "",
            "Each option of `trunkline carrier-sim` is also a variable, and so can be given to "
            "`trunkline up --sim`\n([an example](far-end.md#far-ends-of-ones-own)). These are read "
            "from the environment alone, and not from `.env`.",
            "",
            "| name | option | meaning |",
            "|---|---|---|",
            *stand_in_rows(),
            "",
        ]
    )


if __name__ == "__main__":
    sys.exit(
        keep(DOCS / "commands.md", commands_page()) or keep(DOCS / "settings.md", settings_page())
    )
