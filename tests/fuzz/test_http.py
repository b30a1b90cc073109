"""The HTTP API: whatever comes over the wire is done or refused, in JSON, and never an error of ours."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ConfigDict
from starlette.types import ASGIApp

from oncetask import App, Client, Context, Payload, connect
from oncetask.http import Auth, asgi_app
from tests.fuzz.asgi import Answer, Conversation, Request, ask
from tests.fuzz.effort import examples
from tests.fuzz.strategies import json_values, mutated, texts
from tests.integration.http.api import Everybody

JSON = (b"content-type", b"application/json")
HUGE: dict[str, bytes] = {
    "lists": b"[" * 100_000,
    "maps": b'{"kind":' * 100_000,
    "digits": b"9" * 1_000_000,
    "a text": b'{"kind": "job", "data": {"any": "' + b"x" * 1_000_000 + b'"}}',
    "keys": json.dumps({"kind": "job", "data": {"any": {str(n): n for n in range(50_000)}}}).encode(),
    "ids": json.dumps({"ids": [str(n) for n in range(100_000)]}).encode(),
    "an id": json.dumps({"action": "get", "taskId": "x" * 1_000_000}).encode(),
}
"""Bodies that would be too long to be shown."""
ODD_BODIES = [
    *(b"", b"null", b"[]", b"{", b'{"kind": "job"', b"\xff\xfe{}", b"\xef\xbb\xbf{}", b"{}\0", b'"\\ud800"', b"1e999"),
    *(b"9" * 5_000, b"-" * 10, b"NaN", b'{"a": Infinity}', b"[" * 3_000, b'{"a":1}{"a":2}', b"\x1f\x8b\x08"),
    b'{"kind": "job", "kind": "job", "data": {}, "data": {"x": 1}}',
    b'{"kind": "job", "data": {"any": ' + b"[" * 240 + b"]" * 240 + b"}}",
    b'{"kind": "job", "data": {"any": ' + b"[" * 900 + b"]" * 900 + b"}}",
    b'{"kind": "job", "data": {"any": ' + b"9" * 4_000 + b"}}",
    b'{"kind": "job", "data": {"any": ' + b"9" * 5_000 + b"}}",
    '{"kind": "job", "data": {"any": "\U0001f600"}}'.encode("utf-16"),
]
SOUND: dict[str, Any] = {"kind": "job", "data": {"any": 1}}
NEW = ("kind", "data", "taskId", "resourceKey", "waitUntil", "delay", "timeout", "deadline", "owner", "recurrence", "x")
ASKED = ("kind", "status", "resourceKey", "owner", "parent", "limit", "cursor", "x", "")


class Job(Payload, kind="job"):
    """A payload that takes any JSON."""

    model_config = ConfigDict(extra="forbid")

    any: Any = None


async def handle(ctx: Context, job: Job) -> Any:
    """Give back what came."""
    return job.any


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    """A client of a store of its own."""
    async with connect("memory://") as client:
        yield client


def an_api(client: Client, auth: Auth | None) -> ASGIApp:
    """Give the API of an App with one kind."""
    app = App()
    app.handler(Job)(handle)
    return asgi_app(app, client, auth=auth, budget=0.05)


@pytest.fixture
def api(client: Client) -> ASGIApp:
    """The API, for everybody."""
    return an_api(client, Everybody())


_instants = st.sampled_from(
    ["2030-01-01T00:00:00Z", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:60Z", "9999-12-31T23:59:59.999999Z", "now"]
)
_numbers = (
    st.sampled_from([0, -1, 0.5, 1e-9, 1e308, 3.2e9, 10**30, True])
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
)
_values = texts | _numbers | _instants | json_values
sent = st.builds(
    lambda sound, wrong: {**(SOUND if sound else {}), **wrong},
    st.booleans(),
    st.dictionaries(st.sampled_from(NEW), _values | st.dictionaries(st.just("any"), _values), max_size=4),
)
ids = texts | st.sampled_from(["t", "nobody", "a/b", "é", "%2F", "..", "a b", "x" * 1_501])
bodies = (
    sent.map(json.dumps).map(str.encode)
    | json_values.map(json.dumps).map(str.encode)
    | st.binary(max_size=50)
    | st.sampled_from(ODD_BODIES)
    | st.builds(lambda ids: json.dumps({"ids": ids}).encode(), st.lists(_values, max_size=4) | _values)
    | st.builds(lambda key, kind: json.dumps({"resourceKey": key, "kind": kind}).encode(), _values, _values)
)


def in_chunks(body: bytes, size: int) -> tuple[bytes, ...]:
    """Cut a body, with an empty chunk in the end as some servers send it."""
    return (*(body[start : start + size] for start in range(0, len(body), size)), b"")


def quoted(text: str) -> bytes:
    """Give a segment of a path."""
    return quote(text.encode("utf-8", "surrogatepass"), safe="").encode()


paths = st.one_of(
    st.sampled_from(
        [b"/tasks", b"/tasks/cancel", b"/tasks/", b"/stats", b"/healthz", b"/openapi.json", b"/", b"*", b""]
    ),
    st.builds(
        lambda i, end: b"/tasks/" + quoted(i) + end, ids, st.sampled_from([b"", b"/cancel", b"/reset", b"/x", b"/"])
    ),
    st.builds(lambda kind, end: b"/kinds/" + quoted(kind) + end, ids, st.sampled_from([b"/pause", b"/resume"])),
    st.from_regex(rb"(/[!-~]{0,10}){1,3}", fullmatch=True),
)
_cursors = st.binary(max_size=20).map(quote) | st.sampled_from(["dA==", "Li4=", "/w==", "====", "AA=="])
queries = (
    st.lists(st.tuples(st.sampled_from(ASKED), texts | _cursors | st.integers().map(str)), max_size=3).map(
        lambda pairs: urlencode(pairs, errors="surrogatepass").encode()
    )
    | st.binary(max_size=30)
    | mutated(st.just("kind=job&limit=2&cursor=dA==")).map(lambda text: text.encode("utf-8", "surrogatepass"))
)
header_values = st.binary(max_size=20).map(lambda raw: raw.replace(b"\r", b"").replace(b"\n", b"").replace(b"\0", b""))
headers = st.lists(
    st.just(JSON)
    | st.tuples(
        st.sampled_from(
            [
                *(b"content-type", b"content-length", b"content-encoding", b"transfer-encoding", b"host", b"accept"),
                *(b"origin", b"forwarded", b"x-forwarded-for", b"authorization", b"cookie", b"prefer", b"range", b"te"),
            ]
        ),
        header_values
        | st.sampled_from(
            [
                *(b"application/json; charset=utf-16", b"text/plain", b"application/json;;;=", b"gzip", b"9" * 5_000),
                *(b"\xb2", b"-1", b"[::1", b"localhost:99999999", b"Bearer a.b.c", b"for=127.0.0.1", b"respond-async"),
            ]
        ),
    ),
    max_size=4,
).map(tuple)
methods = st.sampled_from(["GET", "POST", "DELETE", "HEAD", "PUT", "OPTIONS", "PATCH", "TRACE", "get", "BREW", ""])
requests = st.builds(
    Request, methods, paths, queries, headers, st.builds(in_chunks, bodies, st.sampled_from([1, 7, 10**6]))
)


def check(answer: Answer) -> None:
    """Hold an answer against what is documented: 2xx or 4xx, JSON, and the reason of a refusal."""
    assert 200 <= answer.status < 300 or 400 <= answer.status < 500, answer
    assert answer.headers["content-type"] == "application/json"
    found = answer.json
    if answer.status >= 400:
        assert set(found) <= {"error", "fields"}
        assert isinstance(found["error"], str)
        assert found["error"]
        for wrong in found.get("fields", ()):
            assert set(wrong) == {"field", "message"}


@examples(400)
@given(request=requests)
async def test_any_request_is_answered(api: ASGIApp, request: Request) -> None:
    """Whatever is asked for, the answer is a JSON object with status 2xx or 4xx, and the next one is answered too."""
    check(await ask(api, request))


@examples(200)
@given(request=requests)
async def test_any_caller_is_admitted_or_refused(client: Client, request: Request) -> None:
    """Where only callers on this machine are admitted, strange headers are answered as well."""
    check(await ask(an_api(client, None), request))


@examples(400)
@given(body=bodies, size=st.sampled_from([1, 7, 10**6]))
async def test_any_body_is_a_task_or_refused(api: ASGIApp, body: bytes, size: int) -> None:
    """What is sent as a new task is accepted and can be read, or is refused and leaves nothing behind."""
    before = (await ask(api, Request("GET", b"/stats"))).json["total"]
    answer = await ask(api, Request("POST", b"/tasks", headers=(JSON,), body=in_chunks(body, size)))
    check(answer)
    after = (await ask(api, Request("GET", b"/stats"))).json["total"]
    if answer.status == 202:
        assert after - before == answer.json["created"]
        read = await ask(api, Request("GET", b"/tasks/" + quoted(answer.json["taskId"])))
        assert read.json["id"] == answer.json["taskId"]
        assert read.json["problems"] == []
        assert answer.headers["x-task-id"].isascii()
        check(await ask(api, Request("GET", b"/tasks", b"limit=1000")))
    else:
        assert after == before


@examples(200)
@given(path=st.sampled_from([b"/tasks/cancel", b"/tick", b"/kinds/job/pause"]), body=bodies, headers=headers)
async def test_any_body_of_another_request_is_answered(
    api: ASGIApp, path: bytes, body: bytes, headers: tuple[tuple[bytes, bytes], ...]
) -> None:
    """Requests that read another body, or none, are answered whatever comes."""
    check(await ask(api, Request("POST", path, headers=(JSON, *headers), body=(body,))))


@examples(100)
@given(
    query=st.booleans(),
    name=st.sampled_from(["budget", "linger"]),
    value=st.sampled_from(
        [0.01, "0.01", 0, -1, "nan", "inf", "1e999", 10**400, [], {}, None, True, "x", "\u0660", 3_601]
    ),
)
async def test_any_length_of_a_tick_is_taken_or_refused(api: ASGIApp, name: str, value: Any, *, query: bool) -> None:
    """A tick takes a budget and a linger that are short, and refuses what is none."""
    if query:
        request = Request("POST", b"/tick", query=urlencode({name: value}).encode())
    else:
        request = Request("POST", b"/tick", headers=(JSON,), body=(json.dumps({name: value}).encode(),))
    check(await ask(api, request))


@pytest.mark.parametrize("body", HUGE.values(), ids=HUGE)
async def test_huge_bodies_are_answered(api: ASGIApp, body: bytes) -> None:
    """A megabyte of brackets, digits, letters or names is answered, over HTTP and by a WebSocket that lives on."""
    for path in (b"/tasks", b"/tasks/cancel", b"/tick"):
        check(await ask(api, Request("POST", path, headers=(JSON,), body=in_chunks(body, 100_000))))
    async with Conversation(api) as talk:
        talk.say(body, body.decode(), json.dumps({"action": "unwatch", "id": "the last one", "taskId": "t"}))
        *heard, last = await talk.hear_until("the last one")
    assert all("error" in one for one in heard)
    assert (len(heard), last["unwatched"]) == (2, False)


@pytest.mark.parametrize("size", [1_048_576, 1_048_577])
async def test_a_body_of_many_chunks_has_an_end(api: ASGIApp, size: int) -> None:
    """A megabyte in chunks is read, and no byte more."""
    body = b'{"kind": "job", "data": {"any": ""' + b" " * (size - 36) + b"}}"
    answer = await ask(api, Request("POST", b"/tasks", headers=(JSON,), body=in_chunks(body, 10_000)))
    check(answer)
    assert answer.status == (202 if size == 1_048_576 else 413)


_frames = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.binary(max_size=30)
_actions: st.SearchStrategy[Any] = st.sampled_from(
    ["enqueue", "get", "cancel", "watch", "unwatch", "dance", None, 5, [], {}]
)
_request_ids: st.SearchStrategy[Any] = st.sampled_from(
    [1, 0, -1, "x", "", "x" * 201, None, True, 1.5, [], {}, 10**300, "\ud800"]
)
messages = (
    _frames
    | bodies.map(lambda raw: raw.decode("utf-8", "replace"))
    | bodies
    | st.builds(
        lambda parts, more: json.dumps({**parts, **more}),
        st.fixed_dictionaries({}, optional={"action": _actions, "id": _request_ids, "taskId": ids | json_values}),
        sent | st.just({}),
    )
)


@examples(300)
@given(said=st.lists(messages, min_size=1, max_size=6))
@example([b"\xff"])
@example(['{"id": ' + "9" * 5_000 + "}"])
async def test_any_message_is_answered_and_the_connection_lives_on(api: ASGIApp, said: list[str | bytes]) -> None:
    """Each message of a WebSocket has an answer, an error where it makes no sense, and the next one has its own."""
    async with Conversation(api) as talk:
        talk.say(*said, json.dumps({"action": "get", "id": "the last one", "taskId": "nobody at all"}))
        *heard, last = await talk.hear_until("the last one")
    assert last == {"id": "the last one", "error": "no task has the id 'nobody at all' in this environment"}
    assert len([one for one in heard if "event" not in one]) == len(said)
    for one in heard:
        assert isinstance(one, dict)
        assert "error" not in one or isinstance(one["error"], str)
        assert one.get("error") != "internal error"
