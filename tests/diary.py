"""An App whose handlers note when they ran, for tests of the harness."""

from __future__ import annotations

import asyncio

from oncetask import App, Context, Payload
from oncetask.testing import Harness
from tests.support import T0

__all__ = ["Diary", "Split", "Step"]


class Step(Payload, kind="step"):
    """What notes when it ran."""

    name: str
    seconds: float = 0


class Split(Payload, kind="split"):
    """What brings others about."""

    into: list[str]


class Diary:
    """What happened, and at which virtual second."""

    def __init__(self) -> None:
        self.app = App()
        self.entries: list[tuple[float, str]] = []
        self.h: Harness

        @self.app.handler(Step, timeout=86_400)
        async def step(ctx: Context, step: Step) -> None:
            self.note(step.name)
            assert ctx.task.started_at == self.h.now
            if step.seconds:
                await asyncio.sleep(step.seconds)
                self.note(f"{step.name} ends")

        @self.app.handler(Split)
        async def split(ctx: Context, split: Split) -> None:
            staged, *direct = split.into
            ctx.enqueue(Step(name=staged))
            for name in direct:
                await ctx.client.enqueue(Step(name=name))

    def note(self, what: str) -> None:
        """Write down what happens at this moment."""
        self.entries.append(((self.h.now - T0).total_seconds(), what))

    def harness(self, concurrency: int = 32) -> Harness:
        """Give a harness that begins at T0."""
        self.h = Harness(self.app, start=T0, concurrency=concurrency)
        return self.h
