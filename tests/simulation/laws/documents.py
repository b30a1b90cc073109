"""Laws on a task's document: which state follows which, what is counted, and what its fields say together."""

from __future__ import annotations

from datetime import UTC, datetime

from tests.simulation.book import LONGEST_LEASE, NOBODY, SLACK, Law
from tests.simulation.sight import Change, Fields, Write

__all__ = ["Attempts", "Consistency", "Errors", "Finality", "StateMachine", "TrueTimes", "Untouched"]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIXED = ("kind", "data", "resourceKey", "createdAt", "createId", "parentRecurrenceId", "timeout", "owner", "schema")
_OF_ONE_LIFE = ("result", "progress", "startedAt", "doneAt", "cancelledAt")
_COUNTS = ("attempts", "cancelAttempts")
_MOST_ERRORS = 10


def _is_generator(task: Fields) -> bool:
    return task.get("recurrence") is not None


def _is_done(task: Fields) -> bool:
    return task.get("outcome") is not None


class Consistency(Law):
    """`dueAt` is when somebody has to look next, and absent once done; what is done is held by nobody."""

    def wrote(self, write: Write) -> None:
        """Look at each document as it is now."""
        for change in write.tasks:
            task = change.after
            if task is None or change.id in self.book.foreign or write.writer.role == "hand":
                continue
            due = self._due(task)
            self.deny(task.get("dueAt") != due, f"{change.id} is due at {task.get('dueAt')}, and should be at {due}")
            if _is_done(task):
                held = task.get("leaseOwner") is not None or task.get("leasedUntil") is not None
                self.deny(held, f"{change.id} is done, and held: {task}")
                self.deny(task.get("doneAt") is None, f"{change.id} is done, and nobody knows since when")
            if task.get("leaseOwner") is not None:
                self.deny(task.get("leasedUntil") is None, f"{change.id} has a lease without an end")

    def _due(self, task: Fields) -> datetime | None:
        is_paused = _is_generator(task) and task["recurrence"].get("pausedAt") and not task.get("isCancelled")
        if _is_done(task) or is_paused:
            return None
        until: datetime | None = task.get("leasedUntil")
        if task.get("leaseOwner") is not None:
            return until
        due: datetime = max(task["waitUntil"], until or EPOCH)
        deadline: datetime | None = task.get("deadline")
        if deadline is None or task.get("isCancelled") or _is_generator(task):
            return due
        return min(due, deadline)


class Finality(Law):
    """A task is created once for its id and completes once; what is done stays as it is, but for reset and delete."""

    def wrote(self, write: Write) -> None:
        """Look at what is created, done or deleted."""
        for change in write.tasks:
            before, after, who = change.before, change.after, write.writer
            if who.role == "hand":
                continue
            if before is None and after is not None:
                self.deny(_is_done(after) or after.get("attempts"), f"{change.id} is created with a past: {after}")
                self.deny(after.get("leaseOwner"), f"{change.id} is created under a lease")
            elif before is not None and after is None:
                self.deny(who.role != "client" or write.verb != "delete", f"{who.name} loses {change.id}")
                self._look_at_deletion(change, before)
            elif before is not None and after is not None and _is_done(before):
                self.deny(_is_done(after), f"{who.name} writes {change.id}, which is done: {set(change.changed)}")
                revives = who.role == "client" or _is_generator(after)
                self.deny(not revives, f"{who.name} gives {change.id} another life")

    def _look_at_deletion(self, change: Change, before: Fields) -> None:
        until = before.get("leasedUntil")
        held = before.get("leaseOwner") is not None and not _is_done(before)
        lasts = until is not None and until > self.scene.now + SLACK
        self.deny(held and lasts, f"{change.id} is deleted while it is held")


class Untouched(Law):
    """What a task is about never changes; a new life leaves nothing of the last one behind."""

    def wrote(self, write: Write) -> None:
        """Compare what should be the same."""
        for change in write.tasks:
            before, after = change.before, change.after
            if before is None or after is None or _is_generator(after) or change.id in self.book.foreign:
                continue
            other = change.changed.intersection(_FIXED)
            self.deny(other, f"{write.writer.name} changes {set(other)} of {change.id}")
            if _is_done(before) and not _is_done(after):
                left = [name for name in _OF_ONE_LIFE if after.get(name)]
                counts = after.get("attempts", 0) + after.get("cancelAttempts", 0) + len(after.get("errors") or ())
                self.deny(left or counts or after.get("isCancelled"), f"{change.id} begins anew with a past: {after}")
                self.book.seen["reset"] += 1


class Errors(Law):
    """Errors are the newest ten, oldest first; a write adds one at most, and takes away none but the oldest."""

    def wrote(self, write: Write) -> None:
        """Compare the lists."""
        for change in write.tasks:
            if change.before is None or change.after is None or "errors" not in change.changed:
                continue
            before, after = change.before.get("errors") or [], change.after.get("errors") or []
            if not isinstance(before, list) or (_is_done(change.before) and not after):
                continue
            expected = [*before, *after[-1:]][-_MOST_ERRORS:]
            self.deny(after != expected, f"{write.writer.name} rewrites the errors of {change.id}")


