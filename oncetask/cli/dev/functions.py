"""The three functions of a deployment in one application, and the trigger that the emulator calls one of them by."""

from __future__ import annotations

import http.client
import json
from contextlib import closing
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.routing import Mount, Route

from oncetask import functions
from oncetask.http import asgi_app
from oncetask.http.auth import Loopback

if TYPE_CHECKING:
    from oncetask.app import App
    from oncetask.client import Client

__all__ = ["application", "register_trigger"]

_TRIGGER = "oncetask-created"
_TIMEOUT_SECONDS = 10.0


def application(app: App, client: Client, *, budget: float) -> Starlette:
    """Give `scheduler` at /scheduler, `on_task_created` where the emulator posts events, and the API at all else.

    They serve this machine only, whatever ONCETASK_AUTH says. The API is not the function `api` but what that serves,
    since functions have no WebSocket. `budget`: seconds of each tick.
    """
    here = Loopback()
    return Starlette(
        routes=[
            Route("/scheduler", functions.scheduler(app, client=client, budget=budget, auth=here), methods=["POST"]),
            Route(
                f"/functions/projects/{{project}}/triggers/{_TRIGGER}",
                functions.on_task_created(app, client=client, budget=budget),
                methods=["POST"],
            ),
            Mount("/", asgi_app(app, client, auth=here, budget=budget)),
        ]
    )


def register_trigger(host: str, project: str, env: str) -> str:
    """Let an emulator that was started with the address of these functions post what is created in an environment.

    Gives what went wrong in words, or an empty text. `host`: `host:port` of the emulator.
    """
    trigger = {
        "eventType": "google.cloud.firestore.document.v1.created",
        "database": "(default)",
        "namespace": "(default)",
        "document": {"value": f"oncetask/{env}/onceTasks/{{id}}", "matchType": "PATH_PATTERN"},
    }
    path = f"/emulator/v1/projects/{project}/eventarcTrigger?eventarcTriggerId={_TRIGGER}"
    try:
        with closing(http.client.HTTPConnection(host, timeout=_TIMEOUT_SECONDS)) as connection:
            connection.request("POST", path, json.dumps(trigger), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            said = answer.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return f"{type(error).__name__}: {error}"
    return "" if answer.status == http.client.OK else f"{answer.status} {answer.reason}: {said.strip()}"
