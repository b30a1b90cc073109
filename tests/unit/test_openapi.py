"""The OpenAPI document: what it says about routes, fields and payloads."""

from __future__ import annotations

from typing import Any, Literal

import jsonschema_rs
import pytest
from pydantic import BaseModel, ConfigDict, Field
from starlette.routing import Route

from oncetask import App, Payload, connect
from oncetask.http import asgi_app
from oncetask.http.openapi import document
from oncetask.http.schemas import schemas
from oncetask.representation import as_json
from tests.support import a_task


class Part(BaseModel):
    """A part of several payloads."""

    size: int = Field(gt=0)


class Tree(Payload, kind="tree"):
    """A payload that contains itself."""

    part: Part
    branches: list[Tree] = Field(default_factory=list)


class Shrub(Payload, kind="shrub"):
    """A payload with a part of the same name."""

    part: Part
    form: Literal["round", "wild"] = Field(alias="shape")


class Unsayable(Payload, kind="unsayable"):
    """A payload with a field that has no JSON schema."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    thing: App | None = None


def described(*payload_types: type[Payload]) -> dict[str, Any]:
    """Give the document of these."""
    return document({one.kind: one for one in payload_types}, title="garden", has_tokens=False)


def accepts(found: dict[str, Any], body: object) -> bool:
    """Tell whether a body fits what the document says about `POST /tasks`."""
    schema = {"$ref": "#/components/schemas/NewTask", "components": found["components"]}
    return jsonschema_rs.validator_for(schema).is_valid(body)


def test_every_route_is_described_and_every_description_has_a_route() -> None:
    """Paths and methods of the document are those of the application, but for the WebSocket."""
    routes = [route for route in asgi_app(App(), connect("memory://")).routes if isinstance(route, Route)]
    served = {
        (route.path.replace("task_id", "taskId"), method.lower()) for route in routes for method in route.methods or ()
    }
    told = {(path, method) for path, methods in described()["paths"].items() for method in methods}
    assert {(path, method) for path, method in served if method != "head"} == told


@pytest.mark.parametrize(
    ("body", "fits"),
    [
        ({"kind": "tree", "data": {"part": {"size": 1}, "branches": [{"part": {"size": 2}}]}}, True),
        ({"kind": "tree", "data": {"part": {"size": 1}, "branches": [{"part": {"size": 0}}]}}, False),
        ({"kind": "shrub", "data": {"part": {"size": 1}, "shape": "wild"}}, True),
        ({"kind": "shrub", "data": {"part": {"size": 1}, "form": "wild"}}, False),
        ({"kind": "tree", "data": {"part": {"size": 1}, "shape": "wild"}}, True),
        ({"kind": "shrub", "data": {"part": {"size": 1}}}, False),
        ({"kind": "bush", "data": {}}, False),
        ({"kind": "unsayable", "data": {"anything": "goes"}}, True),
        ({"kind": "unsayable", "data": []}, False),
        ({"kind": "unsayable", "data": {}, "delay": 1, "timeout": 0.5, "resourceKey": None}, True),
        (
            {"kind": "unsayable", "data": {}, "waitUntil": "2030-01-01T00:00:00Z", "deadline": "2031-01-01T00:00:00Z"},
            True,
        ),
        ({"kind": "unsayable", "data": {}, "delay": 1, "waitUntil": "2030-01-01T00:00:00Z"}, False),
        ({"kind": "unsayable", "data": {}, "timeout": 0}, False),
        ({"kind": "unsayable", "data": {}, "taskId": None}, False),
        ({"kind": "unsayable", "data": {}, "taskId": "a/b"}, False),
        ({"kind": "unsayable", "data": {}, "task_id": "a"}, False),
        ({"kind": "unsayable"}, False),
    ],
)
def test_a_new_task_is_described_by_its_kind(body: dict[str, Any], fits: bool) -> None:
    """Each kind has the payload of its own; parts of the same name do not get in each other's way."""
    assert accepts(described(Tree, Shrub, Unsayable), body) is fits


def test_a_payload_without_a_schema_is_an_object(caplog: pytest.LogCaptureFixture) -> None:
    """The log says which, and why."""
    assert described(Unsayable)["components"]["schemas"]["Payload.unsayable"] == {"type": "object"}
    assert "kind 'unsayable' has no JSON schema" in caplog.text


def test_the_kind_tells_the_payloads_apart() -> None:
    """Tools that know discriminators find the schema of a kind by it."""
    new_task = described(Tree, Shrub)["components"]["schemas"]["NewTask"]
    assert new_task["discriminator"] == {
        "propertyName": "kind",
        "mapping": {"tree": "#/components/schemas/NewTask.tree", "shrub": "#/components/schemas/NewTask.shrub"},
    }


def test_an_app_without_kinds_has_a_document() -> None:
    """Any object is told as data then."""
    assert accepts(described(), {"kind": "any", "data": {"a": 1}})


def test_every_reference_leads_somewhere() -> None:
    """Whoever reads the document finds what it names."""
    found = described(Tree, Shrub, Unsayable)

    def check(part: object) -> None:
        if isinstance(part, dict):
            for target in [part["$ref"]] if isinstance(part.get("$ref"), str) else []:
                place: Any = found
                for name in target.removeprefix("#/").split("/"):
                    place = place[name]
            for inner in part.values():
                check(inner)
        elif isinstance(part, list):
            for inner in part:
                check(inner)

    check(found)


def test_a_task_is_described_field_by_field() -> None:
    """The schema of a task has the fields of its JSON, all of them required."""
    task = schemas({})["Task"]
    assert set(task["properties"]) == set(as_json(a_task())) == set(task["required"])


def test_tokens_are_told_where_callers_bring_them() -> None:
    """All but the health of the service asks for one."""
    found = document({}, title="garden", has_tokens=True)
    assert found["security"] == [{"token": []}]
    assert found["components"]["securitySchemes"] == {"token": {"type": "http", "scheme": "bearer"}}
    assert found["paths"]["/healthz"]["get"]["security"] == []
    assert "security" not in described()


def test_every_request_may_fail_in_the_ways_of_all() -> None:
    """401, 403, 500, 503 and 504 stand everywhere, but for the health of the service."""
    for path, methods in described()["paths"].items():
        for operation in methods.values():
            failures = {status for status in operation["responses"] if status >= "400"}
            assert ({"401", "403", "500", "503", "504"} <= failures) is (path != "/healthz")
