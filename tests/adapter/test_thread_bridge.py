"""Bells between threads: nobody sleeps through a ring, and a loop is woken once for many."""

from __future__ import annotations

import asyncio
import threading

import pytest

from trunkline.adapter.client.thread_bridge import Bell, Box, SoundBox, rung_together


def in_thread(work: object) -> None:
    """Run it in another thread, as the client's is."""
    assert callable(work)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(5.0)
    assert not thread.is_alive()


async def test_many_bells_wake_a_loop_once(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes = [SoundBox(1_000) for _ in range(20)]
    waits = [asyncio.ensure_future(box.wait(5.0)) for box in boxes]
    await asyncio.sleep(0)
    loop, woken = asyncio.get_running_loop(), []
    call = loop.call_soon_threadsafe

    def counted(*args: object) -> object:
        woken.append(args)
        return call(*args)  # type: ignore[arg-type]  # as they came

    monkeypatch.setattr(loop, "call_soon_threadsafe", counted)

    def put() -> None:
        with rung_together():
            for box in boxes:
                box.put(b"ab")
            assert not woken, "they are rung at the end"

    in_thread(put)
    assert await asyncio.gather(*waits) == [True] * 20
    assert len(woken) == 1
    assert [box.take_all() for box in boxes] == [b"ab"] * 20


async def test_a_ring_without_rung_together_wakes_at_once() -> None:
    box: Box[int] = Box()
    wait = asyncio.ensure_future(box.bell.wait_until(box.ready, 5.0))
    await asyncio.sleep(0)
    in_thread(lambda: box.put(1))
    assert await wait
    assert box.take() == 1


async def test_what_is_there_already_is_not_waited_for() -> None:
    box = SoundBox(1_000)
    box.put(b"ab")
    assert await box.wait(0.0)
    assert box.take_all() == b"ab"
    assert not await box.wait(0.01)
    box.close()
    assert await box.wait(None)


async def test_less_than_enough_wakes_nobody() -> None:
    box, other = SoundBox(1_000), SoundBox(1_000)
    wait = asyncio.ensure_future(box.wait(5.0, enough=6))
    woken_next = asyncio.ensure_future(other.wait(5.0))
    await asyncio.sleep(0)
    box.put(b"abcd")
    other.put(b"ab")
    assert await woken_next
    assert not wait.done()
    box.put(b"ef")
    assert await wait
    assert box.take_all() == b"abcdef"
    box.put(b"gh")
    assert await box.wait(0.0), "it was for that wait alone"


async def test_the_end_wakes_whoever_waits_for_more() -> None:
    box = SoundBox(1_000)
    wait = asyncio.ensure_future(box.wait(None, enough=100))
    await asyncio.sleep(0)
    box.put(b"ab")
    box.close()
    assert await wait
    assert box.take_all() == b"ab"


async def test_a_cancelled_wait_has_taken_nothing_and_nobody_is_woken_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    box = SoundBox(1_000)
    wait = asyncio.ensure_future(box.wait(None))
    await asyncio.sleep(0)
    wait.cancel()
    with pytest.raises(asyncio.CancelledError):
        await wait
    woken: list[object] = []
    monkeypatch.setattr(asyncio.get_running_loop(), "call_soon_threadsafe", woken.append)
    box.put(b"ab")
    assert not woken
    assert box.take_all() == b"ab"


def test_a_bell_whose_listener_s_loop_is_closed_can_be_rung() -> None:
    bell, waits = Bell(), []

    async def give_up() -> None:
        waits.append(asyncio.ensure_future(bell.wait_until(lambda: False, None)))
        await asyncio.sleep(0)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(give_up())
    loop.close()
    bell.ring()
    waits[0]._log_destroy_pending = False  # it is left on purpose


async def test_rings_from_many_threads_lose_nothing() -> None:
    box: Box[int] = Box()
    threads = [
        threading.Thread(target=lambda k=k: [box.put(1000 * k + n) for n in range(500)])
        for k in range(4)
    ]
    for thread in threads:
        thread.start()
    got: list[int] = []
    while len(got) < 2000:
        assert await box.bell.wait_until(box.ready, 5.0)
        got += box.take_all()
    assert sorted(got) == [1000 * k + n for k in range(4) for n in range(500)]


async def test_a_wait_after_one_that_ended_in_time_has_a_timeout_of_its_own() -> None:
    """The timer of the first wait is kept for the second one, whatever the second one's end is."""
    box = SoundBox(1_000)
    loop = asyncio.get_running_loop()
    for first, second in ((0.05, 0.15), (5.0, 0.05)):
        wait = asyncio.ensure_future(box.wait(first))
        await asyncio.sleep(0)
        box.put(b"ab")
        assert await wait
        box.take_all()
        began = loop.time()
        assert not await box.wait(second)
        assert second - 0.01 <= loop.time() - began < 2.0


async def test_a_bell_that_is_waited_for_in_loop_after_loop_keeps_the_last_one_alone() -> None:
    bell = Bell()
    for _ in range(3):
        in_thread(lambda: asyncio.run(bell.wait_until(lambda: False, 0.0)))
    assert len(bell._listeners) == 1


async def test_two_who_listen_to_one_bell_are_both_woken() -> None:
    bell = Bell()
    rung: list[bool] = []
    waits = [asyncio.ensure_future(bell.wait_until(lambda: bool(rung), 5.0)) for _ in range(2)]
    await asyncio.sleep(0)
    rung.append(True)
    in_thread(bell.ring)
    assert await asyncio.gather(*waits) == [True, True]
    assert not await bell.wait_until(lambda: False, 0.01)
