"""`functions/`, served by the real functions-framework on the emulator, as it is deployed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime

import httpx
import pytest

from oncetask import Client, Payload, TaskStatus, connect
from tests.functions.conftest import Deployment
from tests.functions.events import binary, document, structured
from tests.integration.examples.serving import LIMIT

pytestmark = pytest.mark.emulator

HUGE = b"x" * 20_000_000


class Greeting(Payload, kind="greeting"):
    """What `functions/tasks.py` takes."""

    name: str
    address: str


@pytest.fixture
async def store(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Client]:
    """Another look at the tasks of `api` and `on_task_created`."""
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", deployment.emulator)
    async with connect(deployment.url) as client:
        yield client


@pytest.fixture
async def unwatched(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Client]:
    """Another look at the tasks of `scheduler`, of which no event tells."""
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", deployment.emulator)
    async with connect(deployment.url_without_trigger) as client:
        yield client


def enqueue(api: httpx.Client, address: str, **fields: object) -> str:
    """Enqueue a greeting through the API; gives its id."""
    answer = api.post("/tasks", json={"kind": "greeting", "data": {"name": "Ada", "address": address}, **fields})
    assert (answer.status_code, answer.json()["created"]) == (202, True)
    return str(answer.json()["taskId"])


async def test_the_trigger_runs_what_the_api_enqueues(deployment: Deployment, store: Client) -> None:
    """A task that comes through the API runs because Firestore tells of it: nobody calls the scheduler."""
    task_id = enqueue(deployment.api, "ada@example.org")
    task = await store.wait(task_id, LIMIT)
    assert (task.status, task.attempts, task.result) == (TaskStatus.DONE_COMPLETED, 1, "greeted Ada")
    told = deployment.api.get(f"/tasks/{task_id}").json()
    assert (told["status"], told["result"]) == ("done-completed", "greeted Ada")


async def test_many_events_at_once(deployment: Deployment, store: Client) -> None:
    """Fifty tasks that come at the same time all run, each once, and those that fail for good are told apart."""
    addresses = [f"guest-{n}@example.org" for n in range(49)]
    enqueued = [asyncio.to_thread(enqueue, deployment.api, address) for address in (*addresses, "nowhere")]
    tasks = await asyncio.gather(*[store.wait(task_id, LIMIT) for task_id in await asyncio.gather(*enqueued)])
    assert [task.status for task in tasks] == [TaskStatus.DONE_COMPLETED] * 49 + [TaskStatus.DONE_FAILED]
    assert {task.attempts for task in tasks} == {1}


async def test_an_event_is_no_more_than_a_hint(deployment: Deployment, store: Client) -> None:
    """Strange events are logged, and answered with 204 as well, so that nobody sends them again."""
    ours, strange = document("hint"), document("hint", collection="orders")
    for headers, content in (
        binary(strange),
        structured(strange),
        binary(document("hint", env="elsewhere")),
        binary(ours, type="google.cloud.firestore.document.v1.updated"),
        ({}, b"rubbish"),
    ):
        answer = deployment.on_task_created.post("/", headers=headers, content=content)
        assert (answer.status_code, answer.content) == (204, b"")
        assert "ignored, being no event of a new task" in deployment.events.until(r"ignored.*")
    for headers, content in (binary(ours, body=HUGE), structured(ours)):
        answer = deployment.on_task_created.post("/", headers=headers, content=content)
        assert (answer.status_code, answer.content) == (204, b"")
    assert "Traceback" not in deployment.events.told


async def test_the_scheduler_runs_what_is_due(deployment: Deployment, unwatched: Client) -> None:
    """A call of Cloud Scheduler is one tick, and its answer is the report, which says when to call again."""
    due, later = [Greeting(name="Ada", address=f"{n}@example.org") for n in range(3)], Greeting(name="Eve", address="@")
    ids = [receipt.task_id for receipt in await unwatched.enqueue_many(due)]
    await unwatched.enqueue(later, delay=1_800)

    refused = deployment.scheduler.get("/")
    assert (refused.status_code, refused.headers["Allow"]) == (405, "POST")
    assert await unwatched.pending_count() == 4

    report = deployment.scheduler.post("/?budget=20&linger=0").json()
    assert {task.status for task in await unwatched.get_tasks_by_ids(ids)} == {TaskStatus.DONE_COMPLETED}
    waiting = [task.wait_until async for task in unwatched.iter_tasks(status=TaskStatus.WAITING)]
    assert len(waiting) == 2  # the later greeting, and what is scheduled for the night
    assert datetime.fromisoformat(report.pop("nextDue")) == min(waiting)
    others = dict.fromkeys(("failed", "retried", "cancelled", "expired", "spawned", "interrupted"), 0)
    assert report == {"claimed": 3, "completed": 3, "more": False, **others}

    again = deployment.scheduler.post("/")
    assert (again.status_code, again.json()["claimed"]) == (200, 0)


async def test_strangers_call_in_vain(deployment: Deployment) -> None:
    """Without a word about who may call, only this machine may: not through a proxy, and not by another name."""
    for headers in (
        {"X-Forwarded-For": "127.0.0.1"},
        {"Host": "scheduler.example.org"},
        {"Origin": "https://evil.org"},
    ):
        for function, path in ((deployment.scheduler, "/"), (deployment.api, "/tick"), (deployment.api, "/tasks")):
            answer = function.post(path, headers=headers)
            assert answer.status_code == 403
            assert set(answer.json()) == {"error"}
