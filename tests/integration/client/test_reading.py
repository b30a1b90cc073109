"""Reading: by id, by filter, page by page, and counted."""

from __future__ import annotations

from collections import Counter

import pytest

from oncetask import Client, TaskNotFound, TaskStatus
from tests.integration.client.support import Greet, Note, populate
from tests.integration.stores import EVERYWHERE

pytestmark = EVERYWHERE


async def test_tasks_are_read_by_id(connected: Client) -> None:
    """`get_task` raises where there is none; several ids give what exists, in their order, also hundreds of them."""
    ids = [f"t-{n}" for n in range(700)]
    await connected.enqueue_many([Note(n=n) for n in range(700)], task_ids=ids)
    with pytest.raises(TaskNotFound, match="'nobody'") as caught:
        await connected.get_task("nobody")
    assert caught.value.task_id == "nobody"
    wanted = [*reversed(ids), "nobody", "t-1"]
    found = await connected.get_tasks_by_ids(wanted)
    assert [task.id for task in found] == [*reversed(ids), "t-1"]
    assert await connected.get_tasks_by_ids([]) == []


async def test_filters_agree_with_the_records(connected: Client) -> None:
    """Each filter, and each pair of them, gives exactly the tasks whose records say so, in the order of their ids."""
    expected = await populate(connected)
    everything = (await connected.list_tasks()).tasks
    assert {task.id: task.status for task in everything} == expected
    assert [task.id for task in everything] == sorted(expected)
    for status in TaskStatus:
        for kind in (None, "note", Greet):
            name = getattr(kind, "kind", kind)
            page = await connected.list_tasks(status=status, kind=kind)
            wanted = sorted(t.id for t in everything if t.status is status and name in {None, t.kind})
            assert ([task.id for task in page.tasks], page.cursor) == (wanted, None)
    for filters, number in (
        ({"owner": "owner-1"}, 3),
        ({"owner": "owner-1", "kind": "note"}, 3),
        ({"resource_key": "greetings"}, 3),
        ({"resource_key": "greetings", "status": "done-failed"}, 1),
        ({"resource_key": "greetings", "kind": "note"}, 0),
        ({"parent": "nobody"}, 0),
    ):
        assert len([task async for task in connected.iter_tasks(**filters)]) == number
    assert len(await connected.get_tasks_by_resource_key(None, "greetings")) == 3
    assert await connected.get_tasks_by_resource_key(Note, "greetings") == []


@pytest.mark.parametrize("limit", [1, 7, 50])
@pytest.mark.parametrize("status", [None, "waiting", "pending", "done-completed"])
async def test_every_task_is_on_one_page(connected: Client, limit: int, status: str | None) -> None:
    """Following the cursors gives every task exactly once, in order, with a filter by status as well."""
    ids = [f"t-{n:02}" for n in range(53)]
    for remainder in range(3):
        some = ids[remainder::3]
        options = {"delay": 600} if remainder == 1 else {}
        await connected.enqueue_many([Note() for _ in some], task_ids=some, **options)  # type: ignore[arg-type]  # a delay
    wanted = {"waiting": ids[1::3], "pending": sorted(ids[0::3] + ids[2::3]), None: ids}.get(status, [])
    seen: list[str] = []
    cursor: str | None = None
    for _ in range(60):
        page = await connected.list_tasks(status=status, limit=limit, cursor=cursor)
        assert len(page.tasks) <= limit
        seen += [task.id for task in page.tasks]
        if (cursor := page.cursor) is None:
            break
    assert seen == wanted


async def test_a_page_is_found_behind_many_others(connected: Client) -> None:
    """A status that few have is found, however many tasks of another status stand before it."""
    await connected.enqueue_many([Note() for _ in range(450)], task_ids=[f"a-{n:03}" for n in range(450)], delay=600)
    await connected.enqueue_many([Note() for _ in range(3)], task_ids=["b-1", "b-2", "b-3"])
    page = await connected.list_tasks(status=TaskStatus.PENDING, limit=2)
    assert [task.id for task in page.tasks] == ["b-1", "b-2"]
    page = await connected.list_tasks(status=TaskStatus.PENDING, limit=2, cursor=page.cursor)
    assert ([task.id for task in page.tasks], page.cursor) == (["b-3"], None)


async def test_counts_agree_with_the_records(connected: Client) -> None:
    """`stats` and `pending_count` say what the records say."""
    assert (await connected.stats()).counts == {}
    expected = await populate(connected)
    stats = await connected.stats()
    assert stats.counts == {
        "note": {TaskStatus.PENDING: 2, TaskStatus.WAITING: 2, TaskStatus.LEASED: 2},
        "greet": {TaskStatus.DONE_COMPLETED: 2, TaskStatus.DONE_FAILED: 1},
    }
    assert {status: stats.total(status) for status in set(expected.values())} == Counter(expected.values())
    assert stats.total() == len(expected)
    assert await connected.pending_count() == 6
    assert await connected.pending_count(Note) == 6
    assert await connected.pending_count("greet") == 0
    assert await connected.pending_count(resource_key="greetings") == 0
