"""Handlers with `run_in="process"`: they run elsewhere, and are killed when they have to stop."""

from __future__ import annotations

import asyncio
import logging
import os
import select
import signal
import threading
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from oncetask import App, Client, Context, Payload, Task, TaskStatus, Worker
from tests.integration.stores import ON_SQLITE
from tests.integration.worker.in_process import Crunch, Other, Pair, app_of
from tests.integration.worker.support import LIMIT, SOON, done

pytestmark = pytest.mark.timeout(90)  # each test starts processes


async def outcome(client: Client, do: str, *, worker: dict[str, Any] | None = None, **options: Any) -> Task:
    """Run one job to its end; `options`: the handler's."""
    async with Worker(app_of(**options), client, **{"processes": 1, **(worker or {})}):
        receipt = await client.enqueue(Crunch(do=do))
        return await client.wait(receipt.task_id, LIMIT)


async def ran(client: Client, jobs: Sequence[Payload]) -> list[Task]:
    """Enqueue jobs, and wait until all of them are done."""
    return await done(client, *[receipt.task_id for receipt in await client.enqueue_many(jobs)])


async def begun(client: Client, task_id: str) -> int:
    """Wait until a handler has begun, and give the process that it runs in."""
    async with asyncio.timeout(LIMIT):
        async for task in client.watch(task_id):
            if task.progress is not None:
                break
    assert task.progress is not None
    return int(task.progress.data)


def is_alive(pid: int) -> bool:
    """Tell whether there is such a process, other than one that has ended and that nobody has asked about."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in {"Z", "X"}


async def test_it_runs_in_another_process(connected: Client) -> None:
    """The handler runs elsewhere, in the same process for one task after the other; its result comes back as JSON."""
    async with Worker(app_of(), connected, processes=1):
        first, second = await ran(connected, [Crunch(n=1), Crunch(n=2)])
    assert first.result["pid"] == second.result["pid"] != os.getpid()
    assert (first.result["n"], second.result["at"]) == (1, "2030-01-01T00:00:00Z")


async def test_the_context_is_at_hand(connected: Client) -> None:
    """Id, attempt, token and time limit are known there too."""
    task = await outcome(connected, "look around", timeout=20)
    task_id, kind, attempt, token, remaining, deadline = task.result
    assert (task_id, kind, attempt) == (task.id, "crunch", 1)
    assert token > 0
    assert 0 < remaining <= 20
    assert task.started_at is not None
    assert task.started_at < datetime.fromisoformat(deadline) <= task.started_at + timedelta(seconds=60)


@ON_SQLITE
@pytest.mark.parametrize("do", ["client", "state", "batch"])
async def test_what_stays_in_the_workers_process_says_so(connected: Client, do: str) -> None:
    """Client, state and batch are the worker's; the error says what to do instead."""
    task = await outcome(connected, do)
    assert [error.type for error in task.errors] == ["Unsupported"]
    assert "stay" in task.errors[0].message


async def test_it_is_killed_at_its_limit_and_retried(connected: Client) -> None:
    """A handler that keeps a CPU busy ends at its time limit; the attempt is a timeout, and the next one runs."""
    task = await outcome(connected, "spin once", timeout=0.2, retry=SOON)
    assert (task.status, task.result, task.attempts) == (TaskStatus.DONE_COMPLETED, "in time", 2)
    assert [error.type for error in task.errors] == ["TaskTimeout"]


async def test_nothing_of_a_killed_handler_runs_on(connected: Client) -> None:
    """When a timeout is recorded, the process is gone, and what it said last of its progress is kept."""
    task = await outcome(connected, "spin", timeout=0.2)
    assert task.errors[0].type == "TaskTimeout"
    assert task.progress is not None
    assert not is_alive(task.progress.data)


@ON_SQLITE
async def test_one_that_ignores_the_polite_signal_is_killed_as_well(connected: Client) -> None:
    """A process that ignores SIGTERM gets SIGKILL."""
    task = await outcome(connected, "be stubborn", timeout=0.2, worker={"abort_grace": 10})
    assert task.errors[0].type == "TaskTimeout"


