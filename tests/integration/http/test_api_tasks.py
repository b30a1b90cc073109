"""The HTTP API: enqueue, look, list, cancel, reset, delete, pause, count, run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from oncetask import Client, Worker
from tests.integration.http.api import MAIL, Held, Order, SendEmail, an_api, an_app, asking, enqueued, soon

pytestmark = pytest.mark.parametrize(
    "opened_place", ["memory", pytest.param("firestore", marks=pytest.mark.emulator)], indirect=True
)


async def test_a_task_is_enqueued_run_by_a_tick_and_shown(connected: Client) -> None:
    """The whole way: 202 with the id, a tick that reports it, and the record with its result."""
    async with asking(an_api(connected)) as caller:
        accepted = await caller.post("/tasks", json=MAIL)
        assert accepted.status_code == 202
        task_id = accepted.json()["taskId"]
        assert accepted.json() == {"taskId": task_id, "created": True}
        assert accepted.headers["X-Task-Id"] == task_id
        ticked = await caller.post("/tick")
        shown = await caller.get(f"/tasks/{task_id}")
    assert ticked.status_code == 200
    report = ticked.json()
    assert (report["claimed"], report["completed"], report["nextDue"], report["more"]) == (1, 1, None, False)
    task = shown.json()
    assert (task["id"], task["kind"], task["status"]) == (task_id, "send-email", "done-completed")
    assert task["data"] == {"to": "ada@example.com", "copies": 1, "address": None}
    assert task["result"] == "sent to ada@example.com"
    assert datetime.fromisoformat(task["doneAt"]) >= datetime.fromisoformat(task["createdAt"])


async def test_a_task_is_created_once_per_id(connected: Client) -> None:
    """A payload's own id, or a given one, is taken once; the second time nothing is created."""
    order = {"kind": "order", "data": {"number": 7}}
    async with asking(an_api(connected)) as caller:
        answers = [await caller.post("/tasks", json=order) for _ in range(2)]
        given = [await caller.post("/tasks", json={**MAIL, "taskId": "mail"}) for _ in range(2)]
        other = await caller.post("/tasks", json={**order, "taskId": "mail"})
    assert [answer.json() for answer in answers] == [
        {"taskId": "order:7", "created": True},
        {"taskId": "order:7", "created": False},
    ]
    assert [answer.json()["created"] for answer in given] == [True, False]
    assert other.status_code == 422
    assert [field["field"] for field in other.json()["fields"]] == ["taskId"]


async def test_what_stands_beside_the_payload_is_stored(connected: Client) -> None:
    """Every option of the request is a field of the task."""
    later = datetime(2100, 1, 1, 8, tzinfo=UTC)
    async with asking(an_api(connected)) as caller:
        await enqueued(
            caller,
            taskId="full",
            resourceKey="ada",
            waitUntil="2100-01-01T09:00:00+01:00",
            timeout=2.5,
            deadline="2100-01-02T00:00:00.000001Z",
            owner="user-1",
        )
    task = await connected.get_task("full")
    assert (task.resource_key, task.wait_until, task.timeout, task.owner) == ("ada", later, 2.5, "user-1")
    assert task.deadline == datetime(2100, 1, 2, 0, 0, 0, 1, tzinfo=UTC)


async def test_a_delay_counts_from_now(connected: Client) -> None:
    """`delay` is in seconds, from the moment of the request."""
    async with asking(an_api(connected)) as caller:
        task = await connected.get_task(await enqueued(caller, delay=3600))
    assert task.wait_until - task.created_at == timedelta(hours=1)


async def test_left_out_is_not_null(connected: Client) -> None:
    """A resource key that is left out is the payload's; null means none."""
    async with asking(an_api(connected)) as caller:
        own = await enqueued(caller, kind="order", data={"number": 1})
        none = await enqueued(caller, kind="order", data={"number": 2}, resourceKey=None, owner=None)
    assert (await connected.get_task(own)).resource_key == "orders"
    assert (await connected.get_task(none)).resource_key is None


async def test_tasks_are_listed_by_filters_and_pages(connected: Client) -> None:
    """All filters that are given hold, and a cursor goes on after its page."""
    await connected.enqueue_many([SendEmail(to="a")], task_ids=["m1"], owner="ada", resource_key="k")
    await connected.enqueue_many([Order(number=n) for n in range(3)], owner="ada", delay=3600)
    queries: list[dict[str, Any]] = [
        {},
        {"kind": "order", "limit": 2},
        {"status": "pending", "owner": "ada", "resourceKey": "k", "kind": "send-email"},
        {"owner": "eve"},
        {"parent": "nobody"},
    ]
    async with asking(an_api(connected)) as caller:
        pages = [(await caller.get("/tasks", params=query)).json() for query in queries]
        rest = await caller.get("/tasks", params={"kind": "order", "cursor": pages[1]["cursor"]})
    ids = [[task["id"] for task in page["tasks"]] for page in [*pages, rest.json()]]
    assert ids == [["m1", "order:0", "order:1", "order:2"], ["order:0", "order:1"], ["m1"], [], [], ["order:2"]]
    assert [page["cursor"] is None for page in [*pages, rest.json()]] == [True, False, True, True, True, True]


