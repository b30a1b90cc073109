"""Lists and counts."""

from __future__ import annotations

import pytest

from oncetask.store import TaskFilter, TaskStore
from oncetask.task import Outcome
from tests.support import a_task, stored


@pytest.fixture
async def tasks(store: TaskStore) -> None:
    """Store some tasks that differ in everything that can be asked for."""
    await stored(
        store,
        a_task("c", kind="sync", resource_key="user:1", owner="ada", lease_owner="l2"),
        a_task("a", kind="sync", resource_key="user:1", outcome=Outcome.COMPLETED),
        a_task("b", kind="sync", resource_key="user:2", outcome=Outcome.FAILED, owner="bob"),
        a_task("d", resource_key="user:1", owner="ada", parent_recurrence_id="nightly", lease_owner="l2"),
        a_task("e", outcome=Outcome.FAILED, parent_recurrence_id="nightly"),
        a_task("f", is_cancelled=True, lease_owner="l1"),
        a_task("g", outcome=Outcome.CANCELLED, is_cancelled=True),
    )


FILTERS = [
    pytest.param(TaskFilter(), "abcdefg", id="everything"),
    pytest.param(TaskFilter(kind="sync"), "abc", id="kind"),
    pytest.param(TaskFilter(kind="none"), "", id="unknown kind"),
    pytest.param(TaskFilter(resource_key="user:1"), "acd", id="resource key"),
    pytest.param(TaskFilter(owner="ada"), "cd", id="owner"),
    pytest.param(TaskFilter(parent="nightly"), "de", id="parent"),
    pytest.param(TaskFilter(lease_owner="l2"), "cd", id="lease owner"),
    pytest.param(TaskFilter(lease_owner="l3"), "", id="lease owner of none"),
    pytest.param(TaskFilter(done=True), "abeg", id="done"),
    pytest.param(TaskFilter(done=False), "cdf", id="not done"),
    pytest.param(TaskFilter(outcome=Outcome.FAILED), "be", id="outcome"),
    pytest.param(TaskFilter(outcome=Outcome.EXPIRED), "", id="outcome of none"),
    pytest.param(TaskFilter(done=True, outcome=Outcome.FAILED), "be", id="done and outcome"),
    pytest.param(TaskFilter(done=False, outcome=Outcome.FAILED), "", id="contradiction"),
    pytest.param(TaskFilter(kind="sync", resource_key="user:1"), "ac", id="kind and key"),
    pytest.param(TaskFilter(kind="sync", resource_key="user:1", done=False), "c", id="kind, key and not done"),
    pytest.param(TaskFilter(kind="sync", done=True), "ab", id="kind and done"),
    pytest.param(TaskFilter(kind="sync", outcome=Outcome.FAILED, owner="bob"), "b", id="kind, outcome and owner"),
    pytest.param(TaskFilter(resource_key="user:1", done=False), "cd", id="key and not done"),
    pytest.param(TaskFilter(owner="ada", parent="nightly", kind="greet"), "d", id="owner, parent and kind"),
    pytest.param(TaskFilter(resource_key="user:1", lease_owner="l2"), "cd", id="key and lease owner"),
    pytest.param(TaskFilter(resource_key="user:2", lease_owner="l2"), "", id="another key's lease owner"),
    pytest.param(TaskFilter(kind="sync", resource_key="user:1", lease_owner="l2", done=False), "c", id="all of these"),
]


@pytest.mark.usefixtures("tasks")
@pytest.mark.parametrize(("which", "expected"), FILTERS)
async def test_all_conditions_hold(store: TaskStore, which: TaskFilter, expected: str) -> None:
    """What is found fulfils every condition, in the order of ids, and the count is the same."""
    assert "".join(task.id for task in await store.find(which, limit=100)) == expected
    assert await store.count(which) == len(expected)


@pytest.mark.usefixtures("tasks")
@pytest.mark.parametrize(
    "which", [TaskFilter(), TaskFilter(kind="sync"), TaskFilter(done=True)], ids=["all", "kind", "done"]
)
async def test_pages_give_everything_once(store: TaskStore, which: TaskFilter) -> None:
    """Page after page gives each task once; a page that is not full is the last."""
    everything = [task.id for task in await store.find(which, limit=100)]

    found, after = [], None
    while len(page := await store.find(which, limit=2, after=after)) == 2:
        found += page
        after = page[-1].id
    found += page

    assert [task.id for task in found] == everything


@pytest.mark.usefixtures("tasks")
async def test_pages_go_on_behind_ids_that_are_gone(store: TaskStore) -> None:
    """A place between two tasks is as good as a task."""
    assert [task.id for task in await store.find(TaskFilter(), limit=2, after="cc")] == ["d", "e"]
    assert await store.find(TaskFilter(), limit=2, after="g") == []


async def test_ids_of_any_script_have_one_order(store: TaskStore) -> None:
    """The order of ids is that of their code points."""
    names = ["B", "a", "é", "z", "\uff5e", "😀", "_", "1", "10", "2"]
    await stored(store, *map(a_task, names))

    assert [task.id for task in await store.find(TaskFilter(), limit=100)] == sorted(names)


async def test_generators_are_found_but_not_counted(store: TaskStore) -> None:
    """The generator of a recurrence is in lists, and in no count of tasks."""
    await stored(store, a_task("generator", recurrence={"cron": "0 2 * * *", "timezone": "UTC"}), a_task("task"))

    assert [task.id for task in await store.find(TaskFilter(), limit=10)] == ["generator", "task"]
    assert await store.count(TaskFilter()) == 1
    assert await store.count(TaskFilter(kind="greet", done=False)) == 1
