"""Durations, instants, and the bounds of the store's time."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oncetask.clock import (
    EPOCH,
    StoreClock,
    SystemClock,
    check_instant,
    from_micros,
    seconds,
    to_micros,
)
from tests.support import MICROSECOND, T0, FakeClock, at

HUNDRED_YEARS = 100 * 366 * 86_400.0


class TestSeconds:
    """What is a duration."""

    @pytest.mark.parametrize(
        ("given_value", "expected"),
        [(1, 1.0), (0.5, 0.5), (timedelta(minutes=2), 120.0), (timedelta(microseconds=1), 1e-6)],
    )
    def test_gives_seconds_as_a_float(self, given_value: float | timedelta, expected: float) -> None:
        """Whole numbers, floats and timedeltas all become float seconds."""
        number = seconds("delay", given_value)

        assert number == expected
        assert type(number) is float

    @pytest.mark.parametrize("wrong", [True, False, "5 s", None, Decimal(5), b"5", [5], 5j])
    def test_refuses_what_is_no_duration(self, wrong: Any) -> None:
        """A boolean, a text or a Decimal is no duration, and the message names the argument and the value."""
        with pytest.raises(TypeError, match=r"^delay must be seconds .*not ") as caught:
            seconds("delay", wrong)

        assert str(caught.value).endswith(repr(wrong))

    @pytest.mark.parametrize(
        "wrong",
        [-1, -0.001, math.nan, math.inf, -math.inf, timedelta(microseconds=-1), timedelta.max, 10**400, -(10**400)],
    )
    def test_refuses_impossible_lengths(self, wrong: float | timedelta) -> None:
        """Negative, endless, undefined and enormous durations are refused, also where zero is allowed."""
        for zero in (False, True):
            with pytest.raises(ValueError, match=r"^delay must be .*hundred years"):
                seconds("delay", wrong, zero=zero)

    @pytest.mark.parametrize("nothing", [0, 0.0, -0.0, timedelta(0)])
    def test_zero_is_refused_unless_allowed(self, nothing: float | timedelta) -> None:
        """Zero of any type is a duration only where the caller says so."""
        assert seconds("delay", nothing, zero=True) == 0
        with pytest.raises(ValueError, match="more than zero"):
            seconds("delay", nothing)

    def test_a_hundred_years_are_the_most(self) -> None:
        """The longest duration is allowed, the next float after it is not."""
        assert seconds("timeout", HUNDRED_YEARS) == HUNDRED_YEARS
        with pytest.raises(ValueError, match="timeout"):
            seconds("timeout", math.nextafter(HUNDRED_YEARS, math.inf))


class TestInstants:
    """What is an instant."""

    def test_an_aware_instant_is_given_in_utc(self) -> None:
        """An instant of another zone is the same instant, told in UTC."""
        berlin = timezone(timedelta(hours=1))

        instant = check_instant("wait_until", datetime(2030, 1, 1, 1, tzinfo=berlin))

        assert instant == T0
        assert instant.tzinfo is UTC

    def test_a_naive_datetime_is_refused(self) -> None:
        """A datetime without a zone is no instant, and the message says how to give it one."""
        with pytest.raises(ValueError, match=r"deadline must be aware .*tzinfo=UTC"):
            check_instant("deadline", datetime(2030, 1, 1))  # noqa: DTZ001  # the mistake that is refused

    def test_a_zone_that_does_not_know_its_offset_is_none(self) -> None:
        """A datetime with a zone that gives no offset is as naive as one without."""

        class Nowhere(tzinfo):
            def utcoffset(self, when: datetime | None) -> None:
                return None

            tzname = dst = utcoffset

        with pytest.raises(ValueError, match="deadline must be aware"):
            check_instant("deadline", datetime(2030, 1, 1, tzinfo=Nowhere()))

    @pytest.mark.parametrize("wrong", ["2030-01-01T00:00:00Z", 1.5, None, date(2030, 1, 1), timedelta(1)])
    def test_what_is_no_datetime_is_refused(self, wrong: Any) -> None:
        """Texts, numbers, dates and durations are no instants."""
        with pytest.raises(TypeError, match="deadline must be an aware datetime"):
            check_instant("deadline", wrong)

    @pytest.mark.parametrize(
        "wrong",
        [
            datetime.max.replace(tzinfo=timezone(timedelta(hours=-1))),
            datetime.min.replace(tzinfo=timezone(timedelta(hours=1))),
        ],
    )
    def test_an_instant_outside_of_utc_is_refused(self, wrong: datetime) -> None:
        """An instant that UTC has no year for is a ValueError that names the argument."""
        with pytest.raises(ValueError, match="deadline must lie within the years 1 to 9999"):
            check_instant("deadline", wrong)

    @given(st.datetimes(timezones=st.just(UTC)))
    def test_microseconds_keep_every_instant(self, instant: datetime) -> None:
        """An instant survives the way to microseconds and back exactly."""
        assert from_micros(to_micros(instant)) == instant

    def test_microseconds_count_from_the_epoch(self) -> None:
        """The first instant of 1970 is zero, one microsecond before it is minus one."""
        assert datetime(1970, 1, 1, tzinfo=UTC) == EPOCH
        assert to_micros(EPOCH) == 0
        assert to_micros(EPOCH - MICROSECOND) == -1


class TestSystemClock:
    """This machine's clocks."""

    def test_it_is_aware_and_never_runs_backwards(self) -> None:
        """The machine's wall clock is in UTC, and its monotonic one does not run backwards."""
        clock = SystemClock()

        assert clock.wall().tzinfo is UTC
        assert clock.monotonic() <= clock.monotonic()


