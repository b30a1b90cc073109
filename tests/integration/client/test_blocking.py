"""`connect_sync`: the same methods, blocking, from any thread, and after a fork."""

from __future__ import annotations

import inspect
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from oncetask import Client, StoreUnavailable, SyncClient, TaskNotFound, TaskStatus, connect_sync
from tests.integration.client.support import LIMIT, Greet, Note
from tests.integration.places import Place

ROOT = Path(__file__).parents[3]


@pytest.fixture
def client(opened_place: Place) -> Iterator[SyncClient]:
    """A blocking client."""
    with connect_sync(opened_place.url) as client:
        yield client


def test_it_has_the_methods_of_the_client() -> None:
    """Every public method of `Client` is there, with the same arguments."""
    named = {name for name in vars(Client) if not name.startswith("_")} - {"aclose"}
    assert named <= set(vars(SyncClient))
    for name in named:
        wanted = inspect.signature(getattr(Client, name)).parameters
        given = inspect.signature(getattr(SyncClient, name)).parameters
        assert list(given.values()) == list(wanted.values()), name


def test_every_method_works(client: SyncClient) -> None:
    """Each method does, without a loop around, what the asynchronous one does."""
    receipt = client.enqueue(Note(n=1), owner="me")
    client.enqueue_many([Greet(name="Ada"), Greet(name="Bob")])
    assert client.get_task(receipt.task_id).data == {"n": 1}
    assert [task.id for task in client.get_tasks_by_ids(["greet:Bob", "nobody"])] == ["greet:Bob"]
    assert client.get_tasks_by_resource_key(None, "key") == []
    assert [task.id for task in client.list_tasks(kind=Greet, limit=1).tasks] == ["greet:Ada"]
    assert {task.id for task in client.iter_tasks()} == {receipt.task_id, "greet:Ada", "greet:Bob"}
    assert client.pending_count(Greet) == 2
    assert client.stats().total(TaskStatus.PENDING) == 3
    assert not client.reset_task("greet:Ada")
    assert client.reset_tasks_by_ids(["greet:Ada"]) == 0
    assert client.delete_task("greet:Ada")
    assert client.delete_tasks_by_ids(["greet:Ada", "greet:Bob"]) == 1
    with pytest.raises(TimeoutError):
        client.wait(receipt.task_id, 0)
    with pytest.raises(TaskNotFound):
        client.get_task("nobody")
    with pytest.raises(ValueError, match="task_id"):
        client.enqueue(Note(), task_id="a/b")


def test_changes_are_followed(client: SyncClient) -> None:
    """`watch` is a plain iterator, which may be left early, and raises when the task is deleted."""
    receipt = client.enqueue(Note())
    for task in client.watch(receipt.task_id):
        assert task.status is TaskStatus.PENDING
        break
    changes = client.watch(receipt.task_id)
    next(changes)
    client.delete_task(receipt.task_id)
    with pytest.raises(TaskNotFound):
        next(changes)


def test_eight_threads_share_it(client: SyncClient) -> None:
    """Eight threads enqueue through one client; nothing is lost or created twice."""

    def enqueue(thread: int) -> int:
        receipts = [client.enqueue(Greet(name=f"{n}")) for n in range(20)]
        client.enqueue_many([Note(n=thread)] * 10)
        return sum(receipt.created for receipt in receipts)

    with ThreadPoolExecutor(8) as threads:
        created = sum(threads.map(enqueue, range(8)))
    assert (created, client.pending_count(Greet), client.pending_count(Note)) == (20, 20, 80)


def test_closing_ends_what_others_wait_for(client: SyncClient) -> None:
    """A thread that waits when the client is closed gets an error, and the client opens again at its next use."""
    receipt = client.enqueue(Note())
    watching, errors = threading.Event(), list[BaseException]()

    def wait() -> None:
        try:
            for _ in client.watch(receipt.task_id):
                watching.set()
        except StoreUnavailable as error:
            errors.append(error)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    assert watching.wait(LIMIT)
    client.close()
    thread.join(LIMIT)
    assert len(errors) == 1
    assert client.get_task(receipt.task_id).status is TaskStatus.PENDING


@pytest.mark.parametrize("before", ["used", "fresh"])
def test_it_works_after_a_fork(opened_place: Place, before: str) -> None:
    """Parent and child both go on with a client that was in use before the fork, or only made."""
    program = (sys.executable, "-m", "tests.integration.client.forking", before)
    ended = subprocess.run(program, env=opened_place.environment, cwd=ROOT, timeout=50, check=False)
    assert ended.returncode == 0
