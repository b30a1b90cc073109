"""When a failed attempt is tried again."""

from __future__ import annotations

import asyncio
import math
from datetime import timedelta
from typing import Any

import pytest
import tenacity
from hypothesis import given
from hypothesis import strategies as st

from oncetask.errors import LeaseLost
from oncetask.retry import ExponentialBackoff, FixedDelay, NoRetry, Retry

FAILURE = ValueError("no")
HUNDRED_YEARS = 100 * 366 * 86_400


class TestExponentialBackoff:
    """The policy that is the default."""

    def test_waits_grow_up_to_the_longest(self) -> None:
        """Without jitter each wait is `multiplier` times the one before, and `max_delay` at most."""
        policy = ExponentialBackoff(max_attempts=10, base_delay=2, max_delay=30, multiplier=3, jitter=0)

        delays = [policy.next_delay(attempt=n, elapsed=0, error=FAILURE) for n in range(1, 6)]

        assert delays == [2, 6, 18, 30, 30]

    def test_the_defaults(self) -> None:
        """Left to itself it tries three times, waiting one second and then two, each shorter by up to a quarter."""
        policy = ExponentialBackoff()

        delays = [[policy.next_delay(attempt=n, elapsed=0, error=FAILURE) for n in (1, 2, 3)] for _ in range(50)]

        assert all(0.75 <= (first or 0) <= 1 and 1.5 <= (second or 0) <= 2 for first, second, _ in delays)
        assert {third for *_, third in delays} == {None}
        assert ExponentialBackoff(max_attempts=99, jitter=0).next_delay(attempt=50, elapsed=0, error=FAILURE) == 300

    def test_the_last_attempt_is_the_last(self) -> None:
        """Of three attempts the second is followed by one more, the third by none."""
        policy = ExponentialBackoff(max_attempts=3)

        assert policy.next_delay(attempt=2, elapsed=0, error=FAILURE) is not None
        assert policy.next_delay(attempt=3, elapsed=0, error=FAILURE) is None
        assert policy.next_delay(attempt=4, elapsed=0, error=FAILURE) is None

    def test_durations_may_be_timedeltas(self) -> None:
        """Delays are seconds or timedeltas."""
        policy = ExponentialBackoff(base_delay=timedelta(minutes=1), max_delay=timedelta(hours=1), jitter=0)

        assert policy.next_delay(attempt=1, elapsed=0, error=FAILURE) == 60

    @given(
        attempt=st.integers(1, 10**6),
        base=st.floats(0, 1_000),
        longest=st.floats(0, 100_000),
        multiplier=st.one_of(st.integers(1, 1_000), st.floats(1, 1_000)),
        jitter=st.floats(0, 1),
    )
    def test_delays_stay_within_their_bounds(
        self, attempt: int, base: float, longest: float, multiplier: float, jitter: float
    ) -> None:
        """A delay is never longer than the policy's, nor shorter by more than its share of jitter."""
        policy = ExponentialBackoff(10**6 + 1, base, longest, multiplier, jitter)
        try:
            expected = min(base * float(multiplier) ** (attempt - 1), longest)
        except OverflowError:
            expected = longest

        delay = policy.next_delay(attempt=attempt, elapsed=0, error=FAILURE)

        assert delay is not None
        shortest = expected * (1 - jitter)
        assert shortest - 1e-9 <= delay <= expected + 1e-9

    def test_an_absurd_attempt_number_is_answered_at_once(self) -> None:
        """A record with a huge count is refused its next attempt, it does not keep the worker computing."""
        assert ExponentialBackoff(multiplier=2).next_delay(attempt=2**53 - 1, elapsed=0, error=FAILURE) is None
        custom = Retry(stop=tenacity.stop_after_attempt(3), wait=tenacity.wait_exponential())
        assert custom.next_delay(attempt=2**53 - 1, elapsed=0, error=FAILURE) is None

    @pytest.mark.parametrize(
        ("options", "names"),
        [
            ({"max_attempts": 0}, "max_attempts .*0"),
            ({"max_attempts": -1}, "max_attempts"),
            ({"max_attempts": 2.0}, "max_attempts"),
            ({"max_attempts": True}, "max_attempts"),
            ({"max_attempts": None}, "max_attempts"),
            ({"base_delay": -1}, "base_delay"),
            ({"base_delay": math.nan}, "base_delay"),
            ({"max_delay": math.inf}, "max_delay"),
            ({"multiplier": 0.5}, "multiplier .*0.5"),
            ({"multiplier": math.nan}, "multiplier"),
            ({"multiplier": "2"}, "multiplier"),
            ({"multiplier": 1_001}, "multiplier"),
            ({"jitter": 1.01}, "jitter .*1.01"),
            ({"jitter": -0.01}, "jitter"),
            ({"jitter": None}, "jitter"),
        ],
        ids=str,
    )
    def test_wrong_numbers_are_refused(self, options: dict[str, Any], names: str) -> None:
        """A wrong number is refused when it is given, by its name."""
        with pytest.raises(ValueError, match=names):
            ExponentialBackoff(**options)

    def test_a_wrong_type_of_duration_is_refused(self) -> None:
        """A delay that is no duration is a TypeError that names it."""
        with pytest.raises(TypeError, match="base_delay"):
            ExponentialBackoff(base_delay="1")  # type: ignore[arg-type]


