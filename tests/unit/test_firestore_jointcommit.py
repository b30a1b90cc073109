"""The joint commit: which groups of writes travel together, and what each is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import grpc  # type: ignore[import-untyped]  # grpcio ships no types
import pytest
from google.cloud.firestore_v1.types import write as write_types

from oncetask.store.firestore.jointcommit import Committed, Group, JointCommit
from oncetask.store.firestore.rpc import RpcFailed

_Code = grpc.StatusCode
Running = asyncio.Task[Committed | None]


class Server:
    """Takes commits, and answers when told to: each document gets its place in the call as its version."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.waiting: list[asyncio.Future[Committed]] = []

    async def send(self, writes: Sequence[Any]) -> Committed:
        """Hold a call until it is answered."""
        self.calls.append([write.delete.rstrip("x") for write in writes])
        answer: asyncio.Future[Committed] = asyncio.get_running_loop().create_future()
        self.waiting.append(answer)
        return await answer

    async def answer(self) -> None:
        """Apply the oldest call, and let what follows from it happen."""
        calls_answered = len(self.calls) - len(self.waiting)
        size = len(self.calls[calls_answered])
        self.waiting.pop(0).set_result(Committed(range(1, size + 1), float(calls_answered)))
        await ticks()

    async def refuse(self, code: grpc.StatusCode = _Code.FAILED_PRECONDITION, details: str = "test") -> None:
        """Let the oldest call fail, and let what follows from it happen."""
        self.waiting.pop(0).set_exception(RpcFailed("Commit", code, details))
        await ticks()


async def ticks() -> None:
    """Let everything happen that does not wait for anybody."""
    for _ in range(10):
        await asyncio.sleep(0)


def a_group(*names: str, size: int = 0) -> Group:
    """Give a group that writes these documents; `size`: about the bytes of each."""
    return Group([write_types.Write.pb()(delete=name + "x" * size) for name in names], names)


def submit(joint: JointCommit, group: Group) -> Running:
    """Submit a group whose answer settles it, whatever it is."""

    async def settle() -> Committed | None:
        return await group.done

    return asyncio.create_task(joint.run(group, settle))


async def submitted(joint: JointCommit, *groups: str) -> list[Running]:
    """Submit groups, in one iteration of the loop, of documents that are named by a letter; let them depart."""
    running = [submit(joint, a_group(*names)) for names in groups]
    await ticks()
    return running


@pytest.fixture
def server() -> Server:
    """A server that has been sent nothing."""
    return Server()


@pytest.fixture
def joint(server: Server) -> JointCommit:
    """A joint commit of one call at a time."""
    return JointCommit(server.send, patience=60, calls=1)


class TestDeparting:
    """Which groups leave, and when."""

    async def test_what_is_submitted_in_one_iteration_shares_a_call(self, server: Server, joint: JointCommit) -> None:
        """All of it leaves together, in the order of submission."""
        await submitted(joint, "ab", "c", "de")
        assert server.calls == [["a", "b", "c", "d", "e"]]

    async def test_what_comes_while_a_call_is_in_flight_waits(self, server: Server, joint: JointCommit) -> None:
        """It leaves together with the answer to that call."""
        await submitted(joint, "ab")
        for names in ("c", "de", "f"):
            await submitted(joint, names)
        assert server.calls == [["a", "b"]]
        await server.answer()
        assert server.calls == [["a", "b"], ["c", "d", "e", "f"]]

    async def test_eight_calls_are_in_flight_at_a_time(self, server: Server) -> None:
        """What comes before the ninth leaves at once, by itself."""
        joint = JointCommit(server.send, patience=60)
        for name in "abcdefghij":
            await submitted(joint, name)
        assert server.calls == [[name] for name in "abcdefgh"]
        await server.answer()
        assert server.calls[8:] == [["i", "j"]]

    async def test_a_call_takes_two_hundred_documents(self, server: Server, joint: JointCommit) -> None:
        """A group that does not fit as a whole waits for the next call."""
        for number in range(41):
            submit(joint, a_group(*(f"{number}-{part}" for part in range(7))))
        await ticks()
        await server.answer()
        assert [len(call) for call in server.calls] == [28 * 7, 13 * 7]

    async def test_a_call_takes_three_mebibytes(self, server: Server, joint: JointCommit) -> None:
        """Bytes are counted for all documents of a group; one that is larger goes by itself."""
        sizes = {"ab": 850_000, "cd": 750_000, "e": 750_000, "fgh": 2_000_000, "i": 0}
        for names, size in sizes.items():
            submit(joint, a_group(*names, size=size))
        for _ in sizes:
            await ticks()
            if server.waiting:
                await server.answer()
        assert server.calls == [["a", "b"], ["c", "d", "e"], ["f", "g", "h"], ["i"]]

    async def test_a_group_of_more_documents_goes_by_itself(self, server: Server, joint: JointCommit) -> None:
        """A group is never parted."""
        submit(joint, a_group("a"))
        submit(joint, a_group(*(str(number) for number in range(300))))
        submit(joint, a_group("b"))
        await ticks()
        await server.answer()
        await server.answer()
        assert [len(call) for call in server.calls] == [1, 300, 1]

    async def test_a_call_is_over_when_it_is_answered(self, server: Server, joint: JointCommit) -> None:
        """The next one does not wait for groups that go on by themselves."""
        goes_on = asyncio.Event()

        async def settle() -> None:
            await goes_on.wait()

        running = asyncio.create_task(joint.run(a_group("a"), settle))
        await ticks()
        await submitted(joint, "b")
        assert server.calls == [["a"]]
        await server.answer()
        assert server.calls == [["a"], ["b"]]
        goes_on.set()
        await running


