"""What users' own fast tests see: a document enqueued into mock-firestore has the documented shape."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from mockfirestore import MockFirestore
from mockfirestore.transaction import Transaction

from oncetask import connect
from tests.integration.client.support import Greet


class CreatingTransaction(Transaction):  # type: ignore[misc]  # mock-firestore has no types
    """A transaction whose `create` writes: that of mock-firestore 0.11 does nothing, so that no task would be there."""

    def create(self, reference: Any, document_data: dict[str, Any]) -> None:
        """Record the creation as `set` is recorded."""
        self.set(reference, document_data)


def test_a_document_has_the_documented_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    """`enqueue_in` puts exactly the fields of an open task at the documented place, with the documented types."""
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", "127.0.0.1:1")  # nobody is there, and nobody is asked
    client, mock = connect("firestore://demo", env="staging"), MockFirestore()
    later = datetime(2100, 1, 1, tzinfo=UTC)
    before = datetime.now(UTC)
    with CreatingTransaction(mock) as transaction:
        transaction._begin()
        task_id = client.enqueue_in(transaction, Greet(name="Ada"), resource_key="user:1", wait_until=later, timeout=9)
    snapshot = mock.collection("oncetask").document("staging").collection("onceTasks").document(task_id).get()
    document = snapshot.to_dict()
    created = document.pop("createdAt")
    assert before - timedelta(seconds=1) < created <= datetime.now(UTC)
    assert isinstance(document.pop("createId"), str)
    assert document == {
        "kind": "greet",
        "data": {"name": "Ada"},
        "resourceKey": "user:1",
        "lane": "user:1",
        "waitUntil": later,
        "dueAt": later,
        "leaseOwner": None,
        "attempts": 0,
        "cancelAttempts": 0,
        "errors": [],
        "isCancelled": False,
        "timeout": 9.0,
        "outcome": None,
        "schema": 1,
    }
    assert task_id == "greet:Ada"
