"""When a failed attempt is tried again: tenacity's strategies, evaluated against what is stored.

tenacity retries inside one call. Here the attempts of one task may be days and processes apart, so the same
strategy objects are asked about the *persisted* attempt number and the time since the first start.
"""

from __future__ import annotations

import logging
import random
from typing import TYPE_CHECKING

import tenacity
from tenacity import RetryCallState, Retrying
from tenacity.stop import stop_base
from tenacity.wait import wait_base

from oncetask.clock import seconds

if TYPE_CHECKING:
    from oncetask.clock import Duration

__all__ = ["ExponentialBackoff", "FixedDelay", "NoRetry", "Retry"]

_log = logging.getLogger("oncetask")
_IDLE = Retrying()
_FIRST_SPREAD = 5.0
_LONGEST_SPREAD = 60.0
_STEEPEST = 1_000
_LONGEST_DELAY = 100 * 365 * 86_400.0
_MOST_ATTEMPTS = 1_000_000  # a strategy that raises to the power of the attempt would compute for ever beyond


class Retry:
    """A retry policy made of tenacity's own strategy objects.

    `stop` decides when no attempt is left, `wait` how long to wait before the next one, `retry` which errors are
    tried again at all (default: every Exception). They see `attempt_number`, `seconds_since_start` (since the first
    start of the task), `upcoming_sleep` and the outcome, as in tenacity; strategies that look at return values do
    not apply, since only failures are asked about.
    """

    def __init__(
        self,
        *,
        stop: stop_base,
        wait: wait_base,
        retry: tenacity.retry_base | None = None,
    ) -> None:
        """Check and keep the three strategies."""
        for name, strategy in (("stop", stop), ("wait", wait), ("retry", retry)):
            if strategy is not None and not callable(strategy):
                msg = f"{name} must be one of tenacity's strategies, not {strategy!r}"
                raise TypeError(msg)
        self._stop = stop
        self._wait = wait
        self._retry = retry if retry is not None else tenacity.retry_if_exception_type(Exception)

    def next_delay(
        self, *, attempt: int, elapsed: float, error: BaseException, after: float | None = None
    ) -> float | None:
        """Give the seconds until the next attempt, or None where there is none left.

        `attempt`: the one that failed, 1 for the first. `elapsed`: seconds since the first start. `after`: a wait
        that the handler itself asked for (`RetryAfter`), in place of the policy's.
        """
        state = _state(attempt, elapsed, error)
        try:
            return self._unless_stopped(state, after) if self._retry(state) else None
        except Exception:  # noqa: BLE001  # a strategy may be user code
            return _instead_of(self, state, after)

    def after_crash(self, *, attempt: int, elapsed: float, error: BaseException) -> float | None:
        """Give the seconds until the next attempt of a task whose worker died, or None where none is left.

        The wait is drawn from the whole range up to the policy's or a growing spread, so that tasks which died
        together come back apart: of those only the one that kills its worker keeps failing. Which errors are
        retried is not asked, since no handler raised this one.
        """
        state = _state(attempt, elapsed, error)
        try:
            delay = self._unless_stopped(state, None)
        except Exception:  # noqa: BLE001  # as above
            delay = _instead_of(self, state, None)
        if delay is None:
            return None
        spread = min(_LONGEST_SPREAD, _FIRST_SPREAD * 2.0 ** min(attempt - 1, 30))
        return random.uniform(0, max(delay, spread))  # noqa: S311  # spreading load, not keeping secrets

    def is_last(self, *, attempt: int, elapsed: float) -> bool:
        """Tell whether the attempt of this number is the last one, should it fail. `elapsed`: as for `next_delay`."""
        state = _state(attempt, elapsed, RuntimeError("not run yet"))
        try:
            return self._unless_stopped(state, None) is None
        except Exception:  # noqa: BLE001  # as above
            return _instead_of(self, state, None) is None

    def _unless_stopped(self, state: RetryCallState, after: float | None) -> float | None:
        delay = float(self._wait(state)) if after is None else after
        state.upcoming_sleep = delay
        return None if self._stop(state) else min(max(0.0, delay), _LONGEST_DELAY)


class ExponentialBackoff(Retry):
    """Wait `base_delay`, then `multiplier` times longer each time, at most `max_delay` (all in seconds).

    `jitter`: the share of each wait that is drawn at random, 0 to 1, so that tasks which failed together do not
    return together. `max_attempts` counts the first one.
    """

    def __init__(
        self,
        max_attempts: int = 3,
        base_delay: Duration = 1,
        max_delay: Duration = 300,
        multiplier: float = 2,
        jitter: float = 0.25,
    ) -> None:
        """Check the numbers; ValueError and TypeError name the one that is wrong."""
        base = seconds("base_delay", base_delay, zero=True)
        longest = seconds("max_delay", max_delay, zero=True)
        if not isinstance(multiplier, int | float) or not 1 <= multiplier <= _STEEPEST:
            msg = f"multiplier must be a number from 1 to 1000, not {multiplier!r}"
            raise ValueError(msg)
        if not isinstance(jitter, int | float) or not 0 <= jitter <= 1:
            msg = f"jitter must be a share from 0 to 1, not {jitter!r}"
            raise ValueError(msg)
        grow = tenacity.wait_exponential(multiplier=base, max=longest, exp_base=float(multiplier))
        super().__init__(stop=_at_most(max_attempts), wait=_Jittered(grow, jitter))


class FixedDelay(Retry):
    """Wait the same `delay` (seconds or timedelta) before each of at most `max_attempts` attempts."""

    def __init__(self, max_attempts: int, delay: Duration) -> None:
        """Check the numbers; ValueError and TypeError name the one that is wrong."""
        wait = tenacity.wait_fixed(seconds("delay", delay, zero=True))
        super().__init__(stop=_at_most(max_attempts), wait=wait)


class NoRetry(Retry):
    """One attempt; its failure is the task's."""

    def __init__(self) -> None:
        """There is nothing to choose."""
        super().__init__(stop=_at_most(1), wait=tenacity.wait_none())


class _Jittered(wait_base):
    def __init__(self, wait: wait_base, share: float) -> None:
        self._wait, self._share = wait, share

    def __call__(self, retry_state: RetryCallState) -> float:
        delay = float(self._wait(retry_state))
        return delay - random.uniform(0, self._share) * delay  # noqa: S311  # spreading load, not keeping secrets


def _instead_of(policy: Retry, state: RetryCallState, after: float | None) -> float | None:
    """Decide by the default policy where one raises: a task must neither be lost nor be tried for ever for that."""
    _log.exception("the retry policy %r raised; the default one decides", policy)
    return ExponentialBackoff()._unless_stopped(state, after)  # noqa: SLF001  # of the same module


def _at_most(max_attempts: int) -> stop_base:
    if not isinstance(max_attempts, int) or isinstance(max_attempts, bool) or max_attempts < 1:
        msg = f"max_attempts must be a whole number, 1 or more, not {max_attempts!r}"
        raise ValueError(msg)
    return tenacity.stop_after_attempt(max_attempts)


def _state(attempt: int, elapsed: float, error: BaseException) -> RetryCallState:
    state = RetryCallState(_IDLE, None, (), {})
    state.attempt_number = min(attempt, _MOST_ATTEMPTS)
    state.set_exception((type(error), error, error.__traceback__))
    state.start_time, state.outcome_timestamp = 0.0, max(0.0, elapsed)
    return state
