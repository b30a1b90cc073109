"""The web service, without a worker: `gunicorn --workers 2 --preload mails.web:app`."""

from __future__ import annotations

from flask import Flask, abort, request, url_for
from flask.typing import ResponseReturnValue
from pydantic import ValidationError

from oncetask import StoreUnavailable, Task, TaskNotFound, connect_sync

from .tasks import ConfirmOrder

client = connect_sync()  # for all processes: after a fork each opens connections of its own, at its first call
app = Flask(__name__)


@app.post("/mails")
def enqueue() -> ResponseReturnValue:
    """Accept a mail: once this is answered it is stored, and will be sent."""
    receipt = client.enqueue(ConfirmOrder.model_validate(request.get_json()))
    answer = {"id": receipt.task_id, "created": receipt.created}
    return answer, 202, {"Location": url_for("status", task_id=receipt.task_id)}


@app.get("/mails/<task_id>")
def status(task_id: str) -> ResponseReturnValue:
    """Say how far a mail is."""
    task = _find(task_id)
    last_error = task.errors[-1].message if task.errors else None
    return {"id": task.id, "status": task.status, "attempts": task.attempts, "last_error": last_error}


@app.post("/mails/<task_id>/cancel")
def cancel(task_id: str) -> ResponseReturnValue:
    """Cancel a mail that is not sent yet. False: it was sent, or cancelled before."""
    return {"cancelled": client.cancel_task(_find(task_id).id)}


@app.errorhandler(ValidationError)
def refuse(error: ValidationError) -> ResponseReturnValue:
    """Tell a caller what is wrong with each field."""
    return {"errors": error.errors(include_url=False, include_context=False)}, 422


@app.errorhandler(StoreUnavailable)
def ask_again(_: StoreUnavailable) -> ResponseReturnValue:
    """Let a caller try again where the store does not answer."""
    return {"error": "try again later"}, 503, {"Retry-After": "5"}


def _find(task_id: str) -> Task:
    """Find a mail's task; 404 for any other."""
    try:
        task = client.get_task(task_id)
    except (TaskNotFound, ValueError):  # ValueError: nothing that could be an id
        task = None
    if task is None or task.kind != ConfirmOrder.kind:
        abort(404)
    return task
