"""`examples/time_limits.py`, run as a reader runs it."""

from __future__ import annotations

from pathlib import Path

from tests.integration.examples.support import each_by_itself, run_example
from tests.integration.places import Place
from tests.integration.stores import EVERYWHERE

AWAITED = """\
An awaited call is cancelled at the limit
  fetch 1           asks the server
  fetch 1           is told to stop: timeout
  fetch 2           asks the server
  server            says nothing
  server            they have hung up
  server            answers
  about fetch       failed: TaskTimeout
  caller            fetch is done-completed: result=hello, attempts=2
"""

BLOCKING = """\
Blocking code looks at the signal
  copy 1            looks at the signal, and stops: timeout
  about copy        failed: TaskTimeout
  copy 2            goes on where the last attempt was
  caller            copy is done-completed: result=all copied, attempts=2
"""

KILLED = """\
A process is killed
  about factorise   failed: TaskTimeout
  caller            factorise is done-failed: result=None, attempts=1
"""

LATE = """\
After its deadline nothing is started
  about invite      failed: TaskExpired
  caller            invite is done-expired: result=None, attempts=0
"""

pytestmark = EVERYWHERE


def test_it_runs_as_it_says(opened_place: Place, tmp_path: Path) -> None:
    """A call of httpx ends with its attempt, so that the server is hung up on; the other kinds of work stop as told."""
    awaited, *rest = run_example("time_limits.py", opened_place, tmp_path)
    assert each_by_itself(awaited) == each_by_itself(AWAITED)
    assert [part.splitlines() for part in rest] == [part.splitlines() for part in (BLOCKING, KILLED, LATE)]
