"""The HTTP API: what a request may look like, and what becomes of one that is wrong."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pytest
from pydantic import ConfigDict, SecretStr, model_validator

from oncetask import App, Client, Payload, PayloadTooLarge, StoreUnavailable, Unsupported, connect, connect_sync
from oncetask.http import asgi_app
from tests.integration.http.api import JSON, MAIL, Everybody, Hold, Order, SendEmail, an_api, asking, enqueued

MIB = 1_048_576


@pytest.mark.parametrize(
    "task_id", ["send-email:42", "a b%2Fc?d#e&f=g+h", "größe:é😀", "cancel", "openapi.json", '"quoted", 100 %', "~.x.~"]
)
async def test_an_id_may_hold_anything_but_a_slash(task_id: str, client: Client) -> None:
    """Percent-encoded in a path, every id leads to its task, and the header can be decoded."""
    path = f"/tasks/{quote(task_id, safe='')}"
    async with asking(an_api(client)) as caller:
        accepted = await caller.post("/tasks", json={**MAIL, "taskId": task_id})
        shown = await caller.get(path)
        cancelled = await caller.post(f"{path}/cancel")
        await caller.post("/tick")
        deleted = await caller.delete(path)
    assert unquote(accepted.headers["X-Task-Id"]) == task_id
    assert shown.json()["id"] == task_id
    assert (cancelled.json(), deleted.json()) == ({"cancelled": True}, {"deleted": True})


@pytest.mark.parametrize("query", [True, False])
async def test_a_tick_takes_its_options_from_body_or_query(query: bool, client: Client) -> None:
    """`linger` makes it wait for what becomes due; `nextDue` tells what it did not wait for."""
    options = {"budget": 20, "linger": 1}
    async with asking(an_api(client)) as caller:
        soonest = await enqueued(caller, delay=0.3)
        await enqueued(caller, delay=3600)
        answer = await (caller.post("/tick", params=options) if query else caller.post("/tick", json=options))
    report = answer.json()
    assert (report["completed"], report["more"]) == (1, False)
    assert datetime.fromisoformat(report["nextDue"]) > datetime.now(UTC) + timedelta(minutes=50)
    assert (await client.get_task(soonest)).status.is_done


def body(**fields: Any) -> bytes:
    """Give the body of a request that enqueues a task, with some fields different."""
    return json.dumps({**MAIL, **fields}).encode()


@pytest.mark.parametrize(
    ("content", "status", "error"),
    [
        (b"", 400, "the body is not JSON: Expecting value: line 1 column 1 (char 0)"),
        (b'{"kind": ', 400, "the body is not JSON: Expecting value: line 1 column 10 (char 9)"),
        (b'{"kind": "\xff"}', 400, "the body is not JSON: 'utf-8' codec can't decode byte 0xff in position 10"),
        (b'{"kind": NaN}', 400, "the body is not JSON: NaN is no JSON"),
        (b'{"delay": 1e999}', 400, "the body is not JSON: 1e999 is beyond every number that can be held"),
        (b"[" * 200_000, 400, "the body is not JSON: maximum recursion depth exceeded"),
        (b'{"kind": ' + b"1" * 5_000 + b"}", 400, "the body is not JSON: Exceeds the limit (4300 digits)"),
        (b"[]", 422, "the body must be a JSON object, not a list"),
        (b"null", 422, "the body must be a JSON object, not a null"),
        (b'"text"', 422, "the body must be a JSON object, not a text"),
    ],
)
async def test_a_body_that_is_no_json_object(content: bytes, status: int, error: str, client: Client) -> None:
    """What is no JSON is 400, what is no object 422; both say what is wrong with it."""
    async with asking(an_api(client)) as caller:
        for path in ("/tasks", "/tasks/cancel"):
            answer = await caller.post(path, content=content, headers=JSON)
            assert answer.status_code == status
            assert answer.json()["error"].startswith(error)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/json-patch+json"},
        {"Content-Type": "application/json; charset=latin-1"},
        {**JSON, "Content-Encoding": "gzip"},
    ],
)
async def test_a_body_that_is_not_said_to_be_json(headers: dict[str, str], client: Client) -> None:
    """415, before anything of it is read; a tick without a body needs no media type."""
    async with asking(an_api(client)) as caller:
        for path in ("/tasks", "/tasks/cancel", "/tick"):
            answer = await caller.post(path, content=body(), headers=headers)
            assert answer.status_code == 415
            assert set(answer.json()) == {"error"}
        assert (await caller.post("/tick", headers=headers)).status_code == 200
    assert await client.pending_count() == 0


@pytest.mark.parametrize("media_type", ["application/json; charset=UTF-8", 'APPLICATION/JSON;charset="utf-8"'])
async def test_a_media_type_may_have_its_parameters(media_type: str, client: Client) -> None:
    """UTF-8 may be said, in any case."""
    async with asking(an_api(client)) as caller:
        assert (await caller.post("/tasks", content=body(), headers={"Content-Type": media_type})).status_code == 202


async def test_a_body_of_exactly_one_mebibyte_is_read(client: Client) -> None:
    """A byte more is 413; the largest that is read may still be too large for a task."""
    fitting = body().ljust(MIB)
    large = body(data={"to": "a" * (MIB - 70)})
    assert len(large) <= MIB
    async with asking(an_api(client)) as caller:
        contents = (fitting, fitting + b" ", large)
        answers = [await caller.post("/tasks", content=content, headers=JSON) for content in contents]
    assert [answer.status_code for answer in answers] == [202, 413, 413]
    assert answers[1].json() == {"error": "the body may have at most 1,048,576 bytes"}
    assert answers[2].json()["error"].startswith("data takes 1,048,5")


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"data": {}}, {"data.to": "Field required"}),
        ({"data": {"to": 1, "copies": "2"}}, {"data.to": "Input should be a valid string", "data.copies": "Input"}),
        ({"data": {"to": "a", "address": {"city": "b", "lines": [1]}}}, {"data.address.lines.0": "Input should be a"}),
        ({"data": {"to": "a", "cc": "b"}}, {"data.cc": "Extra inputs are not permitted"}),
        ({"data": []}, {"data": "Input should be a valid dictionary"}),
        ({"kind": 1}, {"kind": "Input should be a valid string"}),
        ({"task_id": "a"}, {"task_id": "Extra inputs are not permitted"}),
        ({"recurrence": {}}, {"recurrence": "Extra inputs are not permitted"}),
        ({"taskId": "a/b"}, {"taskId": "String should match pattern"}),
        ({"taskId": ".."}, {"taskId": 'may not be ".", ".." or of the form'}),
        ({"taskId": "ä" * 800}, {"taskId": "may have at most 1500 bytes"}),
        ({"taskId": None}, {"taskId": "Input should be a valid string"}),
        ({"resourceKey": ""}, {"resourceKey": "String should have at least 1 character"}),
        ({"resourceKey": "ä" * 501}, {"resourceKey": "must be a text of 1 to 1000 bytes in UTF-8, not"}),
        ({"owner": 7}, {"owner": "Input should be a valid string"}),
        ({"delay": -1}, {"delay": "Input should be greater than or equal to 0"}),
        ({"delay": "5"}, {"delay": "Input should be a valid number"}),
        ({"timeout": 0}, {"timeout": "Input should be greater than 0"}),
        (
            {"timeout": 1e30, "delay": True},
            {"delay": "Input should be a valid number", "timeout": "Input should be le"},
        ),
        ({"waitUntil": "2030-01-01T00:00:00"}, {"waitUntil": "must be a text with an instant, such as 2030-01-31T"}),
        ({"waitUntil": 1_900_000_000}, {"waitUntil": "must be a text with an instant"}),
        ({"deadline": "2030-02-30T00:00:00Z"}, {"deadline": "must be an instant of the calendar, not '2030-02-30T"}),
        ({"deadline": "9999-12-31T23:59:59-01:00"}, {"deadline": "must be an instant of the calendar"}),
        ({"delay": 1, "waitUntil": "2030-01-01T00:00:00Z"}, {"delay": "excludes waitUntil: give one of them"}),
        (
            {"deadline": "2030-01-01T00:00:00Z", "waitUntil": "2030-01-01T01:00:00+01:00"},
            {"deadline": "must be later than waitUntil: the task could never run"},
        ),
        ({"deadline": "2020-01-01T00:00:00Z", "delay": 5}, {"deadline": "must be later than wait_until"}),
    ],
)
async def test_wrong_fields_are_named(fields: dict[str, Any], wrong: dict[str, str], client: Client) -> None:
    """422 with each wrong field by its name in JSON, and what would be right; nothing is stored."""
    async with asking(an_api(client)) as caller:
        answer = await caller.post("/tasks", content=body(**fields), headers=JSON)
    assert answer.status_code == 422
    told = {field["field"]: field["message"] for field in answer.json()["fields"]}
    assert set(told) == set(wrong)
    assert {name: told[name].startswith(text) for name, text in wrong.items()} == dict.fromkeys(wrong, True), told
    assert answer.json()["error"] == "; ".join(f"{name}: {text}" for name, text in told.items())
    assert await client.pending_count() == 0


async def test_what_is_missing_is_named(client: Client) -> None:
    """Kind and data have to be there."""
    async with asking(an_api(client)) as caller:
        answer = await caller.post("/tasks", json={})
    assert [field["field"] for field in answer.json()["fields"]] == ["kind", "data"]


@pytest.mark.parametrize("kind", ["send-sms", "Not a kind!", "ordering"])
async def test_an_unknown_kind_is_404(kind: str, client: Client) -> None:
    """The answer names the kinds that there are; pausing a kind that is misspelt is refused too."""
    error = {"error": f"kind {kind!r} has no handler in this app; it has handlers for: hold, order, send-email"}
    async with asking(an_api(client)) as caller:
        enqueue = await caller.post("/tasks", content=body(kind=kind), headers=JSON)
        pause = await caller.post(f"/kinds/{quote(kind)}/pause")
    assert (enqueue.status_code, enqueue.json()) == (404, error)
    assert (pause.status_code, pause.json()) == (404, error)


@pytest.mark.parametrize(
    ("content", "field", "message"),
    [
        ({}, "resourceKey", "is missing: give it, with or without kind, or give ids"),
        ({"kind": "order"}, "resourceKey", "is missing: give it"),
        ({"ids": "a"}, "ids", "Input should be a valid list"),
        ({"ids": ["a", "b/c"]}, "ids.1", "String should match pattern"),
        ({"ids": ["a"] * 1001}, "ids", "List should have at most 1000 items"),
        ({"ids": [], "resourceKey": "k"}, "resourceKey", "Extra inputs are not permitted"),
        ({"resourceKey": None}, "resourceKey", "Input should be a valid string"),
        ({"resourceKey": "k", "kind": "No Kind"}, "kind", "String should match pattern"),
    ],
)
async def test_what_to_cancel_is_checked_before_anything_is_cancelled(
    content: dict[str, Any], field: str, message: str, client: Client
) -> None:
    """One id that cannot be one, and none of the tasks is cancelled."""
    await client.enqueue(SendEmail(to="a"), task_id="a", resource_key="k")
    async with asking(an_api(client)) as caller:
        answer = await caller.post("/tasks/cancel", json=content)
    assert answer.status_code == 422
    (wrong,) = answer.json()["fields"]
    assert (wrong["field"], wrong["message"][: len(message)]) == (field, message)
    assert not (await client.get_task("a")).is_cancelled


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=ten", "limit"),
        ("status=done", "status"),
        ("kind=No+Kind", "kind"),
        ("cursor=rubbish", "cursor"),
        ("owner=", "owner"),
        ("parent=..", "parent"),
        ("resource_key=k", "resource_key"),
        ("kind=order&kind=hold", "kind"),
    ],
)
async def test_a_wrong_query_is_named(query: str, field: str, client: Client) -> None:
    """A filter that is misspelt or given twice is refused: to ignore it would list what nobody asked for."""
    async with asking(an_api(client)) as caller:
        answer = await caller.get(f"/tasks?{query}")
    assert answer.status_code == 422
    assert [wrong["field"] for wrong in answer.json()["fields"]] == [field]


@pytest.mark.parametrize("options", [{"budget": 0}, {"budget": 3601}, {"linger": -1}, {"linger": "x"}, {"patience": 1}])
async def test_wrong_options_of_a_tick_are_named(options: dict[str, Any], client: Client) -> None:
    """In the query and in the body; nothing runs."""
    await client.enqueue(Order(number=1))
    async with asking(an_api(client)) as caller:
        answers = [await caller.post("/tick", params=options), await caller.post("/tick", json=options)]
    assert [answer.status_code for answer in answers] == [422, 422]
    assert [[wrong["field"] for wrong in answer.json()["fields"]] for answer in answers] == [list(options)] * 2
    assert (await client.get_task("order:1")).attempts == 0


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/tasks/nobody", 404),
        ("DELETE", "/tasks/nobody", 404),
        ("POST", "/tasks/nobody/cancel", 404),
        ("POST", "/tasks/nobody/reset", 404),
        ("GET", "/tasks/__x__", 422),
        ("POST", "/tasks/%0A/cancel", 422),
        ("POST", "/kinds/No%20Kind/resume", 422),
        ("GET", "/nothing", 404),
        ("GET", "/tasks/", 404),
        ("GET", "/tasks/a%2Fb", 404),
        ("GET", "/", 404),
        ("PUT", "/tasks", 405),
        ("OPTIONS", "/tasks", 405),
        ("POST", "/healthz", 405),
        ("GET", "/tick", 405),
    ],
)
async def test_errors_are_always_json(method: str, path: str, status: int, client: Client) -> None:
    """Whatever is wrong with method or path, the answer has an `error`."""
    async with asking(an_api(client)) as caller:
        answer = await caller.request(method, path)
    assert answer.status_code == status
    assert isinstance(answer.json()["error"], str)
    assert ("allow" in answer.headers) == (status == 405)
    if path == "/tasks" and status == 405:
        assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD", "POST"}


async def test_head_is_get_without_a_body(client: Client) -> None:
    """As HTTP has it."""
    async with asking(an_api(client)) as caller:
        answer = await caller.head("/tasks")
    assert (answer.status_code, answer.content) == (200, b"")


@pytest.mark.parametrize(
    ("error", "status", "answer"),
    [
        (RuntimeError("the password is swordfish"), 500, {"error": "internal error"}),
        (KeyError("swordfish"), 500, {"error": "internal error"}),
        (UnicodeDecodeError("utf-8", b"swordfish", 0, 1, "bad"), 500, {"error": "internal error"}),
        (
            StoreUnavailable("db://swordfish"),
            503,
            {"error": "the store is not available at the moment: try again later"},
        ),
        (Unsupported("not on SQLite"), 501, {"error": "not on SQLite"}),
        (PayloadTooLarge("it takes 2 MiB"), 413, {"error": "it takes 2 MiB"}),
    ],
)
async def test_what_fails_inside_stays_inside(
    error: Exception,
    status: int,
    answer: dict[str, str],
    client: Client,
    request: pytest.FixtureRequest,
) -> None:
    """An unforeseen error is logged with its trace and answered without a word of it."""

    async def fail() -> None:
        raise error

    request.getfixturevalue("monkeypatch").setattr(client, "stats", fail)
    async with asking(an_api(client)) as caller:
        told = await caller.get("/stats")
    assert (told.status_code, told.json()) == (status, answer)
    assert ("Retry-After" in told.headers) == (status == 503)
    logged = [record for record in request.getfixturevalue("caplog").records if record.exc_info]
    assert [record.exc_info[1] for record in logged if record.exc_info] == ([error] if status == 500 else [])


async def test_a_payload_type_that_fails_is_told_without_its_words(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """A validator that raises something else than it may is logged; a hidden input is not repeated."""

    class Picky(Payload, kind="picky"):
        model_config = ConfigDict(hide_input_in_errors=True)

        pin: int

        @model_validator(mode="after")
        def _check(self) -> Picky:
            if self.pin == 1:
                msg = "swordfish"
                raise LookupError(msg)
            if self.pin == 2:
                msg = "must not be two"
                raise ValueError(msg)
            return self

    app = App()
    app.handler(Picky)(lambda _, __: None)
    async with asking(asgi_app(app, client)) as caller:
        broken, refused, hidden = [
            (await caller.post("/tasks", json={"kind": "picky", "data": {"pin": pin}})).json()["fields"]
            for pin in (1, 2, "swordfish")
        ]
    assert broken == [{"field": "data", "message": "cannot be read as a payload of this kind"}]
    assert refused == [{"field": "data", "message": "must not be two"}]
    assert "swordfish" not in json.dumps(hidden)
    assert [record.levelno for record in caplog.records if record.name == "oncetask"] == [logging.WARNING]


async def test_a_payload_that_would_not_come_back_is_refused(client: Client) -> None:
    """What the store would hold is not what was sent: 422 says which field, and keeps the secret."""

    class Login(Payload, kind="login"):
        password: SecretStr

    app = App()
    app.handler(Login)(lambda _, __: None)
    async with asking(asgi_app(app, client)) as caller:
        answer = await caller.post("/tasks", json={"kind": "login", "data": {"password": "swordfish"}})
    assert answer.status_code == 422
    (wrong,) = answer.json()["fields"]
    assert (wrong["field"], wrong["message"].rpartition(": ")[2]) == ("data", "password")
    assert "swordfish" not in answer.text


@pytest.mark.parametrize("host", ["[", "a b", ""])
async def test_a_strange_host_is_no_error_of_ours(host: str, client: Client) -> None:
    """It is refused where it matters, and what does not exist is 404 all the same."""
    async with asking(an_api(client)) as caller:
        answers = [await caller.get(path, headers={"Host": host}) for path in ("/stats", "/nothing", "/tick")]
    assert [answer.status_code for answer in answers] == [403, 404, 405]


async def test_half_a_surrogate_pair_is_shown(client: Client) -> None:
    """What JSON can say and UTF-8 cannot is answered as JSON says it."""
    app = App()
    app.handler(Hold)(lambda _, __: "\ud800")
    async with asking(asgi_app(app, client)) as caller:
        task_id = await enqueued(caller, kind="hold", data={})
        await caller.post("/tick")
        answer = await caller.get(f"/tasks/{task_id}")
        refused = await caller.post("/tasks", content=b'{"\\ud800": 1}', headers=JSON)
    assert answer.json()["result"] == "\ud800"
    assert refused.status_code == 422
    assert [wrong["field"] for wrong in refused.json()["fields"]] == ["body"]


async def test_nobody_keeps_a_copy(client: Client) -> None:
    """Tasks may be private, so no cache keeps an answer; no other origin may read one."""
    async with asking(an_api(client)) as caller:
        task_id = await enqueued(caller)
        answer = await caller.get(f"/tasks/{task_id}")
    assert answer.headers["Cache-Control"] == "no-store"
    assert not [name for name in answer.headers if name.lower().startswith("access-control")]


async def test_without_its_store_it_is_alive_and_says_so(tmp_path: Path) -> None:
    """`/healthz` tells that the process answers, whatever becomes of the store; the rest is 503, to be tried again."""
    async with asking(an_api(connect(f"sqlite:///{tmp_path}"))) as caller:  # a folder is no database
        health = await caller.get("/healthz")
        stats = await caller.get("/stats")
    assert (health.status_code, health.json()) == (200, {"status": "ok"})
    assert (stats.status_code, stats.headers["Retry-After"]) == (503, "5")
    assert str(tmp_path) not in stats.text


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"timeout": 0}, ValueError, "timeout must be more than zero"),
        ({"timeout": "10"}, TypeError, "timeout must be seconds"),
        ({"budget": -1}, ValueError, "budget must be more than zero"),
        ({"linger": -1}, ValueError, "linger must be zero or more"),
        ({"concurrency": 0}, ValueError, "concurrency must be a whole number"),
        ({"auth": "oidc"}, TypeError, "auth must be an Auth such as"),
        ({"app": "jobs:app"}, TypeError, "app must be an App"),
    ],
)
async def test_bad_options_are_refused_when_the_api_is_made(
    options: dict[str, Any], error: type[Exception], match: str, client: Client
) -> None:
    """The message names the option."""
    with pytest.raises(error, match=match):
        an_api(client, **options)


def test_a_client_that_blocks_is_refused() -> None:
    """The API needs the asynchronous client."""
    with (
        connect_sync("memory://") as blocking,
        pytest.raises(TypeError, match=r"client must be a Client, as connect\(\) makes it"),
    ):
        asgi_app(App(), blocking)  # type: ignore[arg-type]


async def test_no_page_of_another_origin_may_read_an_answer(client: Client) -> None:
    """Even where its request is admitted: there are no CORS headers."""
    async with asking(an_api(client, auth=Everybody())) as caller:
        answer = await caller.get("/stats", headers={"Origin": "https://elsewhere.example"})
    assert answer.status_code == 200
    assert "access-control-allow-origin" not in answer.headers