async def test_a_deadline_kills_it_too(connected: Client) -> None:
    """At the task's deadline the process is killed, and the task is done-expired."""
    async with Worker(app_of(), connected, processes=1):
        warm = await connected.enqueue(Crunch())
        await connected.wait(warm.task_id, LIMIT)  # the process is there
        deadline = (await connected.store.now()).latest + timedelta(seconds=0.4)
        receipt = await connected.enqueue(Crunch(do="spin"), deadline=deadline)
        task = await connected.wait(receipt.task_id, LIMIT)
        assert task.progress is not None
        assert not is_alive(task.progress.data)
    assert (task.status, task.attempts) == (TaskStatus.DONE_EXPIRED, 1)


async def test_a_cancel_kills_it(connected: Client) -> None:
    """A cancelled task's process is killed before its cleanup begins."""
    app, alive = app_of(), list[bool]()

    @app.cancellation_handler(Crunch)
    async def clean_up(ctx: Context, _: Crunch) -> None:
        assert ctx.task.progress is not None
        alive.append(is_alive(ctx.task.progress.data))

    async with Worker(app, connected, processes=1):
        receipt = await connected.enqueue(Crunch(do="spin"))
        await begun(connected, receipt.task_id)
        assert await connected.cancel_task(receipt.task_id)
        task = await connected.wait(receipt.task_id, LIMIT)
    assert (task.status, alive) == (TaskStatus.DONE_CANCELLED, [False])


async def test_a_shutdown_gives_it_back(connected: Client) -> None:
    """What still runs after the grace is killed, and goes back with its attempt unspent."""
    async with Worker(app_of(), connected, processes=1, grace=0):
        receipt = await connected.enqueue(Crunch(do="spin"))
        pid = await begun(connected, receipt.task_id)
    task = await connected.get_task(receipt.task_id)
    assert (task.status, task.attempts, task.errors) == (TaskStatus.PENDING, 0, ())
    assert not is_alive(pid)


@ON_SQLITE
@pytest.mark.parametrize(
    ("do", "kind", "told"),
    [
        ("raise", "ValueError", "bad luck"),
        ("raise a timeout", "TimeoutError", "my own"),
        ("discard", "Discard", "for good"),
        ("fail unsayably", "RuntimeError", "Unsayable: 1 and 2"),
        ("exit", "RuntimeError", "tried to end its process: SystemExit(3)"),
        ("return an object", "UnstorableResult", "a Here, cannot be stored as JSON"),
        ("die", "ProcessDied", "killed by SIGKILL"),
        ("segfault", "ProcessDied", "killed by SIGSEGV"),
        ("leave", "ProcessDied", "exit code 4"),
        ("leave well", "ProcessDied", "exit code 0"),
        ("die while it answers", "ProcessDied", "killed by SIGKILL"),
    ],
)
async def test_a_failure_is_recorded_as_what_it_is(connected: Client, do: str, kind: str, told: str) -> None:
    """What a handler raises comes back; the death of its process is a failure that says how it died."""
    task = await outcome(connected, do)
    assert task.status is TaskStatus.DONE_FAILED
    assert task.errors[0].type == kind
    assert told in task.errors[0].message


@ON_SQLITE
async def test_an_unstorable_result_is_final(connected: Client) -> None:
    """As everywhere, trying again would only repeat the work."""
    task = await outcome(connected, "return an object", retry=SOON)
    assert (task.status, task.attempts) == (TaskStatus.DONE_FAILED, 1)


@ON_SQLITE
async def test_the_process_after_a_dead_one_works(connected: Client) -> None:
    """A handler that takes its process down each time does not keep the others from running."""
    async with Worker(app_of(), connected, processes=1):
        jobs = [Crunch(do="die"), Crunch(n=1), Crunch(do="leave"), Crunch(n=2)]
        tasks = await ran(connected, jobs)
    assert [task.status for task in tasks] == [TaskStatus.DONE_FAILED, TaskStatus.DONE_COMPLETED] * 2


