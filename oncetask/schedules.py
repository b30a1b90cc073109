"""Schedules that Apps declare in their code: brought about in the store, and compared with what is there.

A declared schedule is a generator whose id is made of the App's name and its own. What an App declared last stands in
the settings of the environment, as a fingerprint of each: a start that changes nothing reads those and writes nothing.
Two services may share an environment, and two versions of one: so what is not declared any more is only shown.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from oncetask import lifecycle
from oncetask.clock import EPOCH, Now
from oncetask.enqueueing import EnqueueOptions, ScheduleOptions, new_task
from oncetask.errors import InvalidRecurrence
from oncetask.ids import new_id
from oncetask.payload import check_task_id
from oncetask.recurrence import Recurrence
from oncetask.store import TaskFilter
from oncetask.task import occurrence_id

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Mapping, Sequence

    from oncetask.lifecycle import Transition
    from oncetask.payload import Payload
    from oncetask.store import Settings, TaskStore
    from oncetask.task import Task
    from oncetask.telemetry import Listener

__all__ = ["Found", "Schedule", "prune", "reconcile", "survey"]

_FIELD, _PRUNED = "schedules", "pruned"
_CHUNK = 500
_APP, _NAME = lifecycle.DECLARED_BY
_log = logging.getLogger("oncetask")


@dataclass(frozen=True, slots=True)
class Schedule:
    """A generator that an App declares."""

    app: str
    """The name of the App."""
    name: str
    payload: Payload
    recurrence: Recurrence
    options: ScheduleOptions

    @property
    def task_id(self) -> str:
        """The id of the generator."""
        return f"{self.app}:{self.name}"

    def check(self) -> None:
        """Raise what `enqueue` would raise, but for a rule that has run out by now."""
        for what, name in (("name", self.name), ("the app's name", self.app)):
            if re.fullmatch(r"__.*__", name):
                msg = f"{what} may not be of the form __…__ (Firestore reserves these), not {name!r}"
                raise ValueError(msg)
        try:
            check_task_id(self.task_id)
        except ValueError as error:
            msg = f"name {self.name!r} in app {self.app!r} gives the id of a task, and {error}"
            raise ValueError(msg) from error
        self.generator(Now(EPOCH, EPOCH))

    def generator(self, now: Now) -> Task:
        """Give the generator as it would be created now. Raises InvalidRecurrence where its rule has run out."""
        options = EnqueueOptions(task_id=self.task_id, recurrence=self.recurrence)
        task = new_task(self.payload, {**self.options, **options}, now)
        return task.evolve(recurrence={**(task.recurrence or {}), _APP: self.app, _NAME: self.name})

    def fingerprint(self) -> str:
        """Tell one declaration from another: equal for equal ones, in every process."""
        task = self.generator(Now(EPOCH, EPOCH))
        content = [task.kind, task.data, task.resource_key, task.timeout, task.deadline, task.owner, task.recurrence]
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=_as_text).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Found:
    """A generator that is in the store, declared or enqueued."""

    task: Task
    recurrence: Recurrence | None
    """None: it cannot be read, and `problem` says why."""
    problem: str
    last: Task | None
    """The last occurrence, where it still exists."""
    is_vanished: bool
    """An App declared it, and does not do so any more."""

    @property
    def name(self) -> str:
        """What it is called in the code; of one that was enqueued its id."""
        name = (self.task.recurrence or {}).get(_NAME)
        return name if isinstance(name, str) else self.task.id


async def reconcile(
    store: TaskStore,
    apps: Collection[str],
    schedules: Sequence[Schedule],
    telemetry: Listener,
    settings: Settings | None = None,
) -> bool:
    """Bring about what these Apps declare, each of them once, however many workers start together.

    Tells whether there was anything to do. `settings`: as they were just read. Raises StoreUnavailable; what was done
    by then is done, and found so at the next try.
    """
    is_new = False
    for app in apps:
        own = {schedule.name: schedule for schedule in schedules if schedule.app == app}
        fingerprints = {name: schedule.fingerprint() for name, schedule in own.items()}
        while True:
            settings = settings or await store.settings()
            declared = _declared(settings)
            known = declared.get(app, {})
            if known == fingerprints:
                break
            is_new = True
            done = {
                name: fingerprints[name]
                for name, schedule in own.items()
                if known.get(name) == fingerprints[name] or await _bring_about(store, schedule, telemetry)
            }
            before, settings = settings, None
            if done == known or await _written(store, before, {_FIELD: {**declared, app: done}}):
                break
    return is_new


async def survey(store: TaskStore) -> list[Found]:
    """Find all generators, with the last occurrence of each."""
    declared = _declared(await store.settings())
    generators = [task async for task in _generators(store)]
    last_ids = [occurrence_id(g.id, g.occurrence_timestamp) for g in generators if g.occurrence_timestamp]
    last = {task.id: task for task in await store.get(last_ids) if task is not None}
    return [_found(task, declared, last) for task in generators]


async def prune(store: TaskStore, vanished: Sequence[Task], telemetry: Listener) -> list[str]:
    """Cancel generators that no code declares any more; gives the ids of those that this call cancelled.

    Raises StoreUnavailable, or the error of a task that cannot be written.
    """
    pruned: dict[str, Task] = {}
    left = list(vanished)
    while left or pruned:
        settings, now = await store.settings(), await store.now()
        gone = [task for task in left if _is_vanished(task, _declared(settings))]
        steps = [step for task in gone if (step := lifecycle.prune(task, now=now)) is not None]
        refused: list[str] = []
        for step in steps:
            if await _applied(store, step, telemetry):
                pruned[step.before.id] = step.before
            else:
                refused.append(step.before.id)
        # A start may have read the settings before this, and found its schedule as it declares it: it writes them
        # last, so that it is refused by this, or this by it. Whoever is refused looks again.
        if await _written(store, settings, {_PRUNED: new_id()}) and not refused:
            break
        left = [task for task in await store.get(refused) if task is not None]
        declared = _declared(await store.settings())
        for task in [task for task in pruned.values() if not _is_vanished(task, declared)]:
            await _bring_back(store, task, telemetry)
            del pruned[task.id]
    return list(pruned)


async def _bring_back(store: TaskStore, task: Task, telemetry: Listener) -> None:
    """Undo the pruning of a generator that somebody declared at the same moment."""
    while True:
        (found,) = await store.get([task.id])
        if found is None or _APP in (found.recurrence or {}):
            return  # whoever declared it has brought it about
        step = lifecycle.redeclare(found, task)
        if step is None or await _applied(store, step, telemetry):
            return


async def _bring_about(store: TaskStore, schedule: Schedule, telemetry: Listener) -> bool:
    """Create the generator of a schedule, or change the one that there is; whoever was faster did the same.

    False: it cannot be, and is told.
    """
    while True:
        now = await store.now()
        (found,) = await store.get([schedule.task_id])
        if found is not None and not _is_own(found, schedule):
            _log.error("schedule %r is not brought about: its id belongs to another task", schedule.task_id)
            return False
        try:
            generator = schedule.generator(now)
        except ValueError as error:  # no instant left, or none before its deadline
            _log.warning("schedule %r has run out: %s", schedule.task_id, error)
            step = None if found is None else lifecycle.cancel(found, now=now)
        else:
            if found is None:
                (created,) = await store.create([generator])
                if created.error is not None:
                    raise created.error
                if created.applied:
                    _log.info("schedule %r is new, and due at %s", schedule.task_id, generator.wait_until)
                    return True
                continue
            step = lifecycle.redeclare(found, generator)
        if step is None or await _applied(store, step, telemetry):
            return True


async def _written(store: TaskStore, before: Settings, changes: Mapping[str, Any]) -> bool:
    written = await store.write_settings(before, changes)
    if written.error is not None:
        raise written.error
    return written.applied


async def _applied(store: TaskStore, step: Transition, telemetry: Listener) -> bool:
    (written,) = await store.apply([step])
    if written.error is not None:
        raise written.error
    if written.applied:
        telemetry.changed(step)
    return written.applied


def _is_own(found: Task, schedule: Schedule) -> bool:
    declared_by = (found.recurrence or {}).get(_APP, schedule.app)
    return lifecycle.is_generator(found) and declared_by == schedule.app


def _declared(settings: Settings) -> dict[str, dict[str, str]]:
    """Read what Apps declared last, whoever wrote it."""
    stored = settings.fields.get(_FIELD)
    if not isinstance(stored, dict):
        return {}
    return {str(app): dict(names) for app, names in stored.items() if isinstance(names, dict)}


def _is_vanished(task: Task, declared: Mapping[str, Mapping[str, str]]) -> bool:
    """Tell whether an App declared a generator, and does not do so any more."""
    app, name = ((task.recurrence or {}).get(field) for field in lifecycle.DECLARED_BY)
    return app is not None and str(name) not in declared.get(str(app), {})


async def _generators(store: TaskStore) -> AsyncIterator[Task]:
    after: str | None = None
    while True:
        found = await store.find(TaskFilter(generators=True), limit=_CHUNK, after=after)
        for task in found:
            yield task
        if len(found) < _CHUNK:
            return
        after = found[-1].id


def _found(task: Task, declared: Mapping[str, Mapping[str, str]], last: Mapping[str, Task]) -> Found:
    fields = task.recurrence or {}
    last_id = occurrence_id(task.id, task.occurrence_timestamp) if task.occurrence_timestamp else None
    problem, recurrence = "; ".join(task.problems), None
    try:
        recurrence = Recurrence.from_fields(fields)
    except InvalidRecurrence as error:
        problem = str(error)
    return Found(
        task=task,
        recurrence=recurrence,
        problem=problem,
        last=last.get(last_id or ""),
        is_vanished=_is_vanished(task, declared),
    )


def _as_text(value: object) -> Any:  # of what a generator holds only instants are no JSON
    return value.isoformat() if isinstance(value, datetime) else repr(value)
