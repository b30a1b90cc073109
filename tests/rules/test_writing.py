"""No user writes anything, not even a task of the user's own; a service account writes all."""

from __future__ import annotations

import uuid

import httpx
import pytest

from tests.rules.callers import Caller, Project

PLACES = [
    "oncetask/prod/onceTasks/{}",
    "oncetask/prod/onceTasks/{}/notes/1",
    "oncetask/prod/onceLocks/{}",
    "oncetask/{}",
    "users/{}",
]
"""Where documents are: tasks, what is below a task, locks, settings of environments, anything else."""

OWN = {"owner": "ada", "kind": "greet"}


@pytest.fixture(params=["owner", "stranger", "anonymous", "nobody", "no user"])
def caller(request: pytest.FixtureRequest, project: Project) -> Caller:
    """Each of those to whom the rules apply; the documents written are Ada's."""
    return {
        "owner": project.user("ada"),
        "stranger": project.user("eve"),
        "anonymous": project.user("ada", provider="anonymous"),
        "nobody": project.nobody,
        "no user": project.bearer({}),
    }[request.param]


@pytest.fixture(params=PLACES)
def path(request: pytest.FixtureRequest) -> str:
    """A document that nobody has written yet."""
    place: str = request.param
    return place.format(uuid.uuid4().hex)


def test_create(project: Project, caller: Caller, path: str) -> None:
    """Nothing is created, whoever is said to own it."""
    assert caller.create(path, OWN).status_code == httpx.codes.FORBIDDEN
    assert project.admin.get(path).status_code == httpx.codes.NOT_FOUND


def test_update(project: Project, caller: Caller, path: str) -> None:
    """Nothing is changed: no field of it, nor the whole, and no task is given to somebody else."""
    project.admin.create(path, OWN).raise_for_status()
    for changes in ({"outcome": "completed"}, {"owner": "eve"}):
        assert caller.update(path, changes).status_code == httpx.codes.FORBIDDEN
        assert caller.put(path, {**OWN, **changes}).status_code == httpx.codes.FORBIDDEN
    assert set(project.admin.get(path).json()["fields"]) == {"owner", "kind"}


def test_delete(project: Project, caller: Caller, path: str) -> None:
    """Nothing is deleted."""
    project.admin.create(path, OWN).raise_for_status()
    assert caller.delete(path).status_code == httpx.codes.FORBIDDEN
    assert project.admin.get(path).status_code == httpx.codes.OK


def test_an_admin_writes(project: Project, path: str) -> None:
    """A service account creates, changes and deletes."""
    admin = project.admin
    for answer in (admin.create(path, OWN), admin.update(path, {"owner": "eve"}), admin.delete(path)):
        assert answer.status_code == httpx.codes.OK, answer.text
    assert admin.get(path).status_code == httpx.codes.NOT_FOUND