@ON_SQLITE
async def test_an_idle_process_that_dies_is_replaced(connected: Client) -> None:
    """Somebody kills a process that has nothing to do: the next task finds another one."""
    async with Worker(app_of(retry=SOON), connected, processes=1):
        first = await connected.wait((await connected.enqueue(Crunch())).task_id, LIMIT)
        dying = os.pidfd_open(first.result["pid"])
        os.kill(first.result["pid"], signal.SIGKILL)
        assert await asyncio.to_thread(select.select, [dying], [], [], LIMIT) == ([dying], [], [])
        os.close(dying)
        second = await connected.wait((await connected.enqueue(Crunch())).task_id, LIMIT)
    assert second.status is TaskStatus.DONE_COMPLETED
    assert second.result["pid"] != first.result["pid"]


@ON_SQLITE
@pytest.mark.parametrize(("do", "result", "attempts"), [("retry", "again", 2), ("snooze", "slept", 1)])
async def test_instructions_cross_the_border(connected: Client, do: str, result: str, attempts: int) -> None:
    """`RetryAfter` and `Snooze` mean there what they mean here."""
    task = await outcome(connected, do, retry=SOON)
    assert (task.result, task.attempts) == (result, attempts)


@pytest.mark.parametrize("do", ["enqueue", "enqueue and fail"])
async def test_what_it_stages_comes_with_its_completion(connected: Client, do: str) -> None:
    """A task that it enqueues is stored together with its success, or not at all."""
    await outcome(connected, do)
    found = await connected.get_tasks_by_ids(["staged"])
    assert len(found) == (do == "enqueue")


async def test_its_progress_is_stored(connected: Client) -> None:
    """What it says last of how far it is stays with the task."""
    task = await outcome(connected, "tell progress")
    assert task.progress is not None
    assert (task.progress.fraction, task.progress.message, task.progress.data) == (0.999, "step 999", [[999]])


@ON_SQLITE
async def test_its_log_is_the_workers(connected: Client, caplog: pytest.LogCaptureFixture) -> None:
    """Log records come to the worker's process with what they carry, as far as somebody wants them."""
    caplog.set_level(logging.INFO)
    await outcome(connected, "log")
    records = {record.name: record for record in caplog.records}
    assert (records["somebody"].getMessage(), records["somebody"].color) == ("from there", "red")  # type: ignore[attr-defined]
    assert "by the context" in records["oncetask.task.crunch"].getMessage()
    assert "not wanted" not in caplog.text


@ON_SQLITE
async def test_what_was_said_last_survives_a_kill(connected: Client) -> None:
    """Of two progresses in a row the second one is stored too, and the next attempt has it."""
    task = await outcome(connected, "tell one after the other", timeout=0.4)
    assert task.progress is not None
    assert (task.progress.fraction, task.progress.message) == (0.5, "two")


@ON_SQLITE
async def test_a_thread_of_an_earlier_task_speaks_for_nobody(connected: Client) -> None:
    """What goes on in the process after its handler's end cannot tell the progress of the next task."""
    async with Worker(app_of(), connected, processes=1):
        jobs = [Crunch(do="leave a thread"), Crunch(do="look around")]
        before, after = await ran(connected, jobs)
    assert before.result is None
    assert after.progress is not None
    assert after.progress.message == "begun"