class TestSharedDocuments:
    """A document is at most once under way."""

    async def test_groups_that_share_one_go_one_after_the_other(self, server: Server, joint: JointCommit) -> None:
        """Others, which share nothing with them, overtake them."""
        await submitted(joint, "ab", "bc", "d")
        assert server.calls == [["a", "b", "d"]]
        await server.answer()
        assert server.calls == [["a", "b", "d"], ["b", "c"]]

    async def test_the_order_of_submission_is_kept(self, server: Server, joint: JointCommit) -> None:
        """What shares a document with a group that has to wait waits behind it, also where its own are free."""
        await submitted(joint, "ab", "bc", "cd", "d")
        assert server.calls == [["a", "b"]]
        for _ in range(3):
            await server.answer()
        assert server.calls == [["a", "b"], ["b", "c"], ["c", "d"], ["d"]]

    async def test_calls_in_flight_at_the_same_time_share_none(self, server: Server) -> None:
        """A free call does not help a group whose document is under way."""
        joint = JointCommit(server.send, patience=60, calls=2)
        await submitted(joint, "ab")
        await submitted(joint, "bc")
        assert server.calls == [["a", "b"]]
        await submitted(joint, "d")
        assert server.calls == [["a", "b"], ["d"]]

    async def test_a_document_is_free_when_its_group_is_settled(self, server: Server, joint: JointCommit) -> None:
        """A group that goes on by itself keeps its documents, not the call, and not those of the others."""
        goes_on = asyncio.Event()
        group = a_group("a")

        async def settle() -> None:
            await group.done
            await goes_on.wait()

        running = asyncio.create_task(joint.run(group, settle))
        await submitted(joint, "b")
        await server.refuse()
        await submitted(joint, "a", "b")
        assert server.calls == [["a", "b"], ["b"]]
        goes_on.set()
        await running
        await server.answer()
        assert server.calls == [["a", "b"], ["b"], ["a"]]


class TestAnswers:
    """What each group is told of the call that it left in."""

    async def test_each_gets_its_own_versions(self, server: Server, joint: JointCommit) -> None:
        """They stand in the order of its writes, with the time at which the call was sent."""
        running = await submitted(joint, "a", "bc", "", "d")
        await server.answer()
        answers = [await one for one in running]
        assert [(list(one.versions), one.asked) for one in answers if one] == [
            ([1], 0.0),
            ([2, 3], 0.0),
            ([], 0.0),
            ([4], 0.0),
        ]

    @pytest.mark.parametrize(
        ("code", "details"),
        [
            (_Code.FAILED_PRECONDITION, ""),
            (_Code.NOT_FOUND, ""),
            (_Code.ALREADY_EXISTS, ""),
            (_Code.ABORTED, ""),
            (_Code.INVALID_ARGUMENT, ""),
            (_Code.RESOURCE_EXHAUSTED, "Received message larger than max"),
        ],
    )
    async def test_where_nothing_was_written_each_goes_by_itself(
        self, server: Server, joint: JointCommit, code: grpc.StatusCode, details: str
    ) -> None:
        """Somebody else may be why; one that had no company is told the reason."""
        running = await submitted(joint, "a", "b")
        await server.refuse(code, details)
        assert [await one for one in running] == [None, None]

        (alone,) = await submitted(joint, "a")
        await server.refuse(code, details)
        with pytest.raises(RpcFailed, match=code.name):
            await alone

    @pytest.mark.parametrize(
        "code", [_Code.UNAVAILABLE, _Code.DEADLINE_EXCEEDED, _Code.RESOURCE_EXHAUSTED, _Code.PERMISSION_DENIED]
    )
    async def test_other_failures_are_everybodys(
        self, server: Server, joint: JointCommit, code: grpc.StatusCode
    ) -> None:
        """Whether it was applied, and whether to try again, is for each to judge; each gets an error of its own."""
        running = await submitted(joint, "a", "b")
        await server.refuse(code)
        errors = await asyncio.gather(*running, return_exceptions=True)
        assert [error.code for error in errors if isinstance(error, RpcFailed)] == [code] * 2
        assert errors[0] is not errors[1]

    async def test_a_broken_sender_fails_all(self) -> None:
        """Nobody waits for ever."""

        async def send(_: Sequence[Any]) -> Committed:
            raise ZeroDivisionError

        running = await submitted(JointCommit(send, patience=60), "a", "b")
        errors = await asyncio.gather(*running, return_exceptions=True)
        assert [type(error) for error in errors] == [ZeroDivisionError] * 2

    @pytest.mark.parametrize("names", ["a", "b"], ids=["document under way", "no free call"])
    async def test_a_group_waits_no_longer_than_the_stores_patience(self, server: Server, names: str) -> None:
        """Where the calls before it get no answer it gives up without having been sent, and never is."""
        joint = JointCommit(server.send, patience=0.02, calls=1)
        first, waits = await submitted(joint, "a"), await submitted(joint, names)
        with pytest.raises(RpcFailed, match="were not answered in time"):
            async with asyncio.timeout(20):
                await waits[0]
        assert not first[0].done()
        await server.answer()
        assert server.calls == [["a"]]
        assert await first[0] is not None


