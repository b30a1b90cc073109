"""`oncetask.functions.scheduler` and `api`: who may call, what they share, and what they refuse to be made of."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from oncetask import App, Client, Context, Payload, StoreUnavailable, TaskStatus, functions
from oncetask.http import api as api_module
from oncetask.http.auth import Auth
from tests.functions.events import binary, document
from tests.integration.http.api import Everybody, Nobody, asking
from tests.integration.places import FilePlace

app = App("calls")
PROXIED = {"X-Forwarded-For": "203.0.113.7"}


class Job(Payload, kind="job"):
    """Something to do."""


@app.handler(Job)
async def work(_: Context, __: Job) -> None:
    """Do it."""


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    """The client of a function."""
    place = FilePlace(tmp_path)
    yield place.connect()
    await place.aclose()


def served(function: Callable[[Any], Awaitable[Response]]) -> Starlette:
    """Serve a function as the framework does."""
    methods = ["GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH"]
    return Starlette(routes=[Route("/{path:path}", function, methods=methods)])


async def statuses(client: Client, **headers: str) -> dict[str, httpx.Response]:
    """Ask both functions, whose caller says so much of himself."""
    answers = {}
    for name, path in (("scheduler", "/"), ("api", "/tick")):
        function = getattr(functions, name)(app, client=client)
        async with asking(served(function)) as caller:
            answers[name] = await caller.post(path, headers=headers)
    return answers


async def test_nothing_is_configured(client: Client) -> None:
    """This machine is served, and nobody who comes through a proxy."""
    await client.enqueue(Job())
    for answer in (await statuses(client, **PROXIED)).values():
        assert answer.status_code == 403
        assert "ONCETASK_AUTH" in answer.json()["error"]
    assert await client.pending_count() == 1
    for answer in (await statuses(client)).values():
        assert answer.status_code == 200
    assert await client.pending_count() == 0


async def test_iam_is_declared(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """On Cloud Run all are served whom Cloud Run lets through; elsewhere the word alone opens nothing."""
    monkeypatch.setenv("ONCETASK_AUTH", "iam")
    assert {answer.status_code for answer in (await statuses(client, **PROXIED)).values()} == {403}
    monkeypatch.setenv("K_SERVICE", "scheduler")
    assert {answer.status_code for answer in (await statuses(client, **PROXIED)).values()} == {200}


async def test_tokens_are_asked_for(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who shows none is asked for one, also on this machine, and nothing runs."""
    monkeypatch.setenv("ONCETASK_AUTH", "oidc")
    monkeypatch.setenv("ONCETASK_AUDIENCE", "https://scheduler.example.org")
    monkeypatch.setenv("ONCETASK_CALLERS", "tick@project.iam.gserviceaccount.com")
    await client.enqueue(Job())
    for answer in (await statuses(client)).values():
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert {answer.status_code for answer in (await statuses(client, Authorization="Bearer a.b.c")).values()} == {401}
    assert await client.pending_count() == 1


@pytest.mark.parametrize("name", ["scheduler", "api"])
async def test_who_may_call_can_be_passed(client: Client, name: str) -> None:
    """An `auth` of one's own counts more than the environment, and is asked before anything is done."""
    nobody = Nobody(403)
    for auth, expected in ((nobody, 403), (Everybody(), 200)):
        function = getattr(functions, name)(app, client=client, auth=auth)
        async with asking(served(function)) as caller:
            assert (await caller.post("/tick" if name == "api" else "/", headers=PROXIED)).status_code == expected
    assert nobody.asked == 1


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"])
async def test_a_tick_is_posted_for(client: Client, method: str) -> None:
    """A crawler, or a browser that looks ahead, starts none."""
    await client.enqueue(Job())
    async with asking(served(functions.scheduler(app, client=client))) as caller:
        answer = await caller.request(method, "/")
        assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")
        assert await client.pending_count() == 1
        assert (await caller.post("/", json={"budget": -1})).status_code == 422
        assert (await caller.post("/", json={"budget": 5})).json()["completed"] == 1