@ON_SQLITE
async def test_a_log_record_that_cannot_be_sent_is_sent_as_text(
    connected: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """What no other process can read arrives as its text, and the process goes on to serve."""
    async with Worker(app_of(), connected, processes=1):
        jobs = [Crunch(do="log what is not for others"), Crunch(n=1)]
        tasks = await ran(connected, jobs)
    assert [task.status for task in tasks] == [TaskStatus.DONE_COMPLETED] * 2
    (record,) = [record for record in caplog.records if "will try later" in record.getMessage()]
    assert "Unsayable" in record.error  # type: ignore[attr-defined]  # what was given as extra


@ON_SQLITE
async def test_a_neighbour_is_none_the_worse(connected: Client) -> None:
    """While handlers die, whatever they are at, those beside them run to their end."""
    async with Worker(app_of(), connected, processes=2):
        jobs = [Crunch(do="die while it answers" if n % 2 else "tell", n=n) for n in range(20)]
        tasks = await ran(connected, jobs)
    assert {task.status for task in tasks[::2]} == {TaskStatus.DONE_COMPLETED}


@ON_SQLITE
async def test_what_a_handler_has_forked_is_killed_with_it(connected: Client) -> None:
    """A kill takes along the processes that a handler has started."""
    task = await outcome(connected, "fork and spin", timeout=0.4)
    assert task.errors[0].type == "TaskTimeout"
    assert task.progress is not None
    assert not is_alive(task.progress.data)


@ON_SQLITE
async def test_a_batch_runs_there_too(connected: Client) -> None:
    """A batch handler with `run_in` gets its payloads as a list."""
    receipts = await connected.enqueue_many([Pair(n=1), Pair(n=2)])
    async with Worker(app_of(), connected, processes=1):
        tasks = await done(connected, *[r.task_id for r in receipts])
    assert [task.result[1:] for task in tasks] == [[1, 2], [1, 2]]
    assert tasks[0].result[0] != os.getpid()


@ON_SQLITE
async def test_no_more_run_than_there_are_processes(connected: Client, tmp_path: Path) -> None:
    """All kinds that need a process share them: what is claimed begins at once, and its limit counts from there."""
    trace = tmp_path / "trace"
    jobs = [Other(trace=trace) if n % 2 else Crunch() for n in range(12)]
    receipts = await connected.enqueue_many(jobs)
    async with Worker(app_of(timeout=10), connected, processes=1, concurrency=8):
        tasks = await done(connected, *[r.task_id for r in receipts])
    assert {task.status for task in tasks} == {TaskStatus.DONE_COMPLETED}
    assert trace.read_text().split() == ["start", "end"] * 6


async def test_nothing_is_left_behind(connected: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a worker has stopped there is no process, thread, asyncio task or file of it."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    threads, asyncio_tasks = set(threading.enumerate()), asyncio.all_tasks()
    async with Worker(app_of(timeout=0.2), connected, processes=2):
        for jobs in ([Crunch(do="spin"), Crunch(do="die")], [Crunch()]):
            await ran(connected, jobs)
        children = _children()
        assert children
    assert not [pid for pid in children if is_alive(pid)]
    for thread in set(threading.enumerate()) - threads:
        thread.join(LIMIT)  # it has told its result, and is about to end
        assert not thread.is_alive(), thread
    assert asyncio.all_tasks() <= asyncio_tasks
    assert not list(scratch.iterdir())


def _children() -> list[int]:
    """Give the processes of the pool; what else multiprocessing starts, once, is the interpreter's."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent, command = stat.read_text().rsplit(")", 1)[1].split()[1], (stat.parent / "cmdline").read_text()
        except OSError:
            continue
        if int(parent) == os.getpid() and "spawn_main" in command:
            found.append(int(stat.parent.name))
    return found


class Local(Payload, kind="local"):
    """A payload that another process can import."""


def _shadowed(_: Context, __: Local) -> None:
    """Is not what its name means any more."""


_first = _shadowed


def _shadowed(_: Context, __: Local) -> None:  # type: ignore[no-redef]  # the very point
    """Has its name."""


@ON_SQLITE
def test_what_another_process_cannot_import_is_refused(connected: Client) -> None:
    """A function or a payload class that is not found by its name is refused when the worker is made."""

    class Nested(Payload, kind="nested"):
        """Nobody finds this one."""

    cases: list[tuple[type[Payload], Any, str]] = [(Local, _first, "_shadowed"), (Nested, _shadowed, "Nested")]
    for payload_type, function, told in cases:
        app = App()
        app.handler(payload_type, run_in="process")(function)
        with pytest.raises(TypeError, match=f"kind '{payload_type.kind}' with run_in='process' .*{told}"):
            Worker(app, connected)
