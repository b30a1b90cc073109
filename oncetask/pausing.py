"""Kinds that are paused: a list in the settings of the environment, which every worker and tick respects.

A paused kind is left out of what is claimed. What runs goes on to its end, tasks are enqueued as ever and wait, and so
do cancelled ones; schedules spawn on, since `pause_schedule` is there for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from oncetask.store import Settings, TaskStore

__all__ = ["pause", "paused_kinds", "resume"]

_FIELD = "pausedKinds"


def paused_kinds(settings: Settings) -> frozenset[str]:
    """Read which kinds are paused, whoever wrote it."""
    stored = settings.fields.get(_FIELD)
    return frozenset(kind for kind in stored if isinstance(kind, str)) if isinstance(stored, list) else frozenset()


async def pause(store: TaskStore, kind: str) -> bool:
    """Pause a kind; False: it is paused already. Raises StoreUnavailable, PayloadTooLarge."""
    return await _write(store, kind, paused=True)


async def resume(store: TaskStore, kind: str) -> bool:
    """Let a kind go on; False: it is not paused. Raises as `pause`."""
    return await _write(store, kind, paused=False)


async def _write(store: TaskStore, kind: str, *, paused: bool) -> bool:
    """Write upon the newest settings, and look again where somebody was faster."""
    while True:
        settings = await store.settings()
        kinds = paused_kinds(settings)
        if (kind in kinds) is paused:
            return False
        written = await store.write_settings(settings, {_FIELD: sorted(kinds ^ {kind})})
        if written.error is not None:
            raise written.error
        if written.applied:
            return True
