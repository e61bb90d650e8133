"""What ``make lint`` says of a field that is written by another than its entity."""

from __future__ import annotations

import ast
from collections import Counter, OrderedDict, defaultdict, deque
from pathlib import Path
from types import MappingProxyType

import pytest

from . import tool

check_owners = tool.load("check_owners")


def faults(code: str) -> list[str]:
    return [what for _, what in check_owners.faults(ast.parse(code), sets_state=False)]


def within(*lines: str) -> list[str]:
    """Faults of a rule's function with these lines."""
    return faults("\n    ".join(["def rule(at, call, lease):", *lines]))


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("call.gateway = None", "call.gateway is another's field"),
        ("call.checked += 1", "call.checked is another's field"),
        ("a, call.sid = 1, 2", "call.sid is another's field"),
        ("at.book.calls[1] = call", "at.book.calls[1] is another's field"),
        ("del at.book.calls[1]", "at.book.calls[1] is another's field"),
        ("self.book.claiming = False", "self.book.claiming is another's field"),
        ("call.ending.append(1)", "call.ending.append changes what is another's"),
        ("at.book.leases.pop(1)", "at.book.leases.pop changes what is another's"),
        ("setattr(call, 'sid', 1)", "a field is set by its name"),
        ("object.__setattr__(call, 'sid', 1)", "a field is set by its name"),
        ("delattr(call, 'sid')", "a field is set by its name"),
        ("force_setattr(call, 'sid', 1)", "a field is set by its name"),
        ("self.state = 'armed'", "a state is set past its table"),
        ("for call.sid in sids: pass", "call.sid is another's field"),
        ("with stream as call.stream: pass", "call.stream is another's field"),
        ("async def f():\n async for call.sid in sids: pass", "call.sid is another's field"),
        ("async def f():\n async with x as (a, call.sid): pass", "call.sid is another's field"),
        ("found = [1 for call.sid in sids]", "call.sid is another's field"),
        ("del call.sid", "call.sid is another's field"),
        ("[first, *call.rest] = sids", "call.rest is another's field"),
        ("call.sid: str = ''", "call.sid is another's field"),
        ("call.holders |= {1}", "call.holders is another's field"),
        ("vars(call)['sid'] = 1", "vars(call)['sid'] is another's field"),
        ("list.append(call.ending, 1)", "list.append changes what is another's"),
        ("any(map(call.ending.append, ends))", "call.ending.append changes what is another's"),
        ("lease.queue.pop()", "lease.queue.pop changes what is another's"),
    ],
)
def test_refused(code: str, what: str) -> None:
    assert faults(code) == [what]


@pytest.mark.parametrize(
    "kind, fixed",
    [
        (list, tuple),
        (deque, tuple),
        (bytearray, bytes),
        (set, frozenset),
        *((kind, MappingProxyType) for kind in (dict, defaultdict, OrderedDict, Counter)),
    ],
)
def test_each_method_that_changes_a_container_is_refused(kind: type, fixed: type) -> None:
    reads = {"copy", "elements", "fromkeys", "most_common", "total", "maxlen", "default_factory"}
    changes = {name for name in {*dir(kind)} - {*dir(fixed)} - reads if not name.startswith("_")}
    changes |= {
        name for name in dir(kind) if name.startswith("__i") and f"__{name[3:]}" in dir(kind)
    }
    for name in {*changes, "__setitem__", "__delitem__"} & {*dir(kind)}:
        assert faults(f"call.field.{name}(1)") == [f"call.field.{name} changes what is another's"]


@pytest.mark.parametrize(
    "lines",
    [
        ("calls = at.book.calls", "calls[1] = call"),
        ("calls = at.book.calls", "del calls[1]"),
        ("calls = at.book.calls", "calls |= {1: call}"),
        ("holders = lease.holders", "holders.clear()"),
        ("first = second = lease.holders", "second.clear()"),
        ("if (holders := lease.holders): holders.clear()",),
        ("holders, n = lease.holders, 1", "holders.clear()"),
        ("holders = lease.holders or {}", "holders.clear()"),
        ("holders = lease.holders if at.now else {}", "holders.clear()"),
        ("holders = {}", "holders = lease.holders", "holders.clear()"),
        ("holders = lease.holders", "also = holders", "also.clear()"),
        ("holders = at.book.holders[call.id]", "holders.clear()"),
        ("holders = at.book.holders.get(call.id)", "holders.clear()"),
        ("at.book.holders.get(call.id).clear()",),
        ("getattr(lease, 'holders').clear()",),
        ("for holders in at.book.all_holders: holders.clear()",),
        ("for holders in at.book.by_number.values(): holders.clear()",),
        ("for n, (_, holders) in enumerate(at.book.by_number.items()): holders.clear()",),
        ("copy = list(at.book.all_holders)", "copy[0].clear()"),
        ("found = [each.holders for each in at.book.leases]", "found[0].clear()"),
        ("for holders in (lease.holders, {}): holders.clear()",),
        ("with lease.holders as holders: holders.clear()",),
        ("holders = lease.holders", "def later(): holders.clear()"),
        ("holders = []", "def later(holders): holders.clear()"),
        ("call.clear()",),
        ("call[1] = 1",),
        ("match lease.holders:", "    case holders: holders.clear()"),
    ],
    ids="; ".join,
)
def test_a_second_name_for_what_is_another_s(lines: tuple[str, ...]) -> None:
    (found,) = within(*lines)
    assert "another's" in found


