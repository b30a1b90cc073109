"""What a program with OpenTelemetry sees of its workers: metrics, spans and logs."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader, NumberDataPoint
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from oncetask import App, Client, Context, FixedDelay, NoRetry, Recurrence, Snooze, TaskStatus, Worker
from oncetask.telemetry import Telemetry
from tests.integration.places import Place
from tests.integration.worker.support import LIMIT, SOON, Job, Other, app_of, done, enqueue, raising


class Sdk:
    """OpenTelemetry's SDK, which keeps in memory what it is told."""

    def __init__(self) -> None:
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader], shutdown_on_exit=False)
        self.exporter = InMemorySpanExporter()
        self.tracers = TracerProvider(shutdown_on_exit=False)
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))

    def shutdown(self) -> None:
        """End it."""
        self.meters.shutdown()
        self.tracers.shutdown()

    def counts(self, name: str, *attributes: str) -> Counter[tuple[object, ...]]:
        """Give the numbers of a metric by some of its attributes; of a histogram, how many values it has."""
        counted: Counter[tuple[object, ...]] = Counter()
        for point in self.points(name):
            number = point.count if isinstance(point, HistogramDataPoint) else point.value
            counted[tuple((point.attributes or {}).get(attribute) for attribute in attributes)] += int(number)
        return counted

    def points(self, name: str) -> list[NumberDataPoint | HistogramDataPoint]:
        """Give the points of a metric."""
        data = self.reader.get_metrics_data()
        found = [
            point
            for resource in (data.resource_metrics if data else [])
            for scope in resource.scope_metrics
            for metric in scope.metrics
            for point in metric.data.data_points
            if metric.name == name
        ]
        return [point for point in found if isinstance(point, NumberDataPoint | HistogramDataPoint)]

    @property
    def spans(self) -> list[ReadableSpan]:
        """Give the spans that have ended."""
        return list(self.exporter.get_finished_spans())


@pytest.fixture
def sdk() -> Iterator[Sdk]:
    """The SDK of this test."""
    sdk = Sdk()
    yield sdk
    sdk.shutdown()


@pytest.fixture
async def told(place: Place, sdk: Sdk) -> Client:
    """A fresh client that tells this SDK."""
    store = place.connect().store
    await store.open()
    return Client(store, telemetry=Telemetry(meter_provider=sdk.meters, tracer_provider=sdk.tracers))


async def until_stopped(ctx: Context, _: Job) -> None:
    """A handler that runs until it is told to stop."""
    await ctx.wait_aborted()


