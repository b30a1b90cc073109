"""What a new task is made of: a payload, what the caller says beside it, and the store's time."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TypedDict

from oncetask import lifecycle
from oncetask.clock import EPOCH, Duration, Now, check_instant, seconds
from oncetask.ids import new_id
from oncetask.payload import Payload, check_indexed, check_resource_key, check_task_id, derive_task_id
from oncetask.recurrence import Recurrence, begin
from oncetask.store.fitting import check_size
from oncetask.task import Task

__all__ = ["EnqueueOptions", "ScheduleOptions", "new_task"]


_BLANK = Task(id="", kind="", data={}, wait_until=EPOCH, created_at=EPOCH)
"""What new tasks are copies of: that costs a fifth of making them of nothing."""


class ScheduleOptions(TypedDict, total=False):
    """What `App.schedule` takes beside payload and recurrence. Left out is not None, as in `EnqueueOptions`."""

    resource_key: str | None
    """Tasks with the same one run one at a time; None: no key."""
    timeout: Duration
    """The time limit of one attempt, in seconds or as a timedelta; left out: the handler's, else the app's."""
    deadline: datetime
    """The instant (aware) at which the task ends `done-expired`, whether it runs or not, unless it is done by then;
    left out: the handler's, else the app's. It has to be later than `wait_until`. A generator spawns nothing from
    there on, and its occurrences have it too."""
    owner: str | None
    """The end user this task belongs to, for filters and security rules."""


class EnqueueOptions(ScheduleOptions, total=False):
    """What `enqueue` takes beside the payload. Left out is not None: it means what the payload or handler says."""

    task_id: str
    """The literal id; left out: from the payload's idempotency key, else random."""
    wait_until: datetime
    """Not before this instant (aware)."""
    delay: Duration
    """Not before so many seconds (or this timedelta) from now."""
    recurrence: Recurrence | None
    """Makes the task a generator, which spawns an occurrence at each instant; None: once, whatever the payload says."""


def new_task(payload: Payload, options: EnqueueOptions, now: Now, *, place: int = 0) -> Task:
    """Make the record of a new task. `place`: its position among those enqueued together."""
    if not isinstance(payload, Payload):
        msg = f"payload must be an instance of a Payload class, not {payload!r}"
        raise TypeError(msg)
    if options and (unknown := set(options) - set(EnqueueOptions.__annotations__)):
        msg = f"unknown option {min(unknown)!r}; there are: {', '.join(EnqueueOptions.__annotations__)}"
        raise TypeError(msg)
    data = payload.to_data()
    check_size(data=data)
    created_at = now.earliest + timedelta(microseconds=place)
    recurrence = _recurrence(payload, options)
    wait_until = begin(recurrence, now.earliest) if recurrence else _wait_until(payload, options, now.earliest)
    key = options["resource_key"] if "resource_key" in options else payload.resource_key()
    task = _BLANK.evolve(
        id=_task_id(payload, options),
        kind=payload.kind,
        data=data,
        resource_key=check_resource_key(key),
        wait_until=wait_until or created_at,
        created_at=created_at,
        timeout=seconds("timeout", options["timeout"]) if "timeout" in options else None,
        deadline=_deadline(options["deadline"], wait_until) if "deadline" in options else None,
        owner=check_indexed("owner", options.get("owner")),
        recurrence=recurrence.to_fields() if recurrence else None,
        create_id=new_id(),
    )
    return task.evolve(due_at=lifecycle.due_at(task))


def _task_id(payload: Payload, options: EnqueueOptions) -> str:
    if "task_id" in options:
        return check_task_id(options["task_id"])
    key = payload.idempotency_key()
    return new_id() if key is None else derive_task_id(payload.kind, key)


def _recurrence(payload: Payload, options: EnqueueOptions) -> Recurrence | None:
    recurrence = options["recurrence"] if "recurrence" in options else payload.recurrence()
    if recurrence is None:
        return None
    if not isinstance(recurrence, Recurrence):
        msg = f"recurrence must be a Recurrence such as Recurrence.cron('0 9 * * MON'), or None, not {recurrence!r}"
        raise TypeError(msg)
    waits = {
        "wait_until": options.get("wait_until", payload.wait_until()),
        "delay": options.get("delay"),
    }
    for name, value in waits.items():
        if value is not None:
            msg = f"{name} and a recurrence exclude each other: {value!r} and {recurrence!r} (let its dtstart say it)"
            raise ValueError(msg)
    return recurrence


def _wait_until(payload: Payload, options: EnqueueOptions, now: datetime) -> datetime | None:
    if "delay" in options:
        if "wait_until" in options:
            msg = f"wait_until and delay exclude each other: {options['wait_until']!r} and {options['delay']!r}"
            raise ValueError(msg)
        return now + timedelta(seconds=seconds("delay", options["delay"], zero=True))
    instant = options["wait_until"] if "wait_until" in options else payload.wait_until()
    return None if instant is None else check_instant("wait_until", instant)


def _deadline(deadline: datetime, wait_until: datetime | None) -> datetime:
    """Check a deadline. One that has passed is fine: such a task ends at once, and its error handlers are told."""
    instant = check_instant("deadline", deadline)
    if wait_until is not None and instant <= wait_until:
        msg = f"deadline must be later than wait_until, {wait_until}, not {deadline!r}: the task could never run"
        raise ValueError(msg)
    return instant
