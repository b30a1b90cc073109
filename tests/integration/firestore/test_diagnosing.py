"""What the store on the emulator says about indexes and rules."""

from __future__ import annotations

from pathlib import Path

import pytest

from oncetask.store import Diagnosis
from oncetask.store.firestore import FirestoreStore
from tests.rules.callers import Project

pytestmark = pytest.mark.emulator

RULES = (Path(__file__).parents[3] / "firestore.rules").read_text()
UNCHECKED = Diagnosis("indexes", "not checked: an emulator needs none")


async def test_our_rules_keep_strangers_out(store: FirestoreStore, emulator_host: str, project_id: str) -> None:
    """With the rules of this repository nobody reads without signing in, whether there is anything to read or not."""
    with Project(emulator_host, project_id) as project:
        project.load(RULES)
        assert await store.diagnose() == [UNCHECKED, Diagnosis("rules", "who has not signed in may read nothing")]
        project.admin.put("oncetask/test/onceTasks/oncetask-doctor", {"owner": None}).raise_for_status()
        assert (await store.diagnose())[1].message == "who has not signed in may read nothing"


async def test_an_emulator_without_rules_is_open(store: FirestoreStore) -> None:
    """That is told, and nothing wrong: there is nothing at stake."""
    unchecked, found = await store.diagnose()
    assert (unchecked, found.is_wrong) == (UNCHECKED, False)
    assert found.message.startswith("anybody may read, ")