class TestMetrics:
    """Counts and durations."""

    async def test_attempts_are_counted_by_result(self, told: Client, sdk: Sdk) -> None:
        """Each attempt is counted once, with its kind, phase, result and the type of its error."""
        async with Worker(app_of(raising(ValueError("1"), KeyError("2"))), told):
            await done(told, *await enqueue(told, 1))
        attributes = ("oncetask.kind", "oncetask.phase", "oncetask.result", "error.type")
        assert sdk.counts("oncetask.attempts", *attributes) == {
            ("job", "run", "retried", "ValueError"): 1,
            ("job", "run", "retried", "KeyError"): 1,
            ("job", "run", "succeeded", None): 1,
        }
        assert sdk.counts("oncetask.tasks.done", "oncetask.kind", "oncetask.outcome") == {("job", "completed"): 1}
        assert sdk.points("oncetask.tasks.cancelled") == sdk.points("oncetask.cancel.duration") == []

    async def test_occurrences_are_counted(self, told: Client, sdk: Sdk) -> None:
        """What a generator spawns is counted by kind; moving on ends no attempt."""
        start = (await told.store.now()).earliest
        rule = Recurrence("FREQ=SECONDLY;COUNT=1", start)
        async with Worker(app_of(raising()), told):
            generator = await told.enqueue(Job(), recurrence=rule)
            await told.wait(generator.task_id, LIMIT)
            await done(told, *[task.id async for task in told.iter_tasks(parent=generator.task_id)])
        assert sdk.counts("oncetask.occurrences", "oncetask.kind") == {("job",): 1}
        assert sdk.counts("oncetask.attempts", "oncetask.result") == {("succeeded",): 1}

    async def test_a_cancel_is_counted_once_per_task(self, told: Client, sdk: Sdk) -> None:
        """Whichever call cancels a task counts it; cancelling it again, or one that is done, does not."""
        ids = await enqueue(told, 1, 2, 3)
        keyed = await told.enqueue(Job(n=4), resource_key="ada")
        assert await told.cancel_task(ids[0])
        assert not await told.cancel_task(ids[0])
        assert await told.cancel_tasks_by_ids(ids[:2]) == 1
        assert await told.cancel_tasks_by_ids([*ids[:2], "missing"]) == 0
        assert await told.cancel_tasks_by_resource_key(Job, "ada") == 1
        async with Worker(app_of(raising()), told):
            await done(told, *ids, keyed.task_id)
        assert not await told.cancel_task(ids[2])
        assert sdk.counts("oncetask.tasks.cancelled", "oncetask.kind") == {("job",): 3}
        assert sdk.counts("oncetask.tasks.done", "oncetask.outcome") == {("cancelled",): 3, ("completed",): 1}

    async def test_racing_cancels_are_counted_once(self, told: Client, sdk: Sdk) -> None:
        """Of many callers that cancel one task at the same time, one is counted."""
        (task_id,) = await enqueue(told, 1)
        assert sum(await asyncio.gather(*(told.cancel_task(task_id) for _ in range(10)))) == 1
        assert sdk.counts("oncetask.tasks.cancelled") == {(): 1}

    async def test_cleanups_success_rate_and_reasons(self, told: Client, sdk: Sdk) -> None:
        """How many cleanups fail, and of what, can be told from the attempts of that phase."""
        app = app_of(raising())

        @app.cancellation_handler(Job, retry=FixedDelay(2, 0))
        async def clean_up(ctx: Context, job: Job) -> None:
            if job.n == 1 and ctx.attempt == 1:
                raise ConnectionError("gone")
            if job.n == 2:
                raise ValueError("never")

        ids = await enqueue(told, 0, 1, 2)
        await told.cancel_tasks_by_ids(ids)
        async with Worker(app, told):
            await done(told, *ids)
        attributes = ("oncetask.phase", "oncetask.result", "error.type")
        attempts = sdk.counts("oncetask.attempts", *attributes)
        assert attempts == {
            ("cleanup", "succeeded", None): 2,
            ("cleanup", "retried", "ConnectionError"): 1,
            ("cleanup", "retried", "ValueError"): 1,
            ("cleanup", "failed", "ValueError"): 1,
        }
        assert attempts["cleanup", "succeeded", None] / attempts.total() == 2 / 5

    async def test_every_cancelled_task_has_one_duration(self, told: Client, sdk: Sdk) -> None:
        """From its cancel to its end: cleaned up, cleaned up in vain, stopped while it ran; others have none."""
        started = asyncio.Event()

        async def handler(ctx: Context, job: Job) -> None:
            if job.n == 1:
                started.set()
                await ctx.wait_aborted()

        app = app_of(handler)

        @app.cancellation_handler(Job, retry=NoRetry())
        async def clean_up(_: Context, job: Job) -> None:
            if job.n == 3:
                raise ValueError("never")

        app.handler(Other)(raising())  # type: ignore[arg-type]  # it is not called
        ids = await enqueue(told, 0, 1, 2, 3)
        other = await told.enqueue(Other())
        await told.cancel_tasks_by_ids([*ids[2:], other.task_id])
        async with Worker(app, told):
            await asyncio.wait_for(started.wait(), LIMIT)
            await told.cancel_task(ids[1])
            tasks = await done(told, *ids, other.task_id)
        assert sdk.counts("oncetask.cancel.duration", "oncetask.kind", "oncetask.outcome") == {
            ("job", "cancelled"): 2,
            ("job", "failed"): 1,
            ("other", "cancelled"): 1,
        }
        assert sdk.counts("oncetask.tasks.done", "oncetask.kind", "oncetask.outcome") == {
            ("job", "completed"): 1,
            ("job", "cancelled"): 2,
            ("job", "failed"): 1,
            ("other", "cancelled"): 1,
        }
        lasted = [
            (task.done_at - task.cancelled_at).total_seconds() for task in tasks if task.done_at and task.cancelled_at
        ]
        told_of = [p.sum for p in sdk.points("oncetask.cancel.duration") if isinstance(p, HistogramDataPoint)]
        assert sum(told_of) == pytest.approx(sum(lasted))

    async def test_the_handler_that_a_cancel_stopped_is_an_interrupted_attempt(self, told: Client, sdk: Sdk) -> None:
        """A stopped run and its cleanup are two attempts of two phases."""
        started = asyncio.Event()

        async def handler(ctx: Context, _: Job) -> None:
            started.set()
            await ctx.wait_aborted()

        app = app_of(handler)
        app.cancellation_handler(Job)(raising())
        (task_id,) = await enqueue(told, 1)
        async with Worker(app, told):
            await asyncio.wait_for(started.wait(), LIMIT)
            await told.cancel_task(task_id)
            await done(told, task_id)
        assert sdk.counts("oncetask.attempts", "oncetask.phase", "oncetask.result") == {
            ("run", "interrupted"): 1,
            ("cleanup", "succeeded"): 1,
        }

    async def test_a_stopped_run_without_a_cleanup_is_an_attempt(self, told: Client, sdk: Sdk) -> None:
        """A handler that a cancel stopped is counted as an interrupted attempt, cleanup or not."""
        started = asyncio.Event()

        async def handler(ctx: Context, _: Job) -> None:
            started.set()
            await ctx.wait_aborted()

        (task_id,) = await enqueue(told, 1)
        async with Worker(app_of(handler), told):
            await asyncio.wait_for(started.wait(), LIMIT)
            await told.cancel_task(task_id)
            await done(told, task_id)
        assert sdk.counts("oncetask.attempts", "oncetask.phase", "oncetask.result") == {("run", "interrupted"): 1}

    async def test_a_shutdown_interrupts(self, told: Client, sdk: Sdk) -> None:
        """What a stopping worker gives back is neither a failure nor done."""
        started = asyncio.Event()

        async def handler(ctx: Context, _: Job) -> None:
            started.set()
            await ctx.wait_aborted()

        await enqueue(told, 1)
        async with Worker(app_of(handler), told, grace=0):
            await asyncio.wait_for(started.wait(), LIMIT)
        assert sdk.counts("oncetask.attempts", "oncetask.result", "error.type") == {("interrupted", None): 1}
        assert sdk.points("oncetask.tasks.done") == []

    async def test_a_timeout_has_its_own_reason(self, told: Client, sdk: Sdk) -> None:
        """An attempt that reached its limit failed with TaskTimeout."""
        async with Worker(app_of(until_stopped, timeout=0.05, retry=NoRetry()), told):
            await done(told, *await enqueue(told, 1))
        assert sdk.counts("oncetask.attempts", "oncetask.result", "error.type") == {("failed", "TaskTimeout"): 1}

    async def test_each_member_of_a_batch_is_counted(self, told: Client, sdk: Sdk) -> None:
        """Attempts and ends are tasks', however many of them shared a call; a cancelled member is none of them."""
        app = App()

        @app.batch_handler(Job, retry=NoRetry())
        async def handler(ctx: Context, jobs: list[Job]) -> None:
            await told.cancel_task(ctx.tasks[0].id)

        app.cancellation_handler(Job)(raising())
        receipts = await told.enqueue_many([Job(n=n) for n in range(4)], resource_key="ada")
        async with Worker(app, told):
            await done(told, *(receipt.task_id for receipt in receipts))
        assert sdk.counts("oncetask.attempts", "oncetask.phase", "oncetask.result") == {
            ("run", "succeeded"): 3,
            ("run", "interrupted"): 1,
            ("cleanup", "succeeded"): 1,
        }
        assert sdk.counts("oncetask.tasks.done", "oncetask.outcome") == {("completed",): 3, ("cancelled",): 1}

    async def test_what_is_not_stored_is_not_counted(self, told: Client, place: Place, sdk: Sdk) -> None:
        """A worker that lost its task counts no end of it."""
        ended = asyncio.Event()

        async def handler(ctx: Context, _: Job) -> None:
            await place.change(ctx.task_id, leaseOwner="another")
            ended.set()

        await enqueue(told, 1)
        async with Worker(app_of(handler), told):
            await asyncio.wait_for(ended.wait(), LIMIT)
        assert sdk.points("oncetask.attempts") == sdk.points("oncetask.tasks.done") == []