class Attempts(Law):
    """Every claim spends an attempt, which only its holder gives back; no kind is tried more often than it says."""

    def wrote(self, write: Write) -> None:
        """Compare the counts."""
        for change in write.tasks:
            before, after = change.before, change.after
            if before is None or after is None or change.id in self.book.foreign or _is_done(before):
                continue
            own = self.book.is_held_by(before, write.writer)
            claims = after.get("leaseOwner") not in {None, NOBODY, before.get("leaseOwner")}
            spent = {name: after.get(name, 0) - before.get(name, 0) for name in _COUNTS}
            if claims:
                self.deny(sum(spent.values()) != 1, f"{write.writer.name} claims {change.id} and counts {spent}")
                cleans = before.get("isCancelled", False)
                self.deny(spent["cancelAttempts"] != cleans, f"{write.writer.name} counts {change.id} wrongly: {spent}")
                self._look_at_limit(change.id, after)
            elif after.get("leaseOwner") == before.get("leaseOwner") is not None and spent["cancelAttempts"] == 1:
                asked = own and before.get("isCancelled")
                self.deny(not asked, f"{write.writer.name} cleans up {change.id} unasked")
                self._look_at_limit(change.id, after)
            else:
                self.deny(max(spent.values()) > 0, f"{write.writer.name} counts {change.id} up: {spent}")
                self.deny(sum(spent.values()) < -1, f"{write.writer.name} gives back too much of {change.id}: {spent}")
                given = sum(spent.values()) == -1
                self.deny(given and not own, f"{write.writer.name} gives back an attempt at {change.id} of another's")
                fails = given and len(after.get("errors") or ()) > len(before.get("errors") or ())
                late = after.get("outcome") == "expired"
                self.deny(fails and not late, f"{change.id} has failed, and its attempt is given back")

    def _look_at_limit(self, task_id: str, task: Fields) -> None:
        rule = self.book.rules.get(task["kind"])
        if rule is not None:
            self.deny(task.get("attempts", 0) > rule.attempts, f"{task_id} is tried {task['attempts']} times")
            cleanups = task.get("cancelAttempts", 0)
            self.deny(cleanups > (rule.cleanups or 0), f"{task_id} is cleaned up after {cleanups} times")


class TrueTimes(Law):
    """No time that is written comes from a clock that is wrong, and no lease lasts longer than the longest there is."""

    def wrote(self, write: Write) -> None:
        """Look at each time that is new."""
        for change in write.tasks:
            if change.after is None or write.writer.role == "hand":
                continue
            for name in change.changed & {"createdAt", "startedAt", "doneAt", "cancelledAt"}:
                value = change.after.get(name)
                if value is None:
                    continue
                self.deny(value > write.at + SLACK, f"{name} of {change.id} is {value}, and it is only {write.at}")
                long_ago = value < self.book.began - write.unsure
                self.deny(long_ago, f"{name} of {change.id} is {value}: long ago")
            until = change.after.get("leasedUntil")
            if "leasedUntil" in change.changed and until is not None:
                longest = write.at + write.unsure + LONGEST_LEASE
                self.deny(until > longest, f"{change.id} is held until {until}, far beyond {write.at}")


