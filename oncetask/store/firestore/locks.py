"""Locks of resource keys: documents beside the tasks, written only together with what they are taken for."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from google.cloud.firestore_v1.types import write as write_types

from oncetask.lock import Lock
from oncetask.store import Written
from oncetask.store.document import decode_lock
from oncetask.store.firestore.codec import micros, read_value, set_micros, write_fields

if TYPE_CHECKING:
    from collections.abc import Sequence

    from oncetask.lock import LockChange
    from oncetask.store.firestore.codec import Names
    from oncetask.store.firestore.session import Session

__all__ = ["LockWrite", "lock_write", "read_locks", "takes"]

_Write: Any = write_types.Write.pb()
_SCHEMA = 1
_NEVER = datetime(9999, 12, 31, tzinfo=UTC)
_KEPT = timedelta(days=1)  # how long after its end a lock may lie around before Firestore may delete it
_KEYS_A_CALL = 300


@dataclass(frozen=True, slots=True, eq=False)
class LockWrite:
    """The write of a lock on its way."""

    pb: Any
    name: str
    change: LockChange
    base: int
    """The version that it was derived from; 0 for a lock that did not exist."""

    def is_stale(self, found: Lock | None) -> bool:
        """Tell whether another lock is stored than the one that this was derived from."""
        return (0 if found is None else found.version) != self.base

    def judge(self, found: Lock | None) -> Written:
        """Tell whether this write was applied, where the commit was refused after an answer had got lost.

        Nobody else writes this owner and this end.
        """
        after = self.change.after
        if after is None:
            return Written() if found is not None else Written(self.base)
        ours = found is not None and (found.owner, found.leased_until) == (after.owner, after.leased_until)
        return Written(found.version) if found is not None and ours else Written()


def lock_write(names: Names, change: LockChange) -> LockWrite:
    """Give the write of a lock. Raises TypeError and ValueError for what Firestore cannot hold."""
    pb, name, before, after = _Write(), names.lock(change.resource_key), change.before, change.after
    if after is None:
        pb.delete = name
    else:
        fields = {
            "resourceKey": change.resource_key,
            "leaseOwner": after.owner,
            "leasedUntil": after.leased_until,
            "schema": _SCHEMA,
            "expireAt": after.leased_until + _KEPT,
        }
        pb.update.name = name
        write_fields(pb.update.fields, fields)
    if before is None and after is not None:
        pb.current_document.exists = False
    else:
        set_micros(pb.current_document.update_time, 0 if before is None else before.version)
    return LockWrite(pb, name, change, 0 if before is None else before.version)


def takes(change: LockChange) -> bool:
    """Tell whether a change gives a key to somebody who has not got it: others may be after it at this moment."""
    before, after = change.before, change.after
    return before is None or (after is not None and after.owner != before.owner)


async def read_locks(session: Session, resource_keys: Sequence[str]) -> list[Lock | None]:
    """Read locks, in the order of the keys. Raises StoreUnavailable."""
    keys = {session.names.lock(key): key for key in resource_keys}
    unique = list(keys)
    parts = [unique[start : start + _KEYS_A_CALL] for start in range(0, len(unique), _KEYS_A_CALL)]
    answers = await asyncio.gather(
        *(session.retrier.run("reading locks", partial(session.rpc.batch_get, part)) for part in parts)
    )
    found = {
        keys[answer.found.name]: _read_lock(keys[answer.found.name], answer.found)
        for part in answers
        for answer in part
        if answer.HasField("found")
    }
    return [found.get(key) for key in resource_keys]


def _read_lock(resource_key: str, document: Any) -> Lock:
    """Read a lock, whoever wrote it: one that makes no sense is nobody's, so that it can be taken over.

    But one of a later schema is somebody's, as long as it is there: only who knows that schema can tell.
    """
    owner, until, schema = (read_value(document.fields[name]) for name in ("leaseOwner", "leasedUntil", "schema"))
    lock = decode_lock(resource_key, owner, until, version=micros(document.update_time))
    return replace(lock, leased_until=_NEVER) if isinstance(schema, int) and schema > _SCHEMA else lock
