"""Numbers, durations, instants and filters: what a caller gives works, or is refused by its name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oncetask import (
    App,
    Client,
    Context,
    ExponentialBackoff,
    FixedDelay,
    Payload,
    Recurrence,
    TaskStatus,
    Worker,
    connect,
    tick,
)
from oncetask.http import asgi_app, http_function
from tests.fuzz.effort import examples
from tests.fuzz.refusals import may_refuse
from tests.fuzz.strategies import ENDLESS, anything, edges, numbers, texts

values = anything | numbers | edges | st.timedeltas()
LATER = datetime(2999, 1, 1, tzinfo=UTC)


class Job(Payload, kind="job"):
    """Nothing."""


async def handle(ctx: Context, job: Job) -> None:
    """Do nothing."""


def handled(**options: Any) -> object:
    """Register a handler with these options."""
    return App().handler(Job, **options)(handle)


MADE: dict[str, Callable[[Any], object]] = {
    "app timeout": lambda value: App(timeout=value),
    "app deadline": lambda value: App(deadline=value),
    "app name": App,
    "app retry": lambda value: App(retry=value),
    "handler timeout": lambda value: handled(timeout=value),
    "handler deadline": lambda value: handled(deadline=value),
    "handler concurrency": lambda value: handled(concurrency=value),
    "handler priority": lambda value: handled(priority=value),
    "handler retry": lambda value: handled(retry=value),
    "batch max_batch": lambda value: App().batch_handler(Job, max_batch=value),
    "cleanup timeout": lambda value: App().cancellation_handler(Job, timeout=value),
    "backoff max_attempts": lambda value: ExponentialBackoff(max_attempts=value),
    "backoff base_delay": lambda value: ExponentialBackoff(base_delay=value),
    "backoff max_delay": lambda value: ExponentialBackoff(max_delay=value),
    "backoff multiplier": lambda value: ExponentialBackoff(multiplier=value),
    "backoff jitter": lambda value: ExponentialBackoff(jitter=value),
    "fixed max_attempts": lambda value: FixedDelay(value, 1),
    "fixed delay": lambda value: FixedDelay(1, value),
    "every interval": Recurrence.every,
    "every start": lambda value: Recurrence.every(60, start=value),
    "cron start": lambda value: Recurrence.cron("* * * * *", start=value),
    "rule dtstart": lambda value: Recurrence("FREQ=DAILY", value),
    "rule catch_up": lambda value: Recurrence("FREQ=DAILY", LATER, catch_up=value),
    "rule overlap": lambda value: Recurrence("FREQ=DAILY", LATER, overlap=value),
    "first instant": lambda value: Recurrence("FREQ=DAILY", LATER).next_after(value),
    "function timeout": lambda value: http_function(timeout=value),
}
"""What it is, and the option of it that a value is given for -> how."""


@pytest.mark.parametrize("option", MADE)
@examples(60)
@given(value=values)
def test_what_is_made_of_a_value(option: str, value: Any) -> None:
    """Whatever stands for an option of something that is made, it is taken or refused by its name."""
    name = option.split()[1]
    others = ("dtstart must ", "cron expression ", "rrule ") if name in {"start", "dtstart"} else ()
    with may_refuse(f"{name} must ", f"{name} may ", *others):
        MADE[option](value)


@pytest.mark.parametrize("option", [option for option in MADE if option.endswith(("timeout", "delay", "interval"))])
def test_a_number_too_long_to_write_is_refused(option: str) -> None:
    """A duration of more digits than Python writes is refused by its name, too."""
    for value in (ENDLESS, -ENDLESS):
        with pytest.raises(ValueError, match=f"^{option.split()[1]} must .* more digits than Python writes"):
            MADE[option](value)


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    """A client with one task."""
    async with connect("memory://") as client:
        await client.enqueue(Job(), task_id="t")
        await client.cancel_task("t")
        await tick(App(), client)
        yield client


def api(client: Client, **options: Any) -> Any:
    """Make the API with these options."""
    return asgi_app(App(), client, **options)


OPENED: dict[str, Callable[[Client, Any], Awaitable[object] | object]] = {
    "worker concurrency": lambda client, value: Worker(App(), client, concurrency=value),
    "worker grace": lambda client, value: Worker(App(), client, grace=value),
    "worker abort_grace": lambda client, value: Worker(App(), client, abort_grace=value),
    "worker poll": lambda client, value: Worker(App(), client, poll=value),
    "worker lease": lambda client, value: Worker(App(), client, lease=value),
    "worker processes": lambda client, value: Worker(App(), client, processes=value),
    "tick budget": lambda client, value: tick(App(), client, budget=value),
    "tick concurrency": lambda client, value: tick(App(), client, concurrency=value),
    "tick abort_grace": lambda client, value: tick(App(), client, abort_grace=value),
    "api timeout": lambda client, value: api(client, timeout=value),
    "api budget": lambda client, value: api(client, budget=value),
    "api linger": lambda client, value: api(client, linger=value),
    "api concurrency": lambda client, value: api(client, concurrency=value),
    "enqueue delay": lambda client, value: client.enqueue(Job(), delay=value),
    "enqueue wait_until": lambda client, value: client.enqueue(Job(), wait_until=value),
    "enqueue timeout": lambda client, value: client.enqueue(Job(), timeout=value),
    "enqueue deadline": lambda client, value: client.enqueue(Job(), deadline=value),
    "enqueue recurrence": lambda client, value: client.enqueue(Job(), recurrence=value),
    "enqueue payload": lambda client, value: client.enqueue(value),
    "list kind": lambda client, value: client.list_tasks(kind=value),
    "list status": lambda client, value: client.list_tasks(status=value),
    "list resource_key": lambda client, value: client.list_tasks(resource_key=value),
    "list owner": lambda client, value: client.list_tasks(owner=value),
    "list task_id": lambda client, value: client.list_tasks(parent=value),
    "list limit": lambda client, value: client.list_tasks(limit=value),
    "list cursor": lambda client, value: client.list_tasks(cursor=value),
    "count kind": lambda client, value: client.pending_count(kind=value),
    "get ids": lambda client, value: client.cancel_tasks_by_ids(value),
    "pause kind": lambda client, value: client.pause_kind(value),
    "resume kind": lambda client, value: client.resume_kind(value),
    "wake at": lambda client, value: client.wake(value),
}


@pytest.mark.parametrize("option", OPENED)
@examples(40)
@given(value=values | texts | st.sampled_from([*TaskStatus, "", "=", "dA==", "Li4="]))
async def test_what_a_client_does_with_a_value(client: Client, option: str, value: Any) -> None:
    """Whatever stands for an option of something that is done, it is taken or refused by its name."""
    name = option.split()[1]
    with may_refuse(f"{name} must ", f"{name} may ", f"{name}: "):
        answer = OPENED[option](client, value)
        if isinstance(answer, Awaitable):
            await answer
    assert (await client.get_task("t")).problems == ()


@examples(100)
@given(timeout=values)
async def test_a_wait_takes_or_refuses_a_limit(client: Client, timeout: Any) -> None:
    """`wait` takes any duration, and refuses what is none; what is not done by then is a TimeoutError."""
    with may_refuse("timeout must "):
        try:
            async with asyncio.timeout(0.01):  # which looks the same from outside
                await client.wait("t", timeout)
        except TimeoutError:
            return
