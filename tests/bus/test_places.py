"""Who may stay where there is not room for all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.bus import hosts
from trunkline.bus.places import Places


def test_the_example_of_the_module() -> None:
    places: Places[str] = Places(3, 2)
    assert [places.enter(*who) for who in (("a", "x"), ("b", "y"), ("c", "x"))] == [None] * 3
    assert places.enter("d", "x") == "a"
    assert places.enter("e", "z") == "b"
    assert list(places) == ["c", "d", "e"]


def test_who_enters_again_is_the_newest() -> None:
    places: Places[str] = Places(2)
    places.enter("a", "x")
    places.enter("b", "y")
    assert places.enter("a", "y") is None
    assert places.oldest == "b"
    assert places.enter("c") == "b"
    places.leave("nobody")
    assert list(places) == ["a", "c"]


@given(
    room=st.integers(1, 5),
    share=st.none() | st.integers(1, 5),
    steps=st.lists(st.tuples(st.integers(0, 9), st.sampled_from([None, "x", "y"]), st.booleans())),
)
def test_there_are_never_more_and_the_newcomer_is_there(
    room: int, share: int | None, steps: list[tuple[int, str | None, bool]]
) -> None:
    places: Places[int] = Places(room, share)
    owners: dict[int, str | None] = {}
    for who, owner, enters in steps:
        if enters:
            goes = places.enter(who, owner)
            owners[who] = owner
            assert goes != who and who in places and goes not in places
        else:
            places.leave(who)
        assert len(places) == len(list(places)) <= room
        for one in ("x", "y"):
            assert share is None or sum(owners[w] == one for w in places) <= share
    for who in list(places):
        places.leave(who)
    assert not places._owned


@pytest.mark.parametrize(
    ("host", "owner"),
    [
        ("127.0.0.1", None),
        ("::1", None),
        ("10.1.2.3", None),
        ("172.17.0.1", None),
        ("fd00::1", None),
        ("fe80::1%eth0", None),
        ("203.0.114.7", "203.0.114.7"),
        ("::ffff:203.0.114.7", "203.0.114.7"),
        ("2a01:4f8:1:2:3::4", "2a01:4f8:1:2::/64"),
        ("2a01:4f8:1:2:ffff::", "2a01:4f8:1:2::/64"),
        ("somewhere.example", None),
    ],
)
def test_whose_a_connection_is(host: str, owner: str | None) -> None:
    """Tunnels and proxies stand on the loopback and in private networks: they bring everybody's."""
    assert hosts.owner_of(host) == owner
