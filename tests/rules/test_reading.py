"""A signed-in user reads the tasks that have the user as their owner, and nothing else; a service account reads all."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.rules.callers import Caller, Project, equal, is_null, one_of
from tests.rules.documents import ADAS, DOCUMENTS, ELSEWHERE, OTHERS

IN_PROD = list(ADAS)[:2]


def refused(answer: httpx.Response) -> bool:
    """Tell whether the rules have refused, and not something else."""
    return answer.status_code == httpx.codes.FORBIDDEN and "PERMISSION_DENIED" in answer.text


def found(answer: httpx.Response) -> list[str]:
    """Give the paths of the documents that an answer holds; it must have succeeded."""
    assert answer.status_code == httpx.codes.OK, answer.text
    said: Any = answer.json()
    documents = [one.get("document") or one.get("found") for one in said] if isinstance(said, list) else [said]
    return sorted(one["name"].partition("/documents/")[2] for one in documents if one)


def test_an_owner_gets_the_task(ada: Caller) -> None:
    """Whoever owns tasks reads each of them, in every environment, whole."""
    for path in ADAS:
        assert found(ada.get(path)) == [path]
    assert ada.get(IN_PROD[0]).json()["fields"]["kind"] == {"stringValue": "greet"}


def test_an_owner_gets_several(ada: Caller) -> None:
    """Several tasks are read in one call if all of them are the caller's own; otherwise none is."""
    assert found(ada.get_many(*IN_PROD)) == IN_PROD
    assert refused(ada.get_many(*IN_PROD, "oncetask/prod/onceTasks/bob-1"))


def test_an_owner_lists_with_the_filter(ada: Caller) -> None:
    """A query that asks for the caller's own tasks finds all of them; it may ask for more than that."""
    own = equal("owner", "ada")
    assert found(ada.query(own)) == IN_PROD
    assert found(ada.query(own, equal("kind", "greet"))) == IN_PROD[:1]
    assert found(ada.query(own, is_null("outcome"))) == IN_PROD[:1]
    assert found(ada.query(one_of("owner", ["ada"]))) == IN_PROD
    assert '"integerValue": "2"' in ada.count(own).text


@pytest.mark.parametrize(
    "conditions",
    [
        pytest.param((), id="no filter"),
        pytest.param((equal("kind", "greet"),), id="another filter"),
        pytest.param((equal("owner", "bob"),), id="another's"),
        pytest.param((one_of("owner", ["ada", "bob"]),), id="own and another's"),
        pytest.param((is_null("owner"),), id="nobody's"),
        pytest.param((equal("owner", ["ada"]),), id="a list with the owner"),
    ],
)
def test_lists_without_the_filter_are_refused(ada: Caller, conditions: tuple[object, ...]) -> None:
    """Rules are no filters: a query that could find somebody else's task is refused, and so is counting by it."""
    assert refused(ada.query(*conditions))
    assert refused(ada.count(*conditions))


def test_lists_of_a_whole_collection_are_refused(ada: Caller) -> None:
    """Listing by the name of the collection has no filter."""
    assert refused(ada.all_of("oncetask/prod/onceTasks"))


def test_collection_groups_are_refused(ada: Caller, project: Project) -> None:
    """No query reaches over the environments, not even for the caller's own tasks."""
    assert refused(ada.query_group(equal("owner", "ada")))
    assert refused(ada.query_group())
    assert "oncetask/test/onceTasks/ada-3" in found(project.admin.query_group(equal("owner", "ada")))


def test_a_stranger_reads_nothing(eve: Caller) -> None:
    """Who owns no task gets none; a query for the own ones finds none."""
    for path in DOCUMENTS:
        assert refused(eve.get(path)), path
    assert refused(eve.query(equal("owner", "ada")))
    assert refused(eve.query_group(equal("owner", "ada")))
    assert found(eve.query(equal("owner", "eve"))) == []


def test_nobody_reads_nothing(project: Project) -> None:
    """Without a token nothing is read, by no filter."""
    for path in DOCUMENTS:
        assert refused(project.nobody.get(path)), path
    for condition in (equal("owner", "ada"), is_null("owner"), equal("kind", "greet")):
        assert refused(project.nobody.query(condition))
        assert refused(project.nobody.count(condition))
    assert refused(project.nobody.all_of("oncetask/prod/onceTasks"))


def test_an_admin_reads_everything(project: Project) -> None:
    """A service account reads every document, and lists without a filter."""
    for path in DOCUMENTS:
        assert found(project.admin.get(path)) == [path]
    assert found(project.admin.query()) == sorted([*IN_PROD, *OTHERS])


@pytest.mark.parametrize("path", [*OTHERS, *ELSEWHERE])
def test_all_else_is_refused(ada: Caller, path: str) -> None:
    """Settings, locks, tasks of others or of nobody, and what is elsewhere are not read, whoever owns it."""
    assert refused(ada.get(path))


@pytest.mark.parametrize("collection", ["oncetask", "oncetask/prod/onceLocks", "oncetask/prod/onceTasks/ada-1/notes"])
def test_other_collections_are_refused(ada: Caller, collection: str) -> None:
    """Neither environments nor locks are listed, nor what lies below a task."""
    assert refused(ada.all_of(collection))


@pytest.mark.parametrize("parent", ["users/ada", "oncetask/prod/onceTasks/ada-1"])
def test_collections_of_the_same_name_are_refused(ada: Caller, parent: str) -> None:
    """A collection called like that of the tasks is none of them where it is not an environment's."""
    assert refused(ada.query(equal("owner", "ada"), parent=parent))


def test_a_task_that_does_not_exist_is_refused(ada: Caller, project: Project) -> None:
    """Which ids are taken cannot be found out: what is missing is refused like what is another's."""
    assert refused(ada.get("oncetask/prod/onceTasks/missing"))
    assert project.admin.get("oncetask/prod/onceTasks/missing").status_code == httpx.codes.NOT_FOUND


def test_an_anonymous_user_is_a_user(project: Project) -> None:
    """Firebase's anonymous users have an id like others: they read what was enqueued for it, and no more."""
    anonymous = project.user("ada", provider="anonymous")
    assert found(anonymous.get(IN_PROD[0])) == IN_PROD[:1]
    assert found(anonymous.query(equal("owner", "ada"))) == IN_PROD
    stranger = project.user("another", provider="anonymous")
    assert refused(stranger.get(IN_PROD[0]))
    assert refused(stranger.get("oncetask/prod/onceTasks/null"))


@pytest.mark.parametrize("claims", [{}, {"sub": None}, {"user_id": "ada"}], ids=["none", "null", "beside sub"])
def test_a_token_without_a_user_reads_nothing(project: Project, claims: dict[str, object]) -> None:
    """Such a token's user is null, and still not the owner of a task whose owner is null."""
    without = project.bearer(claims)
    for task in ("null", "free", "ada-1"):
        assert refused(without.get(f"oncetask/prod/onceTasks/{task}")), task
    assert refused(without.query(is_null("owner")))
    assert refused(without.count(is_null("owner")))


def test_claims_do_not_make_an_owner(project: Project) -> None:
    """Only the user's id counts: neither a name, an address or a claim of one's own makes somebody else of a user."""
    posing = project.bearer(
        {"sub": "eve", "user_id": "ada", "name": "ada", "email": "ada", "owner": "ada", "admin": True}
    )
    assert refused(posing.get(IN_PROD[0]))
    assert refused(posing.query(equal("owner", "ada")))
