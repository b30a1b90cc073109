"""The harness: what a test sees of its tasks, and what it is told where they are not as expected."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from oncetask import App, Context, FixedDelay, Payload, Recurrence, Task, TaskStatus
from oncetask.testing import Harness, Tasks
from tests.support import MICROSECOND, T0, at


class Mail(Payload, kind="mail"):
    """What fails where it says so."""

    to: str = "ada"
    fails: bool = False

    def resource_key(self) -> str:
        """One mail at a time to each."""
        return self.to


class Other(Payload, kind="other"):
    """Something else."""


def an_app() -> App:
    """Give an App that sends mails."""
    app = App(retry=FixedDelay(2, 60))

    @app.handler(Mail)
    async def mail(_: Context, mail: Mail) -> str:
        await asyncio.sleep(1)
        if mail.fails:
            raise ConnectionError("the mail server does not answer")
        return f"sent to {mail.to}"

    @app.handler(Other)
    async def other(_: Context, __: Other) -> None:
        """Do nothing."""

    return app


async def test_those_that_hold() -> None:
    """Each assertion passes where it is true, with all that it can be asked."""
    async with Harness(an_app(), start=T0) as h:
        good, bad = await h.enqueue(Mail()), await h.enqueue(Mail(to="bob", fails=True))
        cancelled, late = await h.enqueue(Other(), delay=60), await h.enqueue(Other(), delay=9_000, deadline=at(9_001))
        await h.run_due()
        h.assert_idle()
        h.assert_waiting(bad)
        h.assert_waiting(bad, until=at(61))
        await h.cancel(cancelled)
        await h.advance(600)
        h.assert_completed(good)
        h.assert_completed(good, result="sent to ada")
        h.assert_failed(bad)
        h.assert_failed(bad, match="does not .*swer")
        h.assert_failed(bad, error=ConnectionError)
        h.assert_cancelled(cancelled)
        await h.client.pause_kind(Other)
        await asyncio.sleep(9_000)
        await h.client.resume_kind(Other)
        await h.run_due()
        h.assert_expired(late)
        h.assert_enqueued(Mail)
        h.assert_enqueued(Mail, count=2)
        h.assert_enqueued(Mail(to="bob", fails=True), count=1)
        h.assert_enqueued(Mail(to="eve"), count=0)


CLAIMS: dict[str, tuple[Callable[[Harness, Task, Task], object], str]] = {
    "completed": (lambda h, _, bad: h.assert_completed(bad), "task bad should be done-completed, but it is not:"),
    "result": (
        lambda h, good, _: h.assert_completed(good, result="lost"),
        "task good should have the result 'lost', not 'sent to ada'",
    ),
    "failed": (lambda h, good, _: h.assert_failed(good), "task good should be done-failed"),
    "message": (lambda h, _, bad: h.assert_failed(bad, match="disk"), "should be one with a message like 'disk'"),
    "type": (lambda h, _, bad: h.assert_failed(bad, error=OSError), "last error of task bad should be OSError"),
    "both": (
        lambda h, _, bad: h.assert_failed(bad, match="disk", error=OSError),
        "should be OSError with a message like 'disk'",
    ),
    "cancelled": (lambda h, _, bad: h.assert_cancelled(bad), "task bad should be done-cancelled"),
    "expired": (lambda h, _, bad: h.assert_expired(bad), "task bad should be done-expired"),
    "waiting": (lambda h, _, bad: h.assert_waiting(bad), "task bad should wait:"),
}
"""What is not so, of a mail that was sent and one that failed; and what is said then."""


@pytest.mark.parametrize("claim", CLAIMS)
async def test_those_that_do_not_hold(claim: str) -> None:
    """Each tells what should be, and how the task stands: its kind, its id, its status, attempts and errors."""
    check, message = CLAIMS[claim]
    async with Harness(an_app(), start=T0) as h:
        good = await h.run(Mail(), task_id="good")
        bad = await h.run(Mail(fails=True), task_id="bad")
        with pytest.raises(AssertionError) as raised:
            check(h, good, bad)
    text = str(raised.value)
    assert message in text
    if claim != "result":
        data = "data {'to': 'ada', 'fails': %s}"
        shown = f"mail good: done-completed, attempts 1, key ada, result 'sent to ada', {data % False}"
        if "bad" in message or claim in {"message", "both"}:
            errors = [f"\n    attempt {n}: ConnectionError: the mail server does not answer" for n in (1, 2)]
            shown = f"mail bad: done-failed, attempts 2, key ada, {data % True}{''.join(errors)}"
        assert text.endswith(shown)


async def test_waiting_until_another_instant() -> None:
    """The message names the instant that was expected, and the one that it is."""
    async with Harness(an_app(), start=T0) as h:
        task = await h.enqueue(Mail(), delay=60, task_id="later")
        h.assert_waiting(task, until=at(60))
        with pytest.raises(AssertionError) as raised:
            h.assert_waiting(task, until=at(60) + MICROSECOND)
    assert "should wait until 2030-01-01T00:01:00.000001+00:00:\nmail later: waiting" in str(raised.value)
    assert "next look 2030-01-01T00:01:00+00:00" in str(raised.value)


async def test_what_is_due_or_runs_is_not_idle() -> None:
    """What is due, what runs, and what is to be cleaned up are shown; what waits for later is not."""
    async with Harness(an_app(), start=T0) as h:
        await h.enqueue(Mail(), task_id="runs")
        await h.enqueue(Mail(), task_id="due")
        await h.enqueue(Mail(), delay=60, task_id="later")
        await h.advance(0.5)
        await h.enqueue(Other(), delay=60, task_id="to-clean")
        await h.cancel("to-clean")
        with pytest.raises(AssertionError) as raised:
            h.assert_idle()
    text = str(raised.value)
    assert [line.split(":")[0] for line in text.splitlines()[1:]] == ["mail runs", "mail due", "other to-clean"]


async def test_what_was_not_enqueued() -> None:
    """The message says how many there should be, of what, and shows those that there are."""
    async with Harness(an_app(), start=T0) as h:
        await h.enqueue(Mail(), task_id="one")
        with pytest.raises(
            AssertionError, match=r"at least one task with Mail\(to='eve', fails=False\), not 0;(.|\n)*'ada'"
        ):
            h.assert_enqueued(Mail(to="eve"))
        with pytest.raises(
            AssertionError, match=r"should be 2 tasks of kind 'mail', not 1; of this kind there are:\nmail one"
        ):
            h.assert_enqueued(Mail, count=2)
        with pytest.raises(
            AssertionError, match=r"should be 1 task of kind 'other', not 0; of this kind there are:\n\(no tasks"
        ):
            h.assert_enqueued(Other, count=1)


async def test_tasks_are_narrowed_down() -> None:
    """Kinds, statuses, keys and recurrences select; what is left is a sequence in the order of enqueueing."""
    async with Harness(an_app(), start=T0) as h:
        for to in ("ada", "bob", "ada"):
            await h.enqueue(Mail(to=to))
        generator = await h.enqueue(Other(), recurrence=Recurrence.every(60))
        await h.advance(150)
        mails = h.tasks.of(Mail)
        assert [mail.to for mail in mails.payloads(Mail)] == ["ada", "bob", "ada"]
        assert (len(h.tasks), len(mails), len(h.tasks.of("other"))) == (6, 3, 3)
        assert mails[0].id == mails[:1].one().id == next(iter(mails)).id
        assert isinstance(mails[1:], Tasks)
        assert len(mails.with_key("ada")) == 2
        assert mails[1] in mails.with_key("bob")
        assert len(h.tasks.with_status("waiting", TaskStatus.DONE_COMPLETED)) == 6
        occurrences = h.tasks.spawned_by(generator)
        assert [task.occurrence_timestamp for task in occurrences] == [at(60), at(120)]
        assert len(h.tasks.spawned_by(h.task(generator))) == len(h.tasks.spawned_by(generator.task_id)) == 2
        assert not h.tasks.with_key("nobody")


async def test_the_only_one() -> None:
    """`one` gives it, and shows what there is where it is not the only one, or is not there."""
    async with Harness(an_app(), start=T0) as h:
        with pytest.raises(AssertionError, match=r"should be one task, not 0:\n\(no tasks\)"):
            h.tasks.one()
        for task_id in "ab":
            await h.enqueue(Mail(), task_id=task_id)
        with pytest.raises(AssertionError, match=r"should be one task, not 2:\nmail a: pending.*\nmail b: pending"):
            h.tasks.one()


async def test_a_status_that_there_is_not() -> None:
    """A misspelt status raises instead of selecting nothing; a task that there is not likewise."""
    async with Harness(an_app(), start=T0) as h:
        with pytest.raises(ValueError, match="'finished' is not a valid TaskStatus"):
            h.tasks.with_status("finished")


async def test_a_task_is_as_it_was_when_it_was_looked_at() -> None:
    """What `h.tasks` and `h.task` have given does not change; asked again they give the new state."""
    async with Harness(an_app(), start=T0) as h:
        task = await h.enqueue(Mail())
        before, listed = h.task(task), h.tasks
        await h.run_due()
        assert before.status == listed.one().status == TaskStatus.PENDING
        assert h.tasks.one().status is TaskStatus.DONE_COMPLETED


async def test_it_describes_itself() -> None:
    """Before, during and after it tells what there is to tell."""
    harness = Harness(an_app(), start=T0)
    assert harness.describe() == "(not entered)"
    async with harness as h:
        await h.run(Mail(), task_id="m")
        during = h.describe()
    assert during.startswith("at 2030-01-01T00:00:01+00:00\nmail m: done-completed, attempts 1, key ada, result")
    assert harness.describe() == during


async def test_one_that_was_not_entered_says_so() -> None:
    """Whatever is asked of it, it tells how it is to be used; a name that there is not is told as usual."""
    harness = Harness(an_app())
    for ask in (lambda: harness.tasks, lambda: harness.store, lambda: harness.client, lambda: harness.now):
        with pytest.raises(RuntimeError, match=r"async with Harness\(app\) as h:"):
            ask()
    for wait in (harness.run_due, harness.crash, lambda: harness.enqueue(Mail())):
        with pytest.raises(RuntimeError, match=r"async with Harness\(app\) as h:"):
            await wait()
    with pytest.raises(AttributeError, match="'Harness' object has no attribute 'result'"):
        _ = harness.result  # type: ignore[attr-defined]  # it is the point
