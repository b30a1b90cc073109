"""The harness: code under test that enqueues and waits, on the loop, in threads, and behind web frameworks."""

from __future__ import annotations

import asyncio
from typing import Annotated

import fastapi
import flask
import httpx
import pytest

from oncetask import App, Client, Context, NoRetry, Payload, SyncClient, TaskStatus
from oncetask.testing import Harness
from tests.support import T0, at


class Job(Payload, kind="job"):
    """What these enqueue."""

    fails: bool = False


async def test_callers_wait_and_watch() -> None:
    """`client.wait` and `client.watch` of code under test see what happens while the test lets time pass."""
    app, seen = App(), list[TaskStatus]()

    @app.handler(Job)
    async def job(_: Context, __: Job) -> str:
        await asyncio.sleep(60)
        return "done"

    async with Harness(app, start=T0) as h:
        task = await h.enqueue(Job())

        async def watch() -> None:
            async for change in h.client.watch(task.task_id):
                seen.append(change.status)

        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(h.client.wait(task.task_id, timeout=3_600))
            group.create_task(watch())
            await asyncio.sleep(1)
            await h.advance(60)
        assert (waiting.result().result, seen[0], seen[-1]) == ("done", "pending", "done-completed")


async def test_waiting_for_what_nobody_lets_run() -> None:
    """A caller that waits while nothing is let run gets its own time limit, in virtual time."""
    async with Harness(App(), start=T0) as h:
        task = await h.enqueue(Job())
        with pytest.raises(TimeoutError):
            await h.client.wait(task.task_id, timeout=30)
        assert h.now == at(30)


async def test_blocking_code_has_a_client_too() -> None:
    """Functions in threads, `def` handlers among them, use `sync_client`; what they enqueue runs as any other."""
    app = App(retry=NoRetry())

    def view(client: SyncClient, *, fails: bool) -> str:
        with client:  # its end closes nothing
            return client.enqueue(Job(fails=fails), owner="view").task_id

    @app.handler(Job)
    def job(_: Context, job: Job) -> int:
        if job.fails:
            raise ConnectionError
        return h.sync_client.pending_count()

    async with Harness(app, start=T0) as h:
        good = await asyncio.to_thread(view, h.sync_client, fails=False)
        bad = await asyncio.to_thread(view, h.sync_client, fails=True)
        await h.run_due()
        h.assert_completed(good)
        h.assert_failed(bad)
        assert [
            task.id for task in await asyncio.to_thread(lambda: list(h.sync_client.iter_tasks(owner="view")))
        ] == sorted([good, bad])
        task = await h.enqueue(Job())
        waiting = asyncio.create_task(asyncio.to_thread(h.sync_client.wait, task.task_id, timeout=30))
        await h.run_due()
        assert (await waiting).status is TaskStatus.DONE_COMPLETED


async def test_a_blocking_client_on_the_loop_would_block() -> None:
    """Called without a thread it raises, instead of waiting for ever."""
    async with Harness(App(), start=T0) as h:
        with pytest.raises(RuntimeError, match="so that it needs a thread"):
            h.sync_client.enqueue(Job())


def the_client() -> Client:
    """Stand for what tests replace."""
    raise NotImplementedError


def the_sync_client() -> SyncClient:
    """Stand for what tests replace."""
    raise NotImplementedError


web = fastapi.FastAPI()


@web.post("/jobs")
async def enqueue(client: Annotated[Client, fastapi.Depends(the_client)]) -> str:
    """Enqueue on the loop."""
    return (await client.enqueue(Job())).task_id


@web.post("/blocking")
def enqueue_blocking(client: Annotated[SyncClient, fastapi.Depends(the_sync_client)]) -> str:
    """Enqueue in a thread of the framework's."""
    return client.enqueue(Job()).task_id


@pytest.mark.parametrize("path", ["/jobs", "/blocking"])
async def test_fastapi(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests of a test on the same loop reach `async def` and `def` endpoints with the clients of the harness."""
    async with Harness(App(), start=T0) as h:
        monkeypatch.setitem(web.dependency_overrides, the_client, lambda: h.client)
        monkeypatch.setitem(web.dependency_overrides, the_sync_client, lambda: h.sync_client)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(web), base_url="http://test") as http:
            task_id = (await http.post(path)).json()
        assert h.tasks.one().id == task_id
        assert at(0) <= h.now < at(60)


async def test_flask() -> None:
    """A blocking test client in a thread is answered by views that use the blocking client."""
    server = flask.Flask(__name__)

    @server.post("/jobs")
    def view() -> tuple[str, int]:
        return server.config["tasks"].enqueue(Job()).task_id, 202

    async with Harness(App(), start=T0) as h:
        server.config["tasks"] = h.sync_client
        response = await asyncio.to_thread(server.test_client().post, "/jobs")
        assert (response.status_code, response.text) == (202, h.tasks.one().id)
        h.assert_enqueued(Job, count=1)
