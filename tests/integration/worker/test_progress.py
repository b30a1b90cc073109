"""What handlers tell of how far they are, and who sees it."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from oncetask import (
    App,
    Client,
    Context,
    NoRetry,
    Payload,
    PayloadTooLarge,
    Snooze,
    Task,
    TaskStatus,
    Worker,
)
from oncetask.lifecycle import Transition
from oncetask.store import Written
from tests.integration.places import FirestorePlace
from tests.integration.stores import EVERYWHERE, ON_FIRESTORE
from tests.integration.worker.support import LIMIT, Job, app_of, done, enqueue, outcome_of


class Keyed(Payload, kind="keyed"):
    """What comes in batches."""

    n: int

    def resource_key(self) -> str:
        """All belong together."""
        return "all"


class Gate:
    """Two signals that a handler and its test give each other, on the loop or in a thread."""

    def __init__(self) -> None:
        self._told, self._go_on = threading.Event(), threading.Event()

    def tell(self) -> None:
        """Say that the test may look, and wait until it has; in a thread."""
        self._told.set()
        assert self._go_on.wait(LIMIT)

    def open(self) -> None:
        """Let the handler go on."""
        self._go_on.set()

    async def told(self) -> None:
        """Wait for the handler; on the loop."""
        assert await asyncio.to_thread(self._told.wait, LIMIT)


def handler_of(how: str, before: Callable[[Context], object], gate: Gate) -> Callable[[Context, Job], Any]:
    """Give a handler that does this first and then waits at the gate."""

    async def on_the_loop(ctx: Context, _: Job) -> str:
        before(ctx)
        await asyncio.to_thread(gate.tell)
        return "done"

    def in_a_thread(ctx: Context, _: Job) -> str:
        before(ctx)
        gate.tell()
        return "done"

    return on_the_loop if how == "async" else in_a_thread


def telling(*arguments: Any) -> Callable[[Context, Job], Any]:
    """Give a handler that says this, and is done."""

    async def handler(ctx: Context, _: Job) -> None:
        ctx.progress(*arguments)

    return handler


async def seen(client: Client, task_id: str, message: str | None = None) -> Task:
    """Watch a task until it shows a progress; one with this message."""
    async with asyncio.timeout(LIMIT):
        async for task in client.watch(task_id):
            if task.progress is not None and message in {None, task.progress.message}:
                return task
    raise AssertionError("it ended without any")


def said(task: Task) -> tuple[float | None, str | None, Any] | None:
    """Give what was told, without its time."""
    progress = task.progress
    return None if progress is None else (progress.fraction, progress.message, progress.data)


def noted(client: Client, monkeypatch: pytest.MonkeyPatch) -> list[Transition]:
    """Note every change that is to be written from now on."""
    changes: list[Transition] = []
    apply = client.store.apply

    async def noting(transitions: Sequence[Transition]) -> list[Written]:
        changes.extend(transitions)
        return await apply(transitions)

    monkeypatch.setattr(client.store, "apply", noting)
    return changes


@EVERYWHERE
class TestWhileItRuns:
    """Everybody sees it."""

    @pytest.mark.parametrize("how", ["async", "def"])
    async def test_it_is_seen_while_the_handler_runs(self, connected: Client, how: str) -> None:
        """`watch` and `get_task` show what a running handler said, on the loop or in a thread, and when."""
        gate = Gate()
        app = app_of(handler_of(how, lambda ctx: ctx.progress(0.5, "half of it", {"rows": [5, None]}), gate))
        earliest = (await connected.store.now()).earliest
        async with Worker(app, connected):
            (task_id,) = await enqueue(connected, 1)
            shown = await seen(connected, task_id)
            assert (await connected.get_task(task_id)).progress == shown.progress
            gate.open()
            task = await connected.wait(task_id, LIMIT)
        assert (shown.status, said(shown)) == (TaskStatus.LEASED, (0.5, "half of it", {"rows": [5, None]}))
        assert shown.progress is not None
        assert shown.progress.at is not None
        assert earliest <= shown.progress.at <= (await connected.store.now()).latest
        assert (task.status, task.progress) == (TaskStatus.DONE_COMPLETED, shown.progress)

    @pytest.mark.parametrize("how", ["async", "def"])
    async def test_a_thousand_calls_cost_a_few_writes(
        self, connected: Client, monkeypatch: pytest.MonkeyPatch, how: str
    ) -> None:
        """However often it is told, at most one write a second goes out for it, and the last one is stored."""
        changes = noted(connected, monkeypatch)

        def tell(ctx: Context) -> None:
            for n in range(1_000):
                ctx.progress(n / 1_000, f"step {n}")

        gate = Gate()
        async with Worker(app_of(handler_of(how, tell, gate)), connected):
            (task_id,) = await enqueue(connected, 1)
            await gate.told()
            gate.open()
            task = await connected.wait(task_id, LIMIT)
        assert said(task) == (0.999, "step 999", None)
        assert len([one for one in changes if one.event == "progressed"]) <= 3
        assert len([one for one in changes if one.before.id == task_id]) <= 6

    async def test_a_run_that_tells_nothing_writes_nothing_more(
        self, connected: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Without a progress there are two writes, the claim and the end; with one at the end there are two as well."""
        changes = noted(connected, monkeypatch)

        async def handler(ctx: Context, _: Job) -> None:
            if ctx.task_id == "told":
                ctx.progress(1)

        async with Worker(app_of(handler), connected):
            for task_id in ("silent", "told"):
                await connected.enqueue(Job(), task_id=task_id)
                await connected.wait(task_id, LIMIT)
        assert [one.event for one in changes] == ["claimed", "completed"] * 2
        assert ["progress" in one.changes for one in changes] == [False, False, False, True]

    async def test_a_batch_handler_tells_it_of_every_member(self, connected: Client) -> None:
        """Each task of a batch shows it, while it runs and after."""
        app, go_on = App(), asyncio.Event()

        @app.batch_handler(Keyed)
        async def handler(ctx: Context, payloads: list[Keyed]) -> None:
            ctx.progress(0.5, f"{len(payloads)} of them")
            await go_on.wait()
            ctx.progress(1, f"{len(payloads)} done")

        ids = [one.task_id for one in await connected.enqueue_many([Keyed(n=n) for n in range(3)])]
        async with Worker(app, connected):
            shown = await asyncio.gather(*(seen(connected, task_id) for task_id in ids))
            go_on.set()
            ended = await done(connected, *ids)
        assert [said(task) for task in shown] == [(0.5, "3 of them", None)] * 3
        assert [said(task) for task in ended] == [(1.0, "3 done", None)] * 3

    async def test_a_cancellation_handler_tells_it_too(self, connected: Client) -> None:
        """A cleanup finds what its handler said last, and what it says itself replaces that."""
        app, gate, found = App(), Gate(), list[object]()
        started, never = asyncio.Event(), asyncio.Event()

        @app.handler(Job)
        async def handler(ctx: Context, _: Job) -> None:
            ctx.progress(0.5, "half of it")
            started.set()
            await never.wait()

        @app.cancellation_handler(Job)
        async def clean_up(ctx: Context, _: Job) -> None:
            found.append(said(ctx.task))
            ctx.progress(0.1, "putting it back")
            await asyncio.to_thread(gate.tell)
            ctx.progress(None, "all back")

        (task_id,) = await enqueue(connected, 1)
        async with Worker(app, connected):
            await asyncio.wait_for(started.wait(), LIMIT)
            await connected.cancel_task(task_id)
            await gate.told()
            shown = await seen(connected, task_id, "putting it back")
            gate.open()
            task = await connected.wait(task_id, LIMIT)
        assert found == [(0.5, "half of it", None)]
        assert (shown.is_cancelled, said(shown)) == (True, (0.1, "putting it back", None))
        assert (task.status, said(task)) == (TaskStatus.DONE_CANCELLED, (None, "all back", None))


