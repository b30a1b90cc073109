"""What runs in the simulation: kinds with everything a handler may be, and versions of an App that knows them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from types import new_class
from typing import Any, Protocol

from oncetask import App, Context, ExponentialBackoff, FixedDelay, NoRetry, Payload, Recurrence

__all__ = ["ALL_KINDS", "DECLARED", "PAYLOADS", "RULES", "Deployment", "Job", "Rule", "Stage", "build"]

APP = "shop"
TIMEOUT = 9.0


@dataclass(frozen=True)
class Rule:
    """What was promised about a kind when it was registered."""

    attempts: int
    cleanups: int | None = None
    """How often its cleanup is tried; None: it has none."""
    is_strict: bool = False
    is_batch: bool = False
    timeout: float = TIMEOUT
    """Seconds."""
    delay: float = 1.0
    """The fewest seconds from one attempt to the next."""
    cleanup_timeout: float | None = None
    cleanup_delay: float | None = None


RULES: Mapping[str, Rule] = {
    "plain": Rule(3),
    "flaky": Rule(12, delay=0.15),
    "undone": Rule(3, cleanups=3, cleanup_timeout=4.0, cleanup_delay=0.5),
    "strict": Rule(4, is_strict=True),
    "batch": Rule(3, is_batch=True),
    "short": Rule(2, timeout=1.5),
    "mother": Rule(3, cleanups=2),
    "single": Rule(3),
    "once": Rule(1),
}
ALL_KINDS = tuple(RULES)


class Job(Payload, kind="job"):
    """What all kinds of the simulation carry."""

    mark: str | None = None
    """The idempotency key."""

    def idempotency_key(self) -> str | None:
        """Enqueue the same mark once."""
        return self.mark


def _payload(kind: str) -> type[Job]:
    fields = {"__module__": __name__, "__doc__": f"A job of kind {kind}."}
    return new_class(kind.capitalize(), (Job,), {"kind": kind}, lambda namespace: namespace.update(fields))


PAYLOADS: Mapping[str, type[Job]] = {kind: _payload(kind) for kind in RULES}


class Stage(Protocol):
    """Whoever decides what handlers do; an App's lifespan yields it as `ctx.state`."""

    async def perform(self, ctx: Context) -> object:
        """Do what a handler does."""

    async def hear(self, ctx: Context, error: Exception) -> None:
        """Do what an error handler does."""


@dataclass(frozen=True)
class Deployment:
    """One version of the code."""

    kinds: tuple[str, ...]
    declares: tuple[str, ...] = ()
    """Names of `DECLARED`."""


DECLARED: Mapping[str, tuple[str, str, Recurrence]] = {
    "beat/1": ("beat", "plain", Recurrence.every(5, overlap="skip")),
    "beat/2": ("beat", "plain", Recurrence.every(7, catch_up="all")),
    "sweep/1": ("sweep", "undone", Recurrence.cron("*/10 * * * * *", overlap="cancel-previous")),
    "sweep/2": ("sweep", "short", Recurrence.cron("*/10 * * * * *", catch_up="skip")),
}
"""Schedules as different versions of the code declare them: name, kind and rule."""


async def _handle(ctx: Context, _: object) -> object:
    stage: Stage = ctx.state
    return await stage.perform(ctx)


async def _clean_up(ctx: Context, _: object) -> None:
    stage: Stage = ctx.state
    await stage.perform(ctx)


async def _hear(ctx: Context, error: Exception) -> None:
    stage: Stage = ctx.state
    await stage.hear(ctx, error)


def build(deployment: Deployment, stage: Stage) -> App:
    """Make the App of a version."""
    app = App(APP, timeout=TIMEOUT, retry=FixedDelay(3, 1), lifespan=lambda: nullcontext(stage))
    for kind in deployment.kinds:
        _REGISTER[kind](app, PAYLOADS[kind])
    app.error_handler(_hear)
    for name in deployment.declares:
        schedule, kind, recurrence = DECLARED[name]
        app.schedule(schedule, PAYLOADS[kind](), recurrence)
    return app


def _undone(app: App, payload: type[Job]) -> None:
    app.handler(payload)(_handle)
    app.cancellation_handler(payload, retry=FixedDelay(3, 0.5), timeout=4)(_clean_up)


def _mother(app: App, payload: type[Job]) -> None:
    app.handler(payload)(_handle)
    app.cancellation_handler(payload, retry=FixedDelay(2, 1))(_clean_up)


_REGISTER: Mapping[str, Callable[[App, type[Job]], Any]] = {
    "plain": lambda app, payload: app.handler(payload)(_handle),
    "flaky": lambda app, payload: app.handler(
        payload, retry=ExponentialBackoff(max_attempts=12, base_delay=0.2, max_delay=5)
    )(_handle),
    "undone": _undone,
    "strict": lambda app, payload: app.handler(payload, strict_order=True, retry=FixedDelay(4, 1))(_handle),
    "batch": lambda app, payload: app.batch_handler(payload, max_batch=3)(_handle),
    "short": lambda app, payload: app.handler(payload, timeout=1.5, priority=3, retry=FixedDelay(2, 1))(_handle),
    "mother": _mother,
    "single": lambda app, payload: app.handler(payload, concurrency=1)(_handle),
    "once": lambda app, payload: app.handler(payload, retry=NoRetry(), priority=7)(_handle),
}