class TestOtherPolicies:
    """The two simpler ones."""

    def test_fixed_delay(self) -> None:
        """The same delay before each attempt, none after the last."""
        policy = FixedDelay(3, timedelta(seconds=7))

        assert [policy.next_delay(attempt=n, elapsed=0, error=FAILURE) for n in (1, 2, 3)] == [7, 7, None]

    def test_no_delay_is_a_delay(self) -> None:
        """Zero means again at once, not never."""
        assert FixedDelay(2, 0).next_delay(attempt=1, elapsed=0, error=FAILURE) == 0

    def test_no_retry(self) -> None:
        """One attempt, and nothing after it, crash or not."""
        assert NoRetry().next_delay(attempt=1, elapsed=0, error=FAILURE) is None
        assert NoRetry().after_crash(attempt=1, elapsed=0, error=LeaseLost()) is None


class TestTenacityStrategies:
    """Policies made of tenacity's own strategies."""

    @staticmethod
    def _delay(policy: Retry, *, attempt: int = 1, elapsed: float = 0, error: BaseException = FAILURE) -> float | None:
        return policy.next_delay(attempt=attempt, elapsed=elapsed, error=error)

    def test_strategies_see_the_persisted_attempt(self) -> None:
        """A chain of waits goes on where the last process left it."""
        chain = tenacity.wait_chain(tenacity.wait_fixed(2), tenacity.wait_fixed(7))
        policy = Retry(stop=tenacity.stop_after_attempt(4), wait=chain)

        assert [self._delay(policy, attempt=n) for n in (1, 2, 3, 4)] == [2, 7, 7, None]

    def test_strategies_see_the_time_since_the_first_start(self) -> None:
        """A limit in time counts from the first start of the task, to the instant."""
        policy = Retry(stop=tenacity.stop_after_delay(86_400), wait=tenacity.wait_none())

        assert self._delay(policy, elapsed=86_400 - 1e-6) == 0
        assert self._delay(policy, elapsed=86_400) is None

    def test_a_stop_may_look_at_the_coming_wait(self) -> None:
        """`stop_before_delay` stops where the next wait would cross its limit."""
        policy = Retry(stop=tenacity.stop_before_delay(10), wait=tenacity.wait_fixed(4))

        assert self._delay(policy, elapsed=5.9) == 4
        assert self._delay(policy, elapsed=6) is None

    def test_errors_that_are_not_retried(self) -> None:
        """A retry strategy decides by type or message which errors are tried again."""
        policy = Retry(
            stop=tenacity.stop_after_attempt(3),
            wait=tenacity.wait_none(),
            retry=tenacity.retry_if_exception_type(OSError) | tenacity.retry_if_exception_message("passing"),
        )

        assert self._delay(policy, error=ConnectionError()) == 0
        assert self._delay(policy, error=ValueError("passing")) == 0
        assert self._delay(policy, error=ValueError("for good")) is None

    @pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(), asyncio.CancelledError()], ids=repr)
    def test_what_is_no_exception_is_not_retried(self, error: BaseException) -> None:
        """Interrupts and cancellations are nobody's failed attempt."""
        assert self._delay(ExponentialBackoff(), error=error) is None

    def test_strategies_combine(self) -> None:
        """The operators of tenacity work."""
        policy = Retry(
            stop=tenacity.stop_after_attempt(3) | tenacity.stop_after_delay(100),
            wait=tenacity.wait_fixed(2) + tenacity.wait_exception(lambda _: 0.5),
        )

        assert self._delay(policy) == 2.5
        assert self._delay(policy, elapsed=100) is None

    @pytest.mark.parametrize("wait", [math.nan, -5.0])
    def test_an_impossible_wait_is_none(self, wait: float) -> None:
        """A strategy that answers nonsense means at once."""
        policy = Retry(stop=tenacity.stop_never, wait=lambda _: wait)  # type: ignore[arg-type]

        assert self._delay(policy) == 0

    @pytest.mark.parametrize("wait", [tenacity.wait_exponential(), tenacity.wait_fixed(math.inf)], ids=["exp", "inf"])
    def test_an_endless_wait_is_cut(self, wait: Any) -> None:
        """A wait without a limit of its own stays within what an instant can hold."""
        delay = self._delay(Retry(stop=tenacity.stop_never, wait=wait), attempt=500)

        assert delay is not None
        assert timedelta(days=36_000) < timedelta(seconds=delay) < timedelta(seconds=HUNDRED_YEARS)

    @pytest.mark.parametrize("name", ["stop", "wait", "retry"])
    def test_what_is_no_strategy_is_refused(self, name: str) -> None:
        """A number in place of a strategy is a TypeError that names it."""
        options: dict[str, Any] = {"stop": tenacity.stop_never, "wait": tenacity.wait_none(), name: 5}

        with pytest.raises(TypeError, match=f"{name} must be one of tenacity's strategies, not 5"):
            Retry(**options)


