"""Runs that several callers share."""

from __future__ import annotations

import asyncio

import pytest

from oncetask.http.sharing import OneAtATime


class Runs:
    """Counts what begins, and holds it until it is let go."""

    def __init__(self) -> None:
        self.begun = 0
        self.cancelled = 0
        self.go_on = asyncio.Event()

    async def __call__(self) -> int:
        """Run."""
        self.begun += 1
        number = self.begun
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return number


async def turns(number: int = 5) -> None:
    """Let everything that can go on do so."""
    for _ in range(number):
        await asyncio.sleep(0)


async def test_who_asks_while_one_runs_shares_the_next() -> None:
    """What has begun before is nobody's answer."""
    runs = Runs()
    shared = OneAtATime(runs)
    first = asyncio.create_task(shared.run())
    await turns()
    others = [asyncio.create_task(shared.run()) for _ in range(3)]
    await turns()
    assert runs.begun == 1
    runs.go_on.set()
    assert await asyncio.gather(first, *others) == [1, 2, 2, 2]
    assert await shared.run() == 3


async def test_it_is_cancelled_with_the_last_who_waits() -> None:
    """One who leaves ends it for nobody else; the next one starts anew."""
    runs = Runs()
    shared = OneAtATime(runs)
    waiting = [asyncio.create_task(shared.run()) for _ in range(2)]
    await turns()
    waiting[0].cancel()
    await asyncio.wait(waiting[:1])
    assert (runs.begun, runs.cancelled) == (1, 0)
    waiting[1].cancel()
    await asyncio.wait(waiting)
    assert runs.cancelled == 1
    runs.go_on.set()
    assert await shared.run() == 2


async def test_one_that_was_cancelled_before_it_began_is_not_shared() -> None:
    """Whoever asks then gets a run."""
    runs = Runs()
    shared = OneAtATime(runs)
    first = asyncio.create_task(shared.run())
    await turns()
    second = asyncio.create_task(shared.run())
    await turns()
    second.cancel()
    await asyncio.wait({second})
    third = asyncio.create_task(shared.run())
    await turns()
    runs.go_on.set()
    assert [await first, await third] == [1, 2]


async def test_what_it_raises_is_raised_for_all() -> None:
    """And the next run is not concerned."""

    async def fail() -> None:
        await asyncio.sleep(0)
        raise OSError("no")

    shared = OneAtATime(fail)
    for outcome in await asyncio.gather(shared.run(), shared.run(), return_exceptions=True):
        assert isinstance(outcome, OSError)
    with pytest.raises(OSError, match="no"):
        await shared.run()
