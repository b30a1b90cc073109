"""Measures other task runners by themselves."""

from __future__ import annotations

import argparse
import signal
import sys

from benchmarks.peers.known import PEERS
from benchmarks.peers.measuring import results
from benchmarks.report import Section, show


def main() -> None:
    """Print the figures of each runner that is installed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"{', '.join(PEERS)}; all of them if none is named")
    parser.add_argument("--tasks", type=int, default=5_000, help="no-op tasks that wait before the worker starts")
    asked = parser.parse_args()
    unknown = [name for name in asked.names if name not in PEERS]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; known are {', '.join(PEERS)}")
    # What was started is stopped by the same way out as after Ctrl-C.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        for result in results(asked.tasks, asked.names or PEERS):
            show(Section(result.title, result.figures))
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
