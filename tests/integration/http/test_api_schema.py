"""The OpenAPI document against the API that it describes: requests made of it, answers held against it."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, given, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from oncetask import Client, Context, Payload, Recurrence, connect
from oncetask.drain import tick
from oncetask.http.inputs import LONGEST_TICK
from oncetask.http.openapi import document
from tests.integration.http.api import LIMIT, Hold, Order, SendEmail, an_api, an_app

MOST_SECONDS = 0.1
"""What a tick may take here."""

EXAMPLES = int(os.environ.get("API_EXAMPLES", "20"))
"""Requests for each operation, right ones and wrong ones; the same ones in each run."""

UNSAID: list[Any] = [positive_data_acceptance]
"""A schema cannot say all: that a deadline is later than `waitUntil`, or that a cursor was given by a page before."""


class Report(Payload):
    """A task that tells how far it is."""


ASKED = [
    (method, path, mode)
    for path, methods in document({}, title="", has_tokens=False)["paths"].items()
    for method, operation in methods.items()
    for mode in schemathesis.GenerationMode
    if mode.is_positive or "parameters" in operation or "requestBody" in operation
]


async def some_tasks(client: Client) -> None:
    """Bring tasks about, in most of the states that there are."""
    app = an_app()
    await client.enqueue(SendEmail(to="ada"), task_id="completed")
    await client.enqueue(Order(number=-1), task_id="failed", owner="ada")
    await client.enqueue(Order(number=1), task_id="expired", deadline=datetime(2020, 1, 1, tzinfo=UTC))
    await client.enqueue(Report(), task_id="reported")
    await client.enqueue(Hold(), task_id="cancelled")
    await client.cancel_task("cancelled")
    await client.enqueue(Hold(), task_id="schedule", recurrence=Recurrence.cron("0 0 1 1 *"))

    @app.handler(Report)
    async def report(ctx: Context, payload: Report) -> dict[str, object]:
        ctx.progress(0.25, "a quarter", {"rows": [1, 2]})
        return {"nested": [[1], [None]], "text": "\ud800"}

    await tick(app, client)
    await client.enqueue(
        SendEmail(to="ada"), task_id="waiting", delay=3600, timeout=1.5, resource_key="of one task only"
    )
    await client.enqueue(Hold(), task_id="cancellation-pending")
    await client.cancel_task("cancellation-pending")


@pytest.fixture(scope="module")
def served() -> Iterator[str]:
    """Serve the API on a thread with a loop of its own, on which its client lives; gives the url."""
    listening = socket.create_server(("127.0.0.1", 0))
    made: list[uvicorn.Server] = []

    async def serve() -> None:
        async with connect("memory://") as client:
            await some_tasks(client)
            api = an_api(client, budget=MOST_SECONDS)
            made.append(uvicorn.Server(uvicorn.Config(api, lifespan="off", log_config=None)))
            await made[0].serve(sockets=[listening])

    serving = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    serving.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    made[0].should_exit = True
    serving.join(LIMIT)
    assert not serving.is_alive()


@pytest.fixture(scope="module")
def described(served: str) -> schemathesis.BaseSchema:
    """Give what schemathesis makes of the document."""
    return schemathesis.openapi.from_url(f"{served}/openapi.json")


@pytest.mark.parametrize(("method", "path", "mode"), ASKED)
def test_every_answer_is_as_described(
    method: str, path: str, mode: schemathesis.GenerationMode, described: schemathesis.BaseSchema
) -> None:
    """No request leads to a 500 or to an answer of another shape; what the schema forbids is refused."""

    @given(case=described[path][method].as_strategy(generation_mode=mode))
    @settings(max_examples=EXAMPLES, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    def ask(case: schemathesis.Case[Any]) -> None:
        _shorten(case.query)
        _shorten(case.body)
        case.call_and_validate(excluded_checks=UNSAID, timeout=LIMIT)

    ask()


def _shorten(options: object) -> None:
    """Let no tick stay long; what is wrong stays wrong."""
    if isinstance(options, dict):
        for name in ("budget", "linger"):
            value = options.get(name)
            if isinstance(value, float | int) and not isinstance(value, bool) and MOST_SECONDS < value <= LONGEST_TICK:
                options[name] = MOST_SECONDS


def test_every_task_is_as_described(described: schemathesis.BaseSchema) -> None:
    """Tasks in all their states have the fields of the schema, and no others."""
    read = described["/tasks/{taskId}"]["GET"]
    statuses = {
        case.call_and_validate(timeout=LIMIT).json()["status"]
        for task_id in ("completed", "failed", "expired", "reported", "cancelled", "schedule", "waiting")
        for case in [read.Case(path_parameters={"taskId": task_id})]
    }
    assert statuses == {"done-completed", "done-failed", "done-expired", "done-cancelled", "waiting"}
    described["/tasks"]["GET"].Case(query={"limit": 1000}).call_and_validate(timeout=LIMIT)
    described["/stats"]["GET"].Case().call_and_validate(timeout=LIMIT)
