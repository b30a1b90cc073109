"""Laws on schedules: which instants become occurrences, once each, given pauses and cancels."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from tests.simulation.book import Book, Law
from tests.simulation.instants import first_after, is_instant
from tests.simulation.sight import Change, Fields, Scene, Write
from tests.simulation.timeline import SECOND

__all__ = ["Generators", "Occurrences"]

_SKIPPED_AFTER = timedelta(minutes=2)
_PROMPT = timedelta(seconds=15)
_COPIED = ("kind", "data", "resourceKey", "timeout", "deadline", "owner")


def _rule(task: Fields) -> Fields:
    return {name: value for name, value in (task.get("recurrence") or {}).items() if name != "pausedAt"}


def _is_paused(task: Fields) -> bool:
    return bool((task.get("recurrence") or {}).get("pausedAt"))


def _id(generator: str, instant: datetime) -> str:
    return f"{generator}:{instant.isoformat().removesuffix('+00:00')}Z"


def _spawns(change: Change) -> bool:
    """Tell whether a generator moves on by itself: nobody has cancelled, paused, or declared it anew."""
    before, after = change.before, change.after
    if before is None or after is None or before.get("outcome") is not None:
        return False
    others = change.changed - {"waitUntil", "dueAt", "outcome", "doneAt", "occurrenceTimestamp"}
    ended = after.get("outcome") not in {None, "completed"}
    return not others and not ended and bool(change.changed & {"waitUntil", "outcome"})


class Generators(Law):
    """A generator runs nothing; it is cancelled, paused and resumed by callers, and changed only by new code."""

    def __init__(self, scene: Scene, book: Book) -> None:
        super().__init__(scene, book)
        self._moved: dict[str, int] = {}

    def wrote(self, write: Write) -> None:
        """Look at each generator."""
        for change in write.tasks:
            after, before, who = change.after, change.before, write.writer
            if after is None or after.get("recurrence") is None:
                continue
            self._moved[change.id] = self.scene.micros
            runs = after.get("leaseOwner") is not None or after.get("attempts", 0) or after.get("startedAt")
            self.deny(runs, f"the generator {change.id} is run: {dict(after)}")
            if before is None:
                self.deny(not is_instant(_rule(after), after["waitUntil"]), f"{change.id} begins at no instant")
                continue
            if _is_paused(before) != _is_paused(after):
                self.book.seen["paused" if _is_paused(after) else "resumed"] += 1
                by_code = _rule(before) != _rule(after) or before.get("isCancelled") or before.get("outcome")
                self.deny(who.role != "client" and not by_code, f"{who.name} pauses or resumes {change.id}")
            if _rule(before) != _rule(after):
                self.book.seen["redeclared"] += 1
                self.deny(who.role == "client", f"{who.name} changes the rule of {change.id}")
            fails = after.get("outcome") == "failed" and before.get("outcome") is None
            self.deny(fails, f"the generator {change.id} fails: {after.get('errors')}")
            waits = after.get("outcome") is None and not after.get("isCancelled")
            wrong = waits and not is_instant(_rule(after), after["waitUntil"])
            self.deny(wrong, f"{change.id} waits for {after['waitUntil']}, which is no instant of {_rule(after)}")

    def has_calmed(self) -> None:
        """What is due has been looked at, long after the last thing went wrong."""
        for task_id in self.book.generators:
            task = self.book.tasks.get(task_id, {})
            due = None if task.get("isCancelled") else task.get("dueAt")  # that waits while its kind is paused
            stands = self._moved.get(task_id, 0) < self.scene.micros - _PROMPT.total_seconds() * SECOND
            late = due is not None and due < self.scene.now - _PROMPT and stands  # else it makes up for a long night
            self.deny(late, f"the generator {task_id} has been due since {due}, and nobody looks at it")


class Occurrences(Law):
    """Each instant of a rule becomes one occurrence, as catch-up and overlap say, in the write that moves it on."""

    def __init__(self, scene: Scene, book: Book) -> None:
        super().__init__(scene, book)
        self._opened: dict[str, int] = {}
        self._ended: dict[str, int] = {}

    def wrote(self, write: Write) -> None:
        """Hold what is created against the rule."""
        generators = {change.id: change for change in write.tasks if _spawns(change) and _is_generator(change)}
        for change in write.tasks:
            parent = (change.after or {}).get("parentRecurrenceId")
            if change.before is None and parent is not None:
                self.deny(parent not in generators, f"{change.id} is created by itself")
        for task_id, change in generators.items():
            spawned = [other for other in write.tasks if other.before is None and _parent(other) == task_id]
            self._look_at_step(write, change, spawned)

    def settled(self, write: Write) -> None:
        """Remember since when things are open, or done."""
        for change in write.tasks:
            both = (change.before, change.after)
            was_open, is_open = (fields is not None and fields.get("outcome") is None for fields in both)
            if is_open and not was_open:
                self._opened[change.id] = self.scene.micros
            elif was_open and not is_open:
                self._ended[change.id] = self.scene.micros

    def _look_at_step(self, write: Write, change: Change, spawned: Sequence[Change]) -> None:
        task_id, before, after, who = change.id, change.before or {}, change.after or {}, write.writer
        rule, due = _rule(before), before["waitUntil"]
        latest = write.at + write.was_unsure
        self.deny(before.get("isCancelled") or _is_paused(before), f"{who.name} lets {task_id} spawn, which is stopped")
        self.deny(due > latest, f"{who.name} lets {task_id} spawn before {due}")
        for name, occurrence in ((one.id, one.either()) for one in spawned):
            instant = occurrence["occurrenceTimestamp"]
            self.deny(name != _id(task_id, instant), f"the occurrence of {task_id} at {instant} is called {name}")
            self.deny(occurrence["waitUntil"] != instant, f"{name} waits for {occurrence['waitUntil']}")
            other = [field for field in _COPIED if occurrence.get(field) != before.get(field)]
            self.deny(other, f"{name} differs from {task_id} in {other}")
        until = before.get("deadline")
        if until is not None and due >= until:
            self.deny(spawned or after.get("outcome") is None, f"{task_id} goes on after its deadline")
            return
        looked_at = self._looked_at(rule, due, after, latest, until)
        last = looked_at[-1]
        following = first_after(rule, last)
        if until is not None and following is not None and following >= until:
            following = None
        goes_on = after["waitUntil"] if after.get("outcome") is None else None
        self.deny(goes_on != following, f"{task_id} goes on at {goes_on}, and not at {following}")
        self._look_at_instants(
            write, task_id, before, looked_at, {one.either()["occurrenceTimestamp"] for one in spawned}
        )

    def _looked_at(
        self, rule: Fields, due: datetime, after: Fields, latest: datetime, until: datetime | None
    ) -> list[datetime]:
        """Give the instants that this step is about: up to the one behind which it goes on."""
        found, end = [due], after["waitUntil"] if after.get("outcome") is None else None
        while (following := first_after(rule, found[-1])) is not None and following <= latest and following != end:
            if until is not None and following >= until:
                break
            found.append(following)
        return found

    def _look_at_instants(
        self, write: Write, task_id: str, before: Fields, looked_at: list[datetime], spawned: set[datetime]
    ) -> None:
        rule, who, last = before["recurrence"], write.writer, looked_at[-1]
        expected = looked_at if rule.get("catchUp") == "all" else [last]
        overlap = rule.get("overlap")
        if overlap == "skip":
            expected = expected[:1]
        elif overlap == "cancel-previous":
            expected = expected[-1:]
        missing = {instant for instant in expected if _id(task_id, instant) not in self.book.tasks}
        self.deny(spawned - set(expected), f"{task_id} spawns {sorted(spawned)}, and not {expected}")
        previous = before.get("occurrenceTimestamp") and _id(task_id, before["occurrenceTimestamp"])
        may_be_late = rule.get("catchUp") == "skip" and write.at + write.was_unsure - last > _SKIPPED_AFTER
        may_be_busy = overlap == "skip" and self._was_open(previous, looked_at[0] - write.was_unsure)
        if not spawned and missing:
            self.book.seen["passed-over"] += 1
            self.deny(not may_be_late and not may_be_busy, f"{who.name} passes over {sorted(missing)} of {task_id}")
            return
        self.book.seen["spawned"] += len(spawned)
        self.deny(spawned != missing, f"{task_id} spawns {sorted(spawned)}, and not {sorted(missing)}")
        since = (looked_at[0] - write.was_unsure).timestamp()
        opened = self._opened.get(previous or "", 0) / SECOND + self.book.began.timestamp()
        if spawned and previous in self.book.open and opened < since:
            self.deny(overlap == "skip", f"{task_id} spawns beside {previous}, which has not ended")
            cancelled = self.book.tasks[previous].get("isCancelled") or any(
                change.id == previous and (change.after or {}).get("isCancelled") for change in write.tasks
            )
            self.deny(overlap == "cancel-previous" and not cancelled, f"{task_id} lets {previous} run on")

    def _was_open(self, task_id: str | None, since: datetime) -> bool:
        """Tell whether a task was not done at some time since then."""
        if task_id is None:
            return False
        ended = self._ended.get(task_id, -1)
        return task_id in self.book.open or self.book.began + timedelta(microseconds=ended) >= since


def _is_generator(change: Change) -> bool:
    return (change.before or {}).get("recurrence") is not None


def _parent(change: Change) -> str | None:
    parent: str | None = (change.after or {}).get("parentRecurrenceId")
    return parent