@EVERYWHERE
class TestAfterwards:
    """What was said last stays."""

    @pytest.mark.parametrize("ends", ["fails", "snoozes", "is told to stop"])
    async def test_the_next_attempt_finds_it(self, connected: Client, ends: str) -> None:
        """However an attempt ended, what it said last stands in `ctx.task.progress` of the next one, and stays."""
        found: list[object] = []

        async def handler(ctx: Context, _: Job) -> str:
            found.append(said(ctx.task))
            if len(found) == 1:
                ctx.progress(0.25)
                ctx.progress(0.5, "half of it", {"cursor": "c-17"})
                if ends == "is told to stop":
                    await asyncio.Event().wait()
                raise Snooze(0) if ends == "snoozes" else ValueError("boom")
            return "done"

        task = await outcome_of(app_of(handler, timeout=0.2), connected)
        assert found == [None, (0.5, "half of it", {"cursor": "c-17"})]
        assert (task.status, said(task)) == (TaskStatus.DONE_COMPLETED, found[1])

    async def test_a_failed_task_keeps_it(self, connected: Client) -> None:
        """After the last attempt it says how far that came."""

        async def handler(ctx: Context, _: Job) -> None:
            ctx.progress(0.75, "nearly")
            raise ValueError("boom")

        task = await outcome_of(app_of(handler, retry=NoRetry()), connected)
        assert (task.status, said(task)) == (TaskStatus.DONE_FAILED, (0.75, "nearly", None))

    async def test_a_reset_clears_it(self, connected: Client) -> None:
        """A task's new life begins without any."""

        async def handler(ctx: Context, _: Job) -> None:
            ctx.progress(1)

        task = await outcome_of(app_of(handler), connected)
        assert task.progress is not None
        assert await connected.reset_task(task.id)
        assert (await connected.get_task(task.id)).progress is None

    @pytest.mark.parametrize("how", ["async", "def"])
    async def test_an_abandoned_handler_is_not_listened_to(self, connected: Client, how: str) -> None:
        """What is told after the worker has given up on a handler is dropped."""
        gate, ended = Gate(), threading.Event()

        def in_a_thread(ctx: Context, _: Job) -> None:
            ctx.progress(0.5)
            gate.tell()
            ctx.progress(0.9)
            ended.set()

        async def on_the_loop(ctx: Context, _: Job) -> None:
            ctx.progress(0.5)
            waiting = asyncio.ensure_future(asyncio.to_thread(gate.tell))
            while not waiting.done():
                try:
                    await asyncio.shield(waiting)
                except asyncio.CancelledError:
                    continue
            ctx.progress(0.9)
            ended.set()

        app = app_of(on_the_loop if how == "async" else in_a_thread, timeout=0.1, retry=NoRetry())
        async with Worker(app, connected, abort_grace=0.1):
            (task_id,) = await enqueue(connected, 1)
            abandoned = await connected.wait(task_id, LIMIT)
            gate.open()
            assert await asyncio.to_thread(ended.wait, LIMIT)
        task = await connected.get_task(task_id)
        assert (task.status, said(task)) == (TaskStatus.DONE_FAILED, (0.5, None, None))
        assert task.version == abandoned.version


