"""New tasks: most of them side by side through the group commit, those of one resource key one after the other.

A `BatchWrite` is not atomic, and several are under way at the same time. Whoever saw the tenth task of a key before
the first one would run them in a wrong order, so these go in atomic commits, each after the answer to the one before.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

import grpc  # type: ignore[import-untyped]  # grpcio ships no types

from oncetask.clock import from_micros
from oncetask.errors import StoreUnavailable
from oncetask.store import Written
from oncetask.store.firestore.codec import micros
from oncetask.store.firestore.faults import REFUSALS, impossible
from oncetask.store.firestore.rpc import RpcFailed
from oncetask.store.firestore.session import settled
from oncetask.store.firestore.writes import Write, creation, tried

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from oncetask.store.firestore.codec import Names
    from oncetask.store.firestore.session import Session
    from oncetask.task import Task

__all__ = ["create"]

_MOST_WRITES = 400
_MOST_BYTES = 3_145_728  # the emulator takes 4 MiB, production 10
_EXPECTED = frozenset({*REFUSALS, grpc.StatusCode.INVALID_ARGUMENT})


async def create(session: Session, tasks: Sequence[Task]) -> list[Written]:
    """Store new tasks, each by itself. Raises StoreUnavailable with the receipts."""
    ordered = _to_be_ordered(tasks)
    others = [n for n in range(len(tasks)) if n not in ordered]
    in_order, side_by_side = await asyncio.gather(
        _create_in_order(session, [tasks[n] for n in ordered]),
        session.outcomes([partial(creation, session.names, tasks[n]) for n in others]),
    )
    outcomes = dict(zip(ordered, in_order, strict=True)) | dict(zip(others, side_by_side, strict=True))
    return settled([outcomes[n] for n in range(len(tasks))])


def _to_be_ordered(tasks: Sequence[Task]) -> dict[int, None]:
    """Give the places of tasks that share their resource key, and of those that share an id with one of these."""
    keys = Counter(task.resource_key for task in tasks)
    ids = {task.id for task in tasks if task.resource_key is not None and keys[task.resource_key] > 1}
    return {n: None for n, task in enumerate(tasks) if task.id in ids}


async def _create_in_order(session: Session, tasks: Sequence[Task]) -> list[Written | BaseException | None]:
    outcomes: list[Written | BaseException | None] = []
    for part in _parts(session.names, tasks):
        try:
            await _commit(session, [write for write in part if isinstance(write, Write)])
        except StoreUnavailable as error:
            outcomes += [_outcome(one, error) for one in part]
            return [*outcomes, *[None] * (len(tasks) - len(outcomes))]
        outcomes += [_outcome(one, None) for one in part]
    return outcomes


def _parts(names: Names, tasks: Sequence[Task]) -> Iterator[list[Write | Written]]:
    """Build writes, as many as fit into one commit, a document at most once; what is no document is answered."""
    part: list[Write | Written] = []
    taken: set[str] = set()
    size = 0
    for task in tasks:
        write = tried(partial(creation, names, task))
        if isinstance(write, Write):
            bytes_of_it = write.pb.ByteSize()
            if write.name in taken or len(taken) == _MOST_WRITES or (taken and size + bytes_of_it > _MOST_BYTES):
                yield part
                part, taken, size = [], set(), 0
            taken.add(write.name)
            size += bytes_of_it
        part.append(write)
    yield part


async def _commit(session: Session, writes: Sequence[Write]) -> None:
    """Settle every write, or raise StoreUnavailable."""
    pending = list(writes)
    while pending:
        try:
            await session.retrier.run("creating tasks", partial(_once, session, pending), expected=_EXPECTED)
        except RpcFailed as error:
            if error.code in REFUSALS:
                await _leave_out(session, pending, error)
            elif len(pending) == 1:
                pending[0].settle(Written(error=impossible(error, size=pending[0].pb.ByteSize())))
            else:  # one that Firestore does not take refuses all of them: halves, until the culprit is alone
                half = len(pending) // 2
                await _commit(session, pending[:half])
                await _commit(session, pending[half:])
        pending = [write for write in pending if not write.done.done()]


async def _once(session: Session, pending: Sequence[Write]) -> None:
    asked = session.clock.monotonic()
    answer = await session.rpc.commit([write.pb for write in pending])
    for write, result in zip(pending, answer.write_results, strict=True):
        write.settle(Written(micros(result.update_time)))
    session.clock.observe(from_micros(micros(answer.write_results[0].update_time)), asked=asked)


async def _leave_out(session: Session, pending: Sequence[Write], refused: RpcFailed) -> None:
    """Settle those that exist: refused, or stored by an earlier try of this very create."""
    names = [write.name for write in pending]
    found = await session.retrier.run("reading tasks", partial(session.read, names))
    for write in pending:
        if write.name in found:
            write.settle(write.judge(found[write.name]))
    if not found and refused.code is not grpc.StatusCode.ALREADY_EXISTS:
        raise session.unavailable(refused, "creating tasks")


def _outcome(one: Write | Written, failure: StoreUnavailable | None) -> Written | BaseException | None:
    if isinstance(one, Written):
        return one
    return one.done.result() if one.done.done() else failure
