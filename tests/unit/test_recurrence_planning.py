"""What a generator does when it is due: which instants become occurrences, and when it is due again."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oncetask.errors import InvalidRecurrence
from oncetask.recurrence import MOST_AT_ONCE, CatchUp, Overlap, Plan, Recurrence, begin, plan
from tests.support import MICROSECOND, T0

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
CATCH_UPS: list[CatchUp] = ["one", "all", "skip"]
OVERLAPS: list[Overlap] = ["allow", "skip", "cancel-previous"]


def daily(rest: str = "", **options: Any) -> Recurrence:
    """Give a rule with an instant each day, T0 the first."""
    return Recurrence(f"FREQ=DAILY{rest}", T0, **options)


def days(*numbers: int) -> tuple[datetime, ...]:
    """Give instants of it, by their numbers."""
    return tuple(T0 + number * DAY for number in numbers)


def up_to(now: datetime, recurrence: Recurrence) -> list[datetime]:
    """Give all instants that have come."""
    found = [recurrence.first()]
    while (following := recurrence.next_after(found[-1])) is not None and following <= now:
        found.append(following)
    return [instant for instant in found if instant <= now]


class TestBegin:
    """The first instant of a new generator."""

    def test_a_start_to_come(self) -> None:
        """A rule that begins later has its first instant where it says."""
        assert begin(daily(), T0 - 400 * DAY) == T0
        assert begin(daily(), T0 - MICROSECOND) == T0
        assert begin(daily(";BYHOUR=9"), T0 - DAY) == T0 + 9 * HOUR

    def test_a_start_that_has_only_just_passed(self) -> None:
        """A start within the last minute is still the first instant; a minute ago it is past."""
        assert begin(daily(), T0) == T0
        assert begin(daily(), T0 + MINUTE - MICROSECOND) == T0
        assert begin(daily(), T0 + MINUTE) == T0 + DAY

    def test_a_start_that_has_only_just_passed_and_is_no_instant(self) -> None:
        """A start within the last minute that the rule does not have, or leaves out, is not the first instant."""
        assert begin(daily(";BYHOUR=9"), T0 + SECOND) == T0 + 9 * HOUR
        assert begin(daily(exdates=[T0]), T0 + SECOND) == T0 + DAY

    def test_the_past_is_not_caught_up_with(self) -> None:
        """A rule that began long ago has its first instant after now, never at it, whatever its policy."""
        for catch_up in CATCH_UPS:
            recurrence = daily(catch_up=catch_up)

            assert begin(recurrence, T0 + 1_000 * DAY - MICROSECOND) == T0 + 1_000 * DAY
            assert begin(recurrence, T0 + 1_000 * DAY) == T0 + 1_001 * DAY

    def test_without_a_start_it_begins_now(self) -> None:
        """Cron expressions and intervals, which begin in 1970 where nothing is said, have the next instant."""
        assert begin(Recurrence.cron("0 * * * *"), T0 + MINUTE) == T0 + HOUR
        assert begin(Recurrence.every(HOUR), T0) == T0 + HOUR

    def test_a_rule_that_is_over(self) -> None:
        """A rule without an instant left is refused; one whose only instant has just passed is not."""
        once = daily(";COUNT=1")

        assert begin(once, T0 + 59 * SECOND) == T0
        with pytest.raises(InvalidRecurrence, match=r"'FREQ=DAILY;COUNT=1' .*no instant after 2030-01-01 00:01"):
            begin(once, T0 + MINUTE)


class TestCatchingUp:
    """What becomes of instants that have passed."""

    @pytest.mark.parametrize("catch_up", CATCH_UPS)
    def test_on_time(self, catch_up: CatchUp) -> None:
        """An instant that has just come becomes an occurrence under every policy, and the next one follows."""
        recurrence = daily(catch_up=catch_up)

        assert plan(recurrence, T0, now=T0) == Plan(spawn=(T0,), next=T0 + DAY)
        assert plan(recurrence, T0, now=T0 + MINUTE) == Plan(spawn=(T0,), next=T0 + DAY)

    @pytest.mark.parametrize(
        ("catch_up", "spawned"),
        [("one", days(3)), ("all", days(0, 1, 2, 3)), ("skip", ())],
    )
    def test_late(self, catch_up: CatchUp, spawned: tuple[datetime, ...]) -> None:
        """Of four missed instants "one" runs the last, "all" runs each, "skip" none; each is due next after now."""
        recurrence = daily(catch_up=catch_up)

        assert plan(recurrence, T0, now=T0 + 3 * DAY + HOUR) == Plan(spawned, T0 + 4 * DAY)

    def test_missed_is_what_is_more_than_two_minutes_old(self) -> None:
        """Two minutes late is in time under "skip", a microsecond more is missed."""
        recurrence = daily(catch_up="skip")

        assert plan(recurrence, T0, now=T0 + 2 * MINUTE) == Plan((T0,), T0 + DAY)
        assert plan(recurrence, T0, now=T0 + 2 * MINUTE + MICROSECOND) == Plan((), T0 + DAY)

    def test_the_last_one_may_be_in_time_where_others_are_missed(self) -> None:
        """Under "skip" the last instant still runs if it is in time itself, and none of those before it."""
        recurrence = daily(catch_up="skip")

        assert plan(recurrence, T0, now=T0 + 3 * DAY + 2 * MINUTE) == Plan(days(3), T0 + 4 * DAY)
        assert plan(recurrence, T0, now=T0 + 3 * DAY + 2 * MINUTE + MICROSECOND) == Plan((), T0 + 4 * DAY)

    @pytest.mark.parametrize("catch_up", ["one", "all"])
    def test_an_instant_has_come_at_its_time(self, catch_up: CatchUp) -> None:
        """The last instant is the one that is now, and not yet so a microsecond earlier."""
        recurrence = daily(catch_up=catch_up)

        assert plan(recurrence, T0, now=T0 + DAY).spawn[-1] == T0 + DAY
        assert plan(recurrence, T0, now=T0 + DAY).next == T0 + 2 * DAY
        assert plan(recurrence, T0, now=T0 + DAY - MICROSECOND) == Plan((T0,), T0 + DAY)

    def test_all_are_as_many_as_one_commit_writes(self) -> None:
        """With more missed than fit at once, the first ones are spawned, and it is due again at the next one."""
        recurrence = daily(catch_up="all")

        assert plan(recurrence, T0, now=T0 + 5 * DAY, most=2) == Plan(days(0, 1), T0 + 2 * DAY)
        assert plan(recurrence, T0, now=T0 + 5 * DAY, most=1) == Plan(days(0), T0 + DAY)
        assert plan(recurrence, T0, now=T0 + 400 * DAY) == Plan(days(*range(MOST_AT_ONCE)), T0 + MOST_AT_ONCE * DAY)

    def test_as_many_as_fit_are_all(self) -> None:
        """With just as many missed as fit at once, the next one is after now."""
        recurrence = daily(catch_up="all")

        assert plan(recurrence, T0, now=T0 + 2 * DAY, most=3) == Plan(days(0, 1, 2), T0 + 3 * DAY)

    def test_how_many_fit_does_not_matter_to_one(self) -> None:
        """Where one runs at most, however many were missed, it is the last."""
        assert plan(daily(), T0, now=T0 + 500 * DAY, most=2) == Plan(days(500), T0 + 501 * DAY)

    @pytest.mark.parametrize(
        ("catch_up", "spawned"),
        [("one", days(2)), ("all", days(0, 1, 2)), ("skip", ())],
    )
    def test_the_last_instants_of_a_rule(self, catch_up: CatchUp, spawned: tuple[datetime, ...]) -> None:
        """Behind the last instant of its rule a generator is never due again."""
        recurrence = daily(";COUNT=3", catch_up=catch_up)

        assert plan(recurrence, T0, now=T0 + 900 * DAY) == Plan(spawned, None)
        assert plan(recurrence, T0 + 2 * DAY, now=T0 + 2 * DAY) == Plan(days(2), None)

    def test_exdates_are_not_caught_up_with(self) -> None:
        """What the rule leaves out was not missed."""
        left_out = days(1, 3)

        everything = plan(daily(catch_up="all", exdates=left_out), T0, now=T0 + 3 * DAY)
        one = plan(daily(exdates=left_out), T0, now=T0 + 3 * DAY)

        assert everything == Plan(days(0, 2), T0 + 4 * DAY)
        assert one == Plan(days(2), T0 + 4 * DAY)

    @pytest.mark.parametrize("catch_up", ["one", "all"])
    def test_due_at_no_instant_of_its_rule(self, catch_up: CatchUp) -> None:
        """A generator that is due at another time, its rule was changed say, runs then, and follows its rule again."""
        due = T0 + 5 * HOUR

        assert plan(daily(catch_up=catch_up), due, now=due) == Plan((due,), T0 + DAY)

    @pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin"])
    @pytest.mark.parametrize(
        ("catch_up", "first", "last"), [("one", 0, 0), ("skip", 0, 0), ("all", -300_000_000, -300_000_000 + 99)]
    )
    def test_millions_of_missed_instants(self, catch_up: CatchUp, first: int, last: int, zone: str) -> None:
        """Nine years of seconds are not walked through one by one."""
        began = T0 - 300_000_000 * SECOND
        recurrence = Recurrence("FREQ=SECONDLY", began, zone, catch_up=catch_up)

        spawn, following = plan(recurrence, began, now=T0 + 999_999 * MICROSECOND)

        assert spawn[0] == T0 + first * SECOND
        assert spawn[-1] == T0 + last * SECOND
        assert following == spawn[-1] + SECOND


class TestUntil:
    """The time from which on nothing more happens."""

    @pytest.mark.parametrize("catch_up", CATCH_UPS)
    def test_nothing_from_there_on(self, catch_up: CatchUp) -> None:
        """Due at the end or after it, nothing is spawned and it is over; a microsecond before it, it still runs."""
        recurrence = daily(catch_up=catch_up)

        assert plan(recurrence, T0, now=T0, until=T0) == Plan((), None)
        assert plan(recurrence, T0, now=T0, until=T0 - DAY) == Plan((), None)
        assert plan(recurrence, T0, now=T0, until=T0 + MICROSECOND) == Plan((T0,), None)

    def test_the_next_one_must_be_before_it(self) -> None:
        """It is due again only before the end: not at it."""
        assert plan(daily(), T0, now=T0, until=T0 + DAY) == Plan((T0,), None)
        assert plan(daily(), T0, now=T0, until=T0 + DAY + MICROSECOND) == Plan((T0,), T0 + DAY)

    def test_missed_instants_from_there_on(self) -> None:
        """When it is looked at too late, each missed instant before the end is caught up with, and none at it."""
        recurrence = daily(catch_up="all")

        assert plan(recurrence, T0, now=T0 + 9 * DAY, until=T0 + 2 * DAY) == Plan(days(0, 1), None)
        assert plan(recurrence, T0, now=T0 + 9 * DAY, until=T0 + 5 * DAY, most=2) == Plan(days(0, 1), T0 + 2 * DAY)
        assert plan(recurrence, T0, now=T0 + 9 * DAY, until=T0 + 2 * DAY, most=2) == Plan(days(0, 1), None)

    def test_the_last_missed_one_before_it(self) -> None:
        """With "one" it is the last instant before the end, which is worth telling of however late it is."""
        assert plan(daily(), T0, now=T0 + 9 * DAY, until=T0 + 2 * DAY) == Plan(days(1), None)
        assert plan(daily(catch_up="skip"), T0, now=T0 + 9 * DAY, until=T0 + 2 * DAY) == Plan((), None)

    def test_an_end_that_is_far_away(self) -> None:
        """An end behind all of this changes nothing."""
        for catch_up in CATCH_UPS:
            recurrence = daily(";COUNT=9", catch_up=catch_up)
            for late in (0 * DAY, 3 * DAY, 99 * DAY):
                assert plan(recurrence, T0, now=T0 + late, until=T0 + 999 * DAY) == plan(recurrence, T0, now=T0 + late)


class TestOverlap:
    """What becomes of an occurrence while the last one is not done."""

    @pytest.mark.parametrize(
        ("overlap", "is_busy", "catch_up", "spawned"),
        [
            ("allow", False, "one", days(2)),
            ("allow", False, "all", days(0, 1, 2)),
            ("allow", False, "skip", days(2)),
            ("allow", True, "one", days(2)),
            ("allow", True, "all", days(0, 1, 2)),
            ("allow", True, "skip", days(2)),
            ("skip", False, "one", days(2)),
            ("skip", False, "all", days(0)),  # while that one runs, the others are left out
            ("skip", False, "skip", days(2)),
            ("skip", True, "one", ()),
            ("skip", True, "all", ()),
            ("skip", True, "skip", ()),
            ("cancel-previous", False, "one", days(2)),
            ("cancel-previous", False, "all", days(2)),  # each would be cancelled by the next one
            ("cancel-previous", False, "skip", days(2)),
            ("cancel-previous", True, "one", days(2)),
            ("cancel-previous", True, "all", days(2)),
            ("cancel-previous", True, "skip", days(2)),
        ],
    )
    def test_three_instants_have_come(
        self, overlap: Overlap, is_busy: bool, catch_up: CatchUp, spawned: tuple[datetime, ...]
    ) -> None:
        """Of three instants, the last in time, those run that both policies let through; the next one is the fourth."""
        recurrence = daily(catch_up=catch_up, overlap=overlap)

        step = plan(recurrence, T0, now=T0 + 2 * DAY + MINUTE, is_busy=is_busy)

        assert step == Plan(spawned, T0 + 3 * DAY)

    @pytest.mark.parametrize("overlap", OVERLAPS)
    @pytest.mark.parametrize("is_busy", [True, False])
    def test_what_is_missed_does_not_run(self, overlap: Overlap, is_busy: bool) -> None:
        """What "skip" has left out as missed runs under no policy of overlap."""
        recurrence = daily(catch_up="skip", overlap=overlap)

        assert plan(recurrence, T0, now=T0 + DAY + HOUR, is_busy=is_busy) == Plan((), T0 + 2 * DAY)

    @pytest.mark.parametrize("is_busy", [True, False])
    def test_the_last_before_the_end(self, is_busy: bool) -> None:
        """Of missed instants the last before the end takes the place of those before it, not one at the end."""
        recurrence = daily(catch_up="all", overlap="cancel-previous")

        assert plan(recurrence, T0, now=T0 + 9 * DAY, until=T0 + 2 * DAY, is_busy=is_busy) == Plan(days(1), None)


RULES = [
    "FREQ=HOURLY",
    "FREQ=HOURLY;INTERVAL=7;COUNT=40",
    "FREQ=MINUTELY;INTERVAL=25;BYHOUR=1,2,3",
    "FREQ=DAILY;BYHOUR=2,3;BYMINUTE=30",
    "FREQ=WEEKLY;BYDAY=SU;BYHOUR=2;BYMINUTE=0,30,59",
]
STEPS = st.lists(
    st.timedeltas(timedelta(0), 6 * HOUR) | st.timedeltas(timedelta(0), 5 * DAY) | st.just(timedelta(0)), max_size=12
)
SPRING = datetime.fromisoformat("2030-03-30T00:00:00+00:00")  # the day before the clocks go forward in Berlin


class TestFollowingThePlans:
    """Step after step, whenever somebody looks."""

    @staticmethod
    def _followed(
        recurrence: Recurrence, steps: Sequence[timedelta], most: int, until: datetime | None = None
    ) -> tuple[list[tuple[Plan, datetime]], datetime]:
        """Follow the plans whenever one is due: give each with the time it was made at, and up to when all was seen."""
        made: list[tuple[Plan, datetime]] = []
        now = due = recurrence.first()
        for passed in steps:
            now += passed
            while due <= now:
                step = plan(recurrence, due, now=now, most=most, until=until)
                made.append((step, now))
                if step.next is None:
                    return made, until or now + 999 * DAY
                assert step.next > due
                due = step.next
        return made, now if made else recurrence.first() - MICROSECOND

    @given(st.sampled_from(RULES), STEPS, st.integers(1, 5), st.none() | st.timedeltas(timedelta(0), 20 * DAY))
    def test_all_of_them(self, rule: str, steps: list[timedelta], most: int, end: timedelta | None) -> None:
        """With "all", each instant that has come becomes one occurrence, once and in order, up to the end."""
        recurrence = Recurrence(rule, SPRING, "Europe/Berlin", catch_up="all")
        until = None if end is None else recurrence.first() + end

        made, now = self._followed(recurrence, steps, most, until)

        spawned = [instant for step, _ in made for instant in step.spawn]
        assert spawned == [instant for instant in up_to(now, recurrence) if until is None or instant < until]
        assert all(len(step.spawn) <= most for step, _ in made)

    @given(st.sampled_from(RULES), STEPS)
    def test_one_of_them(self, rule: str, steps: list[timedelta]) -> None:
        """With "one", each time the last instant that has come becomes an occurrence, and the next one is to come."""
        recurrence = Recurrence(rule, SPRING, "Europe/Berlin", catch_up="one")

        made, _ = self._followed(recurrence, steps, 100)

        for step, now in made:
            assert step.spawn == (up_to(now, recurrence)[-1],)
            assert step.next is None or step.next > now
        assert all(one.spawn < other.spawn for (one, _), (other, _) in pairwise(made))

    @given(st.sampled_from(RULES), STEPS)
    def test_skipping_is_one_of_them_or_none(self, rule: str, steps: list[timedelta]) -> None:
        """With "skip", that same instant becomes an occurrence if it is not older than two minutes."""
        one, skip = (Recurrence(rule, SPRING, "Europe/Berlin", catch_up=each) for each in ("one", "skip"))

        for (expected, now), (step, _) in zip(
            self._followed(one, steps, 100)[0], self._followed(skip, steps, 100)[0], strict=True
        ):
            assert step.next == expected.next
            assert step.spawn == tuple(instant for instant in expected.spawn if now - instant <= 2 * MINUTE)

    @given(
        st.sampled_from(RULES),
        st.sampled_from(CATCH_UPS),
        st.sampled_from(OVERLAPS),
        st.booleans(),
        st.timedeltas(timedelta(0), 20 * DAY),
    )
    def test_overlap_only_leaves_out(
        self, rule: str, catch_up: CatchUp, overlap: Overlap, is_busy: bool, late: timedelta
    ) -> None:
        """A policy of overlap leaves occurrences out, adds none, and changes nothing about when it is due again."""
        allowed = Recurrence(rule, SPRING, "Europe/Berlin", catch_up=catch_up)
        recurrence = Recurrence(rule, SPRING, "Europe/Berlin", catch_up=catch_up, overlap=overlap)
        due = recurrence.first()

        free = plan(allowed, due, now=due + late)
        step = plan(recurrence, due, now=due + late, is_busy=is_busy)

        assert step.next == free.next
        assert {*step.spawn} <= {*free.spawn}
        assert overlap == "allow" or len(step.spawn) <= 1
