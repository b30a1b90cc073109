"""Laws on what callers are told, on what handlers stage, and on what is left in the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar

from tests.simulation.book import Book, Law
from tests.simulation.sight import Run, Scene, Who, Write

__all__ = ["Acknowledged", "Changed", "NothingLeft", "Promptness", "Staged"]

_PROMPT_SECONDS = 5.0


class Acknowledged(Law):
    """An enqueue that was acknowledged is stored, and only one caller is told that it created a task."""

    def __init__(self, scene: Scene, book: Book) -> None:
        super().__init__(scene, book)
        self._told: set[tuple[str, str, int]] = set()
        self._created: Counter[str] = Counter()

    def enqueued(self, who: Who, receipt: Any, since: int) -> None:
        """Look whether it is there."""
        task_id = receipt.task_id
        self.deny(task_id not in self.book.created, f"{who.name} was told that {task_id} is there, and it never was")
        if receipt.created and (who.name, task_id, since) not in self._told:
            self._told.add((who.name, task_id, since))
            self._created[task_id] += 1
            self.book.seen["created"] += 1
            known = self.book.created[task_id]
            number = self._created[task_id]
            self.deny(number > known, f"{number} callers created {task_id}, not {known}")


class Changed(Law):
    """Who is told that his call cancelled, reset or deleted a task did that; what he sees of it is what was stored."""

    _VERBS: ClassVar = {
        "cancel": "isCancelled",
        "reset": "outcome",
        "pause_schedule": "recurrence",
        "resume_schedule": "recurrence",
    }

    def __init__(self, scene: Scene, book: Book) -> None:
        super().__init__(scene, book)
        self._wrote: dict[tuple[str, str, str], int] = {}

    def wrote(self, write: Write) -> None:
        """Remember what callers have changed."""
        if write.writer.role == "client":
            for change in write.tasks:
                names = {"delete"} if change.after is None else change.changed
                for name in names:
                    self._wrote[write.writer.name, change.id, name] = self.scene.micros

    def changed(self, who: Who, verb: str, task_id: str, since: int, done: bool) -> None:
        """Look whether it was this call."""
        at = self._wrote.get((who.name, task_id, self._VERBS.get(verb, verb)), -1)
        self.deny(done and at < since, f"{who.name} was told that its {verb} of {task_id} did something")

    def saw(self, who: Who, task: Any, done: bool, before: Sequence[int]) -> None:
        """Look at what somebody who watches was shown."""
        self.deny(before and before[-1] > task.version, f"{who.name} sees {task.id} go back in time")
        self.deny(done and task.outcome is None, f"{who.name} waited for {task.id}, which is not done")


class Staged(Law):
    """What a handler stages is stored with its completion, in the same write, or not at all."""

    def __init__(self, scene: Scene, book: Book) -> None:
        super().__init__(scene, book)
        self._by: dict[tuple[str, str, bool], Run] = {}
        self._staged: dict[str, list[Run]] = {}

    def staged(self, run: Run, task_id: str) -> None:
        """Remember it; an id that is there already is nobody's."""
        run.staged.append(task_id)
        self._staged.setdefault(task_id, []).append(run)

    def started(self, run: Run) -> None:
        """Remember whose the next end of a task is; a tenure of a key may run it again under the same lease."""
        for part in run.parts:
            self._by[part.task_id, part.lease, run.is_cleanup] = run

    def ended(self, run: Run, how: str) -> None:
        """Count what comes to nothing."""
        self.book.seen["unstaged"] += bool(run.staged) and how != "returns"

    def settled(self, write: Write) -> None:
        """Hold what was created against what was completed."""
        completed: list[Run] = []
        for change in write.tasks:
            before, after = change.before or {}, change.after or {}
            if before.get("outcome") is None and after.get("outcome") in {"completed", "cancelled"}:
                cleans = after["outcome"] == "cancelled"
                run = self._by.get((change.id, before.get("leaseOwner") or "", cleans))
                if run is not None:
                    completed.append(run)
        for run in completed:
            lost = [task_id for task_id in run.staged if task_id not in self.book.created]
            self.deny(lost, f"{run} is completed without what it staged: {lost}")
            self.book.seen["staged"] += bool(run.staged)
        for change in write.tasks:
            runs = self._staged.get(change.id, [])
            if change.before is None and runs and write.writer.role != "client":
                own = any(run in completed for run in runs)
                self.deny(not own, f"{change.id} is stored, and what staged it not completed: {list(map(str, runs))}")


class Promptness(Law):
    """One busy key, one busy kind or one poisonous document holds up nobody else."""

    def enqueued(self, who: Who, receipt: Any, since: int) -> None:
        """See whether it has begun, later; where there is room all the time."""
        if self.book.prompt and receipt.created:
            self.scene.after(_PROMPT_SECONDS, lambda: self._look(receipt.task_id))

    def _look(self, task_id: str) -> None:
        task = self.book.tasks.get(task_id)
        if task is not None and task["kind"] in self.book.prompt and task.get("resourceKey") is None:
            self.book.seen["neighbour"] += 1
            self.deny(task.get("startedAt") is None, f"{task_id} has not begun after {_PROMPT_SECONDS} s")


class NothingLeft(Law):
    """In the end everything is done, no lease and no lock is left, and what is unreadable has failed."""

    def is_at_peace(self) -> None:
        """Look at what is there."""
        for task_id, task in self.book.tasks.items():
            self.deny(task.get("outcome") is None, f"{task_id} is not done: {dict(task)}")
            is_as_written = task_id in self.book.foreign - self.book.revived and not task.get("isCancelled")
            strange = is_as_written and task.get("outcome") != "failed"
            self.deny(strange, f"{task_id}, which nobody can read, is {task.get('outcome')}")
        held = [key for key, lock in self.book.locks.items() if lock["leasedUntil"] > self.scene.now]
        self.deny(held, f"locks of finished keys: {held}")
        self.deny(self.book.runs, f"these still run: {list(map(str, self.book.runs))}")
