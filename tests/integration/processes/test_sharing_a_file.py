"""Several processes that write to one SQLite file at the same time."""

from __future__ import annotations

import pytest

from oncetask import Client, TaskStatus
from tests.integration.processes.conftest import Crew
from tests.integration.processes.enqueuer import NUMBER
from tests.integration.stores import ON_SQLITE


@ON_SQLITE
@pytest.mark.timeout(120)
async def test_each_task_is_created_once_and_completes(connected: Client, crew: Crew) -> None:
    """Two processes enqueue the same ids while two workers run them: one creates each task, and all complete."""
    enqueuers = [await crew.start("enqueuer"), await crew.start("enqueuer")]
    workers = [await crew.start(), await crew.start()]
    assert [await process.wait() for process in enqueuers] == [0, 0]
    for number in range(NUMBER):
        assert (await connected.wait(f"job-{number}")).status is TaskStatus.DONE_COMPLETED
    for worker in workers:
        worker.terminate()
        assert await worker.wait() == 0
    lines = crew.runs()
    assert [lines[f"created-{number}"] for number in range(NUMBER)] == [1] * NUMBER
    assert set(lines) >= {str(number) for number in range(NUMBER)}
