"""A program that forks, run as a process of its own: `python -m tests.integration.client.forking used|fresh`.

What other tests have left of grpc in pytest's process would decide whether a child works.
"""

from __future__ import annotations

import os
import sys

from oncetask import Payload, connect_sync


class Note(Payload, kind="note"):
    """Nothing to say."""


def main(before: str) -> int:
    """Fork with a client that was used before, or only made; give 0 where parent and child both go on with it."""
    client = connect_sync()
    if before == "used":
        client.enqueue(Note(), task_id="before")
    child = os.fork()
    if child == 0:
        created = client.enqueue(Note(), task_id="child").created
        client.close()
        os._exit(0 if created and client.get_task("child").kind == "note" else 1)
    _, status = os.waitpid(child, 0)
    if status != 0:
        return 1
    with client:
        seen = client.get_task("child").kind == "note"
        return 0 if seen and client.enqueue(Note(), task_id="after").created else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
