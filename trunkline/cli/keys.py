"""``trunkline keys``: the clients that have keys of their own on a tcp bus.

No command here needs a running stack. The controller and the codec workers read the file of keys
each time a client connects.
"""

from __future__ import annotations

import json
from pathlib import Path

import click

from trunkline.bus import client_keys
from trunkline.bus.curve import ClientCurve, CurveKeys, read_public, shown
from trunkline.bus.errors import SettingsError
from trunkline.bus.settings import Settings

from .options import json_option, settings_options

_STAYS = "Connections that it has stay until they end. It gets no new one."


def _name(context: click.Context, parameter: click.Parameter, value: str) -> str:
    if not client_keys.NAME.match(value):
        raise click.BadParameter("expected letters, digits, dots, - and _, 64 at most")
    return value


def _public(context: click.Context, parameter: click.Parameter, value: str | None) -> bytes | None:
    try:
        return None if value is None else read_public(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


_of_client = click.argument("name", callback=_name)


def _file(settings: Settings) -> Path:
    path = settings.clients_path
    if path is None:
        raise SettingsError(
            "TRUNKLINE_BUS_CLIENTS is not set, and this user has no home directory: set it to the "
            "file that is to have the clients' keys"
        )
    return path


@click.group(short_help="Keys of clients on a tcp bus: make, show, add, remove.")
def keys() -> None:
    """Give clients of a tcp bus keys of their own.

    A client with a key of its own can be shut out alone. Whoever has the bus's key
    (TRUNKLINE_BUS_KEY, or the account's token) is always let in. A change counts at once for every
    new connection, and ends no call.

    \b
    Examples:
      trunkline keys make ci-runners         prints the setting for these clients
      trunkline keys show
      trunkline keys remove ci-runners
    """


@keys.command()
@_of_client
@click.option(
    "--server",
    callback=_public,
    metavar="PUBLIC",
    help="Make the key on the client's own machine. PUBLIC is the bus's public key, which `keys "
    "show` prints on the stack's machine. The client is let in by `keys add` there.",
)
@settings_options("state_dir")
def make(settings: Settings, name: str, server: bytes | None) -> None:
    """Make a key for a client, and let the client in. Prints its setting, which is a secret."""
    if server is not None:
        made = ClientCurve.new(server)
        click.echo(f"TRUNKLINE_CLIENT_KEY={made.text}")
        click.echo(f"# on the stack's machine: trunkline keys add {name} {shown(made.public)}")
        return
    made = ClientCurve.new(CurveKeys(settings.tcp_key()).server_public)
    _add(_file(settings), name, made.public)
    click.echo(f"TRUNKLINE_CLIENT_KEY={made.text}")


@keys.command()
@_of_client
@click.argument("public", callback=_public)
@settings_options("state_dir")
def add(settings: Settings, name: str, public: bytes) -> None:
    """Let in a client whose key was made elsewhere. PUBLIC is its public key."""
    _add(_file(settings), name, public)
    click.echo(f"{name}: added")


def _add(path: Path, name: str, public: bytes) -> None:
    with client_keys.changing(path) as clients:
        if name in clients:
            raise click.UsageError(
                f"{name} has a key already: give the new one another name, and remove the old one "
                "once nobody uses it"
            )
        clients[name] = public


@keys.command()
@_of_client
@settings_options("state_dir")
def remove(settings: Settings, name: str) -> None:
    """Shut a client out."""
    with client_keys.changing(_file(settings)) as clients:
        if clients.pop(name, None) is None:
            raise click.UsageError(f"there is no client {name}; `trunkline keys show` lists them")
    click.echo(f"{name}: removed. {_STAYS}")


@keys.command()
@json_option
@settings_options("state_dir")
def show(settings: Settings, as_json: bool) -> None:
    """Show the bus's public key, and the clients that have keys of their own."""
    bus = shown(CurveKeys(settings.tcp_key()).server_public)
    clients = {name: shown(public) for name, public in client_keys.read(_file(settings)).items()}
    if as_json:
        click.echo(json.dumps({"bus": bus, "clients": clients}))
        return
    click.echo(f"{bus}  (the bus itself)")
    for name, public in sorted(clients.items()):
        click.echo(f"{public}  {name}")
