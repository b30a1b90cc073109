"""The web service, with a worker in its lifespan: `uvicorn webhooks.main:app`."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from oncetask import Client, InvalidPayload, PayloadTooLarge, StoreUnavailable, Task, TaskNotFound, Worker, connect

from . import tasks

GRACE = float(os.environ.get("GRACE", "8"))  # seconds for running tasks after SIGTERM; Cloud Run kills after 10


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Client]]:
    """Run tasks beside the requests, on the same loop. The worker drains when uvicorn shuts down."""
    async with connect() as client, Worker(tasks.app, client, grace=GRACE):
        yield {"client": client}


app = FastAPI(title="Webhooks", lifespan=lifespan)


class Delivery(BaseModel):
    """What callers see of a task."""

    id: str
    status: str
    attempts: int
    last_error: str | None


def _client(request: Request) -> Client:
    client: Client = request.state.client
    return client


Tasks = Annotated[Client, Depends(_client)]


@app.post("/deliveries", status_code=202)
async def enqueue(event: tasks.Deliver, client: Tasks, response: Response) -> dict[str, str]:
    """Accept an event: once this is answered it is stored, and will be delivered."""
    receipt = await client.enqueue(event)
    response.headers["Location"] = f"/deliveries/{receipt.task_id}"
    return {"id": receipt.task_id}


@app.get("/deliveries/{task_id}")
async def status(task_id: str, client: Tasks) -> Delivery:
    """Say how far a delivery is."""
    task = await _find(client, task_id)
    last_error = task.errors[-1].message if task.errors else None
    return Delivery(id=task.id, status=task.status, attempts=task.attempts, last_error=last_error)


@app.post("/deliveries/{task_id}/cancel")
async def cancel(task_id: str, client: Tasks) -> dict[str, bool]:
    """Cancel a delivery, also while it runs. False: it was done, or cancelled before."""
    return {"cancelled": await client.cancel_task((await _find(client, task_id)).id)}


@app.exception_handler(InvalidPayload)
@app.exception_handler(PayloadTooLarge)
async def refuse(_: Request, error: Exception) -> JSONResponse:
    """Tell a caller what is wrong with an event that cannot be stored."""
    return JSONResponse({"detail": str(error)}, 413 if isinstance(error, PayloadTooLarge) else 422)


@app.exception_handler(StoreUnavailable)
async def ask_again(_: Request, __: Exception) -> JSONResponse:
    """Let a caller try again where the store does not answer."""
    return JSONResponse({"detail": "try again later"}, 503, {"Retry-After": "5"})


async def _find(client: Client, task_id: str) -> Task:
    """Find a delivery's task; 404 for any other."""
    try:
        task = await client.get_task(task_id)
    except (TaskNotFound, ValueError):  # ValueError: nothing that could be an id
        task = None
    if task is None or task.kind != tasks.Deliver.kind:
        raise HTTPException(404, "there is no such delivery")
    return task
