"""`python -m tests.soak --store sqlite|emulator --minutes 10`: prints what grew; 1 where that is too much."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
import tempfile
import tracemalloc
import uuid
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from oncetask import Worker, connect
from tests.emulator import running_emulator
from tests.soak.gauges import Counts, Sample, counts, sample
from tests.soak.judging import growths, leaks
from tests.soak.load import Load, make_app

__all__ = ["Soak", "soak"]

_WARM_UP = 0.2
_SAMPLES = 60
_SETTLES_SECONDS = 15.0
_BEATS = 0.25
_LINES = 10


@dataclass
class Soak:
    """What a run has shown."""

    samples: list[Sample] = field(default_factory=list)
    leaks: list[str] = field(default_factory=list)
    ran: Counter[str] = field(default_factory=Counter)
    deleted: int = 0
    grown: list[str] = field(default_factory=list)
    """Where in the code most of the memory comes from that was not there after the warm-up."""

    @property
    def holds(self) -> bool:
        """True where nothing grew that must not."""
        return not self.leaks and not any(growth.is_too_much for growth in growths(self.samples))


async def soak(url: str, seconds: float, rate: int) -> Soak:
    """Keep one worker busy for so long, and measure. The warm-up is the first fifth, and what goes before."""
    result, before = Soak(), asyncio.all_tasks()
    tracemalloc.start()
    async with connect(url) as client:
        load = Load(client, rate)
        async with Worker(make_app(result.ran), client, concurrency=64):
            await load.fill()
            await load.go_on(_WARM_UP * seconds)
            await load.rest()
            at_rest = await _settled()
            first = tracemalloc.take_snapshot()
            pause = (1 - _WARM_UP) * seconds / _SAMPLES
            going_on = asyncio.create_task(load.go_on((1 - _WARM_UP) * seconds))
            while not (await asyncio.wait({going_on}, timeout=pause))[0]:
                result.samples.append(sample())
            await going_on
            await load.rest()
            result.leaks = leaks(at_rest, await _settled(at_rest))
            last = tracemalloc.take_snapshot()
    result.leaks += [f"outlives worker and client: {task!r}" for task in asyncio.all_tasks() - before]
    tracemalloc.stop()
    result.deleted = load.deleted
    result.grown = list(map(str, last.compare_to(first, "lineno")[:_LINES]))
    return result


async def _settled(wanted: Counts | None = None) -> Counts:
    """Wait until the counts are as wanted, at most for as long as it may take until all is quiet; gives them."""
    loop = asyncio.get_running_loop()
    ends = loop.time() + _SETTLES_SECONDS
    while (found := counts()) != wanted and loop.time() < ends:  # noqa: ASYNC110  # nobody tells
        await asyncio.sleep(_BEATS)
    return found


def _tell(result: Soak, seconds: float) -> None:
    lines = [f"{number:>10,}  {kind}" for kind, number in sorted(result.ran.items())]
    total = sum(number for kind, number in result.ran.items() if "," not in kind)
    lines += [
        f"{total:>10,}  calls in {seconds:g} s, {total / seconds:,.0f} a second; {result.deleted:,} tasks deleted"
    ]
    for growth in growths(result.samples):
        lines.append(
            f"{growth.name:>10}  {growth.first:,.1f} -> {growth.last:,.1f}  {growth.percent:+.1f} %"
            + ("  TOO MUCH" if growth.is_too_much else "")
        )
    lines += [f"LEAKED: {leak}" for leak in result.leaks]
    if not result.holds:
        lines += ["", *result.grown]
    sys.stdout.write("\n".join(lines) + "\n")


def main() -> int:
    """Run it, and give the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--store", choices=("sqlite", "emulator"), default="sqlite")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long (%(default)s)")
    parser.add_argument("--rate", type=int, help="tasks a second; left out: 300 on SQLite, 100 on the emulator")
    given = parser.parse_args()
    logging.getLogger("oncetask").setLevel(logging.CRITICAL)  # handlers fail on purpose
    with ExitStack() as stack:
        if given.store == "sqlite":
            url = f"sqlite:///{Path(stack.enter_context(tempfile.TemporaryDirectory())) / 'tasks.db'}"
        else:
            os.environ["FIRESTORE_EMULATOR_HOST"] = stack.enter_context(running_emulator())
            url = f"firestore://soak-{uuid.uuid4().hex[:12]}"
        rate = given.rate or {"sqlite": 300, "emulator": 100}[given.store]
        result = asyncio.run(soak(url, 60 * given.minutes, rate))
    _tell(result, 60 * given.minutes)
    return 0 if result.holds else 1


if __name__ == "__main__":
    sys.exit(main())
