"""`python -m tests.chaos --store sqlite|emulator`: prints what happened; 1 where something did that should not have."""

from __future__ import annotations

import argparse
import asyncio
import logging
import secrets
import sys
import tempfile
import uuid
from contextlib import ExitStack
from pathlib import Path

from tests.chaos.crew import Settings
from tests.chaos.ground_emulator import EmulatorGround
from tests.chaos.ground_sqlite import SqliteGround
from tests.chaos.scene import Report, play
from tests.emulator import running_emulator

__all__ = ["tell"]

_TASKS = {"sqlite": 100_000, "emulator": 20_000}
_HEAP_MEGABYTES = 2_048


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--store", choices=_TASKS, default="sqlite")
    parser.add_argument("--tasks", type=int, help="left out: 100,000 on SQLite, 20,000 on the emulator")
    parser.add_argument("--workers", type=int, default=4, help="processes (%(default)s)")
    parser.add_argument("--seed", type=int, help="left out: a new one, which is printed")
    parser.add_argument("--minutes", type=float, default=20.0, help="when it is given up (%(default)s)")
    parser.add_argument("--lease", type=float, default=4.0, help="of the workers, in seconds (%(default)s)")
    return parser.parse_args()


def tell(report: Report) -> str:
    """Give a report as text."""
    lines = [f"{number:>12,}  {what}" for what, number in report.counts.items()]
    lines += ["", *(f"{number:>12,}  {what}" for what, number in report.violations.counts.items())]
    lines += [f"this run had no {what}" for what in report.never]
    for what, examples in report.violations.examples.items():
        lines += ["", f"{what}:", *examples]
    return "\n".join([*lines, *report.left])


def main() -> int:
    """Run it, and give the exit code."""
    given = _arguments()
    settings = Settings(
        tasks=given.tasks or _TASKS[given.store],
        workers=given.workers,
        seed=secrets.randbelow(1_000_000) if given.seed is None else given.seed,
        lease=given.lease,
        limit=60 * given.minutes,
    )
    sys.stdout.write(f"chaos on {given.store}: {settings.tasks:,} tasks, {settings.workers} workers, ")
    sys.stdout.write(f"--seed {settings.seed}\n")
    sys.stdout.flush()
    logging.getLogger("oncetask").setLevel(logging.CRITICAL)  # the store is unavailable on purpose
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        ground: SqliteGround | EmulatorGround
        if given.store == "sqlite":
            ground = SqliteGround(folder)
        else:
            host = stack.enter_context(running_emulator(heap_megabytes=_HEAP_MEGABYTES))
            ground = EmulatorGround(host, f"chaos-{uuid.uuid4().hex[:12]}")
        report = asyncio.run(play(ground, folder, settings))
    sys.stdout.write(tell(report) + "\n")
    return 0 if report.holds else 1


if __name__ == "__main__":
    sys.exit(main())
