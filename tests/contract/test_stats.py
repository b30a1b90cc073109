"""Counts by kind and status."""

from __future__ import annotations

from datetime import timedelta

from oncetask.store import TaskStore
from oncetask.task import NO_WAIT, Outcome, TaskStatus
from tests.support import a_task, fetch, stored

HOUR = timedelta(hours=1)


async def test_every_status_is_counted(store: TaskStore) -> None:
    """Each kind has its counts, and statuses without a task are left out."""
    now = (await store.now()).earliest
    held = {"lease_owner": "l1", "wait_until": now - HOUR}
    await stored(
        store,
        a_task("waiting 1", wait_until=now + HOUR),
        a_task("waiting 2", wait_until=now + HOUR),
        a_task("rescued", wait_until=now - HOUR, leased_until=now + HOUR),
        a_task("pending", wait_until=now - HOUR),
        a_task("late", wait_until=now + HOUR, deadline=now - HOUR),
        a_task("lapsed", **held, leased_until=now - HOUR),
        a_task("leased", **held, leased_until=now + HOUR),
        a_task("leased and cancelled", **held, leased_until=now + HOUR, is_cancelled=True),
        a_task("cancelled", wait_until=NO_WAIT, is_cancelled=True),
        *(a_task(f"done {outcome}", outcome=outcome) for outcome in Outcome),
        a_task("of another kind", kind="sync", outcome=Outcome.FAILED),
    )

    assert await store.stats() == {
        "greet": {
            TaskStatus.WAITING: 3,
            TaskStatus.PENDING: 3,
            TaskStatus.LEASED: 2,
            TaskStatus.CANCELLATION_PENDING: 1,
            TaskStatus.DONE_COMPLETED: 1,
            TaskStatus.DONE_FAILED: 1,
            TaskStatus.DONE_CANCELLED: 1,
            TaskStatus.DONE_EXPIRED: 1,
        },
        "sync": {TaskStatus.DONE_FAILED: 1},
    }


async def test_a_cancelled_task_of_a_dead_worker_awaits_its_cleanup(store: TaskStore) -> None:
    """Once its lease has ended a cancelled task counts as what its status says."""
    now = (await store.now()).earliest
    await stored(
        store,
        a_task("dead", is_cancelled=True, wait_until=NO_WAIT, lease_owner="l1", leased_until=now - HOUR),
        a_task("backoff", is_cancelled=True, wait_until=now + HOUR),
    )

    assert {(await fetch(store, name)).status for name in ("dead", "backoff")} == {TaskStatus.CANCELLATION_PENDING}
    assert await store.stats() == {"greet": {TaskStatus.CANCELLATION_PENDING: 2}}


async def test_nothing_to_count(store: TaskStore) -> None:
    """An empty store has no kinds."""
    assert await store.stats() == {}


async def test_more_kinds_than_are_counted_at_once(store: TaskStore) -> None:
    """Forty kinds are counted, each by itself."""
    await stored(store, *(a_task(f"t{n}", kind=f"kind-{n:02}", outcome=Outcome.FAILED) for n in range(40)))

    assert await store.stats() == {f"kind-{n:02}": {TaskStatus.DONE_FAILED: 1} for n in range(40)}
