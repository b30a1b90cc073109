"""Who asks the emulator over REST, and how: a user with a token, an admin, somebody without anything."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import httpx

__all__ = ["Caller", "Project", "equal", "is_null", "one_of"]


class Project:
    """A project in the emulator, which keeps it apart from all others."""

    def __init__(self, host: str, name: str) -> None:
        self.name = name
        self._http = httpx.Client(base_url=f"http://{host}", timeout=20)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._http.close()

    def load(self, rules: str) -> None:
        """Have these rules hold for the project."""
        files = [{"name": "firestore.rules", "content": rules}]
        answer = self._http.put(f"/emulator/v1/projects/{self.name}:securityRules", json={"rules": {"files": files}})
        assert answer.status_code == httpx.codes.OK, answer.text

    @property
    def admin(self) -> Caller:
        """Give what stands for a service account, to which rules do not apply."""
        return Caller(self._http, self.name, "owner")

    @property
    def nobody(self) -> Caller:
        """Give a caller without a token."""
        return Caller(self._http, self.name, None)

    def user(self, uid: str, *, provider: str = "password") -> Caller:
        """Give a user that Firebase has signed in."""
        return self.bearer({"sub": uid, "user_id": uid, "firebase": {"sign_in_provider": provider}})

    def bearer(self, claims: Mapping[str, object]) -> Caller:
        """Give a caller whose token makes these claims; the emulator asks for no signature."""
        now = int(time.time())
        issued = {"iss": f"https://securetoken.google.com/{self.name}", "aud": self.name, "iat": now, "exp": now + 3600}
        return Caller(self._http, self.name, f"{_part({'alg': 'none'})}.{_part({**issued, **claims})}.")


class Caller:
    """Somebody who reads and writes; every call gives the answer, refusals too."""

    def __init__(self, http: httpx.Client, project: str, token: str | None) -> None:
        self._http = http
        self._root = f"projects/{project}/databases/(default)/documents"
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}

    def get(self, path: str) -> httpx.Response:
        """Read one document."""
        return self._ask("GET", f"/{path}")

    def get_many(self, *paths: str) -> httpx.Response:
        """Read several documents in one call."""
        return self._ask("POST", ":batchGet", documents=[f"{self._root}/{path}" for path in paths])

    def all_of(self, collection: str) -> httpx.Response:
        """List a collection without a filter."""
        return self._ask("GET", f"/{collection}")

    def query(self, *conditions: object, parent: str = "oncetask/prod") -> httpx.Response:
        """Query the tasks below a document."""
        return self._ask("POST", f"/{parent}:runQuery", structuredQuery=_query(conditions))

    def query_group(self, *conditions: object) -> httpx.Response:
        """Query the tasks of all environments at once."""
        return self._ask("POST", ":runQuery", structuredQuery=_query(conditions, allDescendants=True))

    def count(self, *conditions: object) -> httpx.Response:
        """Count the tasks of an environment."""
        counting = {"structuredQuery": _query(conditions), "aggregations": [{"alias": "n", "count": {}}]}
        return self._ask("POST", "/oncetask/prod:runAggregationQuery", structuredAggregationQuery=counting)

    def create(self, path: str, fields: Mapping[str, object]) -> httpx.Response:
        """Write a document that must not exist."""
        return self._commit(path, fields, {"exists": False})

    def put(self, path: str, fields: Mapping[str, object]) -> httpx.Response:
        """Write a whole document, whether it exists or not."""
        return self._commit(path, fields, {})

    def update(self, path: str, fields: Mapping[str, object]) -> httpx.Response:
        """Change fields of a document that exists."""
        return self._commit(path, fields, {"exists": True}, updateMask={"fieldPaths": list(fields)})

    def delete(self, path: str) -> httpx.Response:
        """Delete a document."""
        return self._ask("DELETE", f"/{path}")

    def _commit(self, path: str, fields: Mapping[str, object], condition: object, **more: object) -> httpx.Response:
        document = {"name": f"{self._root}/{path}", "fields": {name: _value(one) for name, one in fields.items()}}
        return self._ask("POST", ":commit", writes=[{"update": document, "currentDocument": condition, **more}])

    def _ask(self, method: str, path: str, **body: object) -> httpx.Response:
        return self._http.request(method, f"/v1/{self._root}{path}", headers=self._headers, json=body or None)


def equal(field: str, value: object) -> Any:
    """Give the condition that a field has a value."""
    return _compared(field, "EQUAL", value)


def one_of(field: str, values: Sequence[object]) -> Any:
    """Give the condition that a field has one of the values."""
    return _compared(field, "IN", list(values))


def is_null(field: str) -> Any:
    """Give the condition that a field is null."""
    return {"unaryFilter": {"field": {"fieldPath": field}, "op": "IS_NULL"}}


def _compared(field: str, operator: str, value: object) -> Any:
    return {"fieldFilter": {"field": {"fieldPath": field}, "op": operator, "value": _value(value)}}


def _query(conditions: Sequence[object], **source: object) -> Any:
    query = {"from": [{"collectionId": "onceTasks", **source}]}
    return {**query, "where": {"compositeFilter": {"op": "AND", "filters": conditions}}} if conditions else query


def _value(value: object) -> Any:
    match value:
        case None:
            return {"nullValue": None}
        case str():
            return {"stringValue": value}
        case list():
            return {"arrayValue": {"values": [_value(one) for one in value]}}
        case _:
            raise TypeError(f"these tests have no documents with {value!r}")


def _part(claims: Mapping[str, object]) -> str:
    return base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