class TestStoreClock:
    """What is known of the store's time."""

    def test_before_any_answer_it_is_this_machines_time(self) -> None:
        """As long as the store has said nothing, both bounds are the local wall clock."""
        machine = FakeClock()
        clock = StoreClock(machine)

        assert not clock.known
        assert clock.now() == (T0, T0)
        machine.advance(5)
        assert clock.now() == (at(5), at(5))

    def test_an_answer_gives_both_bounds(self) -> None:
        """It is not before the answer's time, nor later than that plus the time since it was asked for."""
        machine = FakeClock()
        clock = StoreClock(machine)
        asked = clock.monotonic()
        machine.advance(2)

        clock.observe(at(3600), asked=asked)

        assert clock.known
        assert clock.now() == (at(3600), at(3602))

    def test_the_bounds_run_with_the_local_clock(self) -> None:
        """What passes here since the answer passes there as well."""
        machine = FakeClock()
        clock = StoreClock(machine)
        clock.observe(at(100), asked=clock.monotonic())

        machine.advance(7.5)

        assert clock.now() == (at(107.5), at(107.5))

    def test_the_local_wall_clock_no_longer_matters(self) -> None:
        """A wall clock that jumps changes nothing once the store has answered."""
        machine = FakeClock()
        clock = StoreClock(machine)
        clock.observe(at(100), asked=clock.monotonic())

        machine.wall_time -= timedelta(days=400)

        assert clock.now() == (at(100), at(100))

    def test_a_narrower_answer_narrows_the_bounds(self) -> None:
        """Of two answers that agree, both hold: the bounds are those that they share."""
        machine = FakeClock()
        clock = StoreClock(machine)
        clock.observe(T0, asked=machine.reading - 8)  # T0 to T0 + 8
        clock.observe(at(2), asked=machine.reading - 3)  # T0 + 2 to T0 + 5

        assert clock.now() == (at(2), at(5))

    def test_a_wider_answer_widens_nothing(self) -> None:
        """A slow answer does not undo what a quick one told."""
        machine = FakeClock()
        clock = StoreClock(machine)
        clock.observe(at(2), asked=machine.reading - 3)
        clock.observe(T0, asked=machine.reading - 8)

        assert clock.now() == (at(2), at(5))

    @pytest.mark.parametrize("jump", [3600, -3600])
    def test_an_answer_that_contradicts_is_believed(self, jump: float) -> None:
        """Where the newest answer contradicts the older ones, a clock has jumped, and the newest holds."""
        machine = FakeClock()
        clock = StoreClock(machine)
        clock.observe(T0, asked=machine.reading - 1)

        clock.observe(at(jump), asked=machine.reading - 1)

        assert clock.now() == (at(jump), at(jump + 1))

    @given(
        st.lists(
            st.tuples(
                st.integers(0, 10**8),  # until asked, in microseconds
                st.integers(0, 10**7),  # until the store read its clock
                st.integers(0, 10**7),  # until the answer was received
            ),
            min_size=1,
            max_size=8,
        ),
        st.integers(0, 10**9),
    )
    def test_the_stores_present_lies_within_the_bounds(self, answers: list[tuple[int, int, int]], rest: int) -> None:
        """Whatever the delays of the answers, the store's true time is never outside the bounds by a microsecond."""
        machine = FakeClock(monotonic=0.0)
        clock = StoreClock(machine)
        offset, passed = to_micros(T0), 0
        for before_asking, there, back in answers:
            passed += before_asking
            asked = passed / 1e6
            read = offset + passed + there
            passed += there + back
            machine.reading = passed / 1e6
            clock.observe(from_micros(read), asked=asked)
        passed += rest
        machine.reading = passed / 1e6

        earliest, latest = clock.now()

        truth = from_micros(offset + passed)
        assert earliest - MICROSECOND <= truth <= latest + MICROSECOND
