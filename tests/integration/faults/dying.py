"""Processes that kill themselves at one exact point: `python -m tests.integration.faults.dying`.

Each line on stdin is a `Fate`: a point, and when in it to die. A process is forked for it, from one in which everything
is imported, and what ended it is told on stdout: minus the number of the signal.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

from oncetask import App, Client, Context, FixedDelay, Payload, Worker, connect
from oncetask.lifecycle import Transition
from oncetask.store import TaskStore
from oncetask.store.firestore import FirestoreStore
from oncetask.store.sqlite import SqliteStore

__all__ = ["MANY", "Fate", "Keyed", "Plain", "Staging", "When", "an_app", "as_line", "enqueue_many", "run_lines"]

MANY = 700
"""More than fit into one transaction or one batch."""

When = Literal["before", "within", "after"]
"""Before a write is asked for; on SQLite, when all but the COMMIT is done; when the store has said that it is done."""


class Plain(Payload, kind="plain"):
    """Leaves a line, and ends."""

    n: int = 0


class Staging(Payload, kind="staging"):
    """Stages three more."""


class Keyed(Payload, kind="keyed"):
    """One of a line."""

    n: int = 0

    def resource_key(self) -> str:
        """All of them share one."""
        return "key"


@dataclass(frozen=True)
class Fate:
    """What becomes of a process."""

    point: str
    when: When
    witness: str
    """A file in which each run of a handler leaves the id of its task."""
    store: str
    """Url."""
    emulator: str
    """`host:port`, for a url of Firestore's."""


def an_app(witness: Path) -> App:
    """Give the App of those who die and of those who come after them."""
    app = App("dying", retry=FixedDelay(5, 0.02))

    def note(ctx: Context) -> None:
        with witness.open("a") as lines:
            lines.write(f"{ctx.task_id}\n")

    async def plain(ctx: Context, _: Payload) -> str:
        await asyncio.to_thread(note, ctx)
        return "done"

    app.handler(Plain)(plain)
    app.handler(Keyed)(plain)

    @app.handler(Staging)
    async def staging(ctx: Context, _: Staging) -> str:
        await asyncio.to_thread(note, ctx)
        for n in range(3):
            ctx.enqueue(Plain(n=n), task_id=f"staged-{n}")
        return "done"

    return app


def _events(transitions: Any) -> set[str]:
    return {one.event for one in transitions if isinstance(one, Transition)}


_POINTS: dict[str, tuple[str, Callable[..., bool]]] = {
    "enqueue": ("create", bool),
    "claim": ("apply", lambda steps: "claimed" in _events(steps)),
    "completion": ("apply", lambda steps: "completed" in _events(steps)),
    "staging completion": ("commit", lambda steps, creates, *_: "completed" in _events(steps) and bool(creates)),
    "taking a key": ("commit", lambda steps, *_: _events(steps) == {"claimed"}),
    "next of a key": ("commit", lambda steps, *_: _events(steps) == {"completed", "claimed"}),
    "letting a key go": ("commit", lambda steps, *rest: _events(steps) == {"completed"} and bool(rest[-1])),
    "spawning": ("commit", lambda steps, *_: "spawned" in _events(steps)),
}
"""The verb of the store, and which of its calls it is."""


def _die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def _die_at_commit(statement: str) -> None:
    if statement == "COMMIT":
        _die()


def _doom(store: TaskStore, fate: Fate) -> None:
    """Let a store kill its process at a point."""
    verb, is_it = _POINTS[fate.point]
    asked = getattr(store, verb)

    async def fatal(*arguments: Any) -> Any:
        if not is_it(*arguments):
            return await asked(*arguments)
        if fate.when == "before":
            _die()
        if fate.when == "within":
            assert isinstance(store, SqliteStore)
            await store._connection.read(lambda sql: sql.set_trace_callback(_die_at_commit))
        await asked(*arguments)
        _die()

    setattr(store, verb, fatal)


def _doom_midway(store: TaskStore) -> None:
    """Let a store kill its process when it begins with the second part of many new tasks."""
    parts = 0
    holder: Any
    if isinstance(store, SqliteStore):
        holder, name = store._connection, "write_each"
    else:
        assert isinstance(store, FirestoreStore)
        assert store._session is not None
        holder, name = store._session.rpc, "batch_write"
    asked = getattr(holder, name)

    async def fatal(*arguments: Any) -> Any:
        nonlocal parts
        parts += 1
        answer = await asked(*arguments)
        if parts == 1:
            return answer
        _die()

    setattr(holder, name, fatal)


async def _live(fate: Fate) -> None:
    os.environ["FIRESTORE_EMULATOR_HOST"] = fate.emulator
    async with connect(fate.store) as client:
        if fate.point == "midway":
            _doom_midway(client.store)
            await enqueue_many(client)
            return
        _doom(client.store, fate)
        if fate.point == "enqueue":
            await client.enqueue(Plain(), task_id="mine")
        else:
            await Worker(an_app(Path(fate.witness)), client).run()


async def enqueue_many(client: Client) -> int:
    """Enqueue more than fit into one part, under the same ids each time; gives how many this call created."""
    receipts = await client.enqueue_many([Plain(n=n) for n in range(MANY)], task_ids=[f"many-{n}" for n in range(MANY)])
    return sum(receipt.created for receipt in receipts)


def run_lines() -> None:
    """Fork a process for each line, and say how it ended."""
    logging.disable()
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                asyncio.run(asyncio.wait_for(_live(Fate(**json.loads(line))), 20))
                code = 0
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)  # noqa: T201  # to the test


def as_line(fate: Fate) -> str:
    """Give the line that asks for a fate."""
    return json.dumps(asdict(fate)) + "\n"


if __name__ == "__main__":
    run_lines()
