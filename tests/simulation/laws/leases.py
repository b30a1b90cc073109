"""Laws on who may write and run: one holder at a time, tokens that rise, handlers that begin and end in time."""

from __future__ import annotations

from functools import partial

from tests.simulation.book import NOBODY, SLACK, Book, Law
from tests.simulation.known import NOT_MENDED
from tests.simulation.sight import Change, Run, Scene, Who, Write
from tests.simulation.timeline import SECOND

__all__ = ["CancelArrives", "OneAtATime", "OnlyTheHolder", "Pauses", "Starts", "Tokens"]

_AWAKE_SECONDS = 1.0
_CANCEL_SECONDS = 1.0
_PAUSE_SECONDS = 2.0


class OnlyTheHolder(Law):
    """While a lease lasts nobody but its holder writes the task, but for cancels; afterwards he does not, either."""

    def wrote(self, write: Write) -> None:
        """Look at what was held."""
        for change in write.tasks:
            before, after = change.before, change.after
            if before is None or after is None or before.get("leaseOwner") is None or before.get("outcome"):
                continue
            who, holder = write.writer, self.book.holder(before)
            if who is holder or change.changed <= {"isCancelled", "cancelledAt", "waitUntil"}:
                continue
            ends = before["leasedUntil"]
            self.deny(ends > write.at + SLACK, f"{who.name} writes {change.id}, held by another until {ends}")
            same = after.get("leaseOwner") == before["leaseOwner"]
            self.deny(same, f"{who.name} writes {change.id} under the lease of another: {set(change.changed)}")
        for change in write.tasks:
            lease = change.after.get("leaseOwner") if change.after else None
            if lease not in {None, NOBODY}:
                taken = self.book.holders.get(lease, write.writer) is not write.writer
                old = change.before is not None and change.before.get("leaseOwner") == lease
                self.deny(taken and not old, f"{write.writer.name} claims {change.id} with the lease of another")
                again = (change.id, lease) in self.book.grants and not old
                self.deny(again and self._has_ended(change), f"{change.id} is back under a lease that was over")

    def _has_ended(self, change: Change) -> bool:
        """A tenure of a key may run the same task again, under the same lease."""
        return change.either().get("resourceKey") is None


class Starts(Law):
    """A handler begins only with what its worker holds, once for each claim, not before its time and not too late."""

    def __init__(self, scene: Scene, book: Book) -> None:
        super().__init__(scene, book)
        self._begun: set[tuple[str, str, bool, int]] = set()

    def started(self, run: Run) -> None:
        """Look at every task of the run."""
        who, now = run.machine, self.scene.now
        self.book.seen["cleanup" if run.is_cleanup else "run"] += 1
        late = not self.book.is_legitimate(run, now - SLACK)
        woke = self.scene.micros - who.frozen_until < _AWAKE_SECONDS * SECOND
        woke = woke or ("late-answer" in NOT_MENDED and run.key is None and who.disturbed_at >= self.scene.micros)
        self.deny(late and not woke, f"{who.name} starts {run} after its lease has ended")
        for part in run.parts:
            key = part.task_id, part.lease, run.is_cleanup
            self.deny(key not in self.book.claims, f"{who.name} starts {part.task_id}, which was not claimed for that")
            count = part.cleanups if run.is_cleanup else part.attempts
            task = self.book.tasks.get(part.task_id)
            if late or task is None:
                self.deny(not late and task is None, f"{who.name} starts {part.task_id}, which is not there")
                continue
            held = task.get("leaseOwner") == part.lease and task.get("outcome") is None
            self.deny(not held, f"{who.name} starts {part.task_id}, which is not its own: {dict(task)}")
            stored = task.get("cancelAttempts" if run.is_cleanup else "attempts", 0)
            self.deny(stored != count, f"{who.name} starts attempt {count} at {part.task_id}, which is at {stored}")
            again = (*key, self.book.claims.get(key, 0)) in self._begun
            self.deny(again, f"{who.name} starts {part.task_id} twice for one claim")
            self._begun.add((*key, self.book.claims.get(key, 0)))
            early = task["waitUntil"] > now + self.book.unsure.get(key, SLACK) and not run.is_cleanup
            self.deny(early, f"{who.name} starts {part.task_id} before its time, {task['waitUntil']}")
        count = max(part.cleanups if run.is_cleanup else part.attempts for part in run.parts)
        self.deny(run.attempt != count, f"{run} says it is attempt {run.attempt}, of {count}")


