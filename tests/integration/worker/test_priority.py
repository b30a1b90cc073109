"""Which kind gets a slot where slots are scarce."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from oncetask import App, Client, Context, Worker
from tests.integration.worker.keys_support import Also, Keyed, Stage, keyed_app
from tests.integration.worker.support import LIMIT, Job, Other, done

_SEEN = 40


class Starts:
    """A handler that notes the kinds in the order of their starts, and tells when so many were started."""

    def __init__(self, number: int = _SEEN) -> None:
        self.kinds: list[str] = []
        self.enough = asyncio.Event()
        self._number = number

    async def __call__(self, ctx: Context, _: Any) -> None:
        """Note it."""
        self.kinds.append(ctx.kind)
        if len(self.kinds) >= self._number:
            self.enough.set()

    def app(self, *, job: int = 1, other: int = 1) -> App:
        """Give an App in which this handles both kinds, with these priorities."""
        app = App()
        app.handler(Job, priority=job)(self)
        app.handler(Other, priority=other)(self)
        return app


async def _starts(client: Client, starts: Starts, app: App, **options: Any) -> list[str]:
    """Let a worker run until enough was started, and give the kinds."""
    async with Worker(app, client, **options):
        await asyncio.wait_for(starts.enough.wait(), LIMIT)
    return starts.kinds[:_SEEN]


async def test_kinds_get_slots_in_their_shares(connected: Client) -> None:
    """With one slot a kind of priority 3 gets three of four starts, at every point, while both wait."""
    starts = Starts()
    await connected.enqueue_many([kind(n=n) for n in range(60) for kind in (Job, Other)])
    kinds = await _starts(connected, starts, starts.app(job=3), concurrency=1)
    assert Counter(kinds) == {"job": 30, "other": 10}
    assert all(Counter(kinds[i : i + 4])["job"] == 3 for i in range(0, _SEEN, 4))


async def test_without_a_priority_kinds_are_equal(connected: Client) -> None:
    """By default two kinds that wait take turns, though all of the one were there before the other."""
    starts = Starts()
    await connected.enqueue_many([Job(n=n) for n in range(30)])
    await connected.enqueue_many([Other(n=n) for n in range(30)])
    kinds = await _starts(connected, starts, starts.app(), concurrency=1)
    assert Counter(kinds) == {"job": 20, "other": 20}


async def test_a_priority_is_no_privilege_where_nobody_competes(connected: Client) -> None:
    """A kind of the lowest share has all slots as long as the others want none, and owes nothing for it later."""
    starts = Starts()
    app = starts.app(job=100)
    async with Worker(app, connected, concurrency=1):
        await done(connected, *[r.task_id for r in await connected.enqueue_many([Other(n=n) for n in range(10)])])
        await done(connected, *[r.task_id for r in await connected.enqueue_many([Other(n=1), Job(n=1)])])
    assert starts.kinds == ["other"] * 10 + starts.kinds[10:]
    assert sorted(starts.kinds[10:]) == ["job", "other"]


@pytest.mark.parametrize("flood", ["higher", "equal"])
async def test_a_flood_of_one_kind_keeps_no_other_waiting(connected: Client, flood: str) -> None:
    """Behind a thousand tasks of one kind, of which one page shows fifty, another kind starts among the first few."""
    starts = Starts()
    await connected.enqueue_many([Job(n=n) for n in range(1_000)])
    await connected.enqueue_many([Other(n=n) for n in range(5)])
    kinds = await _starts(connected, starts, starts.app(job=3 if flood == "higher" else 1), concurrency=1)
    assert "other" in kinds[:4]
    assert kinds[: 4 * 5 + 4].count("other") == 5


async def test_a_kind_that_comes_late_to_a_flood_does_not_wait_for_its_end(connected: Client) -> None:
    """A task of another kind that is enqueued while a flood is being worked off starts before the flood is over."""
    app, order, enqueued = App(), list[str](), asyncio.Event()

    @app.handler(Job)
    async def job(ctx: Context, payload: Job) -> None:
        order.append("job")
        if payload.n == 5:
            await ctx.client.enqueue(Other())

    @app.handler(Other)
    async def other(_: Context, __: Other) -> None:
        order.append("other")
        enqueued.set()

    await connected.enqueue_many([Job(n=n) for n in range(1_000)])
    async with Worker(app, connected, concurrency=1):
        await asyncio.wait_for(enqueued.wait(), LIMIT)
    assert order.index("other") < 200


async def test_shares_hold_among_kinds_with_keys(connected: Client) -> None:
    """Kinds whose tasks have keys of their own get their shares too, and each key its order."""
    stage = Stage()
    app = App()
    app.handler(Keyed, priority=3)(stage)
    app.handler(Also)(stage)
    payloads = [kind(n=n, user=f"{kind.__name__} {n}") for n in range(40) for kind in (Keyed, Also)]
    receipts = await connected.enqueue_many(payloads)
    async with Worker(app, connected, concurrency=1):
        await done(connected, *(receipt.task_id for receipt in receipts))
    assert Counter(kind for kind, _ in stage.starts[:40]) == {"keyed": 30, "also": 10}


async def test_a_full_kind_leaves_its_share_to_the_others(connected: Client) -> None:
    """A kind that has as many slots as it may have does not hold back those of a lower priority."""
    stage, app = Stage(0), App()
    app.handler(Keyed, priority=9, concurrency=1)(stage)
    app.handler(Also)(stage)
    await connected.enqueue_many([Keyed(n=0, user=None), *(Keyed(n=n, user=None) for n in range(1, 5))])
    others = await connected.enqueue_many([Also(n=n, user=None) for n in range(10, 20)])
    async with Worker(app, connected, concurrency=2):
        await done(connected, *(receipt.task_id for receipt in others))
        assert [n for kind, n in stage.starts if kind == "keyed"] == [0]
        stage.let_go(0)


@pytest.mark.parametrize("priority", [0, 101, True, 1.5])
def test_a_priority_is_a_whole_number_up_to_a_hundred(priority: Any) -> None:
    """Anything else is refused when the handler is registered."""
    with pytest.raises(ValueError, match="priority must be"):
        keyed_app(Stage(), Keyed, priority=priority)
