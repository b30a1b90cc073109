"""For tests of what is built on oncetask: run an App's tasks in memory, in a time that passes when the test says so."""

from __future__ import annotations

from oncetask.testing.harness import Harness
from oncetask.testing.looking import Tasks
from oncetask.testing.store import HarnessStore, Verb

__all__ = ["Harness", "HarnessStore", "Tasks", "Verb"]
