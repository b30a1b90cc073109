"""The instants of rules and cron expressions: as dateutil walks, from anywhere, across clocks that are changed."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from itertools import islice, pairwise, takewhile
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from dateutil.rrule import rrulestr
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from oncetask.clock import EPOCH
from oncetask.errors import InvalidRecurrence
from oncetask.recurrence import Recurrence
from tests.support import MICROSECOND

SECOND = timedelta(seconds=1)
DAY = timedelta(days=1)
BERLIN = "Europe/Berlin"
NEW_YORK = "America/New_York"
LORD_HOWE = "Australia/Lord_Howe"
SAMOA = "Pacific/Apia"

CHANGES = {
    BERLIN: ["2025-03-30T01:00", "2025-10-26T01:00"],
    NEW_YORK: ["2025-03-09T07:00", "2025-11-02T06:00"],
    LORD_HOWE: ["2025-10-04T15:30", "2025-04-05T15:00"],  # by half an hour
    "Asia/Kathmandu": ["1985-12-31T18:30"],  # by a quarter of an hour, for good
    SAMOA: ["2011-12-30T10:00", "2012-03-31T14:00"],  # by a day
    "America/Sao_Paulo": ["2018-11-04T03:00", "2018-02-18T02:00"],  # at midnight
    "Africa/Casablanca": ["2023-04-23T02:00", "2023-03-19T02:00"],  # the wrong way round
    "UTC": ["2025-01-01T00:00"],
}
"""Zone -> when its clocks are changed (first forward, then back), in UTC; for UTC, which has none, any time."""

FREQUENCIES = ("SECONDLY", "MINUTELY", "HOURLY", "DAILY", "WEEKLY", "MONTHLY", "YEARLY")
OF_A_DAY = FREQUENCIES[:3]
PARTS = (
    *("FREQ", "INTERVAL", "COUNT", "UNTIL", "WKST", "BYSETPOS", "BYMONTH", "BYWEEKNO", "BYYEARDAY", "BYMONTHDAY"),
    *("BYDAY", "BYHOUR", "BYMINUTE", "BYSECOND"),
)
WEEKDAYS = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")


def utc(text: str) -> datetime:
    """Give the instant of a text such as 2025-03-30T01:00."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def local(text: str, zone: str) -> datetime:
    """Give the first instant at which the clocks of a zone show this."""
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone))


def wall(instant: datetime, zone: str) -> datetime:
    """Give what the clocks of a zone show."""
    return instant.astimezone(ZoneInfo(zone)).replace(tzinfo=None, fold=0)


def instants_of(recurrence: Recurrence) -> Iterator[datetime]:
    """Walk from the first instant to the last."""
    instant: datetime | None = recurrence.first()
    while instant is not None:
        yield instant
        instant = recurrence.next_after(instant)


def first_of(recurrence: Recurrence, number: int) -> list[datetime]:
    """Give the first instants."""
    return list(islice(instants_of(recurrence), number))


def up_to(last: datetime, recurrence: Recurrence) -> list[datetime]:
    """Give the instants that are not later than `last`."""
    return list(takewhile(lambda instant: instant <= last, instants_of(recurrence)))


def on_the_clocks(walls: Iterator[datetime], zone: str, start: datetime, last: datetime) -> list[datetime]:
    """Give the instants, from `start` to `last`, of ever later times on the clocks of a zone."""
    clock, found = ZoneInfo(zone), set[datetime]()
    for time in walls:
        both = [time.replace(tzinfo=clock, fold=fold).astimezone(UTC) for fold in (0, 1)]
        if min(both) > last:  # then so are all later ones: one that is skipped is before the gap by the offset after it
            break
        found.add(both[0])
    return sorted(instant for instant in found if start <= instant <= last)


def walked(rule: str, zone: str, start: datetime, last: datetime) -> list[datetime]:
    """Let dateutil walk on the clocks of a zone. It knows no zone's UNTIL: `last` says where to stop."""
    parts = [part for part in rule.split(";") if not part.startswith("UNTIL=")]
    return on_the_clocks(iter(rrulestr(";".join(parts), dtstart=wall(start, zone))), zone, start, last)


def numbers(least: int, most: int, *, backwards: bool = False, size: int = 4) -> st.SearchStrategy[str]:
    """Give lists for a BY part."""
    allowed = [number for number in range(-most if backwards else least, most + 1) if number or not least]
    return st.lists(st.sampled_from(allowed), min_size=1, max_size=size, unique=True).map(
        lambda chosen: ",".join(map(str, chosen))
    )


def week_of(day: date, week_start: int) -> tuple[int, int]:
    """Give the year and the number of a day's week: those of the fourth day of this week."""
    fourth = day - timedelta((day.weekday() - week_start) % 7) + timedelta(3)
    return fourth.year, (fourth.timetuple().tm_yday - 1) // 7 + 1


@st.composite
def rules(draw: st.DrawFn) -> str:
    """Give rules such as RFC 5545 allows: its table says which part may stand with which frequency."""
    frequency = draw(st.sampled_from(FREQUENCIES))
    interval = draw(st.one_of(st.just(1), st.sampled_from([2, 3, 7, 15, 20, 25, 45, 90, 1_440]), st.integers(2, 2_000)))
    # dateutil takes week 52 for 53 where it reaches into the next year, and does not know that week -53 may do so.
    week_numbers = (
        draw(numbers(1, 51, backwards=True)) if frequency == "YEARLY" and draw(st.integers(0, 3)) == 0 else ""
    )
    days = st.lists(st.sampled_from(WEEKDAYS), min_size=1, max_size=4, unique=True)
    if frequency in {"MONTHLY", "YEARLY"} and not week_numbers:  # never mixed: dateutil would ask for both at once
        counted = st.lists(st.tuples(st.sampled_from([1, 2, 4, 5, -1, -3]), st.sampled_from(WEEKDAYS)), max_size=3)
        days |= counted.map(lambda chosen: [f"{number}{day}" for number, day in chosen])
    parts: dict[str, st.SearchStrategy[str]] = {
        "BYMONTH": numbers(1, 12),
        "BYMONTHDAY": st.nothing() if frequency == "WEEKLY" else numbers(1, 31, backwards=True),
        "BYYEARDAY": st.nothing() if frequency in {"DAILY", "WEEKLY", "MONTHLY"} else numbers(1, 366, backwards=True),
        "BYDAY": days.map(",".join),
        "BYHOUR": numbers(0, 23),
        "BYMINUTE": numbers(0, 59),
        "BYSECOND": numbers(0, 59, size=2),
    }
    given_parts = {"FREQ": frequency, "INTERVAL": str(interval), "BYWEEKNO": week_numbers}
    for name, values in parts.items():
        if not values.is_empty and draw(st.integers(0, 3)) == 0:
            given_parts[name] = draw(values)
    if any(value for name, value in given_parts.items() if name.startswith("BY")) and draw(st.integers(0, 3)) == 0:
        given_parts["BYSETPOS"] = draw(numbers(1, 3, backwards=True, size=2))
    if draw(st.booleans()):
        given_parts["WKST"] = draw(st.sampled_from(WEEKDAYS))
    return ";".join(f"{name}={value}" for name, value in given_parts.items() if value)


