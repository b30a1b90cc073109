"""`examples/cancellation.py`, run as a reader runs it."""

from __future__ import annotations

from pathlib import Path

from tests.integration.examples.support import each_by_itself, run_example
from tests.integration.places import Place
from tests.integration.stores import EVERYWHERE

RUNNING = """\
A job is cancelled while it runs
  film-1 attempt 1  reserved 4 CPUs
  film-1 attempt 1  wrote 3 temporary files, waits for the sound track
  caller            render-film:film-1 is leased: 4 CPUs reserved, 3 temporary files
  caller            cancel_task('render-film:film-1')
  film-1 attempt 1  is told to stop: cancelled
  film-1 cleanup 1  released 4 CPUs
  film-1 cleanup 1  deleted 3 temporary files
  film-1 cleanup 1  failed: the mail server does not answer
  oncetask logs     task render-film:film-1 (render-film) cleanup-retried, attempt 1: \
ExceptionGroup: the cleanup is not complete (1 sub-exception): ConnectionError: the mail server does not answer
  film-1 cleanup 2  no CPUs to release
  film-1 cleanup 2  no temporary files to delete
  film-1 cleanup 2  notified ada
  caller            it said True, and False when it was called again
  caller            render-film:film-1 is done-cancelled: attempts=1, cancel_attempts=2
  caller            its cleanup 1 failed: \
ExceptionGroup: the cleanup is not complete (1 sub-exception): ConnectionError: the mail server does not answer
"""

WAITING = """\
Two jobs are cancelled before they start
  caller            cancel_tasks_by_resource_key(RenderFilm, 'customer:bob')
  film-2 cleanup 1  no CPUs to release
  film-2 cleanup 1  no temporary files to delete
  film-2 cleanup 1  notified bob
  film-3 cleanup 1  no CPUs to release
  film-3 cleanup 1  no temporary files to delete
  film-3 cleanup 1  notified bob
  caller            it said 2
  caller            render-film:film-2 is done-cancelled: attempts=0, cancel_attempts=1
  caller            render-film:film-3 is done-cancelled: attempts=0, cancel_attempts=1
"""

LEFT = """\
What is left
  caller            0 CPUs reserved, 0 temporary files, 0 tasks not done
  caller            notices: film-1 was cancelled, film-2 was cancelled, film-3 was cancelled
  caller            render-film: 3 done-cancelled
"""

pytestmark = EVERYWHERE


def test_it_runs_as_it_says(opened_place: Place, tmp_path: Path) -> None:
    """It prints every step as expected, those of two cleanups side by side in the order of each."""
    running, waiting, left = run_example("cancellation.py", opened_place, tmp_path)
    assert running.splitlines() == RUNNING.splitlines()
    assert each_by_itself(waiting) == each_by_itself(WAITING)
    assert left.splitlines() == LEFT.splitlines()
