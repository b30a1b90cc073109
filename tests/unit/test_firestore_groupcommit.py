"""The group commit: which writes travel together, and when."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest
from google.cloud.firestore_v1.types import write as write_types

from oncetask.store import Written
from oncetask.store.firestore.groupcommit import GroupCommit
from oncetask.store.firestore.writes import Write


class Server:
    """Takes batches, and answers when told to."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.waiting: list[tuple[list[Write], asyncio.Event]] = []

    async def send(self, writes: list[Write]) -> None:
        """Hold a batch until it is answered."""
        self.batches.append([write.name for write in writes])
        answered = asyncio.Event()
        self.waiting.append((writes, answered))
        await answered.wait()

    async def answer(self) -> None:
        """Settle the oldest batch, and let what follows from it happen."""
        writes, answered = self.waiting.pop(0)
        for write in writes:
            write.settle(Written(1))
        answered.set()
        await ticks()


async def ticks() -> None:
    """Let everything happen that does not wait for anybody."""
    for _ in range(5):
        await asyncio.sleep(0)


def a_write(name: str, size: int = 0) -> Write:
    """Give a write of one document; `size`: about its bytes."""
    pb = write_types.Write.pb()(delete=name + "x" * size)
    return Write(pb, name, 0, lambda _: Written())


def writes(names: Iterable[str]) -> list[Write]:
    """Give writes of these documents."""
    return [a_write(name) for name in names]


@pytest.fixture
def server() -> Server:
    """A server that has been sent nothing."""
    return Server()


@pytest.fixture
def commits(server: Server) -> GroupCommit:
    """A group commit of one small call at a time, and two full ones."""
    return GroupCommit(server.send, small_calls=1, calls=2)


async def test_same_tick(server: Server, commits: GroupCommit) -> None:
    """What is submitted in one iteration of the loop leaves together in the next."""
    commits.submit(writes("a"))
    commits.submit(writes("bc"))
    assert server.batches == []
    await ticks()
    assert server.batches == [["a", "b", "c"]]


async def test_in_flight(server: Server, commits: GroupCommit) -> None:
    """What comes while a call is in flight waits for it, and leaves together."""
    commits.submit(writes("a"))
    await ticks()
    for name in "bcd":
        commits.submit(writes(name))
        await ticks()
    assert server.batches == [["a"]]
    await server.answer()
    assert server.batches == [["a"], ["b", "c", "d"]]


async def test_full_calls(server: Server, commits: GroupCommit) -> None:
    """A call takes 500 writes, and a full one need not wait for the one in flight."""
    commits.submit(writes(f"t{number}" for number in range(1_200)))
    await ticks()
    assert [len(batch) for batch in server.batches] == [500, 500]
    await server.answer()
    assert [len(batch) for batch in server.batches] == [500, 500]
    await server.answer()
    assert [len(batch) for batch in server.batches] == [500, 500, 200]


async def test_bytes(server: Server, commits: GroupCommit) -> None:
    """A call takes 3.5 MiB, or a single write that is larger."""
    sizes = [2_000_000, 2_000_000, 100, 5_000_000, 100]
    commits.submit(a_write(f"t{number}", size) for number, size in enumerate(sizes))
    for _ in sizes:
        await ticks()
        if server.waiting:
            await server.answer()
    assert server.batches == [["t0"], ["t1", "t2"], ["t3"], ["t4"]]


async def test_order_of_a_document(server: Server, commits: GroupCommit) -> None:
    """Writes of one document go one by one, in order; others overtake them."""
    first, second, third = writes(["a", "a", "a"])
    commits.submit([first, second, *writes("b"), third, *writes("c")])
    await ticks()
    assert [write.done.done() for write in (first, second, third)] == [False] * 3
    await server.answer()
    await server.answer()
    await server.answer()
    assert server.batches == [["a", "b", "c"], ["a"], ["a"]]
    assert all(write.done.done() for write in (first, second, third))


async def test_gone_callers(server: Server, commits: GroupCommit) -> None:
    """A write whose caller has gone is left out, and the rest goes."""
    gone, kept = writes("ab")
    commits.submit([gone, kept])
    gone.done.cancel()
    await ticks()
    assert server.batches == [["b"]]


async def test_all_callers_gone(server: Server, commits: GroupCommit) -> None:
    """Where all callers have gone nothing is sent, and closing does not wait."""
    gone = writes("ab")
    commits.submit(gone)
    for write in gone:
        write.done.cancel()
    await ticks()
    async with asyncio.timeout(5):
        await commits.aclose()
    assert server.batches == []


async def test_closing(server: Server, commits: GroupCommit) -> None:
    """Closing waits until everything submitted is settled."""
    waiting = writes("aab")
    commits.submit(waiting)
    closing = asyncio.create_task(commits.aclose())
    await ticks()
    await server.answer()
    assert not closing.done()
    await server.answer()
    async with asyncio.timeout(5):
        await closing
    assert all(write.done.done() for write in waiting)


@pytest.mark.parametrize("raises", [True, False])
async def test_broken_sender(*, raises: bool) -> None:
    """A sender that breaks its word fails the callers, who would wait for ever."""

    async def send(_: list[Write]) -> None:
        if raises:
            raise ZeroDivisionError

    commits = GroupCommit(send)
    (write,) = writes("a")
    commits.submit([write])
    with pytest.raises(ZeroDivisionError if raises else RuntimeError):
        await write.done
