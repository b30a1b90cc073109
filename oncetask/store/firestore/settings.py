"""The document of an environment, beside which its tasks are: read, and written on the version that was read."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from oncetask.store import Settings, Written
from oncetask.store.firestore.codec import micros, read_value, set_micros
from oncetask.store.firestore.faults import REFUSALS, impossible
from oncetask.store.firestore.rpc import RpcFailed
from oncetask.store.firestore.writes import fields_set

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from oncetask.store.firestore.session import Session

__all__ = ["read_settings", "settings_in", "write_settings"]


async def read_settings(session: Session, *, no_older_than: float) -> Settings:
    """Read the settings, or take what opening has read in the last so many seconds. Raises StoreUnavailable."""
    answer = session.first_settings(no_older_than)
    if answer is None:
        (answer,) = await session.ask_settings("reading the settings")
    return settings_in([answer.found] if answer.HasField("found") else [])


def settings_in(documents: Sequence[Any]) -> Settings:
    """Give the settings that their document holds, if there is one."""
    for document in documents:
        fields = document.fields
        return Settings({name: read_value(fields[name]) for name in fields}, micros(document.update_time))
    return Settings({}, 0)


async def write_settings(session: Session, before: Settings, changes: Mapping[str, Any]) -> Written:
    """Set fields upon the version that was read. Raises StoreUnavailable."""
    session.forget_first_settings()
    pb = fields_set(session.names.settings, changes)
    if before.version:
        set_micros(pb.current_document.update_time, before.version)
    else:
        pb.current_document.exists = False
    try:
        send = partial(session.rpc.commit, [pb])
        answer = await session.retrier.run("writing the settings", send, expected=REFUSALS)
    except RpcFailed as error:
        if error.code not in REFUSALS:
            return Written(error=impossible(error, size=pb.ByteSize()))
        return Written()
    return Written(micros(answer.write_results[0].update_time))
