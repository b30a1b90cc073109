"""The listener, on a stream whose other end is the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import grpc  # type: ignore[import-untyped]  # grpcio ships no types
import pytest
from google.cloud.firestore_v1.types import firestore as messages

from oncetask.errors import StoreUnavailable
from oncetask.store.firestore.codec import set_micros
from oncetask.store.firestore.listen import Listener, Watch
from oncetask.store.firestore.rpc import RpcFailed

Response: Any = messages.ListenResponse.pb()
Change: Any = messages.TargetChange.pb()
Target: Any = messages.Target.pb()


class Stream:
    """The other end of one stream."""

    def __init__(self) -> None:
        self.sent: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.says: asyncio.Queue[Any] = asyncio.Queue()
        self.billed = 0

    async def send(self, **change: Any) -> None:
        """What the listener asks for."""
        self.sent.put_nowait(change)

    async def read(self) -> Any:
        """What the listener hears."""
        said = await self.says.get()
        if isinstance(said, RpcFailed):
            raise said
        return said

    def bill(self, documents: int) -> None:
        """What the listener takes an answer for."""
        self.billed += documents

    def cancel(self) -> None:
        """Break."""
        self.break_off()

    def break_off(self, code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE) -> None:
        """End the stream."""
        self.says.put_nowait(RpcFailed("Listen", code, "test"))

    async def asked(self) -> int:
        """Wait for the next target that is added, and give its number."""
        async with asyncio.timeout(10):
            while "add_target" not in (change := await self.sent.get()):
                pass
        number: int = change["add_target"].target_id
        return number

    def change(self, kind: int, *targets: int, code: int = 0) -> None:
        """Tell a change of targets."""
        response = Response()
        response.target_change.target_change_type = kind
        response.target_change.target_ids.extend(targets)
        response.target_change.cause.code = code
        self.says.put_nowait(response)

    def snapshot(self) -> None:
        """Tell that everything has been told."""
        response = Response()
        response.target_change.read_time.seconds = 9
        self.says.put_nowait(response)

    def document(self, name: str, version: int, *targets: int) -> None:
        """Tell a document."""
        response = Response()
        response.document_change.document.name = name
        set_micros(response.document_change.document.update_time, version)
        response.document_change.target_ids.extend(targets)
        self.says.put_nowait(response)

    def removal(self, kind: str, name: str, *targets: int) -> None:
        """Tell that a document does not match any more."""
        response = Response()
        getattr(response, kind).document = name
        getattr(response, kind).removed_target_ids.extend(targets)
        self.says.put_nowait(response)

    def count(self, target: int, number: int) -> None:
        """Tell how many documents match."""
        response = Response()
        response.filter.target_id = target
        response.filter.count = number
        self.says.put_nowait(response)


class Other:
    """The other end of all streams, and a watcher of one target."""

    def __init__(self, *, on_emulator: bool = False) -> None:
        self.streams: asyncio.Queue[Stream] = asyncio.Queue()
        self.told: asyncio.Queue[Any] = asyncio.Queue()
        explain = lambda error: StoreUnavailable(str(error))  # noqa: E731  # one line says it
        self.listener = Listener(self._open, explain=explain, on_emulator=on_emulator)

    @contextmanager
    def _open(self) -> Iterator[Any]:
        stream = Stream()
        self.streams.put_nowait(stream)
        yield stream

    def watch(self, targets: int = 1) -> Watch:
        """Watch something new."""
        requests = [Target() for _ in range(targets)]
        watch = Watch(requests, deliver=self._deliver, fail=self.told.put_nowait)
        self.listener.add(watch)
        return watch

    def _deliver(self, documents: list[Any], _read_time: Any) -> None:
        self.told.put_nowait(sorted(document.name for document in documents))

    async def stream(self) -> Stream:
        """Wait for the next stream that is opened."""
        async with asyncio.timeout(10):
            return await self.streams.get()

    async def next(self) -> Any:
        """Wait for what the watcher is told next."""
        async with asyncio.timeout(10):
            return await self.told.get()


@pytest.fixture
async def other() -> AsyncIterator[Other]:
    """The other end, of a listener that is closed in the end."""
    other = Other()
    yield other
    await other.listener.aclose()


async def settle() -> None:
    """Let everything happen that does not wait for anybody."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_only_snapshots(other: Other) -> None:
    """Nothing is told before the target is current and a snapshot says that all of it is there."""
    other.watch()
    stream = await other.stream()
    target = await stream.asked()
    stream.document("a", 1, target)
    stream.snapshot()
    stream.change(Change.CURRENT, target)
    await settle()
    assert other.told.empty()
    stream.snapshot()
    assert await other.next() == ["a"]


