"""The tasks of the run, each known by its number, and what their handlers do: sleep, fail, snooze, tell, stage.

Whatever a handler has stored for it carries the fencing token of its run: its result, its progress, the message of its
error, its follow-up. So the record of the store's writes tells from which run each of them came.
"""

from __future__ import annotations

import asyncio
import random

from oncetask import App, Context, FixedDelay, Payload, Snooze
from tests.chaos.witness import Witness

__all__ = [
    "CLEANED_UP",
    "FEEDERS",
    "Follow",
    "Guarded",
    "Keyed",
    "Numbered",
    "Staging",
    "Tick",
    "Work",
    "feeder_of",
    "make_app",
    "numbered",
]

FEEDERS = 2
_SHARES = ("work",) * 9 + ("keyed",) * 6 + ("staging",) * 2 + ("guarded",) * 3
_FAILS, _SNOOZES, _TELLS, _RUNS_LONG = 0.05, 0.03, 0.1, 0.01
_RESCUED_RUNS_LONG = 0.5
_MOST_KEYS, _TASKS_A_KEY = 300, 20


class _Soon(FixedDelay):
    """Tries again soon, also after a crash, so that a run does not wait for the last ones."""

    def after_crash(self, *, attempt: int, elapsed: float, error: BaseException) -> float | None:
        """Draw from one second."""
        return random.uniform(0, 1)  # noqa: S311  # a test's lots


class Numbered(Payload, kind="numbered"):
    """A task that is enqueued once for its number, however often that is tried."""

    number: int

    def idempotency_key(self) -> str:
        """Give the number."""
        return str(self.number)


class Work(Numbered, kind="work"):
    """Nothing special."""


class Keyed(Numbered, kind="keyed"):
    """Shares a resource key with others."""

    key: str

    def resource_key(self) -> str:
        """Give the key."""
        return self.key


class Staging(Numbered, kind="staging"):
    """Stages a follow-up."""


class Guarded(Numbered, kind="guarded"):
    """Takes a while, and has something to clean up."""


class Follow(Payload, kind="follow"):
    """What a task staged: for its parent's completion by the run of that token."""

    parent: str
    token: int


class Tick(Payload, kind="tick"):
    """Comes every second."""


CLEANED_UP = frozenset({Keyed.kind, Guarded.kind})
"""Kinds with a cancellation handler."""


def feeder_of(number: int, chunk: int) -> int:
    """Say which feeder enqueues a task; all of a resource key come from one, so that their order is known."""
    return number // chunk % FEEDERS


def numbered(number: int, *, tasks: int, chunk: int) -> Numbered:
    """Make the payload of a number. `tasks`: how many there are; `chunk`: how many are enqueued together."""
    match _SHARES[number % len(_SHARES)]:
        case "keyed":
            keys = max(2, min(_MOST_KEYS, tasks // _TASKS_A_KEY) // FEEDERS)
            return Keyed(number=number, key=f"key-{feeder_of(number, chunk)}-{number * 7_919 % keys}")
        case "staging":
            return Staging(number=number)
        case "guarded":
            return Guarded(number=number)
        case _:
            return Work(number=number)


def make_app(witness: Witness, lots: random.Random, *, lease: float) -> App:
    """Give the handlers. `lots`: what is at random is drawn from there; `lease`: seconds; some run for longer."""
    app, does = App("chaos", timeout=60, retry=_Soon(10_000, 0.05)), _Doing(witness, lots, lease)
    short: tuple[type[Payload], ...] = (Work, Keyed, Follow, Tick)
    for payload_type in short:
        app.handler(payload_type)(does.something)
    app.handler(Guarded)(does.something_longer)
    app.handler(Staging)(does.staging)
    for payload_type in (Keyed, Guarded):
        app.cancellation_handler(payload_type)(does.cleaning_up)
    return app


class _Doing:
    def __init__(self, witness: Witness, lots: random.Random, lease: float) -> None:
        self._witness, self._lots, self._lease = witness, lots, lease

    async def something(self, ctx: Context, _: Payload) -> dict[str, int]:
        """Take a moment, or seldom more than a lease; fail or snooze now and then."""
        return await self._run(ctx, 0.01)

    async def something_longer(self, ctx: Context, _: Payload) -> dict[str, int]:
        """Take long enough to be cancelled."""
        return await self._run(ctx, 0.4)

    async def staging(self, ctx: Context, _: Payload) -> dict[str, int]:
        """Stage a follow-up, whatever becomes of this run."""
        ctx.enqueue(Follow(parent=ctx.task_id, token=ctx.fencing_token))
        return await self._run(ctx, 0.01)

    async def cleaning_up(self, ctx: Context, _: Payload) -> None:
        """Take a moment, and fail now and then."""
        with self._witness.run(ctx, is_cleanup=True):
            await asyncio.sleep(self._lots.uniform(0, 0.01))
            if self._lots.random() < _FAILS:
                msg = f"a cleanup fails, too: {{'token': {ctx.fencing_token}}}"
                raise RuntimeError(msg)

    async def _run(self, ctx: Context, seconds: float) -> dict[str, int]:
        lots, stamp = self._lots, {"token": ctx.fencing_token}
        # A former holder that stood still, or was cut off, should come back while another one is at it.
        is_rescued = bool(ctx.task.errors) and ctx.task.errors[-1].type == "LeaseLost"
        if lots.random() < (_RESCUED_RUNS_LONG if is_rescued else _RUNS_LONG):
            seconds = lots.uniform(0.6, 1.6) * self._lease
        else:
            seconds = lots.uniform(0, seconds)
        with self._witness.run(ctx):
            if lots.random() < _TELLS:
                ctx.progress(None, data=stamp)
            await asyncio.sleep(seconds)
            if lots.random() < _FAILS:
                msg = f"now and then it fails: {stamp}"
                raise RuntimeError(msg)
            if lots.random() < _SNOOZES:
                raise Snooze(0.05)
        return stamp
