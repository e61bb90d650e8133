"""CURVE on tcp: both key pairs of a stack, derived from the bus's key, and that from the account's
auth token.

Whoever has the key may join the bus, and nobody else: the server proves itself by its key, and a
ZAP handler lets in the one client key. On ipc the directory's mode (0700) does the same. A process
that only works on sound, such as a codec worker, is given the bus's key and never the token.
"""

from __future__ import annotations

import contextlib
from typing import Any

import zmq
from zmq.utils import z85

_DOMAIN = "trunkline"


def bus_key(auth_token: str) -> str:
    """The key of the account's bus. The token cannot be had from it."""
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


class CurveKeys:
    """Keys for the tcp bus that has this key."""

    def __init__(self, key: str) -> None:
        if not key:
            raise ValueError("CURVE keys need the bus's key")
        self._server_public, self._server_secret = _pair(key, "server")
        self._client_public, self._client_secret = _pair(key, "client")

    def apply_client(self, socket: zmq.Socket[bytes]) -> None:
        socket.curve_serverkey = self._server_public
        socket.curve_publickey = self._client_public
        socket.curve_secretkey = self._client_secret

    def apply_server(
        self, socket: zmq.Socket[bytes], context: zmq.Context[zmq.Socket[bytes]]
    ) -> None:
        socket.curve_server = 1
        socket.curve_secretkey = self._server_secret
        socket.curve_publickey = self._server_public
        socket.zap_domain = _DOMAIN.encode()
        _admit_only(self._client_public, context)


class _OneKey:
    """Answers ZAP's question whether a client's public key may connect."""

    def __init__(self, public: bytes) -> None:
        self._public = public

    def callback(self, domain: str, key: bytes) -> bool:
        return domain == _DOMAIN and key == self._public


_authenticators: dict[int, Any] = {}


def _admit_only(public: bytes, context: zmq.Context[zmq.Socket[bytes]]) -> None:
    """Start the context's ZAP handler (one for a context; it ends with it)."""
    if id(context) in _authenticators:
        return
    from zmq.auth.thread import ThreadAuthenticator  # not needed on ipc, nor by a client

    authenticator = ThreadAuthenticator(context)
    authenticator.start()
    authenticator.configure_curve_callback(domain=_DOMAIN, credentials_provider=_OneKey(public))
    _authenticators[id(context)] = authenticator


def stop_authenticator(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    """End the context's ZAP handler; call it before the context is terminated."""
    authenticator = _authenticators.pop(id(context), None)
    if authenticator is not None:
        with contextlib.suppress(zmq.ZMQError):  # the context is going away anyway
            authenticator.stop()
