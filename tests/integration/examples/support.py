"""Running an example as a reader runs it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.integration.places import MemoryPlace, Place

__all__ = ["each_by_itself", "run_example"]

_EXAMPLES = Path(__file__).parents[3] / "examples"


def run_example(name: str, place: Place, folder: Path) -> list[str]:
    """Run an example to its end; gives the parts of what it printed.

    It has to end well, to say nothing on stderr, and to leave no file.
    """
    here, scratch = folder / "here", folder / "scratch"
    here.mkdir()
    scratch.mkdir()
    environment = {**place.environment, "TMPDIR": str(scratch)}
    if isinstance(place, MemoryPlace):
        del environment["ONCETASK_STORE"]  # it is told of no store, and chooses memory by itself
    command = (sys.executable, "-W", "error", str(_EXAMPLES / name))
    ran = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, timeout=50, check=False)
    assert (ran.returncode, _without_grpcs(ran.stderr)) == (0, "")
    assert [*here.iterdir(), *scratch.iterdir()] == []
    return ran.stdout.split("\n\n")


def each_by_itself(text: str) -> list[str]:
    """Put the lines of a part together by who printed them; of one of them they stay in order."""
    title, *lines = text.splitlines()
    return [title, *sorted(lines, key=lambda line: line[2:18])]


def _without_grpcs(errors: str) -> str:
    """Leave out what grpc prints where the emulator has mangled a message, as it does now and then under load.

    The store opens a new stream then (firebase/firebase-js-sdk issue 2894 tells of such messages).
    """
    return re.sub(
        r"Exception deserializing message!\nTraceback .*\n(?: .*\n)*google\.protobuf.*DecodeError.*\n", "", errors
    )
