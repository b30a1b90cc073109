"""What handlers do: how long they take, how they end, what they stage and say, and whether they obey."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from oncetask import Context, Discard, RetryAfter, Snooze
from tests.simulation.apps import PAYLOADS
from tests.simulation.sight import Part, Run

if TYPE_CHECKING:
    from tests.simulation.machines import Machine
    from tests.simulation.world import World

__all__ = ["Scripts"]

_LENGTHS = (0.0, 0.0, 0.05, 0.6, 2.0, 6.0)
_ENDS = ("returns", "returns", "returns", "raises", "snoozes", "asks", "discards")
_BUSY_SECONDS = 5.0


@dataclass(frozen=True)
class _Act:
    """What a handler does in one attempt."""

    seconds: float
    ends: str = "returns"
    stubborn: float = 0.0
    """Seconds for which it goes on after it was told to stop."""
    stages: int = 0
    says: int = 0
    """How often it tells its progress."""


class Scripts:
    """Decides what each call of user code does, when it begins."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def perform(self, machine: Machine, ctx: Context) -> object:
        """Do what a handler, or a cleanup, does."""
        world, act = self._world, self._act(ctx)
        parts = tuple(Part(task.id, task.lease_owner or "", task.attempts, task.cancel_attempts) for task in ctx.tasks)
        run = Run(
            machine,
            kind=ctx.kind,
            key=ctx.task.resource_key,
            parts=parts,
            is_cleanup=ctx.task.is_cancelled,
            attempt=ctx.attempt,
            token=ctx.fencing_token,
            told=lambda: ctx.abort_reason,
        )
        world.note(machine.name, "cleans up" if run.is_cleanup else "runs", run, act)
        world.oracle.started(run)
        how = "stopped"
        try:
            for _ in range(act.stages):
                world.oracle.staged(run, self._stage(ctx))
            for step in range(act.says + 1):
                if act.says:
                    ctx.progress(step / (act.says + 1), "on its way")
                await asyncio.sleep(act.seconds / (act.says + 1))
            how = act.ends
        except asyncio.CancelledError:
            if act.stubborn and not world.is_over:
                run.obeys = False
                await asyncio.sleep(act.stubborn)
            raise
        finally:
            if not world.is_over:
                world.note(machine.name, "has run", run, how)
                world.oracle.ended(run, how)
        return self._end(act)

    async def hear(self, machine: Machine, ctx: Context, error: Exception) -> None:
        """Do what an error handler does: take some time, or fail."""
        world = self._world
        world.oracle.heard(machine, ctx.task_id, error)
        await asyncio.sleep(world.lots.choice((0.0, 0.0, 0.1, 1.5)) * world.lots.random())
        if world.lots.random() < 0.05:
            raise LookupError("the simulated error handler's")

    def _act(self, ctx: Context) -> _Act:
        lots, profile = self._world.lots, self._world.profile
        if profile.is_crowded:
            return _Act(0.0 if ctx.kind in profile.kinds and ctx.task.resource_key is None else _BUSY_SECONDS)
        seconds = lots.choice(_LENGTHS) * lots.random()
        ends = lots.choice(_ENDS)
        if self._world.is_calm and ends == "snoozes":
            ends = "returns"
        stubborn = lots.choice((0.0, 0.0, 0.0, profile.stubborn)) * lots.random()
        stages = lots.randrange(1, 3) if ctx.kind == "mother" else 0
        return _Act(seconds, ends, stubborn, 0 if self._world.is_calm else stages, lots.choice((0, 0, 1, 3)))

    def _stage(self, ctx: Context) -> str:
        lots = self._world.lots
        kind = lots.choice(self._world.profile.kinds)
        if lots.random() < 0.2:
            return ctx.enqueue(PAYLOADS[kind](mark=f"m{lots.randrange(9)}"))
        if lots.random() < 0.3:
            return ctx.enqueue(PAYLOADS[kind](), delay=timedelta(seconds=lots.random() * 3))
        return ctx.enqueue(PAYLOADS[kind]())

    def _end(self, act: _Act) -> object:
        match act.ends:
            case "raises":
                raise ValueError("the simulated handler's")
            case "snoozes":
                raise Snooze(0.7)
            case "asks":
                raise RetryAfter(0.3)
            case "discards":
                raise Discard("the simulated handler's")
        return {"took": act.seconds}