class TestLogs:
    """What a log search finds."""

    async def test_every_failed_cleanup_is_logged(self, told: Client, caplog: pytest.LogCaptureFixture) -> None:
        """With the task's id, its kind, the cleanup's own attempt and the reason, the last one as an error."""
        app = app_of(raising())
        app.cancellation_handler(Job, retry=SOON)(raising(*[OSError("still locked")] * 3))
        (task_id,) = await enqueue(told, 1)
        await told.cancel_task(task_id)
        with caplog.at_level(logging.WARNING, "oncetask"):
            async with Worker(app, told):
                await done(told, task_id)
        records: list[Any] = [record for record in caplog.records if hasattr(record, "event")]
        assert [(r.levelname, r.event, r.task_id, r.kind, r.attempt) for r in records] == [
            ("WARNING", "cleanup-retried", task_id, "job", 1),
            ("WARNING", "cleanup-retried", task_id, "job", 2),
            ("ERROR", "cleanup-failed", task_id, "job", 3),
        ]
        assert all(task_id in record.getMessage() for record in records)
        assert all("OSError: still locked" in record.getMessage() for record in records)

    async def test_every_failed_member_of_a_batch_is_logged(
        self, told: Client, caplog: pytest.LogCaptureFixture
    ) -> None:
        """One line for each task, since each has its own attempts."""
        app = App()

        @app.batch_handler(Job, retry=NoRetry())
        async def handler(_: Context, __: list[Job]) -> None:
            raise OSError("no route")

        receipts = await told.enqueue_many([Job(n=n) for n in range(3)], resource_key="ada")
        ids = [receipt.task_id for receipt in receipts]
        async with Worker(app, told):
            await done(told, *ids)
        records: list[Any] = [record for record in caplog.records if hasattr(record, "event")]
        assert [(record.event, record.task_id, record.attempt) for record in records] == [
            ("failed", task_id, 1) for task_id in ids
        ]


