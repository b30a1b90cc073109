"""The harness: resource keys, batches, priorities and limits of kinds."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from oncetask import App, Context, FixedDelay, NoRetry, Payload, Snooze
from oncetask.testing import Harness
from tests.support import T0, at


class Charge(Payload, kind="charge"):
    """One of several of an account."""

    account: str
    n: int

    def resource_key(self) -> str:
        """One at a time for each account."""
        return self.account


class Plain(Payload, kind="plain"):
    """What has no key."""

    n: int = 0


def charging(app: App, **options: object) -> list[tuple[float, str]]:
    """Let charges take ten seconds each; gives their beginnings and ends."""
    log: list[tuple[float, str]] = []

    @app.handler(Charge, **options)  # type: ignore[arg-type]  # passed on
    async def charge(ctx: Context, charge: Charge) -> None:
        def note(what: str) -> None:
            log.append(
                ((ctx.client.store.clock.now().latest - T0).total_seconds(), f"{what} {charge.account}{charge.n}")
            )

        note("begin")
        await asyncio.sleep(10)
        note("end")
        if charge.n < 0 and ctx.attempt == 1:
            raise ConnectionError

    return log


async def test_one_at_a_time_in_the_order_of_enqueueing() -> None:
    """Tasks of one key run one after the other without a pause, in the order in which they were enqueued."""
    app = App()
    log = charging(app)
    async with Harness(app, start=T0) as h:
        for n in (3, 1, 2):
            await h.enqueue(Charge(account="a", n=n))
        await h.run_due()
        assert h.now == at(30)
    assert log == [(0, "begin a3"), (10, "end a3"), (10, "begin a1"), (20, "end a1"), (20, "begin a2"), (30, "end a2")]


async def test_keys_do_not_wait_for_each_other() -> None:
    """Two accounts are charged side by side."""
    app = App()
    log = charging(app)
    async with Harness(app, start=T0) as h:
        for n in (1, 2):
            for account in ("a", "b"):
                await h.enqueue(Charge(account=account, n=n))
        await h.run_due()
        assert h.now == at(20)
    assert [sorted(what for when, what in log if when == instant) for instant in (0, 20)] == [
        ["begin a1", "begin b1"],
        ["end a2", "end b2"],
    ]


async def test_an_earlier_instant_goes_first() -> None:
    """In a key, what has waited for longer begins first, whenever it was enqueued."""
    app = App()
    log = charging(app)
    async with Harness(app, start=T0) as h:
        await h.enqueue(Charge(account="a", n=1), delay=20)
        await h.enqueue(Charge(account="a", n=2), delay=5)
        await asyncio.sleep(60)
        await h.run_due()
    assert [what for _, what in log if "begin" in what] == ["begin a2", "begin a1"]


@pytest.mark.parametrize(("strict", "order"), [(True, [-1, -1, 2]), (False, [-1, 2, -1])])
async def test_an_order_that_is_strict_waits_for_the_retry(*, strict: bool, order: list[int]) -> None:
    """With `strict_order` a failed charge keeps those behind it waiting, without it they pass."""
    app = App(retry=FixedDelay(2, 300))
    log = charging(app, strict_order=strict)
    async with Harness(app, start=T0) as h:
        for n in (-1, 2):
            await h.enqueue(Charge(account="a", n=n))
        await h.advance(600)
        assert len(h.tasks.with_status("done-completed")) == 2
    assert [int(what.removeprefix("begin a")) for _, what in log if "begin" in what] == order


async def test_a_key_is_seen_in_the_tasks() -> None:
    """Of a key the test sees its tasks, in their order, and which of them runs."""
    app = App()
    charging(app)
    async with Harness(app, start=T0) as h:
        await h.enqueue(Charge(account="b", n=0))
        for n in (1, 2):
            await h.enqueue(Charge(account="a", n=n))
        await h.advance(5)
        of_key = h.tasks.with_key("a")
        assert [task.payload(Charge).n for task in of_key] == [1, 2]
        assert [task.status for task in of_key] == ["leased", "pending"]


async def test_a_batch_takes_what_is_due_of_its_key() -> None:
    """A batch handler gets all due tasks of one key in one call, in order; those of another in another."""
    app, calls = App(), list[list[str]]()

    @app.batch_handler(Charge, max_batch=3)
    async def charge(ctx: Context, charges: list[Charge]) -> None:
        calls.append([f"{charge.account}{charge.n}" for charge in charges])

    async with Harness(app, start=T0) as h:
        await h.client.enqueue_many([Charge(account="a", n=n) for n in range(4)])
        await h.enqueue(Charge(account="b", n=0))
        await h.enqueue(Charge(account="b", n=1), delay=3_600)
        await asyncio.sleep(1)
        report = await h.run_due()
        assert report.completed == 5
        await h.advance(3_600)
    assert sorted(calls) == [["a0", "a1", "a2"], ["a3"], ["b0"], ["b1"]]


async def test_a_batch_that_fails_is_tried_again_together() -> None:
    """A failed call is a failed attempt of each of its tasks; they return together, and singly for the last attempt."""
    app, calls = App(retry=FixedDelay(3, 60)), list[tuple[int, int]]()

    @app.batch_handler(Charge)
    async def charge(ctx: Context, charges: list[Charge]) -> None:
        calls.append((ctx.attempt, len(charges)))
        raise ConnectionError

    async with Harness(app, start=T0) as h:
        await h.client.enqueue_many([Charge(account="a", n=n) for n in range(3)])
        await asyncio.sleep(1)
        await h.advance(600)
        for task in h.tasks:
            h.assert_failed(task, error=ConnectionError)
    assert calls == [(1, 3), (2, 3), (3, 1), (3, 1), (3, 1)]


async def test_a_kind_has_its_own_limit() -> None:
    """With `concurrency=2` of a kind, two of it run at a time, and others beside them."""
    app, at_work, most = App(), Counter[str](), Counter[str]()

    async def work(kind: str) -> None:
        at_work[kind] += 1
        most[kind] = max(most[kind], at_work[kind])
        await asyncio.sleep(60)
        at_work[kind] -= 1

    @app.handler(Plain, concurrency=2)
    async def plain(ctx: Context, _: Plain) -> None:
        await work(ctx.kind)

    @app.handler(Charge)
    async def charge(ctx: Context, _: Charge) -> None:
        await work(ctx.kind)

    async with Harness(app, start=T0) as h:
        for n in range(6):
            await h.enqueue(Plain())
            await h.enqueue(Charge(account=f"{n}", n=n))
        await h.run_due()
        assert h.now == at(180)
    assert most == {"plain": 2, "charge": 6}


async def test_a_priority_is_a_share() -> None:
    """Where slots are scarce, a kind with three times the priority begins three times as often."""
    app, begun = App(), list[str]()

    @app.handler(Plain, priority=3)
    async def plain(ctx: Context, _: Plain) -> None:
        begun.append(ctx.kind)

    class Other(Payload, kind="other"):
        pass

    @app.handler(Other)
    async def other(ctx: Context, _: Other) -> None:
        begun.append(ctx.kind)

    async with Harness(app, start=T0, concurrency=1) as h:
        for _ in range(30):
            await h.enqueue(Plain())
            await h.enqueue(Other())
        await h.run_due()
    assert 12 <= begun[:20].count("plain") <= 18
    assert len(begun) == 60


async def test_a_snoozed_one_lets_others_pass() -> None:
    """A task of a key that snoozes leaves the key to the next one."""
    app, order = App(retry=NoRetry()), list[tuple[int, float]]()

    @app.handler(Charge)
    async def charge(ctx: Context, charge: Charge) -> None:
        now = (ctx.client.store.clock.now().latest - T0).total_seconds()
        order.append((charge.n, now))
        if charge.n == 1 and now < 100:
            raise Snooze(100)

    async with Harness(app, start=T0) as h:
        for n in (1, 2):
            await h.enqueue(Charge(account="a", n=n))
        await h.advance(200)
    assert order == [(1, 0), (2, 0), (1, 100)]
