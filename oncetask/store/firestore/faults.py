"""What to do about a failed RPC: try again, or say what would help."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, TypeVar

import grpc  # type: ignore[import-untyped]  # grpcio ships no types
import tenacity

from oncetask.errors import OncetaskError, PayloadTooLarge, StoreUnavailable
from oncetask.store.firestore.rpc import RpcFailed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

__all__ = ["REFUSALS", "TRANSIENT", "Retrier", "backoff", "impossible", "too_large", "unavailable"]

T = TypeVar("T")
_Code = grpc.StatusCode
_log = logging.getLogger("oncetask.store")

TRANSIENT = frozenset(
    {
        _Code.UNAVAILABLE,
        _Code.DEADLINE_EXCEEDED,
        _Code.INTERNAL,
        _Code.UNKNOWN,
        _Code.CANCELLED,  # by the other side; the emulator says it where a listener broke off during a write
        _Code.ABORTED,
        _Code.RESOURCE_EXHAUSTED,
    }
)
"""Codes after which the same call may succeed. All but ABORTED leave open whether it was applied."""

REFUSALS = frozenset({_Code.ALREADY_EXISTS, _Code.FAILED_PRECONDITION, _Code.NOT_FOUND})
"""Codes of a write whose precondition does not hold."""

_ADVICE = {
    _Code.PERMISSION_DENIED: (
        "give the account that runs this the role roles/datastore.user on the project, "
        "and check that the Firestore API is enabled there"
    ),
    _Code.UNAUTHENTICATED: (
        "sign in with `gcloud auth application-default login`, pass credentials=, "
        "or set FIRESTORE_EMULATOR_HOST to use an emulator"
    ),
    _Code.NOT_FOUND: (
        "check project and database id; a database is created with "
        "`gcloud firestore databases create --database=… --location=…`"
    ),
}
_LARGEST = 1_048_576
_TOO_LARGE = ("exceeds the maximum", "exceeds the limit", "is longer than", "too large")
_INDEX_ADVICE = (
    "deploy the indexes of firestore.indexes.json (`firebase deploy --only firestore:indexes`) and wait "
    "until they are built"
)


class Retrier:
    """Repeats what fails for a passing reason, with growing jittered waits, for a bounded time."""

    def __init__(self, *, patience: float, where: str) -> None:
        """`patience`: seconds after which no new try is begun. `where`: the database, for messages."""
        self._patience = patience
        self._where = where

    async def run(
        self, doing: str, call: Callable[[], Awaitable[T]], *, expected: Collection[grpc.StatusCode] = ()
    ) -> T:
        """Call until it succeeds.

        Raises RpcFailed for the codes in `expected` and for calls that are too large, StoreUnavailable for
        everything else. `doing`: what is tried, for the message.
        """
        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(_is_transient),
            wait=tenacity.wait_exponential(multiplier=0.05, max=2) + tenacity.wait_random(0, 0.1),
            stop=tenacity.stop_before_delay(self._patience),
            before_sleep=lambda state: _log.debug("%s failed, will be tried again: %s", doing, _error(state)),
            reraise=True,
        )
        try:
            return await retrying(call)
        except RpcFailed as error:
            if error.code in expected or too_large(error):
                raise
            tries = retrying.statistics.get("attempt_number", 1)
            raise unavailable(error, doing, where=self._where, tries=tries) from error


def backoff(attempt: int) -> float:
    """Give the seconds to wait before what is tried for ever is tried again; `attempt` counts from 1."""
    state = tenacity.RetryCallState(tenacity.Retrying(), None, (), {})
    state.attempt_number = attempt
    return _FOR_EVER(state)


def too_large(error: RpcFailed) -> bool:
    """Tell whether a call failed for its size, which sending it again would not change."""
    if error.code is _Code.RESOURCE_EXHAUSTED:  # mostly a quota, which is there again in a moment
        return any(text in error.details.lower() for text in ("larger than max", "maximum size"))
    return error.code is _Code.INVALID_ARGUMENT and any(text in error.details.lower() for text in _TOO_LARGE)


def impossible(error: RpcFailed, *, size: int) -> OncetaskError:
    """Give the error of a write that the store cannot take; `size`: its bytes."""
    if size > _LARGEST or too_large(error):  # the server does not always give the size as its reason
        return PayloadTooLarge(f"Firestore takes no document of this size (at most 1 MiB): {error.details}")
    return OncetaskError(f"Firestore does not take this write: {error.details}")


def unavailable(error: RpcFailed, doing: str, *, where: str, tries: int = 1) -> StoreUnavailable:
    """Say what was tried, where, and what would help."""
    often = f" after {tries} tries" if tries > 1 else ""
    advice = _ADVICE.get(error.code, "")
    if error.code is _Code.FAILED_PRECONDITION and "index" in error.details.lower():
        advice = _INDEX_ADVICE
    elif "from plugin failed" in error.details:  # what grpc says when credentials cannot be refreshed
        advice = _ADVICE[_Code.UNAUTHENTICATED]
    hint = f"; {advice}" if advice else ""
    failure = StoreUnavailable(f"{doing} failed{often} on {where}: {error}{hint}")
    failure.__cause__ = error
    return failure


_FOR_EVER = tenacity.wait_exponential(multiplier=0.05, max=5) + tenacity.wait_random(0, 0.1)


def _is_transient(error: BaseException) -> bool:
    return isinstance(error, RpcFailed) and error.code in TRANSIENT and not too_large(error)


def _error(state: tenacity.RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None
