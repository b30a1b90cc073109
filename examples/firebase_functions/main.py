"""The App of `tasks.py` as functions of Firebase. These block, each call in a thread of its own; oncetask does not."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from threading import Lock, Thread
from typing import Any, TypeVar

from firebase_admin import initialize_app  # type: ignore[import-untyped]  # ships no types
from firebase_functions import firestore_fn, https_fn, scheduler_fn
from pydantic import ValidationError
from tasks import Greeting, app

from oncetask import StoreUnavailable, connect, tick

T = TypeVar("T")

BUDGET = 50  # seconds of a tick, which ends five seconds later at the latest
TIMEOUT = BUDGET + 15

initialize_app()
client = connect()


class Loop:
    """An event loop in a thread of its own, which all calls share: a client belongs to one loop.

    It starts at the first call, since the server loads this file before it forks.
    """

    def __init__(self) -> None:
        """Start nothing yet."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._starting = Lock()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Wait for what the coroutine gives or raises."""
        with self._starting:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                Thread(target=self._loop.run_forever, name="oncetask", daemon=True).start()
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()


loop = Loop()


@scheduler_fn.on_schedule(schedule="* * * * *", timeout_sec=TIMEOUT)
def scheduler(_: scheduler_fn.ScheduledEvent) -> None:
    """Run what is due, each minute."""
    loop.run(tick(app, client, budget=BUDGET))


@firestore_fn.on_document_created(document=f"oncetask/{client.store.env}/onceTasks/{{id}}", timeout_sec=TIMEOUT)
def on_task_created(_: firestore_fn.Event[Any]) -> None:
    """Run what is due now that a task was created. The event is a hint: what is due says the store."""
    loop.run(tick(app, client, budget=BUDGET))


@https_fn.on_call()
def greet(request: https_fn.CallableRequest[Any]) -> dict[str, object]:
    """Let a signed-in user greet somebody, and follow the task: by the rules its owner may read it."""
    if request.auth is None or request.auth.uid is None:
        raise https_fn.HttpsError(https_fn.FunctionsErrorCode.UNAUTHENTICATED, "sign in first")
    try:
        greeting = Greeting.model_validate(request.data)
        receipt = loop.run(client.enqueue(greeting, owner=request.auth.uid))
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_input=False, include_context=False)
        raise https_fn.HttpsError(https_fn.FunctionsErrorCode.INVALID_ARGUMENT, "no greeting", wrong) from error
    except StoreUnavailable as error:
        raise https_fn.HttpsError(https_fn.FunctionsErrorCode.UNAVAILABLE, "try again later") from error
    return {"taskId": receipt.task_id, "created": receipt.created}
