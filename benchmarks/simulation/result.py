"""What a simulated run says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.simulation.assumptions import Assumptions

__all__ = ["Point", "Result", "percentile"]


def percentile(ordered: Sequence[float], share: float) -> float:
    """Give the value below which this share of an ordered sequence is; 0 for an empty one."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


@dataclass(frozen=True)
class Point:
    """One moment of a run."""

    at: float
    """Seconds from the beginning to the end of the interval."""
    started_per_second: float
    backlog: float
    """Tasks that were enqueued and have not started."""
    shard_writes_per_second: float
    """To one shard."""


@dataclass(frozen=True)
class Result:
    """A run, in figures."""

    tasks: int
    seconds: float
    """Until the last task was recorded as done."""
    p50_s: float
    """From the enqueue call to the start of the handler, as the other two."""
    p95_s: float
    p99_s: float
    writes_per_task: float
    reads_per_task: float
    refused_percent: float
    """Of the claims that were sent."""
    timeline: Sequence[Point]

    @property
    def per_second(self) -> float:
        """Tasks a second, from the beginning to the end."""
        return self.tasks / self.seconds

    @property
    def most_backlog(self) -> float:
        """Tasks that waited at the worst moment."""
        return max(point.backlog for point in self.timeline)

    @property
    def most_shard_writes(self) -> float:
        """Writes a second to one shard in the busiest interval."""
        return max(point.shard_writes_per_second for point in self.timeline)

    @property
    def hours_behind(self) -> float:
        """Hours in which more waited than comes in two seconds of the busiest interval."""
        usual = 2 * max(point.started_per_second for point in self.timeline)
        step = self.timeline[0].at
        return sum(point.backlog > usual for point in self.timeline) * step / 3600

    def money(self, known: Assumptions) -> float:
        """Give the US$ of a million such tasks."""
        return known.money(reads=self.reads_per_task, writes=self.writes_per_task)

    def figures(self, known: Assumptions) -> dict[str, float]:
        """Give all figures by name, units last."""
        return {
            "tasks": self.tasks,
            "minutes": self.seconds / 60,
            "tasks_per_second": self.per_second,
            "p50_s": self.p50_s,
            "p95_s": self.p95_s,
            "p99_s": self.p99_s,
            "most_backlog_tasks": self.most_backlog,
            "shard_writes_per_second": self.most_shard_writes,
            "refused_percent": self.refused_percent,
            "reads_per_task": self.reads_per_task,
            "writes_per_task": self.writes_per_task,
            "usd_per_million": self.money(known),
        }
