"""One `Listen` stream for all that a store watches: targets come and go, breaks are mended.

The server sends the changes of each target, and then a snapshot mark: everything up to a read time has been told. Only
at such a mark the state of a target is consistent, so only then it is handed on.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import deque
from typing import TYPE_CHECKING, Any

from google.cloud.firestore_v1.types import firestore as messages

from oncetask.errors import StoreUnavailable
from oncetask.store.firestore.codec import micros
from oncetask.store.firestore.faults import TRANSIENT, backoff
from oncetask.store.firestore.rpc import RpcFailed, code_of
from oncetask.store.firestore.targets import Target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import AbstractContextManager

    from oncetask.store.firestore.rpc import ListenCall, Pb

__all__ = ["Listener", "Watch"]

_Change: Pb = messages.TargetChange.pb()
_ANSWER_SECONDS = 5.0
_EMULATOR_ANSWER_SECONDS = 1.0
_MOST_UNANSWERED = 100
_SECOND_LOOK_SECONDS = 0.5
_log = logging.getLogger("oncetask.store")


class Watch:
    """Something that is watched: one target, or several that are merged."""

    def __init__(
        self, requests: Iterable[Pb], *, deliver: Callable[[list[Pb], Pb], None], fail: Callable[[Exception], None]
    ) -> None:
        """`deliver` gets documents and read time of each new state; `fail` gets what ends the watch for good."""
        self.targets = [Target(request, self) for request in requests]
        self.fail = fail
        self._deliver = deliver
        self._delivered: dict[str, int] | None = None

    def at_snapshot(self, read_time: Pb) -> None:
        """Hand the state on if all of it is known and it is another one than before."""
        if not all(target.current for target in self.targets):
            return
        documents = {name: document for target in self.targets for name, document in target.found.items()}
        versions = {name: micros(document.update_time) for name, document in documents.items()}
        if versions != self._delivered:
            self._delivered = versions
            self._deliver(list(documents.values()), read_time)

    def forget(self) -> None:
        """Begin anew: the next state is handed on whatever it is."""
        self._delivered = None
        for target in self.targets:
            target.forget()


class Listener:
    """The stream, and who watches what on it. It is open while there is something to watch."""

    def __init__(
        self,
        open_stream: Callable[[], AbstractContextManager[ListenCall]],
        *,
        explain: Callable[[RpcFailed], StoreUnavailable],
        on_emulator: bool = False,
    ) -> None:
        """`explain` makes the error of a stream that cannot be had.

        The emulator loses a commit that falls between its reading of a target and its following it, and its stream may
        break or fall silent when targets are added side by side. So there they are added one after the other, and half
        a second after its first answer each is added once more: that finds what was lost, and a silent stream does not
        answer it.
        """
        self._open_stream = open_stream
        self._explain = explain
        self._ask_twice = on_emulator
        self._at_once = 1 if on_emulator else _MOST_UNANSWERED
        self._patience = self._least_patience = _EMULATOR_ANSWER_SECONDS if on_emulator else _ANSWER_SECONDS
        self._call: ListenCall | None = None
        self._ids = itertools.count(1)
        self._targets: dict[int, Target] = {}
        self._waiting: deque[int] = deque()
        self._unanswered: set[int] = set()
        self._outbox: asyncio.Queue[dict[str, Any]] | None = None
        self._task: asyncio.Task[None] | None = None
        self._breaks = 0

    def add(self, watch: Watch) -> None:
        """Watch something; on the loop of the store."""
        for target in watch.targets:
            self._add(target)
        if self._task is None and self._targets:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="oncetask-listen")

    async def remove(self, watch: Watch) -> None:
        """Stop watching; the last one to go closes the stream."""
        for target_id, target in list(self._targets.items()):
            if target.watch is watch:
                self._drop(target_id)
        if not self._targets:
            await self._stop()

    async def aclose(self) -> None:
        """End every watch and close the stream."""
        self._fail_all(StoreUnavailable("the store was closed while it was watched"))
        await self._stop()

    async def _stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    def _add(self, target: Target) -> None:
        target_id = next(self._ids)
        self._targets[target_id] = target
        self._waiting.append(target_id)
        self._ask()

    def _ask(self) -> None:
        """Add the targets that wait, as many as may be unanswered at a time."""
        while self._outbox is not None and self._waiting and len(self._unanswered) < self._at_once:
            target_id = self._waiting.popleft()
            target = self._targets.get(target_id)
            if target is None:
                continue
            if target.current:  # its second time
                self._outbox.put_nowait({"remove_target": target_id})
                del self._targets[target_id]
                target_id = next(self._ids)
                target.forget()
                self._targets[target_id] = target
            self._unanswered.add(target_id)
            target.billed.clear()
            self._outbox.put_nowait({"add_target": _numbered(target.request, target_id)})
            asyncio.get_running_loop().call_later(self._patience, self._insist, self._outbox, target_id)

    def _ask_again(self, target_id: int) -> None:
        """Add a target once more; it is followed until its turn comes."""
        self._waiting.append(target_id)
        self._ask()

    def _insist(self, outbox: asyncio.Queue[dict[str, Any]], target_id: int) -> None:
        """Break a stream that has not answered, so that another one is opened, which gets more time."""
        target = self._targets.get(target_id)
        if target is not None and not target.current and self._outbox is outbox and self._call is not None:
            self._patience = min(2 * self._patience, _ANSWER_SECONDS)
            self._call.cancel()

    def _drop(self, target_id: int) -> Target | None:
        target = self._targets.pop(target_id, None)
        if target is not None and self._outbox is not None and (target.current or target_id in self._unanswered):
            self._outbox.put_nowait({"remove_target": target_id})
        self._settle(target_id)
        return target

    def _settle(self, target_id: int) -> None:
        """Go on with the next target: this one is answered, or nobody wants it any more."""
        self._unanswered.discard(target_id)
        self._ask()

    def _start_over(self, target_id: int) -> None:
        """Ask for everything that matches again; what still comes for the old number is ignored."""
        target = self._drop(target_id)
        if target is not None:
            target.forget()
            self._add(target)

    async def _run(self) -> None:
        while True:
            try:
                await self._converse()
            except RpcFailed as error:
                if error.code not in TRANSIENT:
                    self._fail_all(self._explain(error))
                    self._task = None
                    return
                self._breaks += 1
                _log.debug("the listener's stream broke, will be opened again: %s", error)
            await asyncio.sleep(backoff(self._breaks))

    async def _converse(self) -> None:
        """Hold one stream until it breaks, which raises RpcFailed."""
        self._outbox = asyncio.Queue()
        for target in self._targets.values():
            target.watch.forget()
            target.asked_again = False
        self._unanswered.clear()
        self._waiting = deque(self._targets)
        self._ask()
        with self._open_stream() as call:
            self._call = call
            writer = asyncio.create_task(_send_all(call, self._outbox), name="oncetask-listen-send")
            try:
                while True:
                    call.bill(self._heard(await call.read()))
            finally:
                self._outbox = self._call = None
                writer.cancel()
                await asyncio.gather(writer, return_exceptions=True)  # reading tells of a break, too

    def _heard(self, response: Pb) -> int:
        """Take in an answer; gives how many documents it is billed as."""
        self._breaks = 0
        match response.WhichOneof("response_type"):
            case "target_change":
                return self._target_changed(response.target_change)
            case "document_change":
                change = response.document_change
                news = sum(target.take_in(change.document) for target in self._known(change.target_ids))
                return news + self._forget_document(change.document.name, change.removed_target_ids)
            case "document_delete":
                gone = response.document_delete
                self._forget_document(gone.document, gone.removed_target_ids)
            case "document_remove":
                gone = response.document_remove
                return self._forget_document(gone.document, gone.removed_target_ids)
            case "filter":
                target_id = response.filter.target_id
                if any(len(t.found) != response.filter.count for t in self._known([target_id])):
                    self._start_over(target_id)
        return 0

    def _target_changed(self, change: Pb) -> int:
        match change.target_change_type:
            case _Change.CURRENT:
                return sum(self._answered(target_id) for target_id in change.target_ids)
            case _Change.RESET:
                for target in self._known(change.target_ids):
                    target.forget()
            case _Change.REMOVE:
                self._removed(change)
            case _Change.NO_CHANGE if not change.target_ids and change.HasField("read_time"):
                for watch in {target.watch for target in self._targets.values()}:
                    watch.at_snapshot(change.read_time)
        return 0

    def _answered(self, target_id: int) -> int:
        """Take note that everything of a target has been told; gives how many documents that is billed as."""
        target = self._targets.get(target_id)
        if target is None:
            return 0
        gone = target.take_stock()
        self._patience = self._least_patience
        self._settle(target_id)
        if self._ask_twice and not target.asked_again:
            target.asked_again = True
            asyncio.get_running_loop().call_later(_SECOND_LOOK_SECONDS, self._ask_again, target_id)
        return gone

    def _removed(self, change: Pb) -> None:
        """The server took a target away: without being asked to where we still know it."""
        error = RpcFailed("Listen", code_of(change.cause), change.cause.message)
        for target_id in change.target_ids:
            target = self._targets.get(target_id)
            if target is None:
                continue
            if error.code in TRANSIENT:
                self._start_over(target_id)
            else:
                del self._targets[target_id]
                self._settle(target_id)
                target.watch.fail(self._explain(error))

    def _forget_document(self, name: str, target_ids: Iterable[int]) -> int:
        """Take a document out of targets; gives in how many it was."""
        return sum(target.drop(name) for target in self._known(target_ids))

    def _known(self, target_ids: Iterable[int]) -> Iterable[Target]:
        return [self._targets[target_id] for target_id in target_ids if target_id in self._targets]

    def _fail_all(self, error: StoreUnavailable) -> None:
        for watch in {target.watch for target in self._targets.values()}:
            watch.fail(error)
        self._targets.clear()


async def _send_all(call: ListenCall, outbox: asyncio.Queue[dict[str, Any]]) -> None:
    while True:
        await call.send(**await outbox.get())


def _numbered(request: Pb, target_id: int) -> Pb:
    numbered = type(request)()
    numbered.CopyFrom(request)
    numbered.target_id = target_id
    return numbered