async def test_every_target_of_a_watch(other: Other) -> None:
    """A watch of several targets is told when all of them are current."""
    other.watch(targets=2)
    stream = await other.stream()
    first, second = await stream.asked(), await stream.asked()
    stream.document("a", 1, first)
    stream.change(Change.CURRENT, first)
    stream.snapshot()
    await settle()
    assert other.told.empty()
    stream.document("b", 1, second)
    stream.change(Change.CURRENT, second)
    stream.snapshot()
    assert await other.next() == ["a", "b"]


async def current(other: Other, *names: str) -> tuple[Stream, int]:
    """Watch a target that is told with these documents."""
    other.watch()
    stream = await other.stream()
    target = await stream.asked()
    for name in names:
        stream.document(name, 1, target)
    stream.change(Change.CURRENT, target)
    stream.snapshot()
    assert await other.next() == sorted(names)
    return stream, target


@pytest.mark.parametrize("kind", ["document_delete", "document_remove"])
async def test_gone(other: Other, kind: str) -> None:
    """A document that is deleted, or does not match any more, is not told any more."""
    stream, target = await current(other, "a", "b")
    stream.removal(kind, "a", target)
    stream.snapshot()
    assert await other.next() == ["b"]


async def test_same_state(other: Other) -> None:
    """A snapshot of the same versions is not told again; one of a newer version is."""
    stream, target = await current(other, "a")
    stream.snapshot()
    stream.document("a", 1, target)
    stream.snapshot()
    stream.document("a", 2, target)
    stream.snapshot()
    assert await other.next() == ["a"]
    assert other.told.empty()


async def bill(stream: Stream) -> int:
    """What has been billed since the last time."""
    await settle()
    billed, stream.billed = stream.billed, 0
    return billed


async def test_billed_is_what_comes_changes_or_leaves_by_a_change(other: Other) -> None:
    """Each for each target; what is deleted is not, nor what is taken out of a target that never had it."""
    other.watch(targets=2)
    stream = await other.stream()
    first, second = await stream.asked(), await stream.asked()
    for name in "abc":
        stream.document(name, 1, first, second)
    assert await bill(stream) == 6
    stream.document("a", 2, first)
    assert await bill(stream) == 1
    changed = Response()
    changed.document_change.document.name = "a"
    set_micros(changed.document_change.document.update_time, 3)
    changed.document_change.target_ids.append(first)
    changed.document_change.removed_target_ids.append(second)
    stream.says.put_nowait(changed)
    assert await bill(stream) == 2
    stream.removal("document_remove", "b", first, second)
    assert await bill(stream) == 2
    stream.removal("document_delete", "c", first, second)
    stream.removal("document_remove", "d", first, second)
    stream.snapshot()
    assert await bill(stream) == 0


async def test_what_is_told_again_is_billed_once(other: Other) -> None:
    """The emulator begins anew at each change: what has changed or gone by then counts, and no more."""
    stream, target = await current(other, "a", "b", "c")
    assert await bill(stream) == 3
    stream.change(Change.RESET, target)
    stream.document("a", 1, target)
    stream.document("b", 2, target)
    stream.snapshot()
    stream.change(Change.CURRENT, target)
    assert await bill(stream) == 2
    stream.change(Change.CURRENT, target)
    assert await bill(stream) == 0


async def test_a_new_stream_is_billed_anew(other: Other) -> None:
    """The server then has everything to read again."""
    stream, _ = await current(other, "a", "b")
    stream.break_off()
    stream = await other.stream()
    stream.document("a", 1, await stream.asked())
    assert await bill(stream) == 1


async def test_reset(other: Other) -> None:
    """After a reset only what is told anew is there, and only once that is all."""
    stream, target = await current(other, "a", "b")
    stream.change(Change.RESET, target)
    stream.snapshot()
    stream.document("b", 1, target)
    stream.snapshot()
    await settle()
    assert other.told.empty()
    stream.change(Change.CURRENT, target)
    stream.snapshot()
    assert await other.next() == ["b"]


async def test_wrong_count(other: Other) -> None:
    """Where the server counts other documents than were told, the target is asked for anew; old news is ignored."""
    stream, target = await current(other, "a", "b")
    stream.count(target, 2)
    stream.count(target, 1)
    again = await stream.asked()
    assert again != target
    stream.document("old", 1, target)
    stream.document("a", 1, again)
    stream.change(Change.CURRENT, target, again)
    stream.snapshot()
    assert await other.next() == ["a"]


