"""Laws on time limits, on the waits between attempts, on stopping, and on what a tick may take and tell."""

from __future__ import annotations

from collections import Counter
from typing import Any

from tests.simulation.book import NOBODY, SLACK, Book, Law
from tests.simulation.sight import Change, Fields, Run, Scene, Who, Write
from tests.simulation.timeline import SECOND

__all__ = ["Backoff", "Budgets", "Stopping", "TimeLimits"]

_LEEWAY = 0.5
_AFTER_BUDGET = 4.5


class TimeLimits(Law):
    """A handler is told to stop when its time is up, not much later and not earlier."""

    def __init__(self, scene: Scene, book: Book) -> None:
        super().__init__(scene, book)
        self._began: dict[int, int] = {}

    def started(self, run: Run) -> None:
        """Look at it when its time is up."""
        began = self._began[id(run)] = self.scene.micros
        limit = self._limit(run)
        self.scene.after(limit + _LEEWAY, lambda: self._look(run, began, limit))

    def ended(self, run: Run, how: str) -> None:
        """See whether it was told too early."""
        began = self._began.pop(id(run))
        took = (self.scene.micros - began) / SECOND
        stood = run.machine.disturbed_at >= began - SECOND  # since its limit was set, say
        early = run.told() == "timeout" and took < self._limit(run) - SLACK.total_seconds() and not stood
        self.deny(early, f"{run} was told after {took} s that its time is up, with {self._limit(run)} s to go")

    def _look(self, run: Run, began: int, limit: float) -> None:
        if run in self.book.runs and run.machine.disturbed_at < began:
            self.deny(run.told() is None, f"{run} still runs {_LEEWAY} s after its time limit of {limit} s")
            self.book.seen["timed out"] += run.told() == "timeout"

    def _limit(self, run: Run) -> float:
        rule = self.book.rules[run.kind]
        own = self.book.tasks.get(run.parts[0].task_id, {}).get("timeout")
        if run.is_cleanup:
            return float(rule.cleanup_timeout or own or rule.timeout)
        return float(rule.timeout if rule.is_batch else own or rule.timeout)


class Backoff(Law):
    """A failed attempt is tried again after the wait that its policy, or the handler, asks for."""

    def __init__(self, scene: Scene, book: Book) -> None:
        super().__init__(scene, book)
        self._ends: dict[tuple[str, str, bool], tuple[str, int]] = {}

    def started(self, run: Run) -> None:
        """Forget how the last one ended."""
        for part in run.parts:
            self._ends.pop((part.task_id, part.lease, run.is_cleanup), None)

    def ended(self, run: Run, how: str) -> None:
        """Remember how, and when."""
        for part in run.parts:
            self._ends[part.task_id, part.lease, run.is_cleanup] = how, self.scene.micros

    def wrote(self, write: Write) -> None:
        """Look at what goes back into the line."""
        for change in write.tasks:
            before, after = change.before, change.after
            if before is None or after is None or after.get("outcome") is not None or after.get("leaseOwner"):
                continue
            cleans = bool(before.get("isCancelled")) and before.get("cancelAttempts", 0) > 0
            lease = before.get("leaseOwner")
            is_rescue = lease is not None and before["leasedUntil"] <= write.at  # it stood still, and found its own
            if lease is not None and not is_rescue and self.book.is_held_by(before, write.writer):
                self._look_at_wait(write, change, before, after, self._ends.get((change.id, lease, cleans)))

    def _look_at_wait(
        self, write: Write, change: Change, before: Fields, after: Fields, ended: tuple[str, int] | None
    ) -> None:
        if ended is None or (after.get("isCancelled") and not after.get("cancelAttempts")):
            return
        how, at = ended
        fails = "errors" in change.changed
        snoozes = not fails and how == "snoozes" and change.changed & {"waitUntil", "leasedUntil"} != {"leasedUntil"}
        if not (fails or snoozes) or how not in {"raises", "asks", "snoozes"}:
            return
        rule, cleans = self.book.rules[before["kind"]], before.get("isCancelled", False)
        policy = (rule.cleanup_delay if cleans else None) or rule.delay
        wait = {"raises": policy, "asks": 0.3, "snoozes": 0.7}[how]
        told = max(after["waitUntil"], after.get("leasedUntil") or after["waitUntil"])
        early = (told - self.book.began).total_seconds() < at / SECOND + wait - write.unsure.total_seconds()
        self.deny(early, f"{change.id} is tried again at {told}, sooner than {wait} s after it {how}")


class Stopping(Law):
    """A worker that was told to stop claims nothing more."""

    def __init__(self, scene: Scene, book: Book) -> None:
        super().__init__(scene, book)
        self._since: dict[str, int] = {}

    def stopping(self, who: Who) -> None:
        """Remember who was told."""
        self._since[who.name] = self.scene.micros

    def wrote(self, write: Write) -> None:
        """Look at claims that were not on their way already."""
        since = self._since.get(write.writer.name)
        if since is None or self.scene.micros - since < self.book.on_the_wire * SECOND:
            return
        if write.writer.disturbed_at >= since:
            return
        for change in write.tasks:
            owners = [(fields or {}).get("leaseOwner") for fields in (change.before, change.after)]
            claims = change.before is not None and owners[1] not in {None, NOBODY, owners[0]}
            self.deny(claims, f"{write.writer.name} claims {change.id}, though it was told to stop")


class Budgets(Law):
    """A tick ends 4.5 s after its budget at the latest, and reports the ends that there were."""

    def __init__(self, scene: Scene, book: Book) -> None:
        super().__init__(scene, book)
        self._ends: Counter[tuple[str, str]] = Counter()
        self._reported: Counter[tuple[str, str]] = Counter()

    def wrote(self, write: Write) -> None:
        """Count what ticks end."""
        for change in write.tasks:
            before, after = change.before, change.after
            if before is None or after is None or write.writer.role != "tick" or after.get("recurrence"):
                continue
            if before.get("outcome") is None and after.get("outcome") is not None:
                self._ends[write.writer.name, after["outcome"]] += 1

    def ticked(self, who: Who, report: Any, began: int, budget: float) -> None:
        """Look at one that has ended."""
        self.book.seen["tick"] += 1
        took = (self.scene.micros - began) / SECOND
        late = took > budget + _AFTER_BUDGET + _LEEWAY and who.disturbed_at < began
        self.deny(late, f"the tick on {who.name} took {took} s, with a budget of {budget}")
        for outcome in ("completed", "failed", "cancelled", "expired"):
            self._reported[who.name, outcome] += getattr(report, outcome)
            told, true = self._reported[who.name, outcome], self._ends[who.name, outcome]
            self.deny(told > true, f"the ticks on {who.name} report {told} {outcome} tasks, and there are {true}")
            all_told = self.book.is_near and who.disturbed_at < 0  # else what was written last may not be known
            self.deny(all_told and told < true, f"{who.name} reports {told} {outcome} of {true}")
