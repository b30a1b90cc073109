"""Recurrences in words."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from oncetask import Recurrence
from oncetask.cli.generators import runs_from
from oncetask.cli.phrases import joined, nth, ordinal
from oncetask.cli.words import in_words

BERLIN = "Europe/Berlin"
START = datetime(2026, 3, 15, 8, tzinfo=UTC)
"""A Sunday, 09:00 in Berlin."""


def words(rule: str, start: datetime = START, timezone: str = BERLIN) -> str:
    """Say a rule that begins on a Sunday in March at 09:00."""
    return in_words(Recurrence(rule, start, timezone))


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("FREQ=DAILY", "every day at 09:00"),
        ("FREQ=DAILY;BYHOUR=17;BYMINUTE=30", "every day at 17:30"),
        ("FREQ=DAILY;BYHOUR=9,17", "every day at 09:00 and 17:00"),
        ("FREQ=DAILY;BYHOUR=9;BYSECOND=0,30", "every day at 09:00:00 and 09:00:30"),
        ("FREQ=DAILY;INTERVAL=2", "every 2 days at 09:00"),
        (
            "FREQ=DAILY;BYHOUR=9,10,11,12,13,14,15,16;BYMINUTE=0,20,40",
            "every day at minutes 0, 20 and 40 of hours 9 to 16",
        ),
        (
            "FREQ=DAILY;BYHOUR=8,9,10,12;BYMINUTE=0,30;BYSECOND=5",
            "every day at second 5 of minutes 0 and 30 of hours 8 to 10 and 12",
        ),
        ("FREQ=DAILY;BYDAY=MO,TU,WE,TH,FR", "every day at 09:00, only on Monday to Friday"),
        (
            "FREQ=DAILY;BYMONTH=6,7,8;BYMONTHDAY=13;BYDAY=FR",
            "every day at 09:00, only in June to August on the 13th if it is a Friday",
        ),
        ("FREQ=WEEKLY", "every week on Sunday at 09:00"),
        ("FREQ=WEEKLY;INTERVAL=2;BYDAY=MO,WE;BYHOUR=9", "every 2 weeks on Monday and Wednesday at 09:00"),
        (
            "FREQ=WEEKLY;BYMONTH=1;BYDAY=MO,WE,SU",
            "every week on Monday, Wednesday and Sunday at 09:00, only in January",
        ),
        (
            "FREQ=WEEKLY;INTERVAL=2;WKST=SU;BYDAY=TU",
            "every 2 weeks on Tuesday at 09:00, weeks beginning on Sunday",
        ),
        ("FREQ=MONTHLY", "every month on the 15th at 09:00"),
        ("FREQ=MONTHLY;BYDAY=-1FR;BYHOUR=17;BYMINUTE=30", "every month on the last Friday at 17:30"),
        ("FREQ=MONTHLY;BYDAY=1SU,-1SU", "every month on the first Sunday and the last Sunday at 09:00"),
        ("FREQ=MONTHLY;BYDAY=TU,2MO", "every month on Tuesdays and the second Monday at 09:00"),
        ("FREQ=MONTHLY;BYMONTHDAY=15,-1", "every month on the 15th and the last day at 09:00"),
        (
            "FREQ=MONTHLY;BYMONTHDAY=1,2,3,21,-2",
            "every month on the 1st to the 3rd, the 21st and the second to last day at 09:00",
        ),
        ("FREQ=MONTHLY;BYDAY=FR;BYMONTHDAY=13", "every month on the 13th at 09:00, if it is a Friday"),
        (
            "FREQ=MONTHLY;BYMONTHDAY=1,2;BYDAY=SU,1SA",
            "every month on the 1st and the 2nd at 09:00, if it is the first Saturday or a Sunday",
        ),
        (
            "FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-1",
            "every month on Mondays to Fridays at 09:00, of these the last one",
        ),
        (
            "FREQ=MONTHLY;BYDAY=TU,WE,TH;BYSETPOS=-2,1",
            "every month on Tuesdays to Thursdays at 09:00, of these the first and second to last one",
        ),
        ("FREQ=YEARLY", "every year in March on the 15th at 09:00"),
        ("FREQ=YEARLY;BYMONTH=1,3", "every year in January and March on the 15th at 09:00"),
        ("FREQ=YEARLY;BYMONTH=3;BYDAY=TH", "every year in March on Thursdays at 09:00"),
        ("FREQ=YEARLY;BYMONTH=3;BYDAY=-1SU", "every year in March on the last Sunday at 09:00"),
        ("FREQ=YEARLY;BYDAY=20MO", "every year on the 20th Monday of the year at 09:00"),
        ("FREQ=YEARLY;BYMONTHDAY=1", "every year on the 1st of every month at 09:00"),
        ("FREQ=YEARLY;BYWEEKNO=20;BYDAY=MO", "every year in week 20 on Monday at 09:00"),
        ("FREQ=YEARLY;BYWEEKNO=1,-1", "every year in week 1 and the last week on every day at 09:00"),
        ("FREQ=YEARLY;BYWEEKNO=-2;BYDAY=MO", "every year in the second to last week on Monday at 09:00"),
        (
            "FREQ=YEARLY;INTERVAL=3;BYYEARDAY=1,100,-1",
            "every 3 years on the 1st, the 100th and the last day of the year at 09:00",
        ),
        (
            "FREQ=YEARLY;BYYEARDAY=100;BYMONTHDAY=9,10;BYDAY=MO",
            "every year on the 100th day of the year at 09:00, if it is the 9th or the 10th of its month and a Monday",
        ),
        ("FREQ=HOURLY", "every hour at minute 0"),
        ("FREQ=HOURLY;INTERVAL=3;BYMINUTE=0,30", "every 3 hours at minutes 0 and 30"),
        ("FREQ=HOURLY;BYSECOND=15", "every hour at second 15 of minute 0"),
        ("FREQ=HOURLY;BYHOUR=9,10,11", "every hour at minute 0, only in hours 9 to 11"),
        ("FREQ=MINUTELY;INTERVAL=20", "every 20 minutes"),
        ("FREQ=MINUTELY;BYSECOND=0", "every minute at second 0"),
        ("FREQ=MINUTELY;BYMINUTE=5;BYHOUR=9", "every minute, only at minute 5 in hour 9"),
        ("FREQ=SECONDLY;BYSECOND=0,30;BYDAY=MO", "every second, only at seconds 0 and 30 on Monday"),
        ("FREQ=DAILY;COUNT=1", "every day at 09:00, once"),
        ("FREQ=DAILY;COUNT=5", "every day at 09:00, 5 times"),
        ("FREQ=DAILY;UNTIL=20261224T000000Z", "every day at 09:00, until 2026-12-24 00:00 UTC"),
        ("FREQ=DAILY;UNTIL=20261231T235959", "every day at 09:00, until 2026-12-31 23:59:59"),
    ],
)
def test_a_rule_in_words(rule: str, expected: str) -> None:
    """A rule reads as English, and what it leaves open is told from where it begins, on its own wall clock."""
    assert words(rule) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (1, "every second"),
        (90, "every 90 seconds"),
        (60, "every minute"),
        (300, "every 5 minutes"),
        (5_400, "every 90 minutes"),
        (3_600, "every hour"),
        (7_200, "every 2 hours"),
        (86_400, "every day"),
        (604_800, "every 7 days"),
    ],
)
def test_an_interval_is_told_in_its_largest_unit(seconds: int, expected: str) -> None:
    """`Recurrence.every` counts seconds; people read minutes, hours and days."""
    assert in_words(Recurrence.every(seconds)) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (60, "every minute at second 5"),
        (3_600, "every hour at second 5 of minute 7"),
        (86_400, "every day at 09:07:05"),
        (90, "every 90 seconds"),
    ],
)
def test_an_interval_that_begins_within_a_unit_says_where(seconds: int, expected: str) -> None:
    """An interval that does not begin on the hour tells its minute and second."""
    assert in_words(Recurrence.every(seconds, start=datetime(2026, 1, 1, 9, 7, 5, tzinfo=UTC))) == expected


@pytest.mark.parametrize(
    ("rule", "other"),
    [
        ("FREQ=SECONDLY;INTERVAL=86400", "FREQ=DAILY"),
        ("FREQ=HOURLY;INTERVAL=48", "FREQ=DAILY;INTERVAL=2"),
        ("FREQ=MINUTELY;INTERVAL=120;BYSECOND=30", "FREQ=HOURLY;INTERVAL=2;BYSECOND=30"),
    ],
)
def test_a_larger_unit_means_the_same_instants(rule: str, other: str) -> None:
    """What is told in a larger unit has the instants of the rule that is written in it, over a change of the clocks."""
    start = datetime(2026, 3, 27, 9, 7, tzinfo=UTC)
    first, second = Recurrence(rule, start, BERLIN), Recurrence(other, start, BERLIN)
    assert in_words(first) == in_words(second)
    assert runs_from(first, first.first(), 50) == runs_from(second, second.first(), 50)


@pytest.mark.parametrize(
    ("rule", "kept"),
    [
        ("FREQ=SECONDLY;INTERVAL=3600;BYSECOND=0", "every 3600 seconds, only at second 0"),
        ("FREQ=MINUTELY;INTERVAL=60;BYMINUTE=0", "every 60 minutes, only at minute 0"),
        ("FREQ=HOURLY;INTERVAL=24;BYHOUR=9", "every 24 hours at minute 0, only in hour 9"),
        (
            "FREQ=HOURLY;INTERVAL=24;BYMINUTE=0,30;BYSETPOS=1",
            "every 24 hours at minutes 0 and 30, of these the first one",
        ),
    ],
)
def test_a_part_that_speaks_of_the_unit_keeps_it(rule: str, kept: str) -> None:
    """A rule that names seconds is told in seconds, one that picks from hours in hours."""
    assert words(rule) == kept


PARTS = [
    ("FREQ=YEARLY", "INTERVAL=2", "2 years"),
    ("FREQ=YEARLY", "COUNT=7", "7 times"),
    ("FREQ=YEARLY", "UNTIL=20301224T101112Z", "until 2030-12-24 10:11:12 UTC"),
    *[
        (f"FREQ={freq}", "BYMONTH=5", "in May")
        for freq in ("YEARLY", "MONTHLY", "WEEKLY", "DAILY", "HOURLY", "SECONDLY")
    ],
    ("FREQ=YEARLY", "BYWEEKNO=33", "in week 33"),
    ("FREQ=YEARLY", "BYYEARDAY=-7", "7th to last day of the year"),
    ("FREQ=HOURLY", "BYYEARDAY=42", "on the 42nd day of the year"),
    *[(f"FREQ={freq}", "BYMONTHDAY=23", "on the 23rd") for freq in ("YEARLY", "MONTHLY", "DAILY", "MINUTELY")],
    *[(f"FREQ={freq}", "BYDAY=TH", "Thursday") for freq in ("YEARLY", "MONTHLY", "WEEKLY", "DAILY", "HOURLY")],
    ("FREQ=YEARLY;BYYEARDAY=12", "BYMONTHDAY=12", "if it is the 12th of its month"),
    ("FREQ=YEARLY;BYYEARDAY=12", "BYDAY=TH", "if it is a Thursday"),
    ("FREQ=SECONDLY;BYMONTHDAY=12", "BYDAY=TH", "if it is a Thursday"),
    *[(f"FREQ={freq}", "BYHOUR=11", "11:00") for freq in ("YEARLY", "MONTHLY", "WEEKLY", "DAILY")],
    *[(f"FREQ={freq}", "BYHOUR=11", "in hour 11") for freq in ("HOURLY", "MINUTELY", "SECONDLY")],
    *[(f"FREQ={freq}", "BYMINUTE=42", "09:42") for freq in ("YEARLY", "MONTHLY", "WEEKLY", "DAILY")],
    *[(f"FREQ={freq}", "BYMINUTE=42", "at minute 42") for freq in ("HOURLY", "MINUTELY", "SECONDLY")],
    *[(f"FREQ={freq}", "BYSECOND=37", "09:00:37") for freq in ("YEARLY", "MONTHLY", "WEEKLY", "DAILY")],
    *[(f"FREQ={freq}", "BYSECOND=37", "at second 37") for freq in ("HOURLY", "MINUTELY", "SECONDLY")],
    ("FREQ=MONTHLY;BYDAY=MO,WE", "BYSETPOS=2", "of these the second one"),
    ("FREQ=MINUTELY;BYSECOND=0,30", "BYSETPOS=-1", "of these the last one"),
    ("FREQ=WEEKLY", "WKST=SA", "weeks beginning on Saturday"),
]


@pytest.mark.parametrize(("rule", "part", "phrase"), PARTS)
def test_every_part_shows_up(rule: str, part: str, phrase: str) -> None:
    """Each part of a rule changes its words, at every frequency that takes it, and is told with its value."""
    assert phrase in words(f"{rule};{part}")
    assert phrase not in words(rule)


def test_excluded_dates_are_counted() -> None:
    """How many dates are left out is told, not which."""
    days = [datetime(2026, 3, day, 8, tzinfo=UTC) for day in (16, 17)]
    assert (
        in_words(Recurrence("FREQ=DAILY", START, BERLIN, exdates=days)) == "every day at 09:00, without 2 of its dates"
    )
    cron = Recurrence.cron("0 9 * * *", BERLIN, exdates=days[:1])
    assert in_words(cron) == "at 09:00 every day, without 1 of its dates"


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("0 9 * * *", "at 09:00 every day"),
        ("30 9 * * MON-FRI", "at 09:30 on Monday through Friday"),
        ("0 0 22 * *", "at 00:00 on the 22nd day of every month"),
        ("0 0 1,11,15 * *", "at 00:00 on the first, the 11th and the 15th day of month"),
        ("*/15 * * * *", "every 15th minute of every hour"),
        ("30 * * * * *", "at second 30 of every minute"),
        ("0 0 L * *", "at 00:00 on the last day of every month"),
        ("@daily", "at 00:00 every day"),
        (" @Hourly ", "at the start of every hour"),
        ("@yearly", "at 00:00 on January 1"),
    ],
)
def test_a_cron_expression_in_words(expression: str, expected: str) -> None:
    """A cron expression reads as English too, whatever it begins with, nicknames included."""
    assert in_words(Recurrence.cron(expression, BERLIN)) == expected


def test_ordinals() -> None:
    """Numbers have the ending that English gives them."""
    expected = "1st 2nd 3rd 4th 10th 11th 12th 13th 21st 22nd 101st 111th 366th"
    assert " ".join(ordinal(int(word[:-2])) for word in expected.split()) == expected


@pytest.mark.parametrize(
    ("number", "expected"),
    [(1, "first"), (5, "fifth"), (6, "6th"), (-1, "last"), (-2, "second to last"), (-6, "6th to last")],
)
def test_places(number: int, expected: str) -> None:
    """Places count from either end."""
    assert nth(number) == expected


def test_lists_are_joined() -> None:
    """One, two and more words make a list."""
    assert [joined(list("abc")[:n]) for n in (1, 2, 3)] == ["a", "a and b", "a, b and c"]
    assert joined(["a", "b"], "or") == "a or b"