class TestRetryAfter:
    """A wait that the handler asked for."""

    def test_the_handlers_own_wait_replaces_the_policys(self) -> None:
        """What the handler asked for is waited for, neither jittered nor cut to `max_delay`."""
        policy = ExponentialBackoff(max_delay=10)

        assert policy.next_delay(attempt=1, elapsed=0, error=FAILURE, after=3_600) == 3_600
        assert policy.next_delay(attempt=1, elapsed=0, error=FAILURE, after=0) == 0

    def test_it_grants_no_attempt(self) -> None:
        """A handler that asks for a wait gets no attempt that the policy does not grant."""
        assert ExponentialBackoff(max_attempts=3).next_delay(attempt=3, elapsed=0, error=FAILURE, after=1) is None

    def test_stops_see_it(self) -> None:
        """The wait that the handler asked for counts for a limit in time."""
        policy = Retry(stop=tenacity.stop_before_delay(10), wait=tenacity.wait_none())

        assert policy.next_delay(attempt=1, elapsed=0, error=FAILURE, after=11) is None


class TestAfterCrash:
    """The worker died, no handler failed."""

    @given(attempt=st.integers(1, 2**53))
    def test_rescued_tasks_come_back_spread(self, attempt: int) -> None:
        """The wait is drawn from a spread that grows with the attempts, a minute at most."""
        policy = Retry(stop=tenacity.stop_never, wait=tenacity.wait_none())

        delay = policy.after_crash(attempt=attempt, elapsed=0, error=LeaseLost())

        assert delay is not None
        assert 0 <= delay <= min(60, 5 * 2.0 ** min(attempt - 1, 10))

    def test_the_spread_starts_at_five_seconds_and_at_none(self) -> None:
        """The first rescue comes after up to five seconds, some at once and some at the end of them."""
        policy = Retry(stop=tenacity.stop_never, wait=tenacity.wait_none())

        delays = [policy.after_crash(attempt=1, elapsed=0, error=LeaseLost()) or 0 for _ in range(500)]

        assert min(delays) < 0.5
        assert 4.5 < max(delays) <= 5

    def test_a_longer_wait_of_the_policy_widens_the_spread(self) -> None:
        """Where the policy waits longer than the spread, the wait is drawn from the policy's."""
        policy = FixedDelay(3, 3_600)

        delays = [policy.after_crash(attempt=1, elapsed=0, error=LeaseLost()) or 0 for _ in range(200)]

        assert 0 <= min(delays) < 1_200
        assert 2_400 < max(delays) <= 3_600

    def test_a_crash_is_an_attempt(self) -> None:
        """A task that crashes its worker each time runs out of attempts like any other."""
        policy = ExponentialBackoff(max_attempts=3)

        assert policy.after_crash(attempt=2, elapsed=0, error=LeaseLost()) is not None
        assert policy.after_crash(attempt=3, elapsed=0, error=LeaseLost()) is None

    def test_which_errors_are_retried_does_not_matter(self) -> None:
        """No handler raised a crash, so the choice of errors says nothing about it."""
        policy = Retry(
            stop=tenacity.stop_after_attempt(3),
            wait=tenacity.wait_none(),
            retry=tenacity.retry_if_exception_type(OSError),
        )

        assert policy.after_crash(attempt=1, elapsed=0, error=LeaseLost()) is not None


