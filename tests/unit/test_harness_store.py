"""The harness: a store that fails before or after a write, that is late, and that does not answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, get_args

import pytest

from oncetask import App, Context, FixedDelay, NoRetry, Payload, StoreUnavailable
from oncetask.testing import Harness, Verb
from tests.support import MICROSECOND, T0, at


class Job(Payload, kind="job"):
    """What counts how often it ran."""

    key: str | None = None
    then: bool = False

    def resource_key(self) -> str | None:
        """Give what was said."""
        return self.key


class Then(Payload, kind="then"):
    """What a job stages."""


def an_app() -> tuple[App, list[str]]:
    """Give an App that tries everything once, and what it ran."""
    app, ran = App(retry=NoRetry()), list[str]()

    @app.handler(Job)
    async def job(ctx: Context, job: Job) -> str:
        ran.append("job")
        if job.then:
            ctx.enqueue(Then())
        return "done"

    @app.handler(Then)
    async def then(_: Context, __: Then) -> None:
        ran.append("then")

    return app, ran


ASKED: dict[Verb, Callable[[Harness], Awaitable[object]]] = {
    "create": lambda h: h.enqueue(Job()),
    "get": lambda h: h.client.get_task("one"),
    "find": lambda h: h.client.list_tasks(),
    "count": lambda h: h.client.pending_count(),
    "stats": lambda h: h.client.stats(),
    "apply": lambda h: h.client.cancel_task("one"),
    "delete": lambda h: h.client.delete_task("one"),
    "settings": lambda h: h.client.paused_kinds(),
    "write_settings": lambda h: h.client.pause_kind(Job),
}
"""What callers do, by the verb that it comes down to."""


@pytest.mark.parametrize("verb", ASKED)
async def test_callers_learn_of_a_failure(verb: Verb) -> None:
    """A verb that fails once is the caller's StoreUnavailable, or tried again where that is safe; then it works."""
    app, _ = an_app()
    async with Harness(app, start=T0) as h:
        await h.enqueue(Job(), task_id="one", delay=60)
        h.store.fail(verb, times=None)
        with pytest.raises(StoreUnavailable, match=f"the test let {verb} fail"):
            async with asyncio.timeout(86_400):
                await ASKED[verb](h)
        h.store.heal()
        await ASKED[verb](h)


@pytest.mark.parametrize("verb", ["due", "line", "locks", "apply", "commit", "settings", "get"])
@pytest.mark.parametrize("times", [1, 5])
async def test_a_worker_gets_over_it(verb: Verb, times: int) -> None:
    """Whatever fails a few times before it was done is tried again until it works; nothing runs twice."""
    app, ran = an_app()
    async with Harness(app, start=T0) as h:
        tasks = [await h.enqueue(Job(then=True)), await h.enqueue(Job(key="k"))]
        h.store.fail(verb, times=times)
        await h.advance(600)
        for task in tasks:
            h.assert_completed(task, result="done")
        h.assert_enqueued(Then, count=1)
    assert sorted(ran) == ["job", "job", "then"]


@pytest.mark.parametrize("verb", ["apply", "commit"])
@pytest.mark.parametrize("payload", [Job(), Job(key="k"), Job(then=True)], ids=["plain", "keyed", "staging"])
async def test_an_answer_that_is_lost(verb: Verb, payload: Job) -> None:
    """Where a write was done and only its answer lost, nothing is lost and nothing is stored twice."""
    app, ran = an_app()
    async with Harness(app, start=T0) as h:
        task = await h.enqueue(payload)
        h.store.fail(verb, when="after")
        await h.advance(600)
        assert h.task(task).outcome is not None
        assert len(h.tasks.of(Then)) == payload.then * ran.count("job")
    assert ran.count("job") <= 1
    assert ran.count("then") == payload.then * ran.count("job")


async def test_a_completion_whose_answer_is_lost_is_not_done_twice() -> None:
    """The worker reads the task again, finds that it is done, and leaves it so: one run, one result, one new task."""
    app, ran = an_app()

    class Slow(Payload, kind="slow"):
        pass

    @app.handler(Slow)
    async def slow(ctx: Context, _: Slow) -> str:
        ctx.enqueue(Then())
        ran.append("slow")
        h.store.fail("commit", when="after")  # the next one is that of this completion
        return "result"

    async with Harness(app, start=T0) as h:
        task = await h.enqueue(Slow())
        await h.advance(3_600)
        h.assert_completed(task, result="result")
        assert (h.task(task).attempts, h.task(task).done_at) == (1, T0)
        h.assert_enqueued(Then, count=1)
    assert ran == ["slow", "then"]


async def test_an_enqueue_whose_answer_is_lost_may_be_repeated() -> None:
    """With an id of its own the second try finds the task, which runs once."""
    app, ran = an_app()
    async with Harness(app, start=T0) as h:
        h.store.fail("create", when="after")
        with pytest.raises(StoreUnavailable):
            await h.enqueue(Job(), task_id="once")
        assert not (await h.enqueue(Job(), task_id="once")).created
        await h.run_due()
        h.assert_enqueued(Job, count=1)
    assert ran == ["job"]