class Tokens(Law):
    """The fencing token rises with every claim of a task, and with every one of a resource key."""

    def __init__(self, scene: Scene, book: Book) -> None:
        super().__init__(scene, book)
        self._tokens: dict[str, list[tuple[int, int]]] = {}

    def started(self, run: Run) -> None:
        """Hold the token against the others, in the order in which they were stored."""
        claims = [self.book.claims.get((part.task_id, part.lease, run.is_cleanup), -1) for part in run.parts]
        names = [f"task {part.task_id}" for part in run.parts] + ([f"key {run.key}"] if run.key else [])
        for name in names:
            known = self._tokens.setdefault(name, [])
            for claim, token in known:
                rises = (claim < min(claims)) == (token < run.token) if claim not in claims else token == run.token
                self.deny(not rises, f"the token of {run}, {run.token}, does not fit {token} of {name}")
            known.append((max(claims), run.token))


class OneAtATime(Law):
    """A task, and a resource key, is run by one at a time; a cleanup never beside the handler.

    But for those whose machine stood still, or heard too late, and for handlers that do not obey.
    """

    def started(self, run: Run) -> None:
        """Look at who else runs it."""
        ids = {part.task_id for part in run.parts}
        others = [
            other
            for other in self.book.runs
            if (run.key is not None and other.key == run.key) or any(part.task_id in ids for part in other.parts)
        ]
        if not others:
            return
        self.book.seen["overlap"] += 1
        for other in others:
            if not other.obeys:
                continue
            both = self.book.is_legitimate(run, self.scene.now) and self.book.is_legitimate(other, self.scene.now)
            self.deny(both, f"{run} on {run.machine.name} and {other} on {other.machine.name} run at the same time")
            excused = self.book.is_excused(other) or self.book.is_excused(run)
            self.deny(not excused, f"{other} still runs on {other.machine.name}, though nothing stopped that")


class CancelArrives(Law):
    """A cancel reaches a running handler within a second and the way over the wire, where nothing is wrong."""

    def settled(self, write: Write) -> None:
        """See whether it has arrived, later."""
        for change in write.tasks:
            if change.before is None or change.after is None or "isCancelled" not in change.changed:
                continue
            if not change.after.get("isCancelled"):
                continue
            for run in self.book.runs:
                if any(part.task_id == change.id for part in run.parts) and len(run.parts) == 1:
                    self.scene.after(
                        _CANCEL_SECONDS + self.book.on_the_wire, partial(self._look, run, self.scene.micros)
                    )

    def _look(self, run: Run, cancelled_at: int) -> None:
        who = run.machine
        if who.is_gone or who.disturbed_at >= cancelled_at - 2 * SECOND:
            return
        self.book.seen["stopped in time"] += run.told() == "cancelled"
        if run not in self.book.runs:
            return
        self.deny(run.told() is None, f"{run} on {who.name} was cancelled, and has not been told")


class Pauses(Law):
    """Nothing of a paused kind is claimed once workers had two seconds to learn of it."""

    def __init__(self, scene: Scene, book: Book) -> None:
        super().__init__(scene, book)
        self._since: dict[str, int] = {}

    def settled(self, write: Write) -> None:
        """Learn what is paused, and look at claims."""
        if write.settings is not None:
            paused = set((write.settings.after or {}).get("pausedKinds") or ())
            self.book.seen["pause"] += len(paused - self._since.keys())
            self.book.seen["resume"] += len(self._since.keys() - paused)
            self._since = {kind: self._since.get(kind, self.scene.micros) for kind in sorted(paused)}
        for change in write.tasks:
            if change.before is None or change.after is None or not self._claims(change):
                continue
            since = self._since.get(change.after["kind"])
            knew = since is not None and self._could_know(write.writer, since)
            self.deny(knew, f"{write.writer.name} claims {change.id}, whose kind is paused")

    def _claims(self, change: Change) -> bool:
        owners = [(fields or {}).get("leaseOwner") for fields in (change.before, change.after)]
        return owners[1] not in {None, NOBODY, owners[0]}

    def _could_know(self, who: Who, since: int) -> bool:
        return (
            who.disturbed_at < since and self.scene.micros - since > (_PAUSE_SECONDS + self.book.on_the_wire) * SECOND
        )