class TestBrokenPolicies:
    """A strategy is user code, and may raise."""

    def test_the_default_policy_decides(self, caplog: pytest.LogCaptureFixture) -> None:
        """Where a strategy raises, three attempts are made with a backoff, and the log says why."""

        class Broken(tenacity.wait.wait_base):
            def __call__(self, retry_state: tenacity.RetryCallState) -> float:
                msg = "only knows its own errors"
                raise AttributeError(msg)

        retry = Retry(stop=tenacity.stop_never, wait=Broken())
        delays = [retry.next_delay(attempt=attempt, elapsed=0, error=ValueError()) for attempt in (1, 2, 3)]
        crashes = [retry.after_crash(attempt=attempt, elapsed=0, error=ValueError()) for attempt in (1, 2, 3)]

        assert [delay is None for delay in delays] == [delay is None for delay in crashes] == [False, False, True]
        assert all(record.exc_info for record in caplog.records)
        assert len(caplog.records) == 6


class TestIsLast:
    """Whether an attempt is the last one, should it fail."""

    @pytest.mark.parametrize(("attempt", "last"), [(1, False), (2, False), (3, True), (4, True)])
    def test_by_number(self, attempt: int, last: bool) -> None:
        """Of three attempts it is the third."""
        assert FixedDelay(3, 1).is_last(attempt=attempt, elapsed=0) is last

    def test_by_time(self) -> None:
        """Where a policy stops after a time, it is the one that comes later."""
        policy = Retry(stop=tenacity.stop_after_delay(60), wait=tenacity.wait_none())
        assert [policy.is_last(attempt=1, elapsed=elapsed) for elapsed in (59, 60)] == [False, True]

    def test_whatever_the_error(self) -> None:
        """Which errors are retried is not asked, since there is none yet."""
        policy = Retry(
            stop=tenacity.stop_after_attempt(3),
            wait=tenacity.wait_none(),
            retry=tenacity.retry_if_exception_type(OSError),
        )
        assert not policy.is_last(attempt=1, elapsed=0)

    def test_a_strategy_that_raises(self) -> None:
        """The default policy decides in its place."""

        def broken(_: tenacity.RetryCallState) -> bool:
            msg = "broken"
            raise RuntimeError(msg)

        policy = Retry(stop=broken, wait=tenacity.wait_none())  # type: ignore[arg-type]  # as somebody may write it
        assert [policy.is_last(attempt=attempt, elapsed=0) for attempt in (2, 3)] == [False, True]