async def test_a_task_is_cancelled_once(connected: Client) -> None:
    """The answer tells whether this request cancelled it; both are 200."""
    async with asking(an_api(connected)) as caller:
        task_id = await enqueued(caller)
        answers = [await caller.post(f"/tasks/{task_id}/cancel") for _ in range(2)]
    assert [(answer.status_code, answer.json()) for answer in answers] == [
        (200, {"cancelled": True}),
        (200, {"cancelled": False}),
    ]
    assert (await connected.get_task(task_id)).is_cancelled


async def test_many_tasks_are_cancelled_and_counted(connected: Client) -> None:
    """By ids, by resource key, and by resource key and kind."""
    await connected.enqueue_many([SendEmail(to="a")] * 4, task_ids=["a", "b", "c", "d"])
    await connected.enqueue_many([SendEmail(to="a"), Order(number=1)], resource_key="k1")
    await connected.enqueue_many([SendEmail(to="a"), Order(number=2)], resource_key="k2")
    bodies: list[dict[str, Any]] = [
        {"ids": ["a", "b", "nobody"]},
        {"ids": []},
        {"resourceKey": "k1"},
        {"resourceKey": "k2", "kind": "order"},
        {"resourceKey": "k2", "kind": None},
    ]
    async with asking(an_api(connected)) as caller:
        answers = [await caller.post("/tasks/cancel", json=body) for body in bodies]
    assert [answer.json() for answer in answers] == [{"cancelled": n} for n in (2, 0, 2, 1, 1)]
    assert not (await connected.get_task("c")).is_cancelled


async def test_a_done_task_is_reset(connected: Client) -> None:
    """It runs again; one that is not done is told apart by 409."""
    async with asking(an_api(connected)) as caller:
        task_id = await enqueued(caller)
        early = await caller.post(f"/tasks/{task_id}/reset")
        await caller.post("/tick")
        reset = await caller.post(f"/tasks/{task_id}/reset")
    assert early.status_code == 409
    assert early.json() == {"error": f"task {task_id!r} was not reset: it is pending, and only done tasks can be"}
    assert (reset.status_code, reset.json()) == (200, {"reset": True})
    assert (await connected.get_task(task_id)).attempts == 0


async def test_a_running_task_is_not_deleted(connected: Client) -> None:
    """409 says what to do; once it is done it can be deleted, and is gone."""
    held = Held()
    app = an_app(held)
    async with asking(an_api(connected, app=app)) as caller:
        task_id = await enqueued(caller, kind="hold", data={})
        async with Worker(app, connected):
            await soon(held.started)
            refused = await caller.delete(f"/tasks/{task_id}")
            held.go_on.set()
            await connected.wait(task_id, timeout=20)
        deleted = await caller.delete(f"/tasks/{task_id}")
        gone = await caller.get(f"/tasks/{task_id}")
    assert refused.status_code == 409
    assert refused.json() == {"error": f"task {task_id!r} was not deleted: it is running, so cancel it first"}
    assert (deleted.status_code, deleted.json()) == (200, {"deleted": True})
    assert (gone.status_code, gone.json()) == (404, {"error": f"no task has the id {task_id!r} in this environment"})


async def test_a_kind_is_paused_and_resumed(connected: Client) -> None:
    """A tick leaves its tasks alone until it is resumed; the statistics name it."""
    async with asking(an_api(connected)) as caller:
        await enqueued(caller)
        paused = [(await caller.post("/kinds/send-email/pause")).json() for _ in range(2)]
        idle = (await caller.post("/tick")).json()
        stats = (await caller.get("/stats")).json()
        resumed = [(await caller.post("/kinds/send-email/resume")).json() for _ in range(2)]
        busy = (await caller.post("/tick")).json()
    assert (paused, resumed) == ([{"paused": True}, {"paused": False}], [{"resumed": True}, {"resumed": False}])
    assert stats == {
        "kinds": {"send-email": {"pending": 1}},
        "totals": {"pending": 1},
        "total": 1,
        "paused": ["send-email"],
    }
    assert (idle["claimed"], busy["completed"]) == (0, 1)


async def test_failures_show_in_the_record(connected: Client) -> None:
    """The errors of a failed task are a list of maps."""
    async with asking(an_api(connected)) as caller:
        task_id = await enqueued(caller, kind="order", data={"number": -1})
        report = (await caller.post("/tick", json={})).json()
        task = (await caller.get(f"/tasks/{task_id}")).json()
    assert report["failed"] == 1
    (error,) = task["errors"]
    assert {**error, "at": "some time"} == {
        "at": "some time",
        "attempt": 1,
        "type": "ValueError",
        "message": "no such order",
    }