async def test_only_what_was_named_fails_and_only_so_often() -> None:
    """Faults are used up in the order in which they were ordered, each by the verbs that it names."""
    app, _ = an_app()
    async with Harness(app, start=T0) as h:
        h.store.fail("create", times=2, error=StoreUnavailable("first"))
        h.store.fail("create", "count", error=StoreUnavailable("second"))
        for expected in ("first", "first", "second"):
            with pytest.raises(StoreUnavailable, match=expected):
                await h.enqueue(Job())
        await h.client.stats()
        await h.client.pending_count()
        await h.enqueue(Job())


async def test_any_verb_may_fail() -> None:
    """Where none is named, the next call fails, whatever it is."""
    app, _ = an_app()
    async with Harness(app, start=T0) as h:
        h.store.fail()
        with pytest.raises(StoreUnavailable, match="the test let stats fail"):
            await h.client.stats()
        await h.client.stats()


async def test_a_failure_for_as_long_as_a_block_runs() -> None:
    """`failing` ends with its block, also by an error, and leaves the faults that were ordered before."""
    app, _ = an_app()
    async with Harness(app, start=T0) as h:
        h.store.fail("stats")
        with pytest.raises(StoreUnavailable, match="outage"), h.store.failing(error=StoreUnavailable("outage")):  # noqa: PT012
            assert h.tasks.of(Job) is not None  # looking needs no store that answers
            await h.enqueue(Job())
        await h.enqueue(Job())
        with pytest.raises(StoreUnavailable, match="the test let stats fail"):
            await h.client.stats()


async def test_an_outage_of_hours() -> None:
    """What becomes due while the store does not answer runs when it does; time goes on meanwhile."""
    app, ran = an_app()
    async with Harness(app, start=T0) as h:
        await h.enqueue(Job(), delay=60)
        with h.store.failing():
            await h.advance(7_200)
            assert (h.now, ran) == (at(7_200), [])
        await h.run_due()
        assert h.now == at(7_200)
    assert ran == ["job"]


async def test_a_worker_looks_again_soon() -> None:
    """After a few failures what is due starts within seconds, as it would elsewhere."""
    app, _ = an_app()
    async with Harness(app, start=T0) as h:
        task = await h.enqueue(Job())
        h.store.fail("due", times=3)
        await h.run_due()
        h.assert_completed(task)
        assert h.now <= at(5)


async def test_an_outage_that_does_not_end_is_told() -> None:
    """`run_due` goes on for weeks, then raises what the store said, also where that is none of our errors."""
    app, _ = an_app()
    for error in (StoreUnavailable("gone for good"), RuntimeError("a defect")):
        async with Harness(app, start=T0) as h:
            await h.enqueue(Job())
            h.store.fail("due", times=None, error=error)
            with pytest.raises(type(error), match=str(error)):
                await h.run_due()


async def test_a_late_answer() -> None:
    """A delay is virtual: the claim, and so the start, is that much later, and others are not held up by it."""
    app, instants = App(), list[Any]()

    @app.handler(Job)
    async def job(ctx: Context, _: Job) -> None:
        instants.append(h.now)

    async with Harness(app, start=T0) as h:
        h.store.delay("apply", by=2.5)
        await h.enqueue(Job())
        await h.advance(2.5 - 0.000001)
        assert instants == []
        await h.advance(MICROSECOND)
    assert instants == [at(2.5)]


async def test_an_answer_so_late_that_the_lease_has_ended() -> None:
    """Where a claim takes longer than its lease, the task is tried again, as after a crash."""
    app = App(retry=FixedDelay(2, 1))

    @app.handler(Job)
    async def job(ctx: Context, _: Job) -> int:
        await asyncio.sleep(20)
        return ctx.attempt

    async with Harness(app, start=T0) as h:
        task = await h.enqueue(Job(), timeout=30)
        h.store.delay("apply", by=300)
        await h.advance(1_000)
        h.assert_completed(task, result=2)
        assert [error.type for error in h.task(task).errors] == ["LeaseLost"]


@pytest.mark.parametrize(
    ("order", "named"),
    [
        (lambda store: store.fail("creat"), "'creat' is no verb of a store; there are: create, get, due"),
        (lambda store: store.delay("nothing", by=1), "'nothing' is no verb"),
        (lambda store: store.fail(times=0), "times must be a whole number, 1 or more, or None, not 0"),
        (lambda store: store.fail(times=True), "times must be"),
        (lambda store: store.fail(when="during"), "when must be 'before' or 'after', not 'during'"),
        (lambda store: store.delay(by=-1), "by must be more than zero"),
        (lambda store: store.fail("stats", when="after"), "'stats' writes nothing"),
    ],
    ids=["verb", "delayed verb", "times", "bool", "when", "by", "a read"],
)
async def test_wrong_arguments_are_named(order: Callable[[Any], object], named: str) -> None:
    """What cannot be ordered is refused, and nothing of it is."""
    async with Harness(App(), start=T0) as h:
        with pytest.raises(ValueError, match=named):
            order(h.store)
        await h.client.stats()


def test_every_verb_has_its_name() -> None:
    """The verbs are the methods of the store's port that are asked and answered."""
    from oncetask.store import TaskStore  # noqa: PLC0415  # it is the port itself that is looked at

    asked = {name for name in vars(TaskStore) if not name.startswith("_")}
    assert set(get_args(Verb)) <= asked
    others = {"open", "aclose", "now", "clock", "url", "env", "new_batch", "create_in", "change_in", "diagnose"}
    assert asked - set(get_args(Verb)) - others <= {"watch_due", "watch_tasks", "watch_settings"}
