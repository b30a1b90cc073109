"""`examples/calendar_sync.py`, run as a reader runs it."""

from __future__ import annotations

from pathlib import Path

from tests.integration.examples.support import run_example
from tests.integration.places import Place
from tests.integration.stores import EVERYWHERE

CHANGES = ["add breakfast", "add lunch", "add tea", "remove tea"]

pytestmark = EVERYWHERE


def test_it_runs_as_it_says(opened_place: Place, tmp_path: Path) -> None:
    """Each calendar sees its changes in order and one at a time; what fails waits, or lets others pass, as declared."""
    jumble, *rest = run_example("calendar_sync.py", opened_place, tmp_path)
    title, *lines = jumble.splitlines()
    assert title == "One change of a calendar at a time, in order"
    for calendar in ("ada", "bob", "cleo"):
        assert [line[12:] for line in lines if line[2:10].strip() == calendar] == CHANGES
    assert len(lines) == 3 * len(CHANGES)
    assert [part.splitlines() for part in rest] == [
        [
            "A change that fails keeps its place",
            "  ada       move lunch: the server is down",
            "  ada       move lunch",
            "  ada       move lunch again",
            "  ada       cancel lunch",
        ],
        [
            "A reminder that fails steps aside",
            "  bob       remind of tea: nobody answers",
            "  bob       remind of supper",
            "  bob       remind of bed",
            "  bob       remind of tea",
        ],
        [
            "Hints are worth one refresh",
            "  cleo      refreshed for 3 hints: new event, new guest, new room",
        ],
    ]
