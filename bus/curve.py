"""CURVE on tcp: who may join a bus, and how each side proves itself.

Both key pairs of a stack are derived from the bus's key, which is derived from the account's auth
token. Whoever has the bus's key may join. A client may have a key pair of its own instead. Then its
public key stands in a file (:mod:`.client_keys`), and it can be shut out without anybody else
noticing. A ZAP handler looks at each new connection, and at no connection a second time: ZeroMQ
cannot end one of a socket's connections, and no call is to be dropped because keys are changed.

On ipc the directory's mode (0700) does all of that. A process that only works on sound, such as a
codec worker, is given the bus's key and never the token.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any, Final

import zmq
from zmq.utils import z85

from .client_keys import AllowList

_DOMAIN = "trunkline"
#: How a client's own key begins. Behind it: its secret key, and the public key of the bus.
_CLIENT: Final = "tlc_"
_CLIENT_KEY: Final = re.compile(rf"{_CLIENT}([0-9a-f]{{64}})([0-9a-f]{{64}})\Z")


def bus_key(auth_token: str) -> str:
    """The key of the account's bus (64 hex digits). The token cannot be derived from it."""
    return _derive(auth_token, "key").hex()


def _derive(secret: str, info: str) -> bytes:
    # Imported here, because a stack on ipc needs no keys, and its processes start sooner without.
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    hkdf = HKDF(SHA256(), 32, salt=b"trunkline bus", info=info.encode())
    return hkdf.derive(secret.encode())


def _pair(key: str, role: str) -> tuple[bytes, bytes]:
    secret = z85.encode(_derive(key, role))
    return zmq.curve_public(secret), secret


def shown(public: bytes) -> str:
    """A public key as people see it: 64 hexadecimal digits. ZeroMQ's own notation (Z85) has
    characters that a shell takes for commands."""
    return z85.decode(public).hex()


def read_public(text: str) -> bytes:
    """The public key (Z85) that :func:`shown` has written so. ValueError for any other text."""
    if not re.fullmatch("[0-9a-f]{64}", text):
        raise ValueError("expected a public key, which has 64 hexadecimal digits")
    return z85.encode(bytes.fromhex(text))


class ClientCurve:
    """The keys of somebody who connects."""

    def __init__(self, server_public: bytes, secret: bytes) -> None:
        self.server_public = server_public
        self.public = zmq.curve_public(secret)
        self._secret = secret

    @classmethod
    def new(cls, server_public: bytes) -> ClientCurve:
        """A new key pair for the bus that has this public key."""
        _, secret = zmq.curve_keypair()
        return cls(server_public, secret)

    @classmethod
    def read(cls, text: str) -> ClientCurve:
        """A client's own key, as :attr:`text` writes it. ValueError for any other text."""
        found = _CLIENT_KEY.match(text)
        if found is None:
            raise ValueError(
                f"expected a key that `trunkline keys make` has printed: {_CLIENT} and 128 "
                "hexadecimal digits"
            )
        secret, server = (z85.encode(bytes.fromhex(part)) for part in found.groups())
        return cls(server, secret)

    @property
    def text(self) -> str:
        """The key in one word. It is a secret."""
        return f"{_CLIENT}{z85.decode(self._secret).hex()}{z85.decode(self.server_public).hex()}"

    def apply_client(self, socket: zmq.Socket[bytes]) -> None:
        socket.curve_serverkey = self.server_public
        socket.curve_publickey = self.public
        socket.curve_secretkey = self._secret


class CurveKeys(ClientCurve):
    """The keys of a tcp bus, derived from the bus's ``key``: for whoever listens there, and for
    whoever connects by that key. ``clients``: the file of clients that have keys of their own."""

    def __init__(self, key: str, clients: Path | None = None) -> None:
        if not key:
            raise ValueError("CURVE keys need the bus's key")
        server_public, self._server_secret = _pair(key, "server")
        super().__init__(server_public, _pair(key, "client")[1])
        self._clients = clients

    def apply_server(
        self, socket: zmq.Socket[bytes], context: zmq.Context[zmq.Socket[bytes]]
    ) -> None:
        socket.curve_server = 1
        socket.curve_secretkey = self._server_secret
        socket.curve_publickey = self.server_public
        socket.zap_domain = _DOMAIN.encode()
        _admit(AllowList(self.public, self._clients), context)


class _Doorkeeper:
    """Answers ZAP's question whether a client's public key may connect."""

    def __init__(self, allowed: AllowList) -> None:
        self._allowed = allowed

    def callback(self, domain: str, key: bytes) -> bool:
        return domain == _DOMAIN and self._allowed.has(key)


_authenticators: dict[int, Any] = {}


def _admit(allowed: AllowList, context: zmq.Context[zmq.Socket[bytes]]) -> None:
    """Start the context's ZAP handler, unless it has one. It runs until
    :func:`stop_authenticator`."""
    if id(context) in _authenticators:
        return
    from zmq.auth.thread import ThreadAuthenticator  # not needed on ipc, nor by a client

    authenticator = ThreadAuthenticator(context)
    authenticator.start()
    authenticator.configure_curve_callback(
        domain=_DOMAIN, credentials_provider=_Doorkeeper(allowed)
    )
    _authenticators[id(context)] = authenticator


def stop_authenticator(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    """End the context's ZAP handler; call it before the context is terminated."""
    authenticator = _authenticators.pop(id(context), None)
    if authenticator is not None:
        with contextlib.suppress(zmq.ZMQError):  # the context is going away anyway
            authenticator.stop()
