"""Failed RPCs: which are tried again, and what is said about the others."""

from __future__ import annotations

import asyncio

import grpc  # type: ignore[import-untyped]  # grpcio ships no types
import pytest

from oncetask.errors import OncetaskError, PayloadTooLarge, StoreUnavailable
from oncetask.store.firestore.faults import TRANSIENT, Retrier, backoff, impossible, unavailable
from oncetask.store.firestore.rpc import RpcFailed, _translated

Code = grpc.StatusCode


def failed(code: grpc.StatusCode, details: str = "") -> RpcFailed:
    """Give a failure of an RPC."""
    return RpcFailed("Commit", code, details)


class Flaky:
    """Fails in given ways, one after the other, then answers."""

    def __init__(self, *errors: RpcFailed) -> None:
        self.errors = list(errors)
        self.calls = 0

    async def __call__(self) -> str:
        """Do what comes next."""
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "answer"


@pytest.fixture
def retrier() -> Retrier:
    """One that does not try for long."""
    return Retrier(patience=2, where="here")


@pytest.mark.parametrize("code", sorted(TRANSIENT, key=str))
async def test_transient(retrier: Retrier, code: grpc.StatusCode) -> None:
    """What may pass is tried again until it has."""
    call = Flaky(failed(code), failed(code))
    assert await retrier.run("testing", call) == "answer"
    assert call.calls == 3


async def test_bounded() -> None:
    """Trying ends, with what was tried, how often, where, and the cause."""
    call = Flaky(*[failed(Code.UNAVAILABLE, "down")] * 100)
    with pytest.raises(
        StoreUnavailable, match=r"testing failed after \d tries on here: Commit: UNAVAILABLE: down"
    ) as caught:
        await Retrier(patience=0.2, where="here").run("testing", call)
    assert isinstance(caught.value.__cause__, RpcFailed)
    assert 1 < call.calls < 10


async def test_expected(retrier: Retrier) -> None:
    """Codes that the caller knows what to do about come as they are, at once."""
    with pytest.raises(RpcFailed):
        await retrier.run("testing", Flaky(failed(Code.NOT_FOUND)), expected={Code.NOT_FOUND})


@pytest.mark.parametrize(
    ("code", "details"),
    [
        (Code.RESOURCE_EXHAUSTED, "gRPC message exceeds maximum size 4194304: 5000737"),
        (Code.RESOURCE_EXHAUSTED, "Received message larger than max (5 vs. 4)"),
        (Code.INVALID_ARGUMENT, "Request payload size exceeds the limit: 11534336 bytes."),
    ],
)
async def test_too_large(retrier: Retrier, code: grpc.StatusCode, details: str) -> None:
    """What is too large is not sent again, and is the write's own fault."""
    call = Flaky(failed(code, details))
    with pytest.raises(RpcFailed):
        await retrier.run("testing", call)
    assert call.calls == 1
    assert isinstance(impossible(failed(code, details), size=1), PayloadTooLarge)


def test_impossible() -> None:
    """A write that is not taken tells the server's reason; a large one is told to be that."""
    error = impossible(failed(Code.INVALID_ARGUMENT, "nested arrays"), size=1)
    assert not isinstance(error, PayloadTooLarge)
    assert isinstance(error, OncetaskError)
    assert "nested arrays" in str(error)
    assert isinstance(impossible(failed(Code.INVALID_ARGUMENT, "odd"), size=2_000_000), PayloadTooLarge)


@pytest.mark.parametrize(
    ("code", "details", "advice"),
    [
        (Code.PERMISSION_DENIED, "", r"roles/datastore\.user"),
        (Code.UNAUTHENTICATED, "", "application-default login"),
        (
            Code.UNAVAILABLE,
            "Getting metadata from plugin failed with error: Reauthentication",
            "application-default login",
        ),
        (Code.NOT_FOUND, "The database (default) does not exist", "databases create"),
        (Code.FAILED_PRECONDITION, "The query requires an index", r"firestore\.indexes\.json"),
        (Code.FAILED_PRECONDITION, "Datastore Mode", "Datastore Mode$"),
    ],
)
def test_advice(code: grpc.StatusCode, details: str, advice: str) -> None:
    """What a person can mend comes with how."""
    error = failed(code, details)
    failure = unavailable(error, "testing", where="here")
    assert failure.__cause__ is error
    with pytest.raises(StoreUnavailable, match=advice):
        raise failure


def test_backoff() -> None:
    """Waits grow, differ, and stay short enough to see a server come back."""
    waits = [backoff(attempt) for attempt in range(1, 30)]
    assert waits[0] < 0.2 < waits[5] < waits[-1] <= 5.1


async def test_cancelled_by_the_server() -> None:
    """A call that the other side cancels has failed; nobody here was cancelled."""
    with pytest.raises(RpcFailed, match="cancelled by the other side"), _translated("Commit"):
        raise asyncio.CancelledError


async def test_cancelled_here() -> None:
    """A cancelled caller is cancelled."""

    async def call() -> None:
        with _translated("Commit"):
            await asyncio.Event().wait()

    task = asyncio.create_task(call())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
