"""Says what ought not to be: it sees what is stored and what runs, and knows nothing of how oncetask works.

Each law is a class of its own, in `laws/`; what it has to know of the past stands in the `Book`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from tests.simulation.apps import Rule
from tests.simulation.book import Book, Law
from tests.simulation.laws import clients, documents, keys, leases, limits, recurring
from tests.simulation.sight import Run, Scene, Who, Write

__all__ = ["LAWS", "Oracle"]

LAWS: Sequence[type[Law]] = (
    documents.Consistency,
    documents.Finality,
    documents.Untouched,
    documents.Errors,
    documents.Attempts,
    documents.TrueTimes,
    documents.StateMachine,
    leases.OnlyTheHolder,
    leases.Starts,
    leases.Tokens,
    leases.OneAtATime,
    leases.CancelArrives,
    leases.Pauses,
    keys.Locks,
    keys.Turns,
    recurring.Generators,
    recurring.Occurrences,
    clients.Acknowledged,
    clients.Changed,
    clients.Staged,
    limits.TimeLimits,
    limits.Backoff,
    limits.Stopping,
    limits.Budgets,
    clients.Promptness,
    clients.NothingLeft,
)


class Oracle:
    """Hands on what happens to every law that looks at such a thing."""

    def __init__(
        self, scene: Scene, rules: Mapping[str, Rule], *, distance: float = 0.0, prompt: Collection[str] = ()
    ) -> None:
        """`scene`: is told what is wrong. `rules`: what was promised about each kind. The others: as for `Book`."""
        self._scene = scene
        self.book = Book(rules, began=scene.now, distance=distance, prompt=prompt)
        self._laws = [law(scene, self.book) for law in LAWS]
        self._heard_by: dict[str, list[Callable[..., None]]] = {}

    @property
    def seen(self) -> Counter[str]:
        """How often things have happened."""
        return self.book.seen

    @property
    def ids(self) -> list[str]:
        """The tasks that ever were."""
        return self.book.ids

    @property
    def generators(self) -> list[str]:
        """Those of them that spawn others."""
        return self.book.generators

    @property
    def open_tasks(self) -> set[str]:
        """Those that are not done."""
        return self.book.open

    # -- what is stored, and read -------------------------------------------------------------------------------------

    def wrote(self, write: Write) -> None:
        """See what one accepted write changed."""
        self._tell("wrote", write)
        self.book.take(write, self._scene.micros)
        self._tell("settled", write)

    def read_line(self, who: Who, resource_key: str, at: int) -> None:
        """See a worker get to know a line from its beginning, as it was `at` these microseconds."""
        self._tell("read_line", who, resource_key, at)

    # -- what runs ----------------------------------------------------------------------------------------------------

    def started(self, run: Run) -> None:
        """See user code begin."""
        self._tell("started", run)
        self.book.runs.append(run)

    def staged(self, run: Run, task_id: str) -> None:
        """See it stage a task."""
        self._tell("staged", run, task_id)

    def ended(self, run: Run, how: str) -> None:
        """See it end."""
        if run in self.book.runs:
            self.book.runs.remove(run)
            self.book.seen["disobedient"] += not run.obeys
            self._tell("ended", run, how)

    def lost(self, who: Who) -> None:
        """See a machine go, and with it all that ran on it."""
        self.book.runs = [run for run in self.book.runs if run.machine is not who]

    def heard(self, who: Who, task_id: str, error: Exception) -> None:
        """See an error handler be told."""
        self.book.seen["error handler"] += 1

    # -- what callers are told ----------------------------------------------------------------------------------------

    def enqueued(self, who: Who, receipt: Any, since: int) -> None:
        """See a caller get a receipt for what it asked for `since` these microseconds."""
        self._tell("enqueued", who, receipt, since)

    def changed(self, who: Who, verb: str, task_id: str, since: int, *, done: bool) -> None:
        """See a caller be told whether it has changed a task."""
        self._tell("changed", who, verb, task_id, since, done)

    def saw(self, who: Who, task: Any, *, done: bool = False, before: Sequence[int] = ()) -> None:
        """See a caller be shown a task. `done`: it waited for its end. `before`: the versions that it saw before."""
        self._tell("saw", who, task, done, before)

    def ticked(self, who: Who, report: Any, *, began: int, budget: float) -> None:
        """See a tick end that `began` at these microseconds."""
        self._tell("ticked", who, report, began, budget)

    def stopping(self, who: Who) -> None:
        """See a worker be told to stop."""
        self._tell("stopping", who)

    def has_calmed(self) -> None:
        """See the world some time after the last thing went wrong."""
        self._tell("has_calmed")

    def is_at_peace(self) -> None:
        """See the end of the world, long after the last thing went wrong."""
        self._tell("is_at_peace")

    def _tell(self, what: str, *about: object) -> None:
        if what not in self._heard_by:
            self._heard_by[what] = [getattr(law, what) for law in self._laws if hasattr(law, what)]
        for hear in self._heard_by[what]:
            hear(*about)
