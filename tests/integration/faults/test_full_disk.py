"""SQLite on a disk that is full: what was acknowledged stays, who asks is told, and all goes on once there is room."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.faults.processes import LIMIT, Programs
from tests.integration.stores import ON_SQLITE

pytestmark = [
    ON_SQLITE,
    pytest.mark.skipif(sys.platform != "linux", reason="small file systems and limits are made as Linux makes them"),
]

_MOST_TRIES_A_SECOND = 10
_ON_A_SMALL_DISK = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c")
_MOUNT = 'mount -t tmpfs -o size=1m tmpfs "$0" && exec "$@"'


@pytest.fixture(params=["disk", "limit"])
def how(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A file system of a megabyte, where this machine lets its users mount one; a limit on file sizes everywhere."""
    if request.param == "disk":
        command = [*_ON_A_SMALL_DISK, _MOUNT, str(tmp_path), "true"]
        tried = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
        if tried.returncode:
            pytest.skip(f"no small file system can be mounted here: {tried.stderr.strip()}")
    given: str = request.param
    return given


async def test_a_disk_that_fills_up(programs: Programs, tmp_path: Path, how: str) -> None:
    """An enqueue is refused with file and cause, a worker tries on now and then, and nothing is lost or run twice."""
    before = (*_ON_A_SMALL_DISK, _MOUNT, str(tmp_path)) if how == "disk" else ()
    program = await programs.start("tests.integration.faults.filling", how, tmp_path, before=before)
    report = await program.told()
    assert await program.ended() == 0

    assert str(tmp_path / "tasks.db") in report["refusal"]
    assert {"disk": "database or disk is full", "limit": "disk I/O error"}[how] in report["refusal"]
    assert len(report["stored"]) > 1
    assert set(report["stored"]) <= set(report["found"])
    assert 1 <= report["tries"] <= _MOST_TRIES_A_SECOND * (report["seconds"] + 1)
    assert report["runs on the full disk"] == 1
    assert set(map(tuple, report["ends"].values())) == {("done-completed", 1)}
    assert sorted(report["runs"]) == sorted(report["ends"])
    assert any("the store is unavailable, the lease of task held lasts" in line for line in program.log)
    assert not [line for line in program.log if "Traceback" in line]
