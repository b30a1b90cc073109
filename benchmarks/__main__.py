"""What oncetask does a second, how soon, and what it costs, with the bars that it has to keep.

`python -m benchmarks --help` tells the options; `--only` takes the names of sections. `python -m benchmarks.compare`
holds the results of two runs against each other, `python -m benchmarks.peers` and `python -m benchmarks.simulation`
are other programs.

Machines differ, and so do minutes of one: compare figures of one run. Reads and writes are counted at the RPC, by the
adapter itself. Each section has a store of its own, a new file or a fresh emulator.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.catalogue import LOCAL, STORED, Sizes, Stored
from benchmarks.peers.measuring import results as peers
from benchmarks.report import Section, show
from tests.emulator import running_emulator

_STORES = ("sqlite", "firestore")
_QUICK = Sizes(tasks=1_000, keyed=500, tries=10, minutes=10, fire=500, queues=(500, 2_000, 10_000))


def main() -> None:
    """Measure what was asked for; print tables, and write JSON."""
    asked = _arguments()
    logging.getLogger("oncetask").setLevel(logging.CRITICAL)  # a thousand time limits are reached on purpose
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # so that servers are stopped
    sections: list[tuple[str, Section]] = []
    for name, section in _measured(asked):
        show(section)
        sections.append((name, section))
        if asked.output is not None:  # after each, so that an end half-way leaves what there is
            asked.output.write_text(json.dumps(_results(sections), indent=2) + "\n")
    missed = [f"{name}: {figure}" for name, section in sections for figure in section.missed()]
    print(f"bars missed: {'; '.join(missed) or 'none'}")


def _arguments() -> argparse.Namespace:
    names = [section.name for section in (*LOCAL, *STORED)]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.partition("\n\n")[0])
    parser.add_argument("--only", nargs="+", choices=[*names, "peers"], default=[*names, "peers"], help="sections")
    parser.add_argument("--stores", nargs="+", choices=_STORES, default=_STORES)
    parser.add_argument("--tasks", type=int, help="no-ops that wait before a worker starts")
    parser.add_argument("--quick", action="store_true", help="much less of everything, to see whether it works")
    parser.add_argument("--output", type=Path, default=Path("bench.json"), help="where the JSON is written")
    asked = parser.parse_args()
    asked.sizes = _QUICK if asked.quick else Sizes()
    if asked.tasks is not None:
        asked.sizes = Sizes(**{**vars(asked.sizes), "tasks": asked.tasks})
    return asked


def _measured(asked: argparse.Namespace) -> Iterator[tuple[str, Section]]:
    for local in LOCAL:
        if local.name in asked.only:
            yield local.name, Section(local.title, local.run(), local.bars)
    for stored in STORED:
        for store in stored.stores:
            if stored.name in asked.only and store in asked.stores:
                figures = _on(store, stored, asked.sizes)
                yield f"{stored.name}_{store}", Section(f"{store}: {stored.title}", figures, stored.bars.get(store, {}))
    if "peers" in asked.only:
        for peer in peers(asked.sizes.tasks):
            yield f"peer_{peer.name}", Section(peer.title, peer.figures)


def _on(store: str, section: Stored, sizes: Sizes) -> dict[str, float]:
    with _fresh(store) as url:
        return dict(asyncio.run(_awaited(section, url, sizes)))


async def _awaited(section: Stored, url: str, sizes: Sizes) -> dict[str, float]:
    return await section.run(url, sizes)


@contextmanager
def _fresh(store: str) -> Iterator[str]:
    """Give the url of a store of its own."""
    if store == "sqlite":
        with tempfile.TemporaryDirectory() as folder:
            yield f"sqlite:///{Path(folder) / 'bench.db'}"
    else:
        with running_emulator() as host:
            before = os.environ.get("FIRESTORE_EMULATOR_HOST")
            os.environ["FIRESTORE_EMULATOR_HOST"] = host
            try:
                yield f"firestore://bench-{uuid.uuid4().hex[:8]}"
            finally:
                if before is None:  # else the next section would look for this emulator
                    del os.environ["FIRESTORE_EMULATOR_HOST"]


def _results(sections: list[tuple[str, Section]]) -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "oncetask": version("oncetask"),
        "commit": _commit(),
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "sections": [
            {
                "name": name,
                "title": section.title,
                "figures": dict(section.figures),
                "missed": list(section.missed()),
            }
            for name, section in sections
        ],
    }


def _commit() -> str | None:
    git = shutil.which("git")
    if git is None:
        return None
    root = Path(__file__).parents[1]
    told = subprocess.run([git, "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=False)
    return told.stdout.strip() or None


if __name__ == "__main__":
    main()