async def test_target_lost(other: Other) -> None:
    """A target that the server drops for a passing reason is asked for anew."""
    stream, target = await current(other, "a")
    stream.change(Change.REMOVE, target, code=grpc.StatusCode.UNAVAILABLE.value[0])
    again = await stream.asked()
    stream.document("b", 1, again)
    stream.change(Change.CURRENT, again)
    stream.snapshot()
    assert await other.next() == ["b"]


async def test_target_refused(other: Other) -> None:
    """A target that the server refuses ends its watch with the reason, and no other."""
    stream, target = await current(other, "a")
    stream.change(Change.REMOVE, target, code=grpc.StatusCode.PERMISSION_DENIED.value[0])
    assert isinstance(await other.next(), StoreUnavailable)
    other.watch()
    assert await stream.asked() != target


async def test_removed_at_our_wish(other: Other) -> None:
    """The answer to a removal that we asked for is no news."""
    stream, _ = await current(other, "a")
    gone = other.watch()
    target = await stream.asked()
    await other.listener.remove(gone)
    stream.change(Change.REMOVE, target)
    await settle()
    assert other.told.empty()


async def test_break(other: Other) -> None:
    """After a break every target is asked for anew, and told whatever it is."""
    stream, _ = await current(other, "a")
    stream.break_off()
    stream = await other.stream()
    target = await stream.asked()
    stream.document("a", 1, target)
    stream.change(Change.CURRENT, target)
    stream.snapshot()
    assert await other.next() == ["a"]


async def test_refused_stream(other: Other) -> None:
    """A stream that is refused ends all watches; the next watch tries another one."""
    stream, _ = await current(other, "a")
    stream.break_off(grpc.StatusCode.PERMISSION_DENIED)
    assert isinstance(await other.next(), StoreUnavailable)
    await settle()
    await current(other, "b")


class TestOnTheEmulator:
    """Targets are added one after the other, and each a second time."""

    @pytest.fixture
    async def other(self, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Other]:
        """The other end of an emulator's listener, whose second look comes at once."""
        monkeypatch.setattr("oncetask.store.firestore.listen._SECOND_LOOK_SECONDS", 0)
        other = Other(on_emulator=True)
        yield other
        await other.listener.aclose()

    async def test_one_unanswered_target_at_a_time(self, other: Other) -> None:
        """The next target is added when the one before is answered."""
        for _ in range(3):
            other.watch()
        stream = await other.stream()
        first = await stream.asked()
        await settle()
        assert stream.sent.empty()
        stream.change(Change.CURRENT, first)
        assert await stream.asked() != first
        await settle()
        assert stream.sent.empty()

    async def test_one_that_goes_unanswered_makes_room(self, other: Other) -> None:
        """Who stops watching before the answer does not keep the next one waiting; one never added is not removed."""
        gone, also_gone, kept = other.watch(), other.watch(), other.watch()
        stream = await other.stream()
        first = await stream.asked()
        await other.listener.remove(also_gone)
        await other.listener.remove(gone)
        sent = [await stream.sent.get(), await stream.sent.get()]
        assert sent[0] == {"remove_target": first}
        assert sent[1]["add_target"].target_id != first
        assert stream.sent.empty()
        await other.listener.remove(kept)

    async def test_a_second_look_waits_for_its_turn(self, other: Other) -> None:
        """Until it is added again a target is followed; then what comes for the old number is ignored."""
        other.watch()
        other.watch()
        stream = await other.stream()
        first = await stream.asked()
        stream.document("a", 1, first)
        stream.change(Change.CURRENT, first)
        stream.snapshot()
        assert await other.next() == ["a"]
        second = await stream.asked()
        stream.document("b", 1, first)  # while its second look waits for the answer of the other
        stream.snapshot()
        assert await other.next() == ["a", "b"]
        stream.change(Change.CURRENT, second)
        assert (await stream.sent.get()) == {"remove_target": first}
        again = await stream.asked()
        stream.document("old", 1, first)
        stream.document("c", 1, again)
        stream.change(Change.CURRENT, again)
        stream.snapshot()
        assert await other.next() == ["c"]

    async def test_a_silent_stream_is_replaced(self, other: Other) -> None:
        """A stream that does not answer is broken; the next one is asked for the same, and gets more time."""
        other.listener._patience = other.listener._least_patience = 0.5
        watch = other.watch()
        silent = await other.stream()
        await silent.asked()
        stream = await other.stream()
        target = await stream.asked()
        assert other.listener._patience == 1.0
        stream.document("a", 1, target)
        stream.change(Change.CURRENT, target)
        stream.snapshot()
        assert await other.next() == ["a"]
        assert other.listener._patience == 0.5
        await other.listener.remove(watch)
