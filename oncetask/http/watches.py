"""Tasks that one WebSocket watches: every change is sent as it happens, until the task is done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import cast

from oncetask.client import Client
from oncetask.http.troubles import Trouble, explained
from oncetask.representation import as_json
from oncetask.task import Task

__all__ = ["MOST_WATCHES", "Watches"]

MOST_WATCHES = 100
"""Tasks that one connection may watch at a time."""

Send = Callable[[object], Awaitable[None]]


class Watches:
    """The watches of one connection.

    Each is an asyncio task that follows the record and sends; while a client does not read, it waits, and the store
    keeps only the newest record for it, so that a slow reader misses changes but holds no memory.
    """

    def __init__(self, client: Client, send: Send) -> None:
        """`send`: sends a message; it waits as long as the client does not read."""
        self._client = client
        self._send = send
        self._running: dict[str, asyncio.Task[None]] = {}

    async def add(self, task_id: str, answer: Callable[[Task], object]) -> None:
        """Send `answer` of the task as it is now, and from then on an event at every change.

        A task that is watched already starts anew, so that nothing is sent twice. Raises Trouble (429) for too many,
        and what `Client.watch` raises.
        """
        await self.drop(task_id)
        if len(self._running) >= MOST_WATCHES:
            raise Trouble(429, f"a connection may watch at most {MOST_WATCHES} tasks at a time: unwatch one first")
        begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        watching = asyncio.create_task(self._follow(task_id, answer, begun), name=f"oncetask watching {task_id}")
        self._running[task_id] = watching
        watching.add_done_callback(lambda _: self._forget(task_id, watching))
        try:
            await asyncio.wait({watching, begun}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await _ended(watching)
            raise
        if not begun.done():
            watching.result()  # raises why it could not begin

    async def drop(self, task_id: str) -> bool:
        """Watch a task no longer; tells whether it was watched."""
        watching = self._running.pop(task_id, None)
        if watching is None:
            return False
        await _ended(watching)
        return True

    async def drop_all(self) -> None:
        """Watch nothing any more."""
        running, self._running = list(self._running.values()), {}
        await _ended(*running)

    def _forget(self, task_id: str, watching: asyncio.Task[None]) -> None:
        if self._running.get(task_id) is watching:
            del self._running[task_id]

    async def _follow(self, task_id: str, answer: Callable[[Task], object], begun: asyncio.Future[None]) -> None:
        try:
            async with aclosing(cast("AsyncGenerator[Task]", self._client.watch(task_id))) as changes:
                async for task in changes:
                    if begun.done():
                        await self._send({"event": "task", "task": as_json(task)})
                    else:
                        await self._send(answer(task))
                        begun.set_result(None)
        except Exception as error:
            if not begun.done():
                raise
            trouble = explained(error, doing=f"watching task {task_id!r}")
            await self._send({"event": "error", "taskId": task_id, **trouble.body})


async def _ended(*watching: asyncio.Task[None]) -> None:
    """Cancel watches, and wait for their end."""
    for task in watching:
        task.cancel()
    if watching:
        await asyncio.wait(watching)
    for task in watching:
        if not task.cancelled():
            task.exception()  # was told to the client; asyncio would complain that nobody asked
