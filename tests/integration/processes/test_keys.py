"""Resource keys under fire: processes that share them are killed and stopped at random."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from oncetask import Client, TaskStatus
from tests.integration.places import Place
from tests.under_fire import Fire, share_keys

_TASKS, _KEYS, _STRIKES = 600, 12, 5


@pytest.fixture
async def fire(place: Place, tmp_path: Path) -> AsyncIterator[Fire]:
    """Three worker processes, and a witness."""
    lit = Fire(place.environment, tmp_path / "witness.db", processes=3, seed=6)
    yield lit
    await lit.aclose()


@pytest.mark.timeout(150)
async def test_no_two_of_a_key_and_all_in_order(connected: Client, fire: Fire) -> None:
    """A table outside of the queue never sees two of a key at once; first starts are in order, and all get done."""
    verdict = await share_keys(connected, fire, tasks=_TASKS, keys=_KEYS, strikes=_STRIKES)
    assert (verdict.overlaps, verdict.out_of_order, verdict.never) == ([], [], set())
    assert verdict.runs >= _TASKS
    assert (await connected.stats()).counts == {"keyed": {TaskStatus.DONE_COMPLETED: _TASKS}}
