"""One run: start everybody, do harm until nearly all is done, let the rest be done in peace, and judge."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

from oncetask import Client, OncetaskError, Recurrence
from oncetask.clock import to_micros
from tests.chaos.crew import Crew, Settings
from tests.chaos.faults import Faults
from tests.chaos.ground_emulator import EmulatorGround
from tests.chaos.ground_sqlite import SqliteGround
from tests.chaos.ledger import Ledger, Violations
from tests.chaos.meddling import Meddler
from tests.chaos.tasks import Tick
from tests.chaos.verdict import Judge, Processes
from tests.chaos.witness import Testimony, Witness

__all__ = ["Report", "play"]

_LOOK_SECONDS = 1.0
_NEARLY = 0.03
_SHOWN = 10


@dataclass
class Report:
    """What came of a run."""

    counts: dict[str, float] = field(default_factory=dict)
    never: list[str] = field(default_factory=list)
    """Faults that did not happen."""
    violations: Violations = field(default_factory=Violations)
    left: list[str] = field(default_factory=list)
    """What was not done when the time was up."""

    @property
    def holds(self) -> bool:
        """True where nothing happened that should not have."""
        return not self.left and not self.violations.counts.total()


class _Scene:
    def __init__(self, ground: SqliteGround | EmulatorGround, folder: Path, settings: Settings) -> None:
        self.report = Report()
        self._ground, self._folder, self._settings = ground, folder, settings
        self._lots = Random(settings.seed)  # noqa: S311  # a test's lots
        self.crew = Crew(ground, folder, settings, self.report.violations)
        self._faults = Faults(self.crew, ground, self._lots, settings.lease)
        self._began = self._ended = time.monotonic()
        self._left = settings.tasks
        self._expected: list[tuple[str, int]] = []

    async def play(self, client: Client, witness: Witness) -> None:
        """Do harm until nearly all is done, and then wait until all is."""
        settings, calm = self._settings, asyncio.Event()
        lots, tidies = Random(settings.seed), self._ground.backlog is not None  # noqa: S311  # as above
        meddler = Meddler(client, witness, lots, settings, tidies=tidies)
        async with asyncio.timeout(settings.limit):
            await self.crew.start()
        await self._begin_generators(client)
        self._began = time.monotonic()
        helpers = [asyncio.create_task(meddler.meddle(calm)), asyncio.create_task(self._look(client))]
        try:
            async with asyncio.timeout(settings.limit):
                await self._faults.deal(until=self._is_nearly_done)
                calm.set()
                await helpers[0]
                while not (self._is_fed() and await self._is_drained(client)):  # noqa: ASYNC110  # as other processes go
                    await asyncio.sleep(_LOOK_SECONDS)
        except TimeoutError:
            await self._faults.aclose()
            await self._tell_what_is_left(client)
        finally:
            calm.set()
            for helper in helpers:
                helper.cancel()
            await asyncio.wait(helpers)
        self._ended = time.monotonic()
        self.report.counts |= dict(meddler.counts)

    async def end(self) -> None:
        """Let the workers end as they would at a deployment."""
        for slot in self.crew.workers:
            slot.busy = True
        await asyncio.gather(*(self.crew.terminate(slot) for slot in self.crew.workers if slot.runs))

    def judge(self) -> None:
        """Read what was recorded, and look at it."""
        report, testimony = self.report, Testimony.read(self._folder)
        ledger = Ledger(report.violations)
        for change in self._ground.changes():
            ledger.take(change)
        ledger.close()
        judge = Judge(
            ledger, testimony, Processes(self.crew.ends, self.crew.terminated, self.crew.stops), report.violations
        )
        judge.judge(self._expected)
        seconds = self._ended - self._began
        completions = sum(len(record.completions) for record in ledger.tasks.values())
        report.never = [name for name, number in self._faults.counts.items() if not number]
        report.counts = {
            "tasks": len(ledger.tasks),
            "of them staged": len(ledger.follow_ups),
            "of them occurrences": len(ledger.occurrences),
            "enqueued once more": testimony.repeated,
            "calls of enqueue_many that nobody heard the answer of": testimony.counts["asks"]
            - testimony.counts["stored"],
            **report.counts,
            **self._faults.counts,
            "longest stop after SIGTERM, seconds": round(judge.longest_stop, 1),
            "handlers run": len(testimony.runs),
            "of them cleanups": sum(run.is_cleanup for run in testimony.runs),
            "claims": sum(len(record.claims) for record in ledger.tasks.values()),
            "completions": completions,
            "writes of tasks accepted": ledger.writes,
            "overlaps with what a stopped process woke up in": judge.excused,
            "seconds": round(seconds, 1),
            "completions a second": round(completions / seconds),
        }

    async def _begin_generators(self, client: Client) -> None:
        """Start recurrences that come each second, and end."""
        times = 6 if self._settings.is_small else 30
        begin = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=2)
        rule = Recurrence(f"FREQ=SECONDLY;COUNT={times}", begin, catch_up="all")
        for number in range(5):
            task_id = f"every-second-{number}"
            await client.enqueue(Tick(), task_id=task_id, recurrence=rule)
            self._expected += [(task_id, to_micros(begin + timedelta(seconds=n))) for n in range(times)]

    async def _look(self, client: Client) -> None:
        """Keep in mind how much is left."""
        while True:
            try:
                self._left = await client.pending_count()
            except OncetaskError:
                """Somebody holds the lock, or has cut the wire."""
            await asyncio.sleep(_LOOK_SECONDS)

    def _is_nearly_done(self) -> bool:
        """Tell whether it is time to let the rest be done in peace; a small run has each fault once."""
        settings = self._settings
        return settings.is_small or (self._is_fed() and self._left < _NEARLY * settings.tasks)

    def _is_fed(self) -> bool:
        return all(slot.process is not None and slot.process.returncode == 0 for slot in self.crew.feeders)

    async def _is_drained(self, client: Client) -> bool:
        try:
            generators = await client.get_tasks_by_ids({task_id for task_id, _ in self._expected})
            return all(task.status.is_done for task in generators) and await client.pending_count() == 0
        except OncetaskError:
            return False

    async def _tell_what_is_left(self, client: Client) -> None:
        left = self.report.left
        try:
            left.append(f"the time is up: {await client.pending_count()} tasks are left")
            for kind, counts in (await client.stats()).counts.items():
                left.append(f"{kind}: {', '.join(f'{number} {status}' for status, number in counts.items())}")
            for status in ("leased", "cancellation-pending", "pending", "waiting"):
                left += map(repr, (await client.list_tasks(status=status, limit=_SHOWN)).tasks)
        except OncetaskError as error:
            left.append(f"the time is up, and the store is not to be had: {error!r}")


async def play(ground: SqliteGround | EmulatorGround, folder: Path, settings: Settings) -> Report:
    """Run it all. `folder`: an empty one, for what the processes say."""
    scene = _Scene(ground, folder, settings)
    processes: Sequence[str] = [slot.name for slot in (*scene.crew.workers, *scene.crew.feeders)]
    async with AsyncExitStack() as stack:
        stack.push_async_callback(ground.aclose)
        client = await stack.enter_async_context(await ground.open(*processes))
        witness = stack.enter_context(closing(Witness(folder, "meddler")))
        stack.push_async_callback(scene.crew.aclose)
        await scene.play(client, witness)
        await scene.end()
    scene.judge()
    return scene.report
