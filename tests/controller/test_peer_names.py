"""Which connection may speak in which name."""

from __future__ import annotations

import pytest

from trunkline.bus import messages as m
from trunkline.controller import peer_names
from trunkline.controller.peer_names import PeerNames


class Names(PeerNames):
    """All connections stand, but for those in ``gone``."""

    def __init__(self) -> None:
        self.gone: set[bytes] = set()
        self.asked: list[bytes] = []
        super().__init__(self._still_there)

    def _still_there(self, identity: bytes) -> bool:
        self.asked.append(identity)
        return identity not in self.gone

    def say(
        self, identity: bytes, key: str = "", connection: int = 0, peer: str = "p1"
    ) -> str | None:
        """A Hello; why it was not heard."""
        hello = m.Hello(role="adapter", peer=peer, pid=1, key=key, connection=connection)
        why = self.objection(hello, identity)
        if why is None:
            self.bind(hello, identity)
        return why


@pytest.fixture
def names() -> Names:
    return Names()


def test_a_name_is_its_first_connections_until_that_is_gone(names: Names) -> None:
    assert names.say(b"one") is None
    assert names.say(b"two") == "names in use"
    assert names.say(b"one") is None, "the same connection may say Hello again"
    assert (names.connection("p1"), names.has("p1", b"two")) == (b"one", False)
    names.gone.add(b"one")
    assert names.say(b"two") is None
    assert (names.connection("p1"), names.has("p1", b"one")) == (b"two", False)


def test_the_process_itself_comes_back_at_once_by_its_key(names: Names) -> None:
    assert names.say(b"one", "k1", 1) is None
    assert names.say(b"two", "k1", 2) is None
    assert names.connection("p1") == b"two"
    assert names.asked == [], "the old connection need not be known to be gone"


@pytest.mark.parametrize("key", ["", "k2"])
def test_nobody_else_gets_the_name_of_a_process_that_has_a_key(names: Names, key: str) -> None:
    names.say(b"one", "k1", 1)
    assert names.say(b"two", key, 2) == "names in use"
    names.gone.add(b"one")
    assert names.say(b"two", key, 2) == "names in use", "its answers and sessions are still there"
    names.forget_all_but(())
    assert names.say(b"two", key, 1) is None


def test_a_key_is_not_changed_on_its_connection(names: Names) -> None:
    names.say(b"one", "k1", 1)
    assert names.say(b"one", "k2", 1) is None
    assert names.say(b"two", "k2", 2) == "names in use"
    assert names.say(b"two", "k1", 2) is None


def test_a_connection_that_goes_to_another_stack_has_no_name_here(names: Names) -> None:
    for peer, key in (("p1", ""), ("p2", "k2")):
        names.say(b"one", key, 1, peer)
        assert names.let_go(b"one") == peer and names.let_go(b"one") is None
        assert names.connection(peer) is None and not names.has_any(b"one")
    assert names.say(b"two", "", 1, "p1") is None, (
        "its connection was all that the name was kept for"
    )
    assert names.say(b"three", "k3", 2, "p2") == "names in use"
    assert names.say(b"one", "k2", 1, "p2") is None, "it may come back"
    names.let_go(b"one")
    names.forget_all_but(())
    assert names.unknown("p2")


def test_a_hello_of_an_older_connection_is_late(names: Names) -> None:
    names.say(b"new", "k1", 2)
    assert names.say(b"old", "k1", 1) == "late hellos"
    assert names.connection("p1") == b"new"


def test_a_connection_has_one_name(names: Names) -> None:
    names.say(b"one", peer="p1")
    assert names.say(b"one", peer="p2") == "second names"
    assert names.unknown("p2")


def test_names_are_bounded(names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_names, "MOST_PEERS", 2)
    said = [names.say(b"%d" % n, peer=f"p{n}") for n in range(3)]
    assert said == [None, None, "too many peers"]
    names.forget_all_but({"p1"})
    assert names.say(b"2", peer="p2") is None


def test_what_was_forgotten_is_unknown(names: Names) -> None:
    names.say(b"one")
    names.forget_all_but({"p2"})
    assert names.unknown("p1") and names.connection("p1") is None and not names.has("p1", b"one")
    assert names.say(b"one", peer="p3") is None
