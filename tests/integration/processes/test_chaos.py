"""The load run under faults at a small size: each fault once, on both stores."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.crew import Settings
from tests.chaos.ground_emulator import EmulatorGround
from tests.chaos.ground_sqlite import SqliteGround
from tests.chaos.scene import play

_SEES_TRANSACTIONS = Path("/proc/locks").exists()
_UNSEEN = "workers killed within a transaction"


@pytest.fixture(params=["sqlite", pytest.param("emulator", marks=pytest.mark.emulator)])
def ground(request: pytest.FixtureRequest, tmp_path: Path) -> SqliteGround | EmulatorGround:
    """Where it happens."""
    if request.param == "sqlite":
        return SqliteGround(tmp_path)
    return EmulatorGround(request.getfixturevalue("emulator_host"), request.getfixturevalue("project_id"))


@pytest.fixture
def said(tmp_path: Path) -> Path:
    """The folder in which the processes say what they do."""
    folder = tmp_path / "said"
    folder.mkdir()
    return folder


@pytest.mark.timeout(150)
async def test_nothing_is_lost_or_done_twice(ground: SqliteGround | EmulatorGround, said: Path) -> None:
    """Killed, stopped, cut off and locked out, workers lose nothing, complete nothing twice, and write nothing late."""
    report = await play(ground, said, Settings(tasks=200, workers=4, seed=9, lease=2.0, limit=90.0))
    assert (report.violations.examples, report.left) == ({}, [])
    assert [fault for fault in report.never if fault != _UNSEEN or _SEES_TRANSACTIONS] == []
    assert report.counts["completions"] > 200
