"""Whether a project has the indexes that the queries need, and rules that keep strangers out."""

from __future__ import annotations

import asyncio
import http.client
import json
import urllib.error
import urllib.request
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc  # type: ignore[import-untyped]  # grpcio ships no types

from oncetask.store import Diagnosis, TaskFilter
from oncetask.store.firestore import queries
from oncetask.store.firestore.rpc import RpcFailed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from oncetask.store.firestore.session import Session

__all__ = ["diagnose", "of_indexes", "of_rules", "queries_with_indexes"]

_NOBODYS = "oncetask-doctor"
_SERVICE = "https://firestore.googleapis.com"
_TIMEOUT_SECONDS = 5.0
_REFUSED = frozenset({http.client.UNAUTHORIZED, http.client.FORBIDDEN})


async def diagnose(session: Session) -> list[Diagnosis]:
    """Look at indexes and rules."""
    names, emulator = session.names, session.emulator
    if emulator is not None:
        of_all_indexes = [Diagnosis("indexes", "not checked: an emulator needs none")]
    else:
        of_all_indexes = await of_indexes(session)
    documents = [names.settings, names.task(_NOBODYS)]
    return [*of_all_indexes, await asyncio.to_thread(of_rules, names.parent, documents, emulator)]


async def of_indexes(session: Session) -> list[Diagnosis]:
    """Send each query that needs a composite index; one that has none is refused, whatever there is to find."""
    found = await asyncio.gather(*(_refusal(session, one) for one in queries_with_indexes(session.clock.now().latest)))
    missing = [refusal for refusal in found if refusal is not None]
    advice = "deploy firestore.indexes.json (`firebase deploy --only firestore:indexes`), and wait until it is built"
    return [Diagnosis("indexes", f"{refusal}; {advice}", is_wrong=True) for refusal in missing] or [
        Diagnosis("indexes", "all are there")
    ]


def queries_with_indexes(now: datetime) -> list[Any]:
    """Give a query for each composite index; none of them finds more than one task."""
    kinds = keys = [_NOBODYS]
    due = partial(queries.due, kinds, now=now, limit=1, after=None, after_name="")
    counted = [
        queries.matching(TaskFilter(kind=_NOBODYS), due=now, unleased=True),
        queries.matching(TaskFilter(kind=_NOBODYS), due=now, cancelled=True),
    ]
    for query in counted:
        query.limit.value = 1
    return [
        due(),
        due(generators=True),
        queries.due_without(kinds, keys, now=now, limit=1, behind=None),
        queries.line(keys, now=now, limit=1, after=None, after_name=""),
        *counted,
    ]


async def _refusal(session: Session, query: Any) -> str | None:
    """Say for want of which index a query is refused, in the server's words; None: it is not."""
    ask = partial(session.rpc.run_query, session.names.parent, query)
    try:
        await session.retrier.run("looking for indexes", ask, expected={grpc.StatusCode.FAILED_PRECONDITION})
    except RpcFailed as error:
        if "index" not in error.details.lower():
            raise session.unavailable(error, "looking for indexes") from error
        return error.details.strip().rstrip(".")
    return None


def of_rules(parent: str, documents: Sequence[str], emulator: str | None, *, service: str = _SERVICE) -> Diagnosis:
    """Ask for tasks as somebody who has not signed in; blocks for some seconds at most.

    `parent`, `documents`: names, of an environment and of what may or may not be in it. `emulator`: its `host:port`.
    """
    base = f"{service if emulator is None else f'http://{emulator}'}/v1/"
    query = {"structuredQuery": {"from": [{"collectionId": "onceTasks"}], "limit": 1}}
    database = parent.partition("/documents")[0]
    try:
        answers = {
            _answer(f"{base}{parent}:runQuery", query, is_local=emulator is not None),
            _answer(f"{base}{database}/documents:batchGet", {"documents": documents}, is_local=emulator is not None),
        }
    except (OSError, http.client.HTTPException) as error:
        return Diagnosis("rules", f"not checked: {error}")
    if answers <= _REFUSED:
        return Diagnosis("rules", "who has not signed in may read nothing")
    if http.client.OK not in answers:
        return Diagnosis("rules", f"not checked: answered with {', '.join(map(str, sorted(answers)))}")
    if emulator is not None:
        return Diagnosis("rules", "anybody may read, as an emulator has it that was given no firestore.rules")
    advice = "deploy firestore.rules (`firebase deploy --only firestore:rules`)"
    return Diagnosis("rules", f"anybody may read tasks, without signing in: {advice}", is_wrong=True)


def _answer(url: str, body: object, *, is_local: bool) -> int:
    """Post without any credentials, and give the status. Raises OSError."""
    opener = urllib.request.build_opener(*([urllib.request.ProxyHandler({})] if is_local else []))
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})  # noqa: S310  # the url is ours
    try:
        with opener.open(request, timeout=_TIMEOUT_SECONDS) as answer:
            status: int = answer.status
            return status
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