class TestGoing:
    """Callers who are cancelled, and closing."""

    async def test_what_waits_goes_with_its_caller(self, server: Server, joint: JointCommit) -> None:
        """It is left out, and neither its documents nor its place hold up the rest."""
        await submitted(joint, "a")
        gone, _, _ = await submitted(joint, "bc", "c", "d")
        gone.cancel()
        await server.answer()
        assert server.calls == [["a"], ["c", "d"]]
        assert gone.cancelled()

    async def test_who_goes_unsent_frees_nobodys_document(self, server: Server) -> None:
        """What is under way for somebody else stays so."""
        joint = JointCommit(server.send, patience=60, calls=2)
        await submitted(joint, "a")
        (gone,) = await submitted(joint, "a")
        gone.cancel()
        await submitted(joint, "ab")
        assert server.calls == [["a"]]
        await server.answer()
        assert server.calls == [["a"], ["a", "b"]]

    async def test_closing_does_not_wait_for_what_is_gone(self, server: Server, joint: JointCommit) -> None:
        """Where all callers of what waits have gone, nothing of it is sent."""
        await submitted(joint, "a")
        for gone in await submitted(joint, "ab", "c"):
            gone.cancel()
        closing = asyncio.create_task(joint.aclose())
        await server.answer()
        async with asyncio.timeout(5):
            await closing
        assert server.calls == [["a"]]

    async def test_what_was_sent_is_settled_without_its_caller(self, server: Server, joint: JointCommit) -> None:
        """It goes on to its end, and closing waits for that."""
        ends: list[str] = []
        goes_on = asyncio.Event()

        def settling(name: str, group: Group) -> Callable[[], Coroutine[Any, Any, None]]:
            async def settle() -> None:
                await group.done
                await goes_on.wait()
                ends.append(name)

            return settle

        groups = {name: a_group(name) for name in "ab"}
        running = [asyncio.create_task(joint.run(group, settling(name, group))) for name, group in groups.items()]
        await ticks()
        for one in running:
            one.cancel()
        closing = asyncio.create_task(joint.aclose())
        await server.refuse()
        assert all(one.cancelled() for one in running)
        assert not closing.done()
        goes_on.set()
        async with asyncio.timeout(5):
            await closing
        assert ends == ["a", "b"]

    async def test_a_failure_without_a_caller_is_nobodys(self, server: Server, joint: JointCommit) -> None:
        """It troubles neither the loop nor closing."""
        told: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        (gone,) = await submitted(joint, "a")
        gone.cancel()
        await server.refuse(_Code.PERMISSION_DENIED)
        await joint.aclose()
        del gone
        await ticks()
        assert told == []

    async def test_closing_waits_for_what_is_queued(self, server: Server, joint: JointCommit) -> None:
        """Everything that was submitted is sent and settled."""
        running = await submitted(joint, "a", "a", "b")
        closing = asyncio.create_task(joint.aclose())
        await server.answer()
        assert not closing.done()
        await server.answer()
        async with asyncio.timeout(5):
            await closing
        assert all(one.done() for one in running)
