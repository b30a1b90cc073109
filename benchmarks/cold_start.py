"""How long a function takes to import, beside Google's libraries, which every function on Firestore has to import.

Python itself tells the microseconds of each module (`-X importtime`). Both programs take turns, so that a machine which
grows slower meanwhile slows down both.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

__all__ = ["measure"]

RUNS = 7

_FUNCTIONS = Path(__file__).parents[1] / "functions"
_GOOGLES = "google.cloud.firestore, functions_framework.aio"
_OURS = ("oncetask", "main", "tasks")
_MARK = "from here on"
_LINE = re.compile(r"import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)")


def measure() -> dict[str, float]:
    """Give medians in milliseconds, and two shares of Google's: of our own modules, and of all that we bring."""
    with tempfile.TemporaryDirectory() as folder:
        environment = _environment(Path(folder))
        for modules in ("main", _GOOGLES):
            _imported(modules, environment)  # compiles, as a deployment does
        turns = [(_imported(_GOOGLES, environment), _imported("main", environment)) for _ in range(RUNS)]
    alone = statistics.median(sum(googles.values()) for googles, _ in turns)
    whole = statistics.median(sum(all_.values()) for _, all_ in turns)
    own = statistics.median(_sum(all_, *_OURS) for _, all_ in turns)
    pydantic = statistics.median(_sum(all_, "pydantic", "pydantic_core", "annotated_types") for _, all_ in turns)
    return {
        "googles_alone_ms": alone,
        "functions_main_ms": whole,
        "own_ms": own,
        "own_percent": 100 * own / alone,
        "own_and_brought_percent": 100 * (whole - alone) / alone,
        "of_it_pydantic_percent": 100 * pydantic / alone,
    }


def _environment(folder: Path) -> dict[str, str]:
    """Describe a function on Firestore; what is compiled is kept in the folder."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "ONCETASK_"))}
    return {**kept, "ONCETASK_STORE": "firestore://demo-oncetask", "PYTHONPYCACHEPREFIX": str(folder)}


def _imported(modules: str, environment: dict[str, str]) -> dict[str, float]:
    """Import modules in a fresh process; gives the milliseconds that each module took by itself."""
    code = f"import sys; print({_MARK!r}, file=sys.stderr); import {modules}"
    command = (sys.executable, "-X", "importtime", "-c", code)
    told = subprocess.run(command, cwd=_FUNCTIONS, env=environment, capture_output=True, text=True, check=True).stderr
    return {name: int(own) / 1_000 for own, name in _LINE.findall(told.partition(_MARK)[2])}


def _sum(took: dict[str, float], *packages: str) -> float:
    return sum(own for name, own in took.items() if name.partition(".")[0] in packages)
