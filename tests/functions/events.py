"""CloudEvents as Eventarc, the emulator and strangers send them."""

from __future__ import annotations

import json

__all__ = ["CREATED", "Sent", "binary", "document", "structured"]

CREATED = "google.cloud.firestore.document.v1.created"

Sent = tuple[dict[str, str], bytes]
"""Headers and body."""


def document(task_id: str, *, env: str = "default", collection: str = "onceTasks") -> str:
    """Give the path of a document as an event has it."""
    return f"oncetask/{env}/{collection}/{task_id}"


def binary(path: str, *, type: str = CREATED, body: bytes = b"\x0a\x00") -> Sent:  # noqa: A002  # the attribute's name
    """Make an event whose attributes are headers, as Eventarc sends it; its body is a protobuf message."""
    attributes = {"id": "1", "source": "//firestore.googleapis.com/", "specversion": "1.0", "type": type}
    headers = {f"ce-{name}": value for name, value in {**attributes, "document": path}.items()}
    return {**headers, "Content-Type": "application/protobuf"}, body


def structured(path: str, *, type: str = CREATED) -> Sent:  # noqa: A002  # the attribute's name
    """Make an event that is all in the body."""
    event = {"id": "1", "source": "//firestore.googleapis.com/", "specversion": "1.0", "type": type, "document": path}
    return {"Content-Type": "application/cloudevents+json"}, json.dumps(event).encode()