class StateMachine(Law):
    """Which state follows which: nothing starts before its time or after its end, and what ends has a reason."""

    def wrote(self, write: Write) -> None:
        """Look at each step."""
        for change in write.tasks:
            before, after = change.before, change.after
            if before is None or after is None or change.id in self.book.foreign or _is_done(before):
                continue
            owners = before.get("leaseOwner"), after.get("leaseOwner")
            self._look_at_cancel(change, before, after)
            if _is_done(after):
                self._look_at_end(write, change, before, after)
            elif owners[1] not in {None, NOBODY, owners[0]}:
                self._look_at_claim(write, change, before, after)
            elif owners[0] is not None and owners[1] is None:
                self._look_at_release(write, change, before, after)
            elif owners[0] is None:
                self._look_at_free(write, change)

    def _look_at_cancel(self, change: Change, before: Fields, after: Fields) -> None:
        undone = before.get("isCancelled", False) and not after.get("isCancelled", False)
        self.deny(undone and not _is_generator(after), f"{change.id} is not cancelled any more")
        if after.get("isCancelled") and not before.get("isCancelled"):
            self.book.seen["cancelled"] += 1
            self.deny(after["waitUntil"] != EPOCH, f"{change.id} is cancelled, and does not go first")
            allowed = {"isCancelled", "cancelledAt", "waitUntil", "dueAt", "leasedUntil", "recurrence"}
            self.deny(change.changed - allowed, f"the cancel of {change.id} writes {set(change.changed)}")
            held = before.get("leaseOwner") is not None
            self.deny(held and change.changed & {"leasedUntil", "dueAt"}, f"the cancel of {change.id} ends its lease")

    def _look_at_claim(self, write: Write, change: Change, before: Fields, after: Fields) -> None:
        who, due = write.writer, before.get("dueAt")
        allowed = {"leaseOwner", "leasedUntil", "attempts", "cancelAttempts", "startedAt", "dueAt"}
        self.deny(change.changed - allowed, f"the claim of {change.id} writes {set(change.changed)}")
        self.deny(_is_generator(before), f"{who.name} runs {change.id}, which is a generator")
        early = due is None or due > write.at + write.unsure
        self.deny(early, f"{who.name} claims {change.id}, which is due at {due}")
        if before.get("leaseOwner") is not None:
            ends = before["leasedUntil"]
            self.deny(
                not before.get("isCancelled") or before.get("cancelAttempts", 0),
                f"{who.name} takes {change.id} from its holder without a rescue",
            )
            self.deny(ends > write.at + SLACK, f"{who.name} takes {change.id}, which is held until {ends}")
        self.deny(who.role == "client", f"{who.name} claims {change.id}, and runs nothing")

    def _look_at_release(self, write: Write, change: Change, before: Fields, after: Fields) -> None:
        who, ends = write.writer, before["leasedUntil"]
        allowed = {"leaseOwner", "leasedUntil", "waitUntil", "dueAt", *_COUNTS, "errors", "progress"}
        self.deny(change.changed - allowed, f"{who.name} lets {change.id} go, and writes {set(change.changed)}")
        if not self.book.is_held_by(before, who):
            self.book.seen["rescued"] += 1
            self.deny(ends > write.at + SLACK, f"{who.name} rescues {change.id}, which is held until {ends}")
            self.deny("waitUntil" in change.changed, f"{who.name} rescues {change.id}, and takes its place away")
            self.deny("errors" not in change.changed, f"{who.name} rescues {change.id}, and does not say why")
            return
        lease = before["leaseOwner"]
        runs_on = any(part.task_id == change.id and part.lease == lease for run in self.book.runs for part in run.parts)
        if before.get("isCancelled") and not before.get("cancelAttempts"):
            self.deny("errors" in change.changed, f"{who.name} records a failure of {change.id}, which is cancelled")
            kept = after.get("leasedUntil") == ends
            self.deny(runs_on and not kept, f"{who.name} lets others clean up after {change.id}, which still runs")
        else:
            given = any(after.get(name, 0) < before.get(name, 0) for name in _COUNTS)
            self.deny(runs_on and given, f"{who.name} gives {change.id} back, which still runs")

    def _look_at_end(self, write: Write, change: Change, before: Fields, after: Fields) -> None:
        who, outcome, is_held = write.writer, after["outcome"], before.get("leaseOwner") is not None
        is_cancelled, own = before.get("isCancelled", False), self.book.is_held_by(before, who)
        if is_held and not own:
            ends = before["leasedUntil"]
            self.deny(ends > write.at + SLACK, f"{who.name} ends {change.id}, which is held until {ends}")
            self.deny(outcome not in {"failed", "cancelled"}, f"{who.name} ends {change.id} of another's: {outcome}")
        self.deny(is_cancelled != after.get("isCancelled", False), f"{change.id} is cancelled at its end")
        rule = self.book.rules.get(before.get("kind", ""))
        match outcome:
            case "completed":
                self.deny(is_cancelled, f"{who.name} completes {change.id}, which is cancelled")
                self.deny(not is_held and not _is_generator(before), f"{change.id} is completed, and nobody ran it")
            case "cancelled":
                self.deny(not is_cancelled, f"{change.id} ends as cancelled, and is not")
                cleans = rule is not None and rule.cleanups is not None and not _is_generator(before)
                cleaned = own and after.get("cancelAttempts", 0) > 0
                self.deny(cleans and not cleaned, f"{change.id} is not cleaned up after")
                self.book.seen["done-cancelled"] += 1
            case "expired":
                deadline = before.get("deadline")
                unsure = self.book.unsure.get((change.id, before.get("leaseOwner") or "", False), write.unsure)
                late = deadline is not None and deadline <= write.at + max(unsure, write.unsure)
                self.deny(is_cancelled or not is_held or not late, f"{change.id} expires, with deadline {deadline}")
            case "failed":
                self.deny("errors" not in change.changed, f"{change.id} fails, and nobody knows why")
        self.book.seen[outcome] += 1

    def _look_at_free(self, write: Write, change: Change) -> None:
        """What nobody holds is only cancelled; generators are others' business."""
        if change.after is not None and not _is_generator(change.after):
            cancels = "isCancelled" in change.changed
            self.deny(not cancels, f"{write.writer.name} writes {change.id}, which is free: {set(change.changed)}")
