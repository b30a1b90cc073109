"""When a client tells its waker that something is due."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from oncetask import Client, Recurrence, StoreUnavailable, tick
from oncetask.clock import Now
from oncetask.waking import Waker
from tests.integration.places import Place
from tests.integration.worker.support import Job, app_of, raising
from tests.support import not_none


class Noting(Waker):
    """Notes for when it is woken, and in which environment."""

    def __init__(self) -> None:
        self.calls: list[tuple[datetime, str]] = []
        self.is_closed = False

    async def wake(self, at: datetime, *, env: str, now: Now) -> None:
        """Note it."""
        assert now.earliest <= now.latest
        self.calls.append((at, env))

    async def aclose(self) -> None:
        """Note it."""
        self.is_closed = True

    def taken(self) -> list[datetime]:
        """Give the instants since the last time."""
        calls, self.calls = self.calls, []
        assert {env for _, env in calls} <= {"default"}
        return [at for at, _ in calls]


@pytest.fixture
def waker() -> Noting:
    """Who is told."""
    return Noting()


@pytest.fixture
def client(connected: Client, waker: Noting) -> Client:
    """A client of this waker."""
    return Client(connected.store, waker=waker)


async def test_enqueueing(client: Client, waker: Noting) -> None:
    """A new task wakes when it is due, of many the first; one that exists does not."""
    receipt = await client.enqueue(Job(), delay=100)
    task = await client.get_task(receipt.task_id)
    assert waker.taken() == [task.wait_until]

    assert not (await client.enqueue(Job(), task_id=receipt.task_id)).created
    assert waker.taken() == []

    now = (await client.store.now()).latest
    later = [now + timedelta(seconds=seconds) for seconds in (30, 10, 20)]
    for instant in later:
        await client.enqueue(Job(), wait_until=instant)
    assert waker.taken() == later
    await client.enqueue_many([Job(), Job()], wait_until=later[0])
    assert waker.taken() == later[:1]
    await client.enqueue_many([])
    assert waker.taken() == []


async def test_a_failure_midway(client: Client, waker: Noting, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was stored before it wakes as well: the repeated call would find it there."""
    create = client.store.create

    async def fail(tasks: list[object]) -> None:
        written = await create(tasks[:1])  # type: ignore[arg-type]
        raise StoreUnavailable("cut off", receipts=[*written, *[None] * (len(tasks) - 1)])

    monkeypatch.setattr(client.store, "create", fail)
    with pytest.raises(StoreUnavailable):
        await client.enqueue_many([Job(), Job()])
    assert len(waker.taken()) == 1


async def test_changing(client: Client, waker: Noting) -> None:
    """So does what makes a task due from outside: a cancel, a reset, a schedule or a kind that is resumed."""
    receipt = await client.enqueue(Job(), delay=100)
    waker.taken()
    await client.cancel_task(receipt.task_id)
    assert waker.taken() == [not_none((await client.get_task(receipt.task_id)).due_at)]

    await tick(app_of(raising()), Client(client.store))
    await client.reset_task(receipt.task_id)
    assert waker.taken() == [not_none((await client.get_task(receipt.task_id)).due_at)]

    await client.enqueue(Job(), task_id="often", recurrence=Recurrence.every(3_600))
    await client.pause_schedule("often")
    waker.taken()
    await client.resume_schedule("often")
    assert waker.taken() == [(await client.get_task("often")).wait_until]

    await client.pause_kind(Job)
    assert waker.taken() == []
    await client.resume_kind(Job)
    assert not await client.resume_kind(Job)
    assert len(waker.taken()) == 1


async def test_the_end_of_a_tick(client: Client, waker: Noting) -> None:
    """It wakes for what comes next, if anything does."""
    await tick(app_of(raising()), client)
    assert waker.taken() == []
    receipt = await client.enqueue(Job(), delay=100)
    waker.taken()
    await tick(app_of(raising()), client)
    assert waker.taken() == [(await client.get_task(receipt.task_id)).wait_until]


async def test_by_hand(client: Client, waker: Noting) -> None:
    """For what the client cannot see: now, or at some instant."""
    await client.wake()
    assert len(waker.taken()) == 1
    at = datetime.fromisoformat("2031-01-01T00:00:00+01:00")
    await client.wake(at)
    assert waker.taken() == [at]
    with pytest.raises(ValueError, match="at must be"):
        await client.wake(datetime(2031, 1, 1))  # noqa: DTZ001  # naive, which is what is refused


async def test_closing(place: Place, waker: Noting) -> None:
    """The waker is closed with its client."""
    client = Client(place.connect().store, waker=waker)
    await client.aclose()
    assert waker.is_closed
