"""Clients of a tcp bus with keys of their own: let in by a file, and shut out by it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import zmq

from trunkline.bus import client_keys
from trunkline.bus.client_keys import AllowList
from trunkline.bus.curve import ClientCurve, CurveKeys, shown
from trunkline.bus.errors import SettingsError
from trunkline.bus.settings import load
from trunkline.bus.sockets import bind_router, connect_dealer
from trunkline.bus.testing import Context, until

BUS = CurveKeys("token")


def allow(path: Path, **clients: ClientCurve) -> None:
    with client_keys.changing(path) as known:
        known.clear()
        known.update({name: client.public for name, client in clients.items()})


@contextlib.asynccontextmanager
async def connecting(endpoint: str, keys: ClientCurve) -> AsyncIterator[tuple[list[str], object]]:
    """What a client sees that connects with these keys, and its socket."""
    context: Context = zmq.Context()
    seen: list[str] = []
    dealer = connect_dealer(
        context,
        endpoint,
        lambda payload: seen.append(payload.decode()),
        on_connected=lambda: seen.append("connected"),
        on_disconnected=lambda: seen.append("disconnected"),
        curve=keys,
    )
    try:
        yield seen, dealer
    finally:
        dealer.close()
        context.destroy(linger=0)


async def refused(endpoint: str, keys: ClientCurve) -> None:
    async with connecting(endpoint, keys) as (seen, _):
        with pytest.raises(TimeoutError):
            await until(lambda: seen, seconds=0.3)


async def test_keys_are_rotated_under_a_connection_that_stands(
    context: Context, tmp_path: Path
) -> None:
    path = tmp_path / "clients"
    old, new, unknown = (ClientCurve.new(BUS.server_public) for _ in range(3))
    got: list[bytes] = []
    router, endpoint = bind_router(
        context, "tcp://127.0.0.1:*", lambda _, p: got.append(p), curve=CurveKeys("token", path)
    )
    await refused(endpoint, old)  # there is no file yet
    allow(path, old=old)
    async with connecting(endpoint, old) as (seen, dealer):
        await until(lambda: seen == ["connected"])
        await refused(endpoint, unknown)
        await refused(endpoint, new)
        # Both for a while, and then the new one alone.
        allow(path, old=old, new=new)
        async with connecting(endpoint, new) as (others, _):
            await until(lambda: others == ["connected"])
        allow(path, new=new)
        await refused(endpoint, old)
        async with connecting(endpoint, new) as (others, _):
            await until(lambda: others == ["connected"])
        # The connection of the old key felt nothing.
        assert dealer.send(b"still here")  # type: ignore[attr-defined]  # a DealerSocket
        await until(lambda: got == [b"still here"])
        assert seen == ["connected"]
    async with connecting(endpoint, CurveKeys("token")) as (seen, _):
        await until(lambda: seen == ["connected"])  # the bus's own key needs no file
    router.close()


async def test_a_client_does_not_talk_to_another_bus(context: Context, tmp_path: Path) -> None:
    """Its key names the bus: whoever else listens there hears nothing, and not even the key."""
    client = ClientCurve.new(BUS.server_public)
    allow(tmp_path / "clients", it=client)
    router, endpoint = bind_router(
        context,
        "tcp://127.0.0.1:*",
        lambda *_: None,
        curve=CurveKeys("another", tmp_path / "clients"),
    )
    await refused(endpoint, client)
    router.close()


def test_a_key_is_one_word_that_is_read_again() -> None:
    made = ClientCurve.new(BUS.server_public)
    again = ClientCurve.read(made.text)
    assert (again.public, again.server_public, again.text) == (
        made.public,
        BUS.server_public,
        made.text,
    )
    assert made.text.isascii() and made.text.replace("_", "").isalnum()


def test_a_settings_key_is_hidden_and_wins_over_the_token_for_clients_alone() -> None:
    made = ClientCurve.new(BUS.server_public)
    settings = load(
        env_file=None, bus="tcp://127.0.0.1:7", client_key=made.text, auth_token="token"
    )
    assert made.text not in repr(settings)
    curve, of_the_stack = settings.client_curve, settings.curve
    assert curve is not None and curve.public == made.public
    assert of_the_stack is not None and of_the_stack.public != made.public
    with pytest.raises(SettingsError, match=r"\ATRUNKLINE_CLIENT_KEY: expected a key") as caught:
        load(env_file=None, client_key=made.text[:-1])
    assert made.text[10:20] not in str(caught.value)
    with pytest.raises(SettingsError, match="a client's: a process of the stack needs"):
        load(env_file=None, bus="tcp://127.0.0.1:7", client_key=made.text).tcp_key()


def test_a_change_that_died_half_way_is_in_nobodys_way(tmp_path: Path) -> None:
    path = tmp_path / "clients"
    client = ClientCurve.new(BUS.server_public)
    (tmp_path / "clients.new").write_text("# half of")
    allow(path, it=client)
    assert AllowList(BUS.public, path).has(client.public)


@pytest.mark.parametrize("wrong", ["nobody", 0o666, 0o660, "no text", "a directory"])
def test_a_file_that_cannot_be_trusted_lets_nobody_in(
    tmp_path: Path, wrong: str | int, caplog: pytest.LogCaptureFixture
) -> None:
    """A number is a mode that lets others write."""
    path = tmp_path / "clients"
    client = ClientCurve.new(BUS.server_public)
    allow(path, it=client)
    allowed = AllowList(BUS.public, path)
    assert allowed.has(client.public) and allowed.has(BUS.public)
    if wrong == "nobody":
        path.unlink()
    elif isinstance(wrong, int):
        path.write_text(path.read_text() + "\n")
        path.chmod(wrong)
    elif wrong == "no text":
        path.write_bytes(b"\xff\xfe")
    else:
        path.unlink()
        path.mkdir()
    assert not allowed.has(client.public) and allowed.has(BUS.public)
    assert bool(caplog.records) == (wrong != "nobody")


def test_a_line_that_is_none_lets_nobody_in_and_costs_nobody_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "clients"
    client = ClientCurve.new(BUS.server_public)
    path.write_text(f"# ours\n\nabc nobody\n{shown(client.public)} it  # since May\n")
    path.chmod(0o600)
    assert client_keys.read(path) == {"it": client.public}
    assert f"{path}: line 3 is no public key" in caplog.text
