"""Handlers that run in a process of their own, which has to be able to import them."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from oncetask import App, Context, Discard, NoRetry, Payload, RetryAfter, Snooze, current_context
from oncetask.processes import inside

__all__ = ["Crunch", "Other", "Pair", "app_of"]


class Crunch(Payload, kind="crunch"):
    """What a handler is to do, by the name of one of the functions below."""

    do: str = "tell"
    n: int = 0


class Other(Payload, kind="other-crunch"):
    """A second kind that needs a process."""

    trace: Path


class Pair(Payload, kind="pair"):
    """Comes in batches."""

    n: int = 0

    def resource_key(self) -> str:
        """All of them share one."""
        return "pair"


class Unsayable(Exception):
    """An error that pickle makes, but cannot make again."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


class Here:
    """Something without a JSON form."""


def app_of(**options: Any) -> App:
    """Give an App with these handlers; there is one attempt where nothing else is said."""
    app = App()
    settings = {"retry": NoRetry(), "timeout": 30, "run_in": "process", **options}
    app.handler(Crunch, **settings)(crunch)
    app.handler(Other, **settings)(other)
    app.batch_handler(Pair, **settings)(pairs)
    return app


def crunch(ctx: Context, job: Crunch) -> object:
    """Do what the payload says; whoever watches the task learns of the process that does it."""
    ctx.progress(None, "begun", os.getpid())
    return DOES[job.do](ctx, job)


def other(_: Context, job: Other) -> None:
    """Leave a trace of its start and its end."""
    with job.trace.open("a") as trace:
        trace.write("start\n")
    time.sleep(0.05)
    with job.trace.open("a") as trace:
        trace.write("end\n")


def pairs(ctx: Context, jobs: list[Pair]) -> list[int]:
    """Run a batch, and give what it consists of."""
    assert len(ctx.tasks) == len(jobs)
    return [os.getpid(), *(job.n for job in jobs)]


def _tell(_: Context, job: Crunch) -> object:
    return {"pid": os.getpid(), "at": datetime(2030, 1, 1, tzinfo=UTC), "n": job.n}


def _spin(_: Context, __: Crunch) -> None:
    while True:
        pass


def _be_stubborn(_: Context, __: Crunch) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        pass


def _spin_once(ctx: Context, _: Crunch) -> str:
    while ctx.attempt == 1:
        pass
    return "in time"


def _raise(error: Exception) -> Callable[[Context, Crunch], object]:
    def function(_: Context, __: Crunch) -> None:
        raise error

    return function


def _fail_unsayably(_: Context, __: Crunch) -> None:
    raise Unsayable(1, 2)


def _snooze(ctx: Context, _: Crunch) -> str:
    if not ctx.task.progress:  # of the run before
        raise Snooze(0)
    return "slept"


def _retry(ctx: Context, _: Crunch) -> str:
    if ctx.attempt == 1:
        raise RetryAfter(0)
    return "again"


def _kill(number: int) -> Callable[[Context, Crunch], object]:
    return lambda _, __: os.kill(os.getpid(), number)


def _log(ctx: Context, _: Crunch) -> None:
    logging.getLogger("somebody").warning("from %s", "there", extra={"color": "red"})
    logging.getLogger("oncetask").debug("not wanted")
    ctx.logger.info("by the context")


def _enqueue(ctx: Context, _: Crunch) -> None:
    ctx.enqueue(Crunch(n=7), task_id="staged")


def _enqueue_and_fail(ctx: Context, _: Crunch) -> None:
    ctx.enqueue(Crunch(n=7), task_id="staged")
    raise ValueError


def _tell_progress(ctx: Context, _: Crunch) -> None:
    for step in range(1_000):
        ctx.progress(step / 1_000, f"step {step}", [[step]])


def _die_while_answering(_: Context, __: Crunch) -> str:
    line: Any = inside._line._connection

    def send_a_part_and_die(content: bytes) -> None:
        os.write(line.fileno(), content[:2])
        os.kill(os.getpid(), signal.SIGKILL)

    line._send = send_a_part_and_die  # in the middle of the next message, which is the answer
    return "x" * 900_000


def _tell_two(ctx: Context, _: Crunch) -> None:
    ctx.progress(0.1, "one")
    ctx.progress(0.5, "two")
    while True:
        pass


def _leave_a_thread(ctx: Context, _: Crunch) -> None:
    def go_on() -> None:
        while True:
            ctx.progress(0.99, "from the task before")
            time.sleep(0.01)

    threading.Thread(target=go_on, daemon=True).start()


def _log_unsendable(ctx: Context, _: Crunch) -> None:
    ctx.logger.warning("will try later", extra={"error": Unsayable(1, 2), "lock": threading.Lock()})


def _fork_and_spin(ctx: Context, _: Crunch) -> None:
    child = os.fork()
    if child == 0:
        time.sleep(600)
        os._exit(0)
    ctx.progress(None, "forked", child)
    while True:
        pass


def _look_around(ctx: Context, job: Crunch) -> list[object]:
    assert current_context() is ctx
    assert ctx.payload is job
    assert not ctx.aborted
    return [ctx.task_id, ctx.kind, ctx.attempt, ctx.fencing_token, ctx.remaining, ctx.deadline]


DOES: dict[str, Callable[[Context, Crunch], object]] = {
    "tell": _tell,
    "spin": _spin,
    "be stubborn": _be_stubborn,
    "spin once": _spin_once,
    "die": _kill(signal.SIGKILL),
    "segfault": _kill(signal.SIGSEGV),
    "exit": lambda _, __: sys.exit(3),
    "leave": lambda _, __: os._exit(4),
    "leave well": lambda _, __: os._exit(0),
    "die while it answers": _die_while_answering,
    "tell one after the other": _tell_two,
    "leave a thread": _leave_a_thread,
    "log what is not for others": _log_unsendable,
    "fork and spin": _fork_and_spin,
    "raise": _raise(ValueError("bad luck")),
    "raise a timeout": _raise(TimeoutError("my own")),
    "discard": _raise(Discard("for good")),
    "fail unsayably": _fail_unsayably,
    "snooze": _snooze,
    "retry": _retry,
    "return an object": lambda _, __: Here(),
    "log": _log,
    "client": lambda ctx, _: ctx.client,
    "state": lambda ctx, _: ctx.state,
    "batch": lambda ctx, _: ctx.batch,
    "enqueue": _enqueue,
    "enqueue and fail": _enqueue_and_fail,
    "tell progress": _tell_progress,
    "look around": _look_around,
}
