"""`WS /ws`: requests as messages, answered one after the other; what happens to watched tasks is sent in between."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any

from starlette.websockets import WebSocket

from oncetask.client import Client
from oncetask.clock import Duration, seconds
from oncetask.http.auth import Auth
from oncetask.http.commands import Commands
from oncetask.http.inputs import OneTask
from oncetask.http.limits import Limited
from oncetask.http.reading import MOST_BYTES
from oncetask.http.troubles import Trouble, explained, unfit
from oncetask.http.watches import Watches
from oncetask.http.websockets import converse, send
from oncetask.representation import as_json, plain

__all__ = ["conversations"]

ACTIONS = ("enqueue", "get", "cancel", "watch", "unwatch")
LONGEST_ID = 200

_CLOSE_CODES = 4_000
"""Added to a status of HTTP, it makes a close code of those that applications may choose."""


def conversations(
    commands: Commands, client: Client, auth: Auth, *, timeout: Duration
) -> Callable[[WebSocket], Coroutine[Any, Any, None]]:
    """Give the endpoint of the WebSocket.

    A message is `{"action": …, "id": …}` and what the action needs; the `id`, a text or a whole number of the
    client's choice, comes back with the answer. What goes wrong is answered with `{"id": …, "error": message}`, a
    request that takes longer than `timeout` too, and the connection lives on.

    - `enqueue`: with what `POST /tasks` takes; answers `taskId` and `created`.
    - `get`, `watch`: with `taskId`; answers `task`. After `watch`, `{"event": "task", "task": {…}}` is sent at every
      change until the task is done, and `{"event": "error", "taskId": …, "error": message}` where it cannot be watched
      any longer, say because it was deleted.
    - `cancel`: with `taskId`; answers `cancelled`. `unwatch`: with `taskId`; answers `unwatched`.

    A caller who may not call is refused before the connection is accepted.
    """
    limit = seconds("timeout", timeout)

    async def endpoint(websocket: WebSocket) -> None:
        trouble = await _refusal(websocket, auth, limit)
        if trouble is not None:
            await _deny(websocket, trouble)
            return
        conversation = _Conversation(commands, client, websocket)
        limited = Limited(conversation.answer, timeout=limit, on_error=None)
        try:
            await converse(websocket, limited, complaint=_complaint, most_bytes=MOST_BYTES)
        finally:
            await conversation.watches.drop_all()

    return endpoint


class _Conversation:
    def __init__(self, commands: Commands, client: Client, websocket: WebSocket) -> None:
        self._commands = commands
        self._websocket = websocket
        self._pushing = asyncio.Lock()
        self.watches = Watches(client, self._send)

    async def answer(self, _: WebSocket, message: object) -> object:
        """Give the answer to a message; None where it is sent already."""
        try:
            found = await self._done(message)
        except Exception as error:  # noqa: BLE001  # an answer is made of all of them
            found = explained(error, doing="a message of a WebSocket").body
        return None if found is None else plain({**_id_of(message), **found})

    async def _done(self, message: object) -> dict[str, Any] | None:
        """Do what a message asks for."""
        if not isinstance(message, dict):
            raise Trouble(422, 'a message must be a JSON object, such as {"action": "get", "id": 1, "taskId": "…"}')
        _check_id(message)
        details = {name: value for name, value in message.items() if name not in {"action", "id"}}
        match message.get("action"):
            case "enqueue":
                receipt = await self._commands.enqueue(details)
                return {"taskId": receipt.task_id, "created": receipt.created}
            case "get":
                return {"task": await self._commands.get(_task_id(details))}
            case "cancel":
                return await self._commands.cancel(_task_id(details))
            case "watch":
                await self.watches.add(_task_id(details), lambda task: {**_id_of(message), "task": as_json(task)})
                return None
            case "unwatch":
                return {"unwatched": await self.watches.drop(_task_id(details))}
        raise unfit([{"field": "action", "message": f"must be one of {', '.join(ACTIONS)}"}])

    async def _send(self, message: object) -> None:
        async with self._pushing:  # one at a time, else all that waited for a slow reader would be written at once
            await send(self._websocket, json.dumps(plain(message)))


def _task_id(details: object) -> str:
    return OneTask.read(details).task_id


def _complaint(message: object, text: str) -> object:
    return {**_id_of(message), "error": text}


def _id_of(message: object) -> dict[str, Any]:
    """Give the id of a message, as its answer has it; nothing where there is none that could be sent back."""
    return {"id": message["id"]} if isinstance(message, dict) and _is_id(message.get("id")) else {}


def _check_id(message: dict[str, Any]) -> None:
    if "id" in message and not _is_id(message["id"]):
        why = f"must be a whole number, or a text of at most {LONGEST_ID} characters"
        raise unfit([{"field": "id", "message": why}])


def _is_id(value: object) -> bool:
    if isinstance(value, str):
        return len(value) <= LONGEST_ID
    return isinstance(value, int) and not isinstance(value, bool)


async def _refusal(websocket: WebSocket, auth: Auth, limit: float) -> Trouble | None:
    """Ask for admission; gives why it was refused."""
    try:
        async with asyncio.timeout(limit):
            await auth.admit(websocket)
    except TimeoutError:
        return Trouble(504, f"the request reached its time limit of {limit:g} s")
    except Exception as error:  # noqa: BLE001  # whatever it is, nobody is admitted
        return explained(error, doing="admitting a WebSocket")
    return None


async def _deny(websocket: WebSocket, trouble: Trouble) -> None:
    """Refuse a connection that is not accepted yet: by an answer of HTTP where the server can send one."""
    if "websocket.http.response" in websocket.scope.get("extensions", {}):
        await websocket.send_denial_response(trouble.answer())
    else:
        await websocket.close(_CLOSE_CODES + trouble.status)
