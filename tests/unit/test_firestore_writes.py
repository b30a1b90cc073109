"""What a document has on Firestore only: the marks by which queries find it."""

from __future__ import annotations

from typing import Any

import pytest

from oncetask.lifecycle import Transition
from oncetask.store.document import encode
from oncetask.store.firestore.writes import changes_of, document_of
from oncetask.task import Task
from tests.support import T0, a_task, at

RULE = {"cron": "0 2 * * *", "timezone": "UTC"}


def changed(task: Task, **changes: Any) -> Transition:
    """Give a transition that changes these attributes."""
    return Transition("changed", task, task.evolve(**changes), changes)


@pytest.mark.parametrize(
    ("task", "marks"),
    [
        (a_task(), {"lane": ""}),
        (a_task(resource_key="k"), {"lane": "k"}),
        (a_task(recurrence=RULE), {"lane": "", "isGenerator": True}),
        (a_task(resource_key="k", recurrence=RULE), {"lane": "", "isGenerator": True}),
    ],
    ids=["plain", "key", "generator", "generator with a key"],
)
def test_marks(task: Task, marks: dict[str, Any]) -> None:
    """A task's lane is its resource key, but none has none, and neither has a generator, which is marked as one."""
    assert document_of(task) == {**encode(task), **marks}


def test_the_lane_follows_the_key() -> None:
    """Where a change names the resource key, it names the lane as well; a generator's stays empty."""
    keyed, generator = a_task(resource_key="k"), a_task(resource_key="k", recurrence=RULE)

    assert changes_of(changed(keyed, resource_key="new")) == {"resourceKey": "new", "lane": "new"}
    assert changes_of(changed(keyed, resource_key=None))["lane"] == ""
    assert changes_of(changed(generator, resource_key="new")) == {"resourceKey": "new", "lane": ""}


def test_other_changes_leave_the_lane_alone() -> None:
    """A change that does not name the resource key writes no lane."""
    assert changes_of(changed(a_task(resource_key="k"), leased_until=at(60), wait_until=T0)) == {
        "leasedUntil": at(60),
        "waitUntil": T0,
    }