async def test_all_share_one_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a process serves works on one store: even on one that nobody else could see."""
    monkeypatch.setenv("ONCETASK_STORE", "memory://")
    functions._client.cache_clear()
    try:
        made = [functions.api(app), functions.scheduler(app), functions.on_task_created(app)]
        async with (
            asking(served(made[0])) as api,
            asking(served(made[1])) as scheduler,
            asking(served(made[2])) as events,
        ):
            for call in (scheduler.post("/"), events.post("/", headers=binary(document("any"))[0])):
                path = f"/tasks/{(await api.post('/tasks', json={'kind': 'job', 'data': {}})).json()['taskId']}"
                assert (await api.get(path)).json()["status"] == TaskStatus.PENDING
                assert (await call).is_success
                assert (await api.get(path)).json()["status"] == TaskStatus.DONE_COMPLETED
    finally:
        await functions._client().aclose()
        functions._client.cache_clear()


async def test_without_the_store(tmp_path: Path) -> None:
    """While the store is not available Cloud Scheduler is told to try again, and gets to know no more."""
    client = FilePlace(tmp_path / "nowhere").connect()
    async with asking(served(functions.scheduler(app, client=client))) as caller:
        answer = await caller.post("/")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert "nowhere" not in answer.text


async def test_an_answer_is_given_once(
    client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What fails after it was answered is logged, and not answered by the framework a second time."""

    def fails(*_: object, **__: object) -> ASGIApp:
        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await Response("once")(scope, receive, send)
            raise ZeroDivisionError

        return application

    monkeypatch.setattr(api_module, "asgi_app", fails)
    transport = httpx.ASGITransport(served(functions.api(app, client=client)))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as caller:
        assert (await caller.get("/tasks")).text == "once"
    (record,) = caplog.records
    assert (record.levelno, record.message) == (logging.ERROR, "GET /tasks failed")


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("scheduler", {"budget": 0}, ValueError, "budget must be"),
        ("scheduler", {"linger": -1}, ValueError, "linger must be"),
        ("scheduler", {"concurrency": 0}, ValueError, "concurrency must be"),
        ("scheduler", {"auth": "iam"}, TypeError, "auth must be an Auth"),
        ("api", {"timeout": 0}, ValueError, "timeout must be"),
        ("api", {"auth": Auth}, TypeError, "auth must be an Auth"),
        ("on_task_created", {"budget": "50"}, TypeError, "budget must be"),
        ("on_task_created", {"concurrency": True}, ValueError, "concurrency must be"),
        (
            "on_task_created",
            {"client": "sqlite:///x.db"},
            TypeError,
            r"client must be a Client, as connect\(\) makes it",
        ),
    ],
)
async def test_bad_arguments_show_at_the_start(
    client: Client, name: str, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    """They are refused when the function is made, so that it is not deployed: not at the first call."""
    with pytest.raises(error, match=message):
        getattr(functions, name)(app, **{"client": client, **options})


@pytest.mark.parametrize("name", ["scheduler", "api", "on_task_created"])
async def test_what_is_no_app(name: str, client: Client) -> None:
    """An App is needed, not a module or a worker."""
    with pytest.raises(TypeError, match="app must be an App, not"):
        getattr(functions, name)(object(), client=client)


@pytest.mark.parametrize("name", ["scheduler", "api"])
async def test_nonsense_in_the_environment(name: str, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A function that would serve nobody, or everybody, does not start."""
    monkeypatch.setenv("ONCETASK_AUTH", "none")
    with pytest.raises(ValueError, match="ONCETASK_AUTH must be"):
        getattr(functions, name)(app, client=client)


def test_no_store_is_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a disk that does not last nobody is served, rather than tasks lost."""
    monkeypatch.setenv("K_SERVICE", "api")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "")
    functions._client.cache_clear()
    with pytest.raises(StoreUnavailable, match="set ONCETASK_STORE"):
        functions.api(app)
