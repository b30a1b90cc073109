"""What users put into tasks is stored as their codec makes it: a store around another one, for any adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oncetask.codec import Codec, check_codec, codec_from_environment
from oncetask.errors import Unsupported

if TYPE_CHECKING:
    from oncetask.store import TaskStore

__all__ = ["recode", "with_codec"]


def with_codec(store: TaskStore, codec: Codec | None) -> TaskStore:
    """Give a store that codes what it stores; without a codec, given or named by ONCETASK_CODEC, the store itself.

    Raises TypeError for what is no codec, and what `codec_from_environment` raises.
    """
    codec = codec_from_environment() if codec is None else check_codec(codec)
    if codec is None:
        return store
    from oncetask.store.coding.store import CodingStore  # noqa: PLC0415  # few have a codec

    return CodingStore(store, codec)


async def recode(store: TaskStore) -> int:
    """Do what `Client.recode_tasks` says. Raises Unsupported for a store without a codec."""
    from oncetask.store.coding.recoding import recode_all  # noqa: PLC0415  # as above
    from oncetask.store.coding.store import CodingStore  # noqa: PLC0415  # as above

    if not isinstance(store, CodingStore):
        raise Unsupported("there is no codec to write tasks anew with: give one to connect(codec=…)")
    return await recode_all(store)