@ON_FIRESTORE
async def test_an_attempt_whose_writes_are_refused_keeps_it(connected: Client, place: FirestorePlace) -> None:
    """Where the user's batch cannot be stored, the failure that is recorded instead takes the progress along."""

    async def handler(ctx: Context, _: Job) -> None:
        ctx.batch.update(place.native.document("accounts", "missing"), {"paid": True})
        ctx.progress(1, "all of it")

    task = await outcome_of(app_of(handler, retry=NoRetry()), connected)
    assert (task.status, said(task)) == (TaskStatus.DONE_FAILED, (1.0, "all of it", None))


@EVERYWHERE
class TestValues:
    """What can be said."""

    @pytest.mark.parametrize("how", ["async", "def"])
    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            (("half",), TypeError, "fraction must be a number from 0 to 1, or None, not 'half'"),
            ((True,), TypeError, "fraction must be a number from 0 to 1, or None, not True"),
            ((math.nan,), ValueError, "fraction must be a number from 0 to 1, or None, not nan"),
            ((-0.1,), ValueError, "fraction must be a number from 0 to 1, or None, not -0.1"),
            ((1.1,), ValueError, "fraction must be a number from 0 to 1, or None, not 1.1"),
            ((0.5, 5), TypeError, "message must be a text, or None, not 5"),
            ((0.5, None, object()), TypeError, "data, a object, must be something that JSON can hold"),
            ((0.5, None, {"x": math.nan}), TypeError, "data, a dict, must be something that JSON can hold"),
            ((0.5, None, "x" * 9_000), PayloadTooLarge, "data takes 9,001 bytes; that of a progress may take 8,192"),
        ],
        ids=["text", "bool", "nan", "negative", "above 1", "message", "object", "nan in data", "too large"],
    )
    async def test_a_wrong_value_is_refused_at_the_call(
        self, connected: Client, how: str, arguments: Any, error: type[Exception], message: str
    ) -> None:
        """`ctx.progress` itself raises, its message names the argument and what would be right; nothing is stored."""

        def tell(ctx: Context) -> None:
            with pytest.raises(error, match=message) as raised:
                ctx.progress(*arguments)
            assert type(raised.value) is error

        gate = Gate()
        gate.open()
        task = await outcome_of(app_of(handler_of(how, tell, gate), retry=NoRetry()), connected)
        assert (task.status, task.progress, task.errors) == (TaskStatus.DONE_COMPLETED, None, ())

    async def test_a_wrong_value_does_not_replace_what_was_said(self, connected: Client) -> None:
        """After a refused call the last good one is what is stored."""

        async def handler(ctx: Context, _: Job) -> None:
            ctx.progress(0.5, "good")
            with pytest.raises(ValueError, match="fraction"):
                ctx.progress(5)

        task = await outcome_of(app_of(handler, retry=NoRetry()), connected)
        assert (task.status, said(task)) == (TaskStatus.DONE_COMPLETED, (0.5, "good", None))

    async def test_a_long_message_is_cut(self, connected: Client) -> None:
        """A message of a megabyte is stored as 2 KiB of it."""
        task = await outcome_of(app_of(telling(None, "€" * 350_000)), connected)
        assert task.progress is not None
        assert task.progress.message is not None
        assert task.progress.message == "€" * 681 + "…"
        assert len(task.progress.message.encode()) <= 2_048

    @pytest.mark.parametrize(
        "data",
        [
            [[1, 2], [[3]]],
            {"matrix": [[1]]},
            2**70,
            {"__x__": 1},
            {"": "empty"},
            "\ud800",
            [],
            {},
            0,
            False,
            "",
            "text",
            0.1,
            [1, "a", None, {"b": [True]}],
        ],
        ids=repr,
    )
    async def test_data_come_back_equal(self, connected: Client, data: Any) -> None:
        """Whatever JSON can hold is stored, also what Firestore has no form for."""
        task = await outcome_of(app_of(telling(0.5, "m", data)), connected)
        assert said(task) == (0.5, "m", data)
        assert task.problems == ()

    async def test_data_that_firestore_cannot_hold_replace_others(self, connected: Client) -> None:
        """Nothing of what was told before stands beside what is told then, in either form."""
        found: list[object] = []

        async def handler(ctx: Context, _: Job) -> None:
            found.append(said(ctx.task))
            steps: list[Any] = [{"plain": 1}, [[2]], {"plain": 3}, None]
            if len(found) <= len(steps):
                ctx.progress(None, None, steps[len(found) - 1])
                raise Snooze(0)

        await outcome_of(app_of(handler), connected)
        assert found == [None, *((None, None, data) for data in ({"plain": 1}, [[2]], {"plain": 3}, None))]

    @pytest.mark.parametrize(
        ("data", "kept"),
        [
            (datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC), "2030-01-02T03:04:05Z"),
            (timedelta(minutes=1), "PT1M"),
            (("a", 1), ["a", 1]),
            ({1: "one"}, {"1": "one"}),
        ],
        ids=["datetime", "timedelta", "tuple", "key"],
    )
    async def test_data_are_kept_in_their_json_form(self, connected: Client, data: object, kept: Any) -> None:
        """What pydantic can put into JSON is stored, and read, in that form."""
        task = await outcome_of(app_of(telling(None, None, data)), connected)
        assert said(task) == (None, None, kept)

    async def test_a_model_is_kept_in_its_json_form(self, connected: Client) -> None:
        """A pydantic model is stored as the map of its fields."""

        class Step(BaseModel):
            name: str
            at: datetime

        step = Step(name="copy", at=datetime(2030, 1, 1, tzinfo=UTC))
        task = await outcome_of(app_of(telling(None, None, {"steps": [step]})), connected)
        assert said(task) == (None, None, {"steps": [{"name": "copy", "at": "2030-01-01T00:00:00Z"}]})

    async def test_what_is_changed_afterwards_is_not_stored(self, connected: Client) -> None:
        """Data are taken as they are when they are told, also what is inside of them."""

        async def handler(ctx: Context, _: Job) -> None:
            data: dict[str, Any] = {"rows": [1, {"of": [2]}]}
            ctx.progress(0.5, None, data)
            data["rows"][1]["of"].append(3)
            data["rows"].append(4)
            data["more"] = True

        task = await outcome_of(app_of(handler), connected)
        assert said(task) == (0.5, None, {"rows": [1, {"of": [2]}]})
