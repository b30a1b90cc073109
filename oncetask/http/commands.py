"""What the HTTP API and its WebSocket can do with tasks: from what was sent to what is answered."""

from __future__ import annotations

from typing import Any

from oncetask.app import App
from oncetask.client import Client
from oncetask.errors import UnknownKind
from oncetask.http.inputs import CancelByIds, CancelByKey, NewTask, TaskQuery, task_id_of
from oncetask.http.troubles import Trouble, unfit
from oncetask.payload import Payload
from oncetask.representation import as_json
from oncetask.task import Receipt, TaskStatus

__all__ = ["Commands"]

_NOT_FOUND = 404
_CONFLICT = 409


class Commands:
    """The verbs of the API. Each answers a map, or raises Trouble or what `troubles.explained` makes one of."""

    def __init__(self, app: App, client: Client) -> None:
        """`app`: says which kinds there are, and what their payloads look like. `client`: where tasks are."""
        self._app = app
        self._client = client

    async def enqueue(self, sent: object) -> Receipt:
        """Enqueue a task with the payload type of its kind."""
        new = NewTask.read(sent)
        payload = self._payload_type(new.kind).from_data(new.data)
        return await self._client.enqueue(payload, **new.options())

    async def get(self, task_id: str) -> dict[str, Any]:
        """Give a task."""
        return as_json(await self._client.get_task(_checked(task_id)))

    async def page(self, query: object) -> dict[str, Any]:
        """Give a page of tasks, and the cursor that continues after it."""
        page = await self._client.list_tasks(**TaskQuery.read(query, strict=False).given())
        return {"tasks": [as_json(task) for task in page.tasks], "cursor": page.cursor}

    async def cancel(self, task_id: str) -> dict[str, bool]:
        """Cancel a task; tells whether this call did."""
        return {"cancelled": await self._client.cancel_task(_checked(task_id))}

    async def cancel_many(self, sent: dict[str, Any]) -> dict[str, int]:
        """Cancel the tasks of some ids, or of a resource key; counts them."""
        if "ids" in sent:
            return {"cancelled": await self._client.cancel_tasks_by_ids(CancelByIds.read(sent).ids)}
        if "resourceKey" not in sent:
            raise unfit([{"field": "resourceKey", "message": "is missing: give it, with or without kind, or give ids"}])
        which = CancelByKey.read(sent)
        return {"cancelled": await self._client.cancel_tasks_by_resource_key(which.kind, which.resource_key)}

    async def reset(self, task_id: str) -> dict[str, bool]:
        """Run a done task again. Raises Trouble (409) for one that cannot be."""
        if not await self._client.reset_task(_checked(task_id)):
            status = (await self._client.get_task(task_id)).status
            why = "its rule has no instant left" if status.is_done else f"it is {status}, and only done tasks can be"
            raise Trouble(_CONFLICT, f"task {task_id!r} was not reset: {why}")
        return {"reset": True}

    async def delete(self, task_id: str) -> dict[str, bool]:
        """Delete a task. Raises Trouble (409) for one that somebody runs."""
        if not await self._client.delete_task(_checked(task_id)):
            await self._client.get_task(task_id)  # raises where somebody else was faster
            raise Trouble(_CONFLICT, f"task {task_id!r} was not deleted: it is running, so cancel it first")
        return {"deleted": True}

    async def pause(self, kind: str) -> dict[str, bool]:
        """Let nobody claim tasks of a kind of this App; tells whether this call changed that."""
        self._payload_type(kind)  # a slip of the pen would pause nothing, silently
        return {"paused": await self._client.pause_kind(kind)}

    async def resume(self, kind: str) -> dict[str, bool]:
        """Let tasks of a kind be claimed again, also of one that this App no longer has."""
        return {"resumed": await self._client.resume_kind(kind)}

    async def stats(self) -> dict[str, Any]:
        """Count tasks by kind and status, and name the kinds that are paused; as `oncetask stats --json` does."""
        found, paused = await self._client.stats(), await self._client.paused_kinds()
        totals = {status: n for status in TaskStatus if (n := found.total(status))}
        return {"kinds": found.counts, "totals": totals, "total": found.total(), "paused": paused}

    def _payload_type(self, kind: str) -> type[Payload]:
        """Give the payload class of a kind. Raises Trouble (404); an App that is wrong itself raises its own error."""
        handlers = self._app.handlers()
        if kind not in handlers:
            raise Trouble(_NOT_FOUND, str(UnknownKind(kind, list(handlers))))
        return handlers[kind].payload_type


def _checked(task_id: str) -> str:
    try:
        return task_id_of(task_id)
    except ValueError as error:
        raise unfit([{"field": "taskId", "message": str(error)}]) from error