@st.composite
def starts(draw: st.DrawFn) -> tuple[str, datetime]:
    """Give a zone and where a rule begins, often close to a change of the clocks."""
    zone = draw(st.sampled_from(list(CHANGES)))
    close = st.builds(
        lambda change, minutes, seconds: utc(change) + timedelta(minutes=minutes, seconds=seconds),
        st.sampled_from(CHANGES[zone]),
        st.integers(-200, 100) | st.integers(-3_000, 3_000),
        st.sampled_from([0, 0, 1, 59]),
    )
    anywhere = st.datetimes(datetime(1990, 1, 1), datetime(2035, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
    return zone, draw(close | anywhere.map(lambda instant: instant.replace(microsecond=0)))


@st.composite
def ends(draw: st.DrawFn, zone: str, start: datetime) -> tuple[str, datetime | None]:
    """Give how a rule ends: not, after so many, or at a time, in UTC or of the zone; and that time."""
    match draw(st.sampled_from(["never", "COUNT", "UNTIL", "UNTIL local"])):
        case "COUNT":
            return f";COUNT={draw(st.integers(1, 30))}", None
        case "UNTIL":
            until = start + timedelta(minutes=draw(st.integers(0, 10**4) | st.integers(0, 10**7)))
            return f";UNTIL={until:%Y%m%dT%H%M%SZ}", until
        case "UNTIL local":
            shown = wall(start, zone) + timedelta(minutes=draw(st.integers(0, 10**4) | st.integers(0, 10**7)))
            return f";UNTIL={shown:%Y%m%dT%H%M%S}", shown.replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)
    return "", None


class TestWalks:
    """What `next_after` gives is what a walk from the start would have come to."""

    def test_the_changes_are_changes(self) -> None:
        """The clocks of the zones tested here go forward at the first instant, and back at the second."""
        for zone, changes in CHANGES.items():
            for change, forward in zip(map(utc, changes), (True, False), strict=False):
                before, after = ((change + step).astimezone(ZoneInfo(zone)).utcoffset() for step in (-SECOND, SECOND))
                assert before is not None
                assert after is not None
                assert zone == "UTC" or (after > before if forward else after < before)

    @given(rules(), starts(), st.data())
    @settings(max_examples=100, derandomize=True)  # what dateutil gets wrong is not to be found out here
    def test_the_instants_are_those_of_dateutils_walk(
        self, rule: str, begin: tuple[str, datetime], data: st.DataObject
    ) -> None:
        """From one to the next, and from anywhere in between, come the instants of dateutil's walk, in order, once."""
        zone, start = begin
        end, until = data.draw(ends(zone, start))
        # In the second pass of an hour that comes twice, dateutil would count what lies before the start.
        assume("COUNT" not in end or not start.astimezone(ZoneInfo(zone)).fold)
        try:
            recurrence = Recurrence(rule + end, start, zone)
        except InvalidRecurrence as error:
            assert "no instant" in str(error)  # noqa: PT017  # whether that is so is tested where the calendar ends
            assume(False)  # noqa: FBT003
            raise
        horizon = start + (90 * DAY if rule.startswith(tuple(f"FREQ={name}" for name in OF_A_DAY)) else 15_000 * DAY)
        found = list(islice(takewhile(lambda instant: instant <= horizon, instants_of(recurrence)), 30))
        assume(found)

        is_over = recurrence.next_after(found[-1]) is None
        last = (until or datetime.max.replace(tzinfo=UTC)) if is_over and end else found[-1]
        assert found == walked(rule + end, zone, start, last)

        for _ in range(3):
            anywhere = start + data.draw(st.timedeltas(-SECOND, max(found[-1] - start, SECOND)))
            expected = next((instant for instant in found if instant > anywhere), None)
            assert expected is None or recurrence.next_after(anywhere) == expected

    @given(rules(), st.datetimes(datetime(9960, 1, 1), datetime(9999, 1, 1)), st.integers(1, 60) | st.none())  # noqa: DTZ001
    @settings(max_examples=100, derandomize=True)
    def test_a_walk_ends_where_the_calendar_does(self, rule: str, begin: datetime, count: int | None) -> None:
        """Up to the year 9999 there are dateutil's instants and no more; where it has none, the rule is refused."""
        assume("FREQ=WEEKLY" not in rule)  # dateutil fails there in the last week
        if rule.startswith(tuple(f"FREQ={name}" for name in OF_A_DAY)):
            begin = begin.replace(year=9999, month=12)
        begin = begin.replace(microsecond=0)
        rule += f";COUNT={count}" if count else ""
        try:
            expected = [wall.replace(tzinfo=UTC) for wall in islice(rrulestr(rule, dtstart=begin), 60)]
        except ValueError as error:
            assert "empty" in str(error)  # noqa: PT017
            expected = []

        if expected:
            assert first_of(Recurrence(rule, begin.replace(tzinfo=UTC)), 60) == expected
        else:
            with pytest.raises(InvalidRecurrence, match="no instant"):
                Recurrence(rule, begin.replace(tzinfo=UTC))

    @pytest.mark.parametrize("zone", ["UTC", BERLIN])
    @pytest.mark.parametrize(
        "rule",
        [
            "FREQ=DAILY;INTERVAL=3",
            "FREQ=DAILY;INTERVAL=11;BYDAY=MO,FR;BYHOUR=2;BYMINUTE=30",
            "FREQ=DAILY;INTERVAL=2;COUNT=1900",
            "FREQ=HOURLY;INTERVAL=7",
            "FREQ=HOURLY;INTERVAL=5;BYHOUR=1,2,3;COUNT=2000",
            "FREQ=MINUTELY;INTERVAL=1999;BYDAY=SA,SU",
            "FREQ=SECONDLY;INTERVAL=4999;BYHOUR=2",
            "FREQ=SECONDLY;INTERVAL=85999;BYHOUR=2,3",  # a little less than a day, and a little more
            "FREQ=SECONDLY;INTERVAL=86801;BYHOUR=2,3",
            "FREQ=WEEKLY;INTERVAL=5;BYDAY=SU,WE;WKST=SU",
            "FREQ=MONTHLY;INTERVAL=5;BYDAY=-1SU;BYHOUR=1,2,3",
            "FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=1,-1",
            "FREQ=YEARLY;BYWEEKNO=51,1;BYDAY=TH",
        ],
    )
    def test_ten_years_later_is_where_the_walk_has_come_to(self, rule: str, zone: str) -> None:
        """What is found from ten years after the start is what a walk of ten years comes to."""
        start = utc("2015-10-24T00:30")
        recurrence = Recurrence(rule, start, zone)
        then = start + 3_652 * DAY
        late = [instant for instant in walked(rule, zone, start, then + 500 * DAY) if instant > then]

        for moment in (then, then + 10 * DAY, then + 99.5 * DAY):
            following = next((instant for instant in late if instant > moment), None)
            assert recurrence.next_after(moment) == following

    @pytest.mark.parametrize(
        "rule",
        [
            "FREQ=YEARLY;BYWEEKNO=20,-20;COUNT=500",
            "FREQ=YEARLY;BYWEEKNO=1,51;WKST=SU;BYDAY=MO,SU",
            "FREQ=YEARLY;BYDAY=53MO,-53FR,5WE",
            "FREQ=YEARLY;BYYEARDAY=366,-366,60,-60",
            "FREQ=YEARLY;INTERVAL=3;BYMONTHDAY=29,-29,-31;BYMONTH=2,12",
            "FREQ=MONTHLY;INTERVAL=7;BYDAY=5MO,-5TU",
            "FREQ=WEEKLY;INTERVAL=3;BYDAY=MO,WE,FR,SU;BYSETPOS=1,-1;WKST=TH",
            "FREQ=WEEKLY;BYDAY=MO,FR,SU;BYSETPOS=1,-1;COUNT=1500",
            "FREQ=WEEKLY;INTERVAL=2;BYMONTH=1,12;BYSETPOS=2;BYDAY=TU,TH,SA;WKST=SU",
            "FREQ=DAILY;INTERVAL=5;BYMONTHDAY=13,-1;BYDAY=FR,SU",
        ],
    )
    def test_sixty_years(self, rule: str) -> None:
        """In years and weeks of every kind the instants are those of dateutil's walk, counted ones too."""
        start = utc("1996-02-28T12:00")  # a Wednesday

        assert up_to(start + 21_915 * DAY, Recurrence(rule, start)) == walked(rule, "UTC", start, start + 21_915 * DAY)

    @pytest.mark.parametrize("week_start", range(7))
    @pytest.mark.parametrize("number", [1, 2, 51, -1, -2, -51])
    def test_week_numbers(self, number: int, week_start: int) -> None:
        """A week belongs to the year that has four of its days, as ISO 8601 has it, whatever day it begins with."""
        rule = f"FREQ=YEARLY;BYWEEKNO={number};WKST={WEEKDAYS[week_start]}"

        found = up_to(utc("2029-12-31"), Recurrence(rule, utc("2000-01-01")))

        expected = []
        for day in (date(2000, 1, 1) + timedelta(count) for count in range(30 * 366)):
            year, week = week_of(day, week_start)
            if number in {week, week - week_of(date(year, 12, 28), week_start)[1] - 1}:
                expected.append(day)
        assert [instant.date() for instant in found] == [day for day in expected if day.year < 2030]

    def test_weeks_that_the_calendar_cuts(self) -> None:
        """The first week of the year 1 and the last one of the year 9999 have the days that there are."""
        last_of_each = Recurrence("FREQ=WEEKLY;BYDAY=MO,FR;BYSETPOS=-1", utc("9999-12-20T00:00"))  # ends on a Friday
        first_of_each = Recurrence("FREQ=WEEKLY;BYDAY=MO,FR;BYSETPOS=1;WKST=SU", utc("0001-01-02T00:00"))

        assert list(instants_of(last_of_each)) == [utc("9999-12-24T00:00"), utc("9999-12-31T00:00")]
        assert first_of(first_of_each, 2) == [utc("0001-01-05T00:00"), utc("0001-01-08T00:00")]

    def test_days_with_and_without_a_number_are_either(self) -> None:
        """The first Monday and every Friday are both meant, where dateutil looks for what is both."""
        start = utc("2026-01-01T09:00")

        mixed = first_of(Recurrence("FREQ=MONTHLY;BYDAY=1MO,FR", start), 30)

        either = {
            *first_of(Recurrence("FREQ=MONTHLY;BYDAY=1MO", start), 30),
            *first_of(Recurrence("FREQ=MONTHLY;BYDAY=FR", start), 30),
        }
        assert mixed == sorted(either)[:30]

    def test_a_rule_is_read_in_any_order_and_case(self) -> None:
        """Lower case, the name of the property, blanks around it and a last semicolon change nothing."""
        start = utc("2026-01-01T09:00")
        plain = Recurrence("FREQ=WEEKLY;BYDAY=MO,WE;INTERVAL=2", start)

        for text in (
            "interval=2;byday=WE,MO;freq=weekly",
            " RRULE:FREQ=WEEKLY;BYDAY=MO,WE;INTERVAL=2 ",
            "BYDAY=WE,MO,WE;INTERVAL=+2;FREQ=WEEKLY;",
        ):
            assert first_of(Recurrence(text, start), 10) == first_of(plain, 10)

    def test_what_the_rule_leaves_open_is_the_starts(self) -> None:
        """Day and time of day come from the start, in whole seconds, on the clocks of the zone."""
        start = utc("2026-01-29T23:30:15") + 999_999 * MICROSECOND

        assert Recurrence("FREQ=DAILY", start).dtstart == utc("2026-01-29T23:30:15")
        assert first_of(Recurrence("FREQ=MONTHLY", start, BERLIN), 3) == [
            utc("2026-01-29T23:30:15"),  # the 30th in Berlin, and February has none
            utc("2026-03-29T22:30:15"),
            utc("2026-04-29T22:30:15"),
        ]

    @pytest.mark.parametrize(
        ("until", "number"),
        [
            ("20260104T090000Z", 4),  # ten o'clock in Berlin
            ("20260104T085959Z", 3),
            ("20260104T100000", 4),
            ("20260104T095959", 3),
        ],
    )
    def test_the_end_itself_is_an_instant(self, until: str, number: int) -> None:
        """UNTIL is the last instant: in UTC with a Z, otherwise on the clocks of the zone."""
        recurrence = Recurrence(f"FREQ=DAILY;UNTIL={until}", utc("2026-01-01T09:00"), BERLIN)

        assert list(instants_of(recurrence)) == [utc(f"2026-01-0{day}T09:00") for day in range(1, number + 1)]


class TestChangedClocks:
    """Times that do not exist, and times that exist twice."""

    @pytest.mark.parametrize("make", [Recurrence, "cron"], ids=["rrule", "cron"])
    @pytest.mark.parametrize(
        ("zone", "begin", "expected"),
        [
            pytest.param(
                BERLIN,
                "2026-03-28T02:30",
                ["2026-03-28T01:30", "2026-03-29T01:30", "2026-03-30T00:30"],
                id="Berlin forward: 02:30 is at 03:30",
            ),
            pytest.param(
                NEW_YORK,
                "2026-03-07T02:30",
                ["2026-03-07T07:30", "2026-03-08T07:30", "2026-03-09T06:30"],
                id="New York forward: 02:30 is at 03:30",
            ),
            pytest.param(
                BERLIN,
                "2026-10-24T02:30",
                ["2026-10-24T00:30", "2026-10-25T00:30", "2026-10-26T01:30"],
                id="Berlin back: the first 02:30",
            ),
            pytest.param(
                NEW_YORK,
                "2026-10-31T01:30",
                ["2026-10-31T05:30", "2026-11-01T05:30", "2026-11-02T06:30"],
                id="New York back: the first 01:30",
            ),
            pytest.param(
                LORD_HOWE,
                "2025-10-04T02:15",
                ["2025-10-03T15:45", "2025-10-04T15:45", "2025-10-05T15:15"],
                id="Lord Howe forward by half an hour: 02:15 is at 02:45",
            ),
            pytest.param(
                LORD_HOWE,
                "2025-04-05T01:45",
                ["2025-04-04T14:45", "2025-04-05T14:45", "2025-04-06T15:15"],
                id="Lord Howe back by half an hour: the first 01:45",
            ),
            pytest.param(
                "America/Sao_Paulo",
                "2018-11-03T00:00",
                ["2018-11-03T03:00", "2018-11-04T03:00", "2018-11-05T02:00"],
                id="Sao Paulo forward at midnight: 00:00 is at 01:00",
            ),
            pytest.param(
                SAMOA,
                "2011-12-29T09:00",
                ["2011-12-29T19:00", "2011-12-30T19:00", "2011-12-31T19:00"],
                id="Samoa leaves out the 30th: that day's and the next one's are the same instant",
            ),
        ],
    )
    def test_a_daily_time(self, make: Any, zone: str, begin: str, expected: list[str]) -> None:
        """A time that does not exist takes the offset before the gap; one that exists twice is the first."""
        start = local(begin, zone)
        if make == "cron":
            recurrence = Recurrence.cron(f"{start.minute} {start.hour} * * *", zone, start=start)
        else:
            recurrence = Recurrence("FREQ=DAILY", start, zone)

        assert first_of(recurrence, 3) == [utc(text) for text in expected]

    def test_a_left_out_friday(self) -> None:
        """What was due on Samoa's left-out Friday is due on the Saturday at the same time of day."""
        recurrence = Recurrence("FREQ=WEEKLY;BYDAY=FR", local("2011-12-23T09:00", SAMOA), SAMOA)

        assert [f"{instant.astimezone(ZoneInfo(SAMOA)):%a %d %H:%M}" for instant in first_of(recurrence, 3)] == [
            "Fri 23 09:00",
            "Sat 31 09:00",
            "Fri 06 09:00",
        ]

    @pytest.mark.parametrize("make", [Recurrence, "cron"], ids=["rrule", "cron"])
    @pytest.mark.parametrize(
        ("begin", "expected"),
        [
            ("2026-03-28T23:00", ["22:00", "23:00", "00:00", "01:00", "02:00", "03:00"]),
            ("2026-10-25T00:00", ["22:00", "23:00", "00:00", "02:00", "03:00", "04:00"]),
        ],
        ids=["forward", "back"],
    )
    def test_hourly(self, make: Any, begin: str, expected: list[str]) -> None:
        """An hourly rule misses no hour when the clocks go forward, and nothing runs in the hour that comes again."""
        start = local(begin, BERLIN)
        recurrence = Recurrence("FREQ=HOURLY", start, BERLIN) if make != "cron" else None
        recurrence = recurrence or Recurrence.cron("@hourly", BERLIN, start=start)

        assert [f"{instant:%H:%M}" for instant in first_of(recurrence, 6)] == expected

    def test_skipped_and_real_times_come_in_order(self) -> None:
        """Behind a gap the times that were skipped and those that exist come in the order of the world."""
        recurrence = Recurrence("FREQ=MINUTELY;INTERVAL=25", local("2026-03-29T01:50", BERLIN), BERLIN)

        assert [f"{instant:%H:%M}" for instant in first_of(recurrence, 8)] == [
            "00:50",  # 01:50
            "01:05",  # 03:05
            "01:15",  # 02:15, which is skipped
            "01:30",  # 03:30
            "01:40",  # 02:40, which is skipped
            "01:55",  # 03:55
            "02:20",
            "02:45",
        ]

    @pytest.mark.parametrize("zone", list(CHANGES))
    @pytest.mark.parametrize(
        "rule",
        [
            "FREQ=HOURLY",
            "FREQ=MINUTELY;INTERVAL=7",
            "FREQ=MINUTELY;INTERVAL=20",
            "FREQ=SECONDLY;INTERVAL=97",
            "*/7 * * * *",
            "13 0-4 * * *",
            "*/20 5,30 1,2,3 * * *",
        ],
    )
    def test_no_instant_twice_and_none_out_of_order(self, rule: str, zone: str) -> None:
        """Across each change of the clocks the instants are those of the clocks' times, ever later, and none twice."""
        for change in CHANGES[zone]:
            around = timedelta(hours=26 if zone == SAMOA else 5)
            start, last = utc(change) - around, utc(change) + around
            if rule.startswith("FREQ"):
                recurrence, expected = Recurrence(rule, start, zone), walked(rule, zone, start, last)
            else:
                walls: Iterator[datetime] = CronSim(rule, wall(start, zone) - SECOND)
                recurrence = Recurrence.cron(rule, zone, start=start)
                expected = on_the_clocks(walls, zone, start, last)

            found = up_to(last, recurrence)

            assert found == expected
            assert all(one < another for one, another in pairwise(found))

    @pytest.mark.parametrize(
        ("moment", "expected"),
        [
            ("2026-10-25T00:29:59", "2026-10-25T00:30"),
            ("2026-10-25T00:30:00", "2026-10-26T01:30"),
            ("2026-10-25T01:15:00", "2026-10-26T01:30"),  # 02:15 again
            ("2026-10-25T01:30:00", "2026-10-26T01:30"),  # 02:30 again
            ("2026-10-25T01:59:59", "2026-10-26T01:30"),  # the last second that comes again
            ("2026-03-29T00:59:59", "2026-03-29T01:30"),  # the last second before the gap
            ("2026-03-29T01:00:00", "2026-03-29T01:30"),  # just behind it
            ("2026-03-29T01:15:00", "2026-03-29T01:30"),
            ("2026-03-29T01:30:00", "2026-03-30T00:30"),
            ("2026-03-29T02:30:00", "2026-03-30T00:30"),
        ],
    )
    def test_the_next_one_from_around_a_change(self, moment: str, expected: str) -> None:
        """From within the hour that comes again, or from within what follows a gap, comes what has not yet been."""
        daily = Recurrence("FREQ=DAILY", local("2025-06-01T02:30", BERLIN), BERLIN)
        cron = Recurrence.cron("30 2 * * *", BERLIN)

        assert daily.next_after(utc(moment)) == cron.next_after(utc(moment)) == utc(expected)

    def test_a_start_within_the_hour_that_comes_again(self) -> None:
        """A rule that begins in the second pass of an hour has its first instant behind it, at the same minute."""
        start = utc("2026-10-25T01:20")  # 02:20 again

        assert Recurrence("FREQ=HOURLY", start, BERLIN).first() == utc("2026-10-25T02:20")
        assert Recurrence("FREQ=DAILY", start, BERLIN).first() == utc("2026-10-26T01:20")
        assert Recurrence.cron("*/30 * * * *", BERLIN, start=start).first() == utc("2026-10-25T02:00")
        assert Recurrence("FREQ=DAILY", start, BERLIN).next_after(start - DAY) == utc("2026-10-26T01:20")

    def test_a_start_just_behind_a_gap(self) -> None:
        """A rule that begins at 03:20, when 02:20 was skipped, has that as its first instant and no earlier one."""
        start = utc("2026-03-29T01:20")

        assert first_of(Recurrence("FREQ=MINUTELY;INTERVAL=15", start, BERLIN), 3) == [
            utc("2026-03-29T01:20"),
            utc("2026-03-29T01:35"),
            utc("2026-03-29T01:50"),
        ]
        assert Recurrence.cron("40 2 * * *", BERLIN, start=start).first() == utc("2026-03-30T00:40")
        assert Recurrence.cron("40 3 * * *", BERLIN, start=start).first() == utc("2026-03-29T01:40")

    def test_a_skipped_time_may_be_the_last_one(self) -> None:
        """A rule may end with a time that does not exist."""
        recurrence = Recurrence("FREQ=DAILY;COUNT=2", local("2026-03-28T02:30", BERLIN), BERLIN)

        assert list(instants_of(recurrence)) == [utc("2026-03-28T01:30"), utc("2026-03-29T01:30")]

    def test_an_end_among_the_skipped_times(self) -> None:
        """A local UNTIL that does not exist takes the offset before the gap as well: 02:30 lets 03:30 through."""
        recurrence = Recurrence(
            "FREQ=MINUTELY;INTERVAL=10;UNTIL=20260329T023000", local("2026-03-29T01:50", BERLIN), BERLIN
        )

        assert list(instants_of(recurrence))[-1] == utc("2026-03-29T01:30")


class TestEvery:
    """Intervals that know no clock."""

    def test_it_is_counted_from_1970(self) -> None:
        """Without a start every hour is on the hour, in UTC."""
        recurrence = Recurrence.every(3_600)

        assert recurrence.dtstart == EPOCH
        assert recurrence.timezone == "UTC"
        assert recurrence.next_after(utc("2026-01-01T10:00:01")) == utc("2026-01-01T11:00")

    def test_it_is_counted_from_its_start(self) -> None:
        """With a start that is the first instant, the next ones follow after the interval, also where clocks change."""
        start = utc("2026-10-24T22:20")  # two hours before they are put back in Berlin

        recurrence = Recurrence.every(timedelta(hours=1), start=start)

        assert first_of(recurrence, 6) == [start + timedelta(hours=hours) for hours in range(6)]

    def test_the_longest_interval(self) -> None:
        """An interval of a hundred years is one, and the shortest is a second."""
        assert first_of(Recurrence.every(100 * 366 * 86_400.0, start=EPOCH), 2)[1] == EPOCH + 36_600 * DAY
        assert first_of(Recurrence.every(1, start=EPOCH), 2)[1] == EPOCH + SECOND

    def test_it_is_the_rule_of_its_seconds(self) -> None:
        """Seconds, a float of such and a timedelta are the same, and so is the RRULE that says it."""
        assert Recurrence.every(90) == Recurrence.every(90.0) == Recurrence.every(timedelta(minutes=1.5))
        assert Recurrence.every(90, catch_up="all") == Recurrence("FREQ=SECONDLY;INTERVAL=90", EPOCH, catch_up="all")

    @pytest.mark.parametrize("wrong", [0, -1, 0.5, 1.000001, timedelta(milliseconds=1_500), timedelta(-1), 10**12])
    def test_wrong_lengths_are_refused(self, wrong: float | timedelta) -> None:
        """What is not whole seconds, more than none, and a hundred years at most, is refused by the name `interval`."""
        with pytest.raises(ValueError, match=r"^interval must be "):
            Recurrence.every(wrong)

    @pytest.mark.parametrize("wrong", ["x", "60", None, True])
    def test_what_is_no_length_is_refused(self, wrong: Any) -> None:
        """A text, None or a boolean is a TypeError that names the interval."""
        with pytest.raises(TypeError, match=r"^interval must be .*not "):
            Recurrence.every(wrong)


class TestCron:
    """Cron expressions."""

    @pytest.mark.parametrize(
        ("expression", "expected"),
        [
            ("0 9 * * MON-FRI", ["01T09:00", "02T09:00", "05T09:00", "06T09:00"]),
            ("0 9 * * mon-fri", ["01T09:00", "02T09:00", "05T09:00", "06T09:00"]),
            ("0 9 * JAN 1-5", ["01T09:00", "02T09:00", "05T09:00", "06T09:00"]),
            ("*/20 8-9 5 1 *", ["05T08:00", "05T08:20", "05T08:40", "05T09:00"]),
            ("5,50 0 * * *", ["01T00:05", "01T00:50", "02T00:05", "02T00:50"]),
            ("30 0 12 * * *", ["01T12:00:30", "02T12:00:30", "03T12:00:30"]),  # six fields: seconds first
            ("*/30 59 23 31 1 *", ["31T23:59:00", "31T23:59:30"]),
            ("0 0 L * *", ["31T00:00"]),
            ("0 0 LW * *", ["30T00:00"]),  # the 31st is a Saturday
            ("0 0 * * 5L", ["30T00:00"]),
            ("0 0 * * MON#2", ["12T00:00"]),
            ("0 0 * * 0", ["04T00:00", "11T00:00"]),
            ("0 0 * * 7", ["04T00:00", "11T00:00"]),
            ("0 0 13 * FRI", ["02T00:00", "09T00:00", "13T00:00", "16T00:00"]),  # the 13th, or a Friday
            ("0 0 */2 * FRI", ["09T00:00", "23T00:00"]),  # a star, so both: odd days that are Fridays
        ],
    )
    def test_the_fields(self, expression: str, expected: list[str]) -> None:
        """Minute, hour, day of month, month, day of week; day of month or day of week, where neither has a star."""
        recurrence = Recurrence.cron(expression, start=utc("2026-01-01T00:00"))

        assert first_of(recurrence, len(expected)) == [utc(f"2026-01-{text}") for text in expected]

    @pytest.mark.parametrize(
        ("nickname", "fields"),
        [
            ("@yearly", "0 0 1 1 *"),
            ("@annually", "0 0 1 1 *"),
            ("@monthly", "0 0 1 * *"),
            ("@weekly", "0 0 * * SUN"),
            ("@daily", "0 0 * * *"),
            ("@midnight", "0 0 * * *"),
            ("@hourly", "0 * * * *"),
            (" @Daily ", "0 0 * * *"),
        ],
    )
    def test_the_nicknames(self, nickname: str, fields: str) -> None:
        """A nickname has the instants of its five fields, and stays what it was called."""
        recurrence = Recurrence.cron(nickname, BERLIN, start=utc("2026-01-01T12:00"))

        assert first_of(recurrence, 5) == first_of(Recurrence.cron(fields, BERLIN, start=utc("2026-01-01T12:00")), 5)
        assert recurrence.cron_expression == nickname
        assert recurrence.rrule is None

    def test_a_start_is_the_first_that_may_be(self) -> None:
        """Nothing comes before the start, though the start itself may be it; left out, it is 1970."""
        nine = utc("2026-01-01T09:00")

        assert Recurrence.cron("0 9 * * *", start=nine).first() == nine
        assert Recurrence.cron("0 9 * * *", start=nine + SECOND).first() == nine + DAY
        assert Recurrence.cron("0 9 * * *", start=nine).next_after(utc("2020-01-01T00:00")) == nine
        assert Recurrence.cron("0 9 * * *").first() == EPOCH + timedelta(hours=9)

    def test_forty_years_are_not_for_ever(self) -> None:
        """After 2072 the next 29th of February that is a Monday is in 2112: a wait of forty years is no end."""
        leap_mondays = Recurrence.cron("0 0 */28 2 MON#5", start=utc("2026-01-01T00:00"))  # a star: both are asked for

        assert first_of(leap_mondays, 3) == [utc("2044-02-29T00:00"), utc("2072-02-29T00:00"), utc("2112-02-29T00:00")]

    @pytest.mark.parametrize(
        ("expression", "names"),
        [
            ("* * * *", "Wrong number of fields"),
            ("* * * * * * *", "Wrong number of fields"),
            ("", "Wrong number of fields"),
            ("@reboot", "Wrong number of fields"),
            ("61 * * * *", "Bad minute"),
            ("*/0 * * * *", "Bad minute"),
            ("0 24 * * *", "Bad hour"),
            ("61 0 0 * * *", "Bad second"),
            ("0 0 32 * *", "Bad day-of-month"),
            ("0 0 30 2 *", "Bad day-of-month"),
            ("0 0 31 4,6,9,11 *", "Bad day-of-month"),
            ("0 0 * 13 *", "Bad month"),
            ("0 0 * * 8", "Bad day-of-week"),
            ("0 0 * * MON#6", "Bad day-of-week"),
            ("0 0 * * FRI-MON", "Bad day-of-week"),
            ("nonsense", "Wrong number of fields"),
            ("a b c d e", "Bad minute"),
            ("0," * 2_000 + "0 * * * *", "too long"),
        ],
    )
    def test_wrong_expressions_are_refused(self, expression: str, names: str) -> None:
        """A wrong expression is refused by its field; the message shows the expression."""
        with pytest.raises(InvalidRecurrence, match=names) as caught:
            Recurrence.cron(expression)

        assert str(caught.value).startswith(f"cron expression {expression[:80]!r}: ")

    @pytest.mark.parametrize("wrong", [None, 5, b"* * * * *", ["* * * * *"]])
    def test_what_is_no_text_is_refused(self, wrong: Any) -> None:
        """An expression that is no text is a TypeError that shows it."""
        with pytest.raises(TypeError, match="must be a text"):
            Recurrence.cron(wrong)

    @given(
        st.text(max_size=40)
        | st.lists(st.text("0123456789*/,-L#WMONSUJA", min_size=1, max_size=6), min_size=5, max_size=6).map(" ".join)
    )
    @example("0 0 * * ²L")
    @example("L/2 L/2 L/2 L/2 L/2")
    def test_any_text_is_an_expression_or_refused(self, text: str) -> None:
        """Whatever the text is, it gives a recurrence that has an instant, or an InvalidRecurrence."""
        try:
            recurrence = Recurrence.cron(text)
        except InvalidRecurrence:
            return

        assert recurrence.first() >= EPOCH


class TestFirstAndLast:
    """Where the instants begin and end."""

    def test_the_first_instant(self) -> None:
        """The start is the first instant if the rule says so, and otherwise what comes after it."""
        start = utc("2026-01-01T09:00")  # a Thursday

        assert Recurrence("FREQ=WEEKLY", start).first() == start
        assert Recurrence("FREQ=WEEKLY;BYDAY=TH,FR", start).first() == start
        assert Recurrence("FREQ=WEEKLY;BYDAY=FR", start).first() == start + DAY
        assert Recurrence("FREQ=DAILY;BYHOUR=8", start).first() == start + timedelta(hours=23)

    def test_the_first_after_a_moment_is_later_than_it(self) -> None:
        """At an instant the next one is given, and a microsecond before it that instant."""
        start = utc("2026-01-01T09:00")
        daily = Recurrence("FREQ=DAILY", start)

        assert daily.first(after=start) == start + DAY
        assert daily.first(after=start - MICROSECOND) == start
        assert daily.first(after=start + MICROSECOND) == start + DAY
        assert daily.first(after=utc("1999-01-01T00:00")) == start
        assert daily.next_after(start) == start + DAY
        assert daily.next_after((start - MICROSECOND).astimezone(ZoneInfo(NEW_YORK))) == start
        assert daily.next_after(start).tzinfo is UTC  # type: ignore[union-attr]

    def test_a_rule_that_is_over(self) -> None:
        """Behind the last instant there is none; to ask for the first one there is an error that names the rule."""
        start = utc("2026-01-01T09:00")
        twice = Recurrence("FREQ=DAILY;COUNT=2", start)

        assert list(instants_of(twice)) == [start, start + DAY]
        assert twice.next_after(utc("2500-01-01T00:00")) is None
        with pytest.raises(InvalidRecurrence, match=r"'FREQ=DAILY;COUNT=2' .* has no instant after 2026-01-02 09"):
            twice.first(after=start + DAY)

    def test_the_end_of_the_calendar(self) -> None:
        """In the last second of the year 9999 a rule without an end has one."""
        daily = Recurrence("FREQ=DAILY", utc("2026-01-01T09:00"))

        assert daily.next_after(utc("9999-12-31T08:59:59")) == utc("9999-12-31T09:00")
        assert daily.next_after(utc("9999-12-31T09:00")) is None
        assert daily.next_after(datetime.max.replace(tzinfo=UTC)) is None
        assert Recurrence.cron("0 9 * * *").next_after(utc("9999-12-31T09:00")) is None

    @pytest.mark.parametrize(
        ("rule", "after", "expected"),
        [
            ("FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29;BYDAY=MO", "2026-01-01", "2044-02-29"),
            ("FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29;BYDAY=MO", "2072-02-29", "2112-02-29"),
            ("FREQ=DAILY;BYMONTH=2;BYMONTHDAY=29;BYDAY=MO", "2072-02-29", "2112-02-29"),
            ("FREQ=YEARLY;INTERVAL=1000", "2026-01-01", "3026-01-01"),
            ("FREQ=YEARLY;INTERVAL=2;BYDAY=53TH", "2026-01-01", "2026-12-31"),
            ("FREQ=MONTHLY;INTERVAL=701", "2026-01-01", "2084-06-01"),
            ("FREQ=WEEKLY;INTERVAL=5218", "2026-01-01", f"{date(2026, 1, 1) + timedelta(weeks=5_218)}"),
            # Thursday, then Tuesday, then Sunday
            ("FREQ=DAILY;INTERVAL=100000;BYDAY=SU", "2026-01-01", f"{date(2026, 1, 1) + timedelta(200_000)}"),
            ("FREQ=SECONDLY;INTERVAL=3155760000", "2026-01-01", f"{date(2026, 1, 1) + timedelta(36_525)}"),
        ],
    )
    def test_what_is_far_away_is_still_found(self, rule: str, after: str, expected: str) -> None:
        """A wait of decades or centuries is not the end of a rule."""
        recurrence = Recurrence(rule, utc("2026-01-01"))

        assert recurrence.next_after(utc(after)) == utc(expected)

    @pytest.mark.parametrize(
        "rule",
        [
            "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30",
            "FREQ=MONTHLY;BYMONTH=4;BYMONTHDAY=31",
            "FREQ=DAILY;INTERVAL=7;BYDAY=MO",  # it starts on a Thursday
            "FREQ=DAILY;INTERVAL=14;BYDAY=FR,SA",
            "FREQ=HOURLY;INTERVAL=24;BYHOUR=10",
            "FREQ=HOURLY;INTERVAL=168;BYDAY=MO",
            "FREQ=MINUTELY;INTERVAL=60;BYMINUTE=31",
            "FREQ=SECONDLY;INTERVAL=86400;BYHOUR=1,2,3",
            "FREQ=MONTHLY;INTERVAL=12;BYMONTH=2",
            "FREQ=YEARLY;INTERVAL=4;BYMONTH=2;BYMONTHDAY=29",  # from 2026
            "FREQ=YEARLY;BYWEEKNO=20;BYMONTH=1",
            "FREQ=DAILY;BYHOUR=9;BYSETPOS=2",
            "FREQ=SECONDLY;INTERVAL=999999999989;BYMONTH=1;BYDAY=MO;BYHOUR=1;BYMINUTE=1;BYSECOND=1",
            "FREQ=DAILY;UNTIL=20251231T235959Z",
            "FREQ=DAILY;BYHOUR=9;BYMINUTE=29;UNTIL=20260102T092859Z",
            "FREQ=YEARLY;INTERVAL=8000;BYMONTH=12;UNTIL=20260101T093000Z",
        ],
    )
    def test_a_rule_without_any_instant_is_refused(self, rule: str) -> None:
        """A rule that could be walked for ever without a result is refused when it is made, and at once."""
        with pytest.raises(InvalidRecurrence, match=r"has no instant up to (the year 9999|its UNTIL)") as caught:
            Recurrence(rule, utc("2026-01-01T09:30"))

        assert repr(rule) in str(caught.value)
        assert "2026-01-01 09:30:00+00:00 in UTC" in str(caught.value)


class TestExdates:
    """Instants that are left out."""

    START = utc("2026-01-01T09:00")

    def test_they_are_left_out(self) -> None:
        """Instants that are named do not come, whatever zone names them, in any order, and several in a row."""
        left_out = [self.START + 2 * DAY, (self.START + DAY).astimezone(ZoneInfo(NEW_YORK)), self.START, self.START]

        recurrence = Recurrence("FREQ=DAILY", self.START, exdates=left_out)

        assert recurrence.exdates == (self.START, self.START + DAY, self.START + 2 * DAY)
        assert recurrence.first() == self.START + 3 * DAY
        assert recurrence.next_after(self.START) == self.START + 3 * DAY

    def test_any_iterable_of_them(self) -> None:
        """A list, a set or a generator names them, and cron expressions and intervals have them too."""
        left_out = self.START + DAY
        expected = [self.START, self.START + 2 * DAY]

        for exdates in ([left_out], {left_out}, (each for each in [left_out])):
            assert first_of(Recurrence("FREQ=DAILY", self.START, exdates=exdates), 2) == expected
        assert first_of(Recurrence.cron("0 9 * * *", start=self.START, exdates=[left_out]), 2) == expected
        assert first_of(Recurrence.every(DAY, start=self.START, exdates=[left_out]), 2) == expected

    def test_they_count(self) -> None:
        """One that is left out is one of COUNT all the same (RFC 5545 takes it out of what the rule gave)."""
        recurrence = Recurrence("FREQ=DAILY;COUNT=3", self.START, exdates=[self.START + DAY])

        assert list(instants_of(recurrence)) == [self.START, self.START + 2 * DAY]

    def test_all_left_out_is_none_left(self) -> None:
        """A rule of which each instant is left out has none, and is refused."""
        with pytest.raises(InvalidRecurrence, match="no instant"):
            Recurrence("FREQ=DAILY;COUNT=2", self.START, exdates=[self.START, self.START + DAY])

    @pytest.mark.parametrize(
        "strange",
        [START + SECOND, START + MICROSECOND, START - DAY, START + timedelta(hours=12), START + 5 * DAY],
        ids=str,
    )
    def test_what_is_no_instant_is_warned_of(self, strange: datetime) -> None:
        """One that is no instant of the rule leaves nothing out, and a warning says so, where the rule is made."""
        with pytest.warns(UserWarning, match="exdates: .* is no instant of rrule 'FREQ=DAILY;COUNT=3'") as caught:
            recurrence = Recurrence("FREQ=DAILY;COUNT=3", self.START, exdates=[strange, self.START])

        assert len(caught) == 1
        assert str(strange) in str(caught[0].message)
        assert caught[0].filename == __file__
        assert list(instants_of(recurrence)) == [self.START + DAY, self.START + 2 * DAY]

    def test_cron_and_every_warn_where_they_are_called(self) -> None:
        """The other two ways to make one warn in the same way."""
        strange = self.START + SECOND

        with pytest.warns(UserWarning, match=r"no instant of cron expression '0 9 \* \* \*' in Europe/Berlin"):
            Recurrence.cron("0 9 * * *", BERLIN, exdates=[strange])
        with pytest.warns(UserWarning, match="no instant of rrule 'FREQ=SECONDLY;INTERVAL=60' in UTC"):
            Recurrence.every(60, exdates=[strange])

    def test_a_thousand_at_most(self) -> None:
        """A thousand may be named, one more not."""
        days = [self.START + day * DAY for day in range(1, 1_002)]

        assert Recurrence("FREQ=DAILY", self.START, exdates=days[:-1]).next_after(self.START) == days[-1]
        with pytest.raises(InvalidRecurrence, match="exdates may be 1,000 at most, not 1,001"):
            Recurrence("FREQ=DAILY", self.START, exdates=days)


def some_recurrences() -> list[Recurrence]:
    """Give one of each kind, no two equal."""
    start = utc("2026-01-01T09:00")
    return [
        Recurrence("FREQ=DAILY", start),
        Recurrence("FREQ=DAILY", start, BERLIN),
        Recurrence("FREQ=DAILY", start + SECOND),
        Recurrence("FREQ=DAILY;INTERVAL=1", start),
        Recurrence("FREQ=DAILY", start, exdates=[start + DAY, start]),
        Recurrence("FREQ=DAILY", start, catch_up="all"),
        Recurrence("FREQ=DAILY", start, overlap="cancel-previous"),
        Recurrence.cron("0 9 * * *"),
        Recurrence.cron("0 9 * * *", BERLIN, start=start, exdates=[], catch_up="skip", overlap="skip"),
        Recurrence.every(86_400, start=start),
    ]


class TestValues:
    """A recurrence is a value."""

    def test_equal_values_are_equal(self) -> None:
        """Two that were made of the same values are equal, and one in a set, however these were written."""
        start = utc("2026-01-01T09:00")
        other = Recurrence("FREQ=DAILY", start.astimezone(ZoneInfo(NEW_YORK)) + MICROSECOND, exdates=iter([start]))

        assert some_recurrences() == some_recurrences()
        assert len({*some_recurrences(), *some_recurrences()}) == len(some_recurrences())
        assert other == Recurrence("FREQ=DAILY", start, "UTC", [start, start], "one", "allow")

    def test_each_value_makes_a_difference(self) -> None:
        """One that differs in any value is another one, and none is equal to what is no recurrence."""
        for one in some_recurrences():
            assert [other for other in some_recurrences() if other == one] == [one]
            assert one != one.rrule
            assert one != one.to_fields()

    def test_it_shows_what_it_is(self) -> None:
        """Its text has the values that it was made of, and none that it has not."""
        shown = repr(Recurrence("FREQ=DAILY", utc("2026-01-01T09:00"), BERLIN, catch_up="all"))

        assert shown == (
            "Recurrence(rrule='FREQ=DAILY', dtstart=datetime.datetime(2026, 1, 1, 9, 0, tzinfo=datetime.timezone.utc), "
            "timezone='Europe/Berlin', catch_up='all', overlap='allow')"
        )
        assert "cron_expression='0 9 * * *'" in repr(Recurrence.cron("0 9 * * *"))

    @pytest.mark.parametrize(
        "again",
        [copy.copy, copy.deepcopy, lambda made: pickle.loads(pickle.dumps(made))],  # noqa: S301  # our own
        ids=["copy", "deepcopy", "pickle"],
    )
    def test_copies_are_equal(self, again: Callable[[Recurrence], Recurrence]) -> None:
        """A copy is equal and has the same instants."""
        for made in some_recurrences():
            copied = again(made)

            assert type(copied) is Recurrence
            assert copied == made
            assert hash(copied) == hash(made)
            assert first_of(copied, 5) == first_of(made, 5)

    @pytest.mark.parametrize("name", ["rrule", "dtstart", "exdates", "catch_up", "_walk", "anything"])
    def test_it_does_not_change(self, name: str) -> None:
        """No attribute is set or deleted, also none that it does not have."""
        made = Recurrence("FREQ=DAILY", utc("2026-01-01T09:00"))

        with pytest.raises(AttributeError, match=f"'{name}'"):
            setattr(made, name, "FREQ=WEEKLY")
        with pytest.raises(AttributeError, match=f"'{name}'"):
            delattr(made, name)
        assert made == Recurrence("FREQ=DAILY", utc("2026-01-01T09:00"))


UNKNOWN = "is no IANA zone that this machine knows"


class TestMistakes:
    """What is refused, and how the message says so."""

    @pytest.mark.parametrize(
        ("rule", "names"),
        [
            ("FREQ=DAILY;INTERVAL=0", "INTERVAL must be .* not '0'"),
            ("FREQ=DAILY;INTERVAL=-1", "INTERVAL must be .* not '-1'"),
            ("FREQ=DAILY;INTERVAL=1.5", "INTERVAL must be .* not '1.5'"),
            ("FREQ=DAILY;INTERVAL=", "INTERVAL must be .* not ''"),
            ("FREQ=DAILY;INTERVAL=1000000000000", "INTERVAL must be .* not '1000000000000'"),
            ("FREQ=DAILY;INTERVAL=٣", "INTERVAL must be .* not '٣'"),
            ("FREQ=DAILY;COUNT=0", "COUNT must be .* not '0'"),
            ("FREQ=DAILY;COUNT=-1", "COUNT must be .* not '-1'"),
            ("FREQ=DAILY;COUNT=3;UNTIL=20300101T000000Z", "COUNT and UNTIL exclude each other"),
            ("FREQ=DAILY;UNTIL=20300101", "UNTIL must be an instant .* not '20300101'"),
            ("FREQ=DAILY;UNTIL=20301301T000000Z", "UNTIL .* not '20301301T000000Z'"),
            ("FREQ=DAILY;UNTIL=20300101T250000Z", "UNTIL .* not '20300101T250000Z'"),
            ("FREQ=DAILY;UNTIL=20300101T000060Z", "UNTIL .* not '20300101T000060Z'"),
            ("FREQ=DAILY;UNTIL=2030-01-01T00:00:00Z", "UNTIL .* not '2030-01-01T00:00:00Z'"),
            ("FREQ=DAILY;UNTIL=", "UNTIL .* not ''"),
            ("FREQ=YEARLY;BYMONTH=13", "BYMONTH must be .*1 to 12, not '13'"),
            ("FREQ=YEARLY;BYMONTH=0", "BYMONTH must be .*1 to 12, not '0'"),
            ("FREQ=YEARLY;BYMONTH=-1", "BYMONTH must be .*1 to 12, not '-1'"),
            ("FREQ=YEARLY;BYMONTH=1,,2", "BYMONTH must be .*commas, not '1,,2'"),
            ("FREQ=YEARLY;BYMONTH=JAN", "BYMONTH must be .* not 'JAN'"),
            ("FREQ=MONTHLY;BYMONTHDAY=32", "BYMONTHDAY .*1 to 31 or -31 to -1, not '32'"),
            ("FREQ=MONTHLY;BYMONTHDAY=0", "BYMONTHDAY .* not '0'"),
            ("FREQ=YEARLY;BYYEARDAY=367", "BYYEARDAY .* not '367'"),
            ("FREQ=YEARLY;BYWEEKNO=-54", "BYWEEKNO .* not '-54'"),
            ("FREQ=YEARLY;BYMONTH=1;BYSETPOS=367", "BYSETPOS .* not '367'"),
            ("FREQ=DAILY;BYHOUR=24", "BYHOUR must be .*0 to 23, not '24'"),
            ("FREQ=DAILY;BYMINUTE=60", "BYMINUTE must be .*0 to 59, not '60'"),
            ("FREQ=DAILY;BYSECOND=-1", "BYSECOND must be .*0 to 59, not '-1'"),
            ("FREQ=WEEKLY;BYDAY=XX", "BYDAY must be .* not 'XX'"),
            ("FREQ=WEEKLY;BYDAY=MO,", "BYDAY must be .* not 'MO,'"),
            ("FREQ=MONTHLY;BYDAY=0MO", "BYDAY must be .* not '0MO'"),
            ("FREQ=YEARLY;BYDAY=54MO", "BYDAY must be .* not '54MO'"),
            ("FREQ=WEEKLY;BYDAY=1MO", "BYDAY=1MO counts weekdays, which needs FREQ=MONTHLY or YEARLY"),
            ("FREQ=HOURLY;BYDAY=-1MO", "BYDAY=-1MO counts weekdays"),
            ("FREQ=YEARLY;BYWEEKNO=1;BYDAY=1MO", "BYDAY=1MO .* cannot stand with BYWEEKNO"),
            ("FREQ=WEEKLY;WKST=1", "WKST must be one of MO, .*, not '1'"),
            ("FREQ=MONTHLY;BYWEEKNO=20", "BYWEEKNO cannot stand with FREQ=MONTHLY"),
            ("FREQ=WEEKLY;BYMONTHDAY=1", "BYMONTHDAY cannot stand with FREQ=WEEKLY"),
            ("FREQ=DAILY;BYYEARDAY=1", "BYYEARDAY cannot stand with FREQ=DAILY"),
            ("FREQ=WEEKLY;BYYEARDAY=1", "BYYEARDAY cannot stand with FREQ=WEEKLY"),
            ("FREQ=MONTHLY;BYYEARDAY=1", "BYYEARDAY cannot stand with FREQ=MONTHLY"),
            ("FREQ=MONTHLY;BYSETPOS=1", "BYSETPOS picks from what another BY part names"),
            ("FREQ=DAILY;BYEASTER=1", "BYEASTER is no part of a rule; there are: FREQ, "),
            ("FREQ=DAILY;DTSTART=20260101T000000Z", "DTSTART is no part of a rule"),
            ("FREQ=DAILY;=1", " is no part of a rule"),
            ("FREQ=DAILY;BYHOUR=1;BYHOUR=2", "BYHOUR is given twice"),
            ("FREQ=DAILY;FREQ=DAILY", "FREQ is given twice"),
            ("FREQ=SOMETIMES", "FREQ must be one of YEARLY, .*, not 'SOMETIMES'"),
            ("FREQ=", "FREQ must be one of .* not ''"),
            ("INTERVAL=2", "FREQ is missing"),
            ("", "must be parts such as FREQ=DAILY"),
            (" ; ", "must be parts such as FREQ=DAILY|NAME=VALUE"),
            ("RRULE:", "must be parts such as FREQ=DAILY"),
            ("FREQ", "'FREQ' must be of the form NAME=VALUE"),
            ("FREQ=DAILY;;COUNT=1", "'' must be of the form NAME=VALUE"),
            ("FREQ=DAILY; COUNT=1", "' COUNT=1' must be of the form NAME=VALUE"),
            ("DTSTART:20260101T000000Z\nRRULE:FREQ=DAILY", "one rule, without DTSTART and EXDATE lines"),
            ("FREQ=DAILY\nEXDATE:20260101T000000Z", "one rule, without DTSTART and EXDATE lines"),
            ("FREQ=DAILY;BYHOUR=" + "1," * 1_000 + "1", "at most 2000 characters"),
        ],
    )
    def test_malformed_rules(self, rule: str, names: str) -> None:
        """A malformed rule is refused when it is made, by the name of the part and with the value that is wrong."""
        with pytest.raises(InvalidRecurrence, match=names) as caught:
            Recurrence(rule, utc("2026-01-01T00:00"))

        assert str(caught.value).startswith(f"rrule {rule[:80]!r}"[:60])

    @pytest.mark.parametrize("wrong", [None, 5, b"FREQ=DAILY", ["FREQ=DAILY"], {"FREQ": "DAILY"}])
    def test_a_rule_that_is_no_text(self, wrong: Any) -> None:
        """A rule that is no text is a TypeError that shows it."""
        with pytest.raises(TypeError, match=r"^rrule must be a text") as caught:
            Recurrence(wrong, utc("2026-01-01T00:00"))

        assert str(caught.value).endswith(repr(wrong))

    @pytest.mark.parametrize(
        ("zone", "names"),
        [
            ("Europe/Berlinn", "'Europe/Berlinn' is no IANA zone .*: did you mean Europe/Berlin"),
            ("europe/berlin", "did you mean Europe/Berlin"),
            ("Berlin", "did you mean Europe/Berlin"),
            ("", UNKNOWN),
            ("../etc/passwd", UNKNOWN),
            ("/etc/passwd", UNKNOWN),
            ("Europe", UNKNOWN),  # a directory
            ("zone.tab", UNKNOWN),
            ("Europe/Berlin\0", UNKNOWN),
            ("\ud800", UNKNOWN),
            ("x" * 300, UNKNOWN),
            ("UTC+1", UNKNOWN),
            ("🦆", "it must be one such as Europe/Berlin or UTC"),
        ],
    )
    def test_unknown_zones(self, zone: str, names: str) -> None:
        """A zone that is not known is refused, with those that it may have meant."""
        with pytest.raises(InvalidRecurrence, match=f"^timezone .*{names}"):
            Recurrence("FREQ=DAILY", utc("2026-01-01T00:00"), zone)
        with pytest.raises(InvalidRecurrence, match=f"^timezone .*{names}"):
            Recurrence.cron("@daily", zone)

    @pytest.mark.parametrize("wrong", [None, 1, UTC, ZoneInfo(BERLIN)])
    def test_a_zone_that_is_no_text(self, wrong: Any) -> None:
        """A zone that is no text, a ZoneInfo too, is a TypeError that names `timezone`."""
        with pytest.raises(TypeError, match=r"^timezone must be the name of an IANA zone"):
            Recurrence("FREQ=DAILY", utc("2026-01-01T00:00"), wrong)

    def test_naive_times(self) -> None:
        """A start, an exdate or a moment without a zone is refused by its name."""
        naive = datetime(2026, 1, 1)  # noqa: DTZ001  # the mistake
        made = Recurrence("FREQ=DAILY", utc("2026-01-01T00:00"))

        with pytest.raises(InvalidRecurrence, match="dtstart must be aware"):
            Recurrence("FREQ=DAILY", naive)
        with pytest.raises(InvalidRecurrence, match=r"^start must be aware"):
            Recurrence.cron("@daily", start=naive)
        with pytest.raises(InvalidRecurrence, match=r"^start must be aware"):
            Recurrence.every(60, start=naive)
        with pytest.raises(InvalidRecurrence, match="exdates must be aware"):
            Recurrence("FREQ=DAILY", utc("2026-01-01T00:00"), exdates=[naive])
        with pytest.raises(InvalidRecurrence, match="instant must be aware"):
            made.next_after(naive)
        with pytest.raises(InvalidRecurrence, match="instant must be aware"):
            made.first(after=naive)

    @pytest.mark.parametrize("wrong", [None, "2026-01-01T00:00:00Z", 0, 1.5, date(2026, 1, 1), timedelta(1)])
    def test_times_that_are_no_datetimes(self, wrong: Any) -> None:
        """A start, an exdate or a moment that is no datetime is a TypeError that names it."""
        made = Recurrence("FREQ=DAILY", utc("2026-01-01T00:00"))

        with pytest.raises(TypeError, match="dtstart must be an aware datetime"):
            Recurrence("FREQ=DAILY", wrong)
        with pytest.raises(TypeError, match="exdates must be an aware datetime"):
            Recurrence("FREQ=DAILY", utc("2026-01-01T00:00"), exdates=[wrong])
        with pytest.raises(TypeError, match="instant must be an aware datetime"):
            made.next_after(wrong)

    @pytest.mark.parametrize("wrong", ["2026-01-02T00:00:00Z", b"", datetime(2026, 1, 2, tzinfo=UTC), 5, None], ids=str)
    def test_exdates_that_are_no_list(self, wrong: Any) -> None:
        """A single datetime or a text instead of several is a TypeError that says what it must be."""
        with pytest.raises(TypeError, match=r"^exdates must be aware datetimes, in a list say"):
            Recurrence("FREQ=DAILY", utc("2026-01-01T00:00"), exdates=wrong)

    @pytest.mark.parametrize("wrong", ["", "ALL", "none", None, 1, [], ("one",)])
    def test_policies(self, wrong: Any) -> None:
        """A policy that there is not is refused with those that there are."""
        with pytest.raises(InvalidRecurrence, match="catch_up must be one of 'one', 'all', 'skip', not ") as caught:
            Recurrence("FREQ=DAILY", utc("2026-01-01T00:00"), catch_up=wrong)
        assert str(caught.value).endswith(repr(wrong))
        with pytest.raises(InvalidRecurrence, match="overlap must be one of 'allow', 'skip', 'cancel-previous', not "):
            Recurrence.cron("@daily", overlap=wrong)

    def test_a_start_that_the_zones_calendar_does_not_have(self) -> None:
        """A start that is in the year 10000 on the clocks of its zone is refused by the name dtstart."""
        with pytest.raises(InvalidRecurrence, match="dtstart must lie within the years 1 to 9999 in Asia/Tokyo"):
            Recurrence("FREQ=DAILY", utc("9999-12-31T23:00"), "Asia/Tokyo")

    @given(
        st.text(max_size=60)
        | st.lists(
            st.builds(
                "{}={}".format,
                st.sampled_from(PARTS),
                st.sampled_from([*FREQUENCIES, *WEEKDAYS, "1MO,-5SU", "20300101T000000", "20300101T000000Z"])
                | st.integers(-60, 60).map(str)
                | st.text("0123456789,-+", max_size=5),
            ),
            max_size=6,
        ).map(lambda parts: ";".join(["FREQ=DAILY", *parts][len(parts) % 2 :])),
        st.sampled_from(list(CHANGES)),
    )
    def test_any_text_is_a_rule_or_refused(self, text: str, zone: str) -> None:
        """Whatever the text is, it gives a recurrence that has an instant, or an InvalidRecurrence."""
        start = utc("2026-01-01T00:00")
        try:
            recurrence = Recurrence(text, start, zone)
        except InvalidRecurrence:
            return

        assert recurrence.first() >= start


FIELDS = ("rrule", "cron", "dtstart", "timezone", "exdates", "catchUp", "overlap")
RUBBISH: list[Any] = [
    "", "nonsense", "\0", 0, 1, -1.5, True, b"", b"FREQ=DAILY", [], [None], ["x"], [1], {}, {"a": 1}, EPOCH, {1},
    date(2026, 1, 1), timedelta(1), datetime(2026, 1, 1), object(), [datetime(2026, 1, 1)], [[]],  # noqa: DTZ001
]  # fmt: skip
ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=5)
    | st.datetimes(datetime(1900, 1, 1))  # noqa: DTZ001
    | st.datetimes(datetime(1900, 1, 1), timezones=st.sampled_from([UTC, timezone(timedelta(hours=-11))]))  # noqa: DTZ001
    | st.sampled_from(["FREQ=DAILY", "FREQ=DAILY;COUNT=1", "0 0 * * *", "UTC", BERLIN, "all", "skip", "allow"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


class TestStoredForm:
    """What a document holds."""

    START = utc("2026-01-01T09:00")

    def test_the_fields(self) -> None:
        """Values that it has become fields, the exdates a list; what it has not is no field."""
        rule = Recurrence("FREQ=DAILY", self.START, BERLIN, [self.START], "all", "skip")
        cron = Recurrence.cron("0 9 * * *", start=self.START)

        assert rule.to_fields() == {
            "rrule": "FREQ=DAILY",
            "dtstart": self.START,
            "timezone": BERLIN,
            "exdates": [self.START],
            "catchUp": "all",
            "overlap": "skip",
        }
        assert cron.to_fields() == {
            "cron": "0 9 * * *",
            "dtstart": self.START,
            "timezone": "UTC",
            "catchUp": "one",
            "overlap": "allow",
        }

    def test_the_way_there_and_back(self) -> None:
        """What was stored is read as it was."""
        for made in some_recurrences():
            assert Recurrence.from_fields(made.to_fields()) == made

    @given(rules(), starts(), st.sampled_from(["one", "all", "skip"]), st.booleans())
    @settings(max_examples=30)
    def test_every_rule_goes_there_and_back(
        self, rule: str, begin: tuple[str, datetime], catch_up: Any, leaves_out: bool
    ) -> None:
        """Any rule is read as it was, its exdates too, and has the same instants."""
        zone, start = begin
        try:
            made = Recurrence(rule, start, zone, catch_up=catch_up)
        except InvalidRecurrence:
            assume(False)  # noqa: FBT003
            raise
        second = made.next_after(made.first())
        if leaves_out and second is not None:
            made = Recurrence(rule, start, zone, [made.first()], catch_up)

        again = Recurrence.from_fields(made.to_fields())

        assert again == made
        assert again.to_fields() == made.to_fields()
        assert first_of(again, 3) == first_of(made, 3)

    def test_what_is_left_out_has_its_default(self) -> None:
        """A rule and a start are enough, null is as if left out, and what is not known does not matter."""
        least = {"rrule": "FREQ=DAILY", "dtstart": self.START}
        nulls = dict.fromkeys(["cron", "timezone", "exdates", "catchUp", "overlap"])

        assert Recurrence.from_fields(least) == Recurrence("FREQ=DAILY", self.START)
        assert Recurrence.from_fields({**nulls, **least, "paused": True}) == Recurrence("FREQ=DAILY", self.START)

    def test_the_same_document_gives_the_same_recurrence(self) -> None:
        """Read twice it is one and the same: what was computed for it is not computed again."""
        made = Recurrence("FREQ=YEARLY;BYWEEKNO=20;COUNT=400", self.START)

        assert Recurrence.from_fields(made.to_fields()) is Recurrence.from_fields(made.to_fields())

    def test_strange_exdates_are_not_warned_of_again(self) -> None:
        """A worker that reads a document does not repeat what its author was told."""
        made = Recurrence.from_fields({"rrule": "FREQ=DAILY", "dtstart": self.START, "exdates": [self.START + SECOND]})

        assert made.first() == self.START

    @pytest.mark.parametrize("made", [Recurrence("FREQ=DAILY", START), Recurrence.cron("@daily", start=START)], ids=str)
    @pytest.mark.parametrize("field", FIELDS)
    def test_rubbish_in_a_field(self, made: Recurrence, field: str) -> None:
        """Whatever stands in a field instead of what belongs there, it is an InvalidRecurrence and nothing else."""
        fields = made.to_fields()
        if field in {"rrule", "cron"} and field not in fields:
            return
        allowed = [[], EPOCH] if field in {"exdates", "dtstart"} else []
        for rubbish in RUBBISH:
            if any(type(rubbish) is type(one) and rubbish == one for one in allowed):
                continue
            with pytest.raises(InvalidRecurrence):
                Recurrence.from_fields({**fields, field: rubbish})

    @pytest.mark.parametrize("field", ["rrule", "dtstart"])
    def test_what_has_no_default_is_missed(self, field: str) -> None:
        """A document without a rule or without a start is refused by that name."""
        fields = Recurrence("FREQ=DAILY", self.START).to_fields()
        del fields[field]

        with pytest.raises(InvalidRecurrence, match=field):
            Recurrence.from_fields(fields)

    @given(
        st.fixed_dictionaries(
            {},
            optional=dict.fromkeys(FIELDS, ANYTHING),
        )
    )
    def test_any_map_is_a_recurrence_or_refused(self, fields: dict[str, Any]) -> None:
        """Whatever a map holds, it gives a recurrence that has an instant, or an InvalidRecurrence."""
        try:
            made = Recurrence.from_fields(fields)
        except InvalidRecurrence:
            return

        assert made.first() >= made.dtstart
        assert Recurrence.from_fields(made.to_fields()) == made
