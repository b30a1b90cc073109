"""Laws on resource keys: one holder of a lock after the other, and whose turn it is."""

from __future__ import annotations

from collections import defaultdict
from datetime import timedelta

from tests.simulation.book import NOBODY, SLACK, Book, Law, place
from tests.simulation.sight import Change, Fields, Run, Scene, Who, Write

__all__ = ["Locks", "Turns"]

_NEAR = timedelta(seconds=30)
"""More than any machine is unsure of the time: nearer to its deadline it is not known who thinks a task expired."""


class Locks(Law):
    """A lock passes on only when its holder lets go or its end has come; nothing is written under a former one."""

    def __init__(self, scene: Scene, book: Book) -> None:
        super().__init__(scene, book)
        self._tenures: defaultdict[str, list[str]] = defaultdict(list)

    def wrote(self, write: Write) -> None:
        """Look at what one write changed."""
        for change in write.tasks:
            self._look_at_tenure(write.writer, change)
        for change in write.locks:
            self._look_at_lock(write, change)

    def settled(self, write: Write) -> None:
        """No lease outlasts the lock under which it is."""
        for change in write.tasks:
            task = change.after
            lock = None if task is None else self.book.locks.get(task.get("resourceKey") or "")
            if task is not None and lock is not None and lock["leaseOwner"] == task.get("leaseOwner"):
                outlasts = task["leasedUntil"] > lock["leasedUntil"]
                self.deny(outlasts, f"the lease of {change.id} outlasts its lock")

    def started(self, run: Run) -> None:
        """Nothing of a key runs without having had its lock."""
        if run.key is not None:
            self.deny(run.lease not in self._tenures[run.key], f"{run.machine.name} runs {run} without its key")

    def _look_at_tenure(self, who: Who, change: Change) -> None:
        lease = (change.before or {}).get("leaseOwner")
        if lease and self.book.holders.get(lease) is who:
            former = lease in self._tenures[change.either().get("resourceKey") or ""][:-1]
            self.deny(former, f"{who.name} writes {change.id} under a tenure that somebody has taken over")

    def _look_at_lock(self, write: Write, change: Change) -> None:
        before, after, who = change.before, change.after, write.writer
        if before is not None and (after is None or after["leaseOwner"] != before["leaseOwner"]):
            own = self.book.holders.get(before["leaseOwner"]) is who
            over = before["leasedUntil"] <= write.at + SLACK
            self.deny(not own and (after is None or not over), f"{who.name} ends the lock of another on {change.id}")
        if after is not None and after["leaseOwner"] not in self._tenures[change.id][-1:]:
            again = after["leaseOwner"] in self._tenures[change.id]
            self.deny(again, f"{change.id} is back with a former holder")
            self.book.seen["taken-over" if before is not None else "taken"] += 1
            self._tenures[change.id].append(after["leaseOwner"])


class Turns(Law):
    """Tasks of a key are claimed with it, and start for the first time in order of `waitUntil`, then creation.

    A rescue and a strict order keep a task's place; what a worker cannot have known of does not count.
    """

    def __init__(self, scene: Scene, book: Book) -> None:
        super().__init__(scene, book)
        self._placed: dict[str, int] = {}
        self._reads: defaultdict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)

    def read_line(self, who: Who, resource_key: str, at: int) -> None:
        """Remember what a worker knows."""
        self._reads[who.name, resource_key].append((self.scene.micros, at))

    def settled(self, write: Write) -> None:
        """Look at claims, and at who loses his place."""
        for change in write.tasks:
            before, after = change.before, change.after
            if before is None or after is None or change.changed & {"waitUntil", "isCancelled"}:
                self._placed[change.id] = self.scene.micros
            if before is not None and after is not None and after.get("resourceKey") and after.get("outcome") is None:
                self._look_at_place(write.writer, before, after, change.id)
        claimed = {change.id: change.after for change in write.tasks if change.after and _claims(change)}
        for task_id, task in claimed.items():
            if task.get("resourceKey"):
                self._look_at_claim(write, task_id, task, claimed)

    def _look_at_place(self, who: Who, before: Fields, after: Fields, task_id: str) -> None:
        rule = self.book.rules.get(after["kind"])
        rescued = before.get("leaseOwner") is not None and not self.book.is_held_by(before, who)
        strict = rule is not None and rule.is_strict and before.get("outcome") is None and who.role != "client"
        stays = (rescued or strict) and who.role != "client" and not after.get("isCancelled")
        self.deny(stays and after["waitUntil"] != before["waitUntil"], f"{who.name} takes its place from {task_id}")

    def _look_at_claim(self, write: Write, task_id: str, task: Fields, together: dict[str, Fields]) -> None:
        key, who = task["resourceKey"], write.writer
        lock = self.book.locks.get(key)
        if lock is None or lock["leaseOwner"] != task["leaseOwner"]:
            self.deny(self._is_in_time(task), f"{who.name} claims {task_id} without its key")
            return
        known = max((at for told, at in self._reads[who.name, key] if told <= write.sent), default=-1)
        for other_id, other in self.book.tasks.items():
            if other.get("resourceKey") != key or other_id in together or other.get("recurrence"):
                continue
            if place(other_id, other) < place(task_id, task):
                passed = self._is_waiting(other) and self._placed[other_id] < known
                self.deny(passed, f"{who.name} claims {task_id} before {other_id}, whose turn it is")

    def _is_waiting(self, task: Fields) -> bool:
        return task.get("outcome") is None and not task.get("isCancelled") and self._is_in_time(task)

    def _is_in_time(self, task: Fields) -> bool:
        """Tell whether nobody can think that a task has expired."""
        deadline = task.get("deadline")
        return bool(task.get("isCancelled")) or deadline is None or deadline > self.scene.now + _NEAR


def _claims(change: Change) -> bool:
    """Tell whether a change is a claim: another lease, and one attempt more."""
    before, after = change.before or {}, change.after or {}
    if change.before is None or after.get("leaseOwner") in {None, NOBODY, before.get("leaseOwner")}:
        return False
    return any(after.get(name, 0) > before.get(name, 0) for name in ("attempts", "cancelAttempts"))