class TestSpans:
    """One for each call of user code."""

    async def test_each_attempt_is_a_span(self, told: Client, sdk: Sdk) -> None:
        """A run that fails and one that succeeds are two spans; the failed one carries the exception."""
        async with Worker(app_of(raising(ValueError("boom"))), told):
            (task,) = await done(told, *await enqueue(told, 1))
        failed, succeeded = sdk.spans
        for attempt, span in enumerate((failed, succeeded), start=1):
            assert (span.name, span.kind, span.parent) == ("run job", SpanKind.CONSUMER, None)
            assert span.instrumentation_scope is not None
            assert span.instrumentation_scope.name == "oncetask"
            assert dict(span.attributes or {}) == {
                "oncetask.kind": "job",
                "oncetask.task_id": task.id,
                "oncetask.attempt": attempt,
            }
        assert (failed.status.status_code, succeeded.status.status_code) == (StatusCode.ERROR, StatusCode.UNSET)
        ((name, attributes),) = [(event.name, event.attributes or {}) for event in failed.events]
        assert (name, attributes["exception.type"], attributes["exception.message"]) == (
            "exception",
            "ValueError",
            "boom",
        )
        assert list(succeeded.events) == []

    async def test_a_cleanup_is_a_span_of_its_own(self, told: Client, sdk: Sdk) -> None:
        """The stopped run says why it was stopped; the cleanup follows with its own name and attempt."""
        started = asyncio.Event()

        async def handler(_: Context, __: Job) -> None:
            started.set()
            await asyncio.Event().wait()

        app = app_of(handler)
        app.cancellation_handler(Job, retry=SOON)(raising(ValueError("boom")))
        (task_id,) = await enqueue(told, 1)
        async with Worker(app, told):
            await asyncio.wait_for(started.wait(), LIMIT)
            await told.cancel_task(task_id)
            await done(told, task_id)
        attributes = [dict(span.attributes or {}) for span in sdk.spans]
        assert [span.name for span in sdk.spans] == ["run job", "clean up job", "clean up job"]
        assert [one.get("oncetask.abort_reason") for one in attributes] == ["cancelled", None, None]
        assert [one["oncetask.attempt"] for one in attributes] == [1, 1, 2]
        assert {one["oncetask.task_id"] for one in attributes} == {task_id}
        assert [span.status.status_code for span in sdk.spans[1:]] == [StatusCode.ERROR, StatusCode.UNSET]

    @pytest.mark.parametrize("reason", ["timeout", "deadline", "shutdown"])
    async def test_an_abort_is_told(self, told: Client, sdk: Sdk, reason: str) -> None:
        """The span of a run that was told to stop has the reason as `oncetask.abort_reason`."""
        started = asyncio.Event()

        async def handler(_: Context, __: Job) -> None:
            started.set()
            await asyncio.Event().wait()

        limit = {"timeout": 0.05, "deadline": 300, "shutdown": 300}[reason]
        deadline = (await told.store.now()).latest + timedelta(seconds=1.5 if reason == "deadline" else 3_600)
        (task_id,) = await enqueue(told, 1)
        async with Worker(app_of(handler, timeout=limit, deadline=deadline, retry=NoRetry()), told, grace=0):
            await asyncio.wait_for(started.wait(), LIMIT)
            if reason != "shutdown":
                await done(told, task_id)
        (span,) = sdk.spans
        assert dict(span.attributes or {})["oncetask.abort_reason"] == reason
        description = {"timeout": "TaskTimeout", "deadline": "TaskExpired"}.get(reason)
        assert span.status.description == description

    async def test_a_thread_that_was_told_to_stop_says_so_too(self, told: Client, sdk: Sdk) -> None:
        """A plain function that ends when it sees the signal has the reason on its span."""
        started = threading.Event()

        def handler(ctx: Context, _: Job) -> None:
            started.set()
            ctx.wait_aborted_sync(LIMIT)

        await enqueue(told, 1)
        async with Worker(app_of(handler), told, grace=0):
            assert await asyncio.to_thread(started.wait, LIMIT)
        (span,) = sdk.spans
        assert dict(span.attributes or {})["oncetask.abort_reason"] == "shutdown"

    @pytest.mark.parametrize("in_thread", [False, True], ids=["async", "thread"])
    async def test_the_users_own_spans_nest_below(self, told: Client, sdk: Sdk, *, in_thread: bool) -> None:
        """A span that a handler or a middleware opens is a child of the run's."""
        tracer = sdk.tracers.get_tracer("mine")

        async def handler(_: Context, __: Job) -> None:
            with tracer.start_as_current_span("handler's"):
                await asyncio.sleep(0)

        def function(_: Context, __: Job) -> None:
            with tracer.start_as_current_span("handler's"):
                pass

        app = app_of(function if in_thread else handler)

        @app.middleware
        async def around(_: Context, call_next: Any) -> object:
            with tracer.start_as_current_span("middleware's"):
                return await call_next()

        async with Worker(app, told):
            await done(told, *await enqueue(told, 1))
        inner, middle, outer = sdk.spans
        assert (inner.name, middle.name, outer.name) == ("handler's", "middleware's", "run job")
        assert inner.parent is not None
        assert inner.parent.span_id == (middle.context.span_id if middle.context else None)
        assert middle.parent is not None
        assert middle.parent.span_id == (outer.context.span_id if outer.context else None)

    async def test_runs_side_by_side_keep_their_spans_apart(self, told: Client, sdk: Sdk) -> None:
        """Each of two handlers that run at the same time sees its own run's span as the current one."""
        together = asyncio.Barrier(2)
        seen: dict[str, int] = {}

        async def handler(ctx: Context, _: Job) -> None:
            await together.wait()
            seen[ctx.task_id] = trace.get_current_span().get_span_context().span_id

        async with Worker(app_of(handler), told):
            await done(told, *await enqueue(told, 1, 2))
        told_of = {(span.attributes or {})["oncetask.task_id"]: span for span in sdk.spans}
        assert {task_id: span.context.span_id for task_id, span in told_of.items() if span.context} == seen
        assert len({span.context.trace_id for span in sdk.spans if span.context}) == 2

    async def test_a_batch_is_one_span(self, told: Client, sdk: Sdk) -> None:
        """A call for several tasks is one call."""
        app = App()

        @app.batch_handler(Job)
        async def handler(_: Context, __: list[Job]) -> None:
            return None

        receipts = await told.enqueue_many([Job(n=n) for n in range(3)], resource_key="ada")
        async with Worker(app, told):
            await done(told, *(receipt.task_id for receipt in receipts))
        (span,) = sdk.spans
        assert span.name == "run job"
        assert (span.attributes or {})["oncetask.batch_size"] == 3

    async def test_a_timeout_is_an_error_and_a_snooze_is_none(self, told: Client, sdk: Sdk) -> None:
        """The span of an attempt that reached its limit is an error; one that only asked for later is not."""

        async def handler(ctx: Context, job: Job) -> None:
            if job.n == 1:
                await ctx.wait_aborted()
            raise Snooze(600)

        slow, snoozed = await enqueue(told, 1, 2)
        async with Worker(app_of(handler, timeout=0.1, retry=NoRetry()), told):
            await done(told, slow)
            async for task in told.watch(snoozed):
                if task.wait_until > task.created_at + timedelta(seconds=60):
                    break
        codes = {(span.attributes or {})["oncetask.task_id"]: span.status.status_code for span in sdk.spans}
        assert codes == {slow: StatusCode.ERROR, snoozed: StatusCode.UNSET}

    async def test_what_calls_nobody_has_no_span(self, told: Client, place: Place, sdk: Sdk) -> None:
        """A payload that does not validate, and a cancel without a cleanup, call no user code."""
        ids = await enqueue(told, 1, 2)
        await place.change(ids[0], data={"n": "many"})
        await told.cancel_task(ids[1])
        async with Worker(app_of(raising(), retry=NoRetry()), told):
            await done(told, *ids)
        assert sdk.spans == []


