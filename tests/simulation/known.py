"""Faults of oncetask that the simulation has found and that are not mended yet: each is a name, and is looked past.

A name goes as soon as its fault is mended; this is empty as a rule.
"""

from __future__ import annotations

__all__ = ["NOT_MENDED"]

NOT_MENDED: frozenset[str] = frozenset()
