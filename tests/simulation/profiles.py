"""What worlds are like: each profile asks for another kind of trouble."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tests.simulation.apps import ALL_KINDS

__all__ = ["PROFILES", "Profile"]

_VERBS = (
    *("enqueue",) * 6,
    *("enqueue_many",) * 2,
    *("cancel", "cancel", "cancel_ids", "cancel_key", "cancel_kind"),
    *("reset", "reset_ids", "delete", "delete_ids"),
    *("wait", "watch"),
)


@dataclass(frozen=True, kw_only=True)
class Profile:
    """What a world is like."""

    workers: tuple[int, int] = (1, 3)
    """The fewest and the most workers."""
    ticks: int = 1
    """Machines that call `tick` now and then."""
    clients: tuple[int, int] = (1, 2)
    """The fewest and the most machines with clients, each of which does one thing after the other."""
    kinds: tuple[str, ...] = ALL_KINDS
    """The kinds of the tasks that clients enqueue."""
    keys: int = 2
    """Resource keys; 0: none."""
    keyed: float = 0.4
    """The share of the tasks that have one."""
    tasks: int = 5
    """Enqueued at the beginning."""
    seconds: float = 16.0
    """How long things go wrong."""
    leases: tuple[float, ...] = (4.0, 7.0, 60.0)
    """The longest leases of workers, in seconds."""
    every: int = 250
    """About so many callbacks from one fault to the next; 0: no faults."""
    faults: tuple[str, ...] = ("freeze", "crash", "stop")
    verbs: tuple[str, ...] = _VERBS
    """What clients do."""
    pause: float = 1.5
    """The most seconds between two things that a client does."""
    distance: float = 0.0
    """Seconds that reading takes in each direction beside what it takes anyway: so nobody knows the time well."""
    trouble: float = 0.02
    """The share of calls to the store that fail, or take long."""
    deaf: float = 0.02
    """The share of notifications that take long, or end the watch."""
    cut: float = 0.002
    """The share of calls to the store during which the machine is lost."""
    unfit: float = 0.01
    """The share of commits with the end of a task that are too much for the store."""
    stubborn: float = 2.0
    """The most seconds for which a handler goes on after it was told to stop."""
    wrong: float = 300.0
    """The most seconds by which the time of day of a machine is wrong."""
    drift: float = 2e-5
    """The most by which a clock runs too fast or too slowly."""
    redeploys: bool = False
    """Whether versions of the code differ in kinds and schedules."""
    poison: int = 0
    """Documents that somebody has written by hand."""
    concurrency: int = 0
    """How much a worker runs at a time; 0: one, or some, by lot."""
    is_crowded: bool = False
    """Whether one kind and one key are busy all the time."""
    outage: float = 0.0
    """Seconds in the middle without any worker or tick."""
    sees: frozenset[str] = frozenset({"run", "completed"})
    """What has to be seen in a few dozen seeds, so that the profile tests what it is there for."""

    def but(self, **changes: object) -> Profile:
        """Give another one, with changes."""
        return replace(self, **changes)  # type: ignore[arg-type]  # checked where it is made


_QUIET = Profile(faults=(), every=0, trouble=0.0, deaf=0.0, cut=0.0, unfit=0.0, stubborn=0.0)

PROFILES: Mapping[str, Profile] = {
    "mixed": Profile(poison=1, redeploys=True, sees=frozenset({"run", "completed", "crash", "freeze", "cancelled"})),
    "quiet": _QUIET.but(sees=frozenset({"run", "completed", "cancelled", "created", "staged"})),
    "crashing": Profile(
        every=90, faults=("crash", "crash", "crash", "stop"), cut=0.02, sees=frozenset({"crash", "rescued", "cut"})
    ),
    "frozen": Profile(
        every=90, faults=("freeze",), leases=(4.0,), trouble=0.0, sees=frozenset({"freeze", "rescued", "overlap"})
    ),
    "unanswered": Profile(trouble=0.12, deaf=0.15, every=600, sees=frozenset({"unsure", "lost", "slow", "deaf"})),
    "cancelled": Profile(
        kinds=("undone", "mother", "plain", "batch", "short"),
        verbs=(*("enqueue",) * 5, *("cancel",) * 5, "cancel_ids", "cancel_key", "cancel_kind", "reset", "wait"),
        pause=0.7,
        sees=frozenset({"cancelled", "cleanup", "reset"}),
    ),
    "distant": Profile(
        distance=0.6,
        every=90,
        faults=("crash", "freeze"),
        leases=(4.0,),
        keys=0,
        sees=frozenset({"crash", "rescued", "freeze"}),
    ),
    "stubborn": Profile(
        kinds=("undone", "short", "plain"),
        stubborn=8.0,
        verbs=("enqueue", "enqueue", "cancel", "cancel", "reset", "delete"),
        sees=frozenset({"disobedient", "cleanup"}),
    ),
    "keyed": Profile(
        keys=1,
        keyed=1.0,
        tasks=7,
        leases=(4.0, 7.0),
        kinds=("plain", "strict", "batch", "undone", "mother", "short"),
        sees=frozenset({"taken-over", "run", "cleanup"}),
    ),
    "staging": Profile(
        kinds=("mother",), tasks=4, trouble=0.06, every=120, cut=0.01, sees=frozenset({"staged", "unstaged", "crash"})
    ),
    "recurring": Profile(
        keyed=0.1,
        tasks=1,
        pause=2.5,
        verbs=("recur", "recur", "pause_schedule", "resume_schedule", "cancel", "reset", "delete", "enqueue"),
        redeploys=True,
        sees=frozenset({"spawned", "paused", "resumed", "redeclared"}),
    ),
    "outage": Profile(
        workers=(1, 2),
        verbs=("recur", "recur", "enqueue", "cancel"),
        pause=30.0,
        outage=140.0,
        tasks=1,
        seconds=10.0,
        redeploys=True,
        sees=frozenset({"spawned", "passed-over", "outage"}),
    ),
    "pausing": Profile(
        verbs=(*("enqueue",) * 5, "pause_kind", "pause_kind", "resume_kind", "recur", "cancel"),
        kinds=("plain", "single", "undone"),
        trouble=0.01,
        every=500,
        sees=frozenset({"pause", "resume"}),
    ),
    "redeployed": Profile(
        redeploys=True, every=100, faults=("stop", "stop", "crash"), sees=frozenset({"stop", "deployed"})
    ),
    "ticking": Profile(workers=(0, 0), ticks=2, cut=0.006, every=120, sees=frozenset({"tick", "completed", "crash"})),
    "neighbours": _QUIET.but(
        workers=(1, 2),
        poison=3,
        verbs=("enqueue",),
        kinds=("plain", "short"),
        keyed=0.0,
        concurrency=16,
        is_crowded=True,
        sees=frozenset({"neighbour", "poison"}),
    ),
}