class TestWithoutAnSdk:
    """A program that has not set up OpenTelemetry, or not yet."""

    async def test_nothing_breaks(self, connected: Client) -> None:
        """Runs, failures and cleanups are what they are with one; no span records."""
        recording: list[bool] = []

        async def handler(ctx: Context, _: Job) -> None:
            recording.append(trace.get_current_span().is_recording())
            if ctx.attempt == 1:
                raise ValueError("boom")

        app = app_of(handler)
        app.cancellation_handler(Job, retry=SOON)(raising(ValueError("boom")))
        ids = await enqueue(connected, 1, 2)
        await connected.cancel_task(ids[1])
        async with Worker(app, connected):
            tasks = await done(connected, *ids)
        assert [task.status for task in tasks] == [TaskStatus.DONE_COMPLETED, TaskStatus.DONE_CANCELLED]
        assert recording == [False, False]


_SET_UP_LATER = """
import asyncio
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from oncetask import App, Payload, Worker, connect

class Job(Payload, kind="job"):
    pass

app = App()

@app.handler(Job)
async def handler(ctx, job):
    pass

async def main():
    async with connect("memory://") as client:
        reader, exporter, tracers = InMemoryMetricReader(), InMemorySpanExporter(), TracerProvider()
        tracers.add_span_processor(SimpleSpanProcessor(exporter))
        metrics.set_meter_provider(MeterProvider([reader]))
        trace.set_tracer_provider(tracers)
        async with Worker(app, client):
            await client.wait((await client.enqueue(Job())).task_id, 20)
        scopes = reader.get_metrics_data().resource_metrics[0].scope_metrics
        print(*sorted(metric.name for scope in scopes for metric in scope.metrics))
        print(*(span.name for span in exporter.get_finished_spans()))

asyncio.run(main())
"""


async def test_the_programs_own_providers_are_used(tmp_path: Any) -> None:
    """Providers that a program sets after it has made its client are told of what happens from then on."""
    program = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", _SET_UP_LATER),
        cwd=tmp_path,
        env={**os.environ},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(program.communicate(), LIMIT)
    assert (program.returncode, err.decode()) == (0, "")
    assert out.decode().splitlines() == ["oncetask.attempts oncetask.tasks.done", "run job"]
