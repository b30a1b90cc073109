"""Records in this process's own memory: for tests, simulations, and whatever else brings its own time."""

from __future__ import annotations

from oncetask.store.memory.adapter import MemoryStore
from oncetask.store.memory.documents import Documents, Edit, Memory

__all__ = ["Documents", "Edit", "Memory", "MemoryStore"]