@pytest.mark.parametrize(
    "code",
    [
        "lease = Lease(row, state='applied')",
        "lease = book.Lease(row, state='applied')",
        "lease = dataclasses.replace(lease, state='applied')",
        "from ..journal.rows import OverrideRow\nrow = replace(row, state='applied')",
        "class Dial(Subject): ...\ndial = replace(dial, state='taken')",
    ],
)
def test_a_state_that_no_event_has_led_to(code: str) -> None:
    assert faults(code) == ["a state is given past its table"]


def test_who_may_say_a_state() -> None:
    entity = "class Dial(Subject):\n    state: str\ndef new(): return Dial(row, state='queued')"
    assert faults(entity) == []
    row = "from ..journal.rows import OverrideRow\nrow = OverrideRow(id, state='planned')"
    assert faults(row) == []


def test_which_files_are_looked_at(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    room = tmp_path / "controller"
    (room / "rules" / "book").mkdir(parents=True)
    for name, text in {
        "rules/book/__init__.py": "self.calls: dict[str, Call] = {}",
        "rules/calls.py": "call.sid = ''",
        "rules/tables.py": "self.state = after",
        "rules/book/call.py": "self.state = 'ended'",
        "shell.py": "core.book\ncall.sid = ''",
        "usage.py": "use.over = True",
        "status.py": "keep(book.calls)",
        "otlp.py": "request.headers = {}",
    }.items():
        (room / name).write_text(text)
    monkeypatch.setattr(check_owners, "ROOM", room)
    assert check_owners.main() == 1
    assert set(capsys.readouterr().out.splitlines()) == {
        "controller/rules/calls.py:1: call.sid is another's field",
        "controller/rules/book/call.py:1: a state is set past its table",
        "controller/shell.py:2: call.sid is another's field",
        "controller/usage.py:1: use.over is another's field",
        "controller/status.py:1: book.calls is handed out to be changed",
    }


def test_which_files_hold_the_book() -> None:
    for code in ("book.calls", "core.book", "self._book", "def f(of: Book): ..."):
        assert check_owners.holds_the_book(ast.parse(code))
    assert not check_owners.holds_the_book(ast.parse("import bookkeeping\napp.router = 1"))


@pytest.mark.parametrize(
    "code",
    [
        "call.stream_lost(reason, now)",
        "self.gateway = None",
        "self.calls[1] = call",
        "self.ending.append(1)",
        "self.rows[call].append(1)",
        "at.book.pool.add(1)",
        "book.turns.pop(1)",
    ],
)
def test_allowed(code: str) -> None:
    assert faults(code) == []


@pytest.mark.parametrize(
    "lines",
    [
        ("found = []", "found.append(1)"),
        ("loads = dict(at.book.loads)", "loads[call.id] = 1.0"),
        ("found = at.book.loads | {}", "found.update({})"),
        ("ids = [each for each in at.book.calls]", "ids.sort()"),
        ("ids = sorted(at.book.calls)", "ids.reverse()"),
        ("first, second = [], {}", "first.append(1)", "second[1] = 1"),
        ("rows = at.book.rows_of(call)", "rows.pop()"),
        ("by = {'calls': {}}", "for states in by.values(): states[1] = 2"),
        ("rest = [deque(x) for x in at.book.x]", "rest = [x for x in rest if x]", "rest[0].pop()"),
        ("wishes = self.wishes.get(call.id)", "wishes.popleft()"),
        ("found = []", "def later(): found.append(1)"),
        ("number = 1", "number += call.number"),
        ("with made() as x: x[1] = 2",),
    ],
    ids="; ".join,
)
def test_what_a_function_has_made_is_its_own(lines: tuple[str, ...]) -> None:
    assert within(*lines) == []


def test_what_the_book_hands_out() -> None:
    """A builtin reads what it is given. Anybody else may keep it, and change it later."""
    book = ast.parse("self.calls: dict[str, Call] = {}\nself.queue = DialQueue(1.0)")
    fields = check_owners.containers(book)
    assert fields == {"calls"}
    for code in ("Wall(core.book.calls)", "Wall(calls=self._book.calls)"):
        (found,) = check_owners.handed_out(ast.parse(code), fields)
        assert found[1].endswith("book.calls is handed out to be changed")
    for code in ("sorted(book.calls)", "Wall(book.queue)", "f(book.calls[1])", "f(calls)"):
        assert list(check_owners.handed_out(ast.parse(code), fields)) == []
