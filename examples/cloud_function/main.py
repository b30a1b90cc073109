"""What is deployed: `orders`, a function of one's own, and `scheduler`, which charges when the time has come."""

from __future__ import annotations

import logging
import os

import functions_framework.aio
import httpx
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from oncetask import StoreUnavailable, TaskNotFound, connect, functions
from oncetask.http import http_function

from .charges import PROVIDER, Charge, Order, app  # functions-framework loads this folder as a package

TIMEOUT = float(os.environ.get("ORDER_TIMEOUT", "10"))  # seconds in which an order has its answer
CHANGE_OF_MIND = float(os.environ.get("CHANGE_OF_MIND", "600"))  # seconds in which it can be cancelled

client = connect()
scheduler = functions_framework.aio.http(functions.scheduler(app, client=client, linger=45))


def tell(error: Exception) -> None:
    """Log why an order got no proper answer; a place to call somebody from."""
    logging.getLogger(__name__).error("an order failed: %s", error)


@functions_framework.aio.http
@http_function(timeout=TIMEOUT, on_error=tell)
async def orders(request: Request) -> Response:
    """`POST /` places an order, `DELETE /NUMBER` cancels one. What reaches its limit is stopped: 504."""
    try:
        match request.method:
            case "POST":
                return await _place(Order.model_validate_json(await request.body()))
            case "DELETE":
                return await _cancel(request.url.path.strip("/"))
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_context=False, include_input=False)
        return JSONResponse({"errors": wrong}, 422)
    except StoreUnavailable:
        return JSONResponse({"error": "try again later"}, 503, {"Retry-After": "5"})
    return JSONResponse({"error": "POST places an order, DELETE cancels it"}, 405, {"Allow": "POST, DELETE"})


async def _place(order: Order) -> Response:
    """Reserve the money while the customer waits; charge it later, by a task."""
    async with httpx.AsyncClient(base_url=PROVIDER) as web:  # no limit of its own: the function has one
        headers = {"Idempotency-Key": order.number}
        answer = await web.post("/reservations", json=order.model_dump(), headers=headers, timeout=None)
    answer.raise_for_status()
    receipt = await client.enqueue(Charge(order=order, reservation=answer.json()["id"]), delay=CHANGE_OF_MIND)
    return JSONResponse({"task": receipt.task_id, "created": receipt.created}, 202)


async def _cancel(number: str) -> Response:
    """Cancel the charge, also while it runs. False: it is done, or was cancelled before."""
    try:
        return JSONResponse({"cancelled": await client.cancel_task(f"{Charge.kind}:{number}")})
    except (TaskNotFound, ValueError):  # ValueError: nothing that could be an id
        return JSONResponse({"error": "there is no such order"}, 404)
