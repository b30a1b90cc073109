"""The examples of RFC 5545, section 3.8.5.3, against the dates that are printed there."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple
from zoneinfo import ZoneInfo

import pytest

from oncetask.recurrence import Recurrence
from tests.support import MICROSECOND

if TYPE_CHECKING:
    from collections.abc import Iterator

NEW_YORK = ZoneInfo("America/New_York")
OFFSETS = {"EDT": timedelta(hours=-4), "EST": timedelta(hours=-5)}
EVERY_20_MINUTES = ",".join(f"{hour}:{minute:02}" for hour in range(9, 17) for minute in (0, 20, 40))  # 9:00 to 16:40


class Example(NamedTuple):
    """One rule of the RFC."""

    name: str
    rule: str
    start: str
    """On the clocks of New York."""
    printed: str
    """The dates as the RFC prints them: year, offset, days of months; "at" means times other than the start's.

    "..." at the end: the rule goes on.
    """


EXAMPLES = [
    Example(
        "daily for 10 occurrences",
        "FREQ=DAILY;COUNT=10",
        "19970902T090000",
        "1997 EDT September 2-11",
    ),
    Example(
        "daily until December 24, 1997",
        "FREQ=DAILY;UNTIL=19971224T000000Z",
        "19970902T090000",
        """1997 EDT September 2-30;October 1-25
           1997 EST October 26-31;November 1-30;December 1-23""",
    ),
    Example(
        "every other day",
        "FREQ=DAILY;INTERVAL=2",
        "19970902T090000",
        """1997 EDT September 2,4,6,8,10,12,14,16,18,20,22,24,26,28,30;October 2,4,6,8,10,12,14,16,18,20,22,24
           1997 EST October 26,28,30;November 1,3,5,7,9,11,13,15,17,19,21,23,25,27,29;December 1,3
           ...""",
    ),
    Example(
        "every 10 days, 5 occurrences",
        "FREQ=DAILY;INTERVAL=10;COUNT=5",
        "19970902T090000",
        "1997 EDT September 2,12,22;October 2,12",
    ),
    Example(
        "every day in January, for 3 years",
        "FREQ=YEARLY;UNTIL=20000131T140000Z;BYMONTH=1;BYDAY=SU,MO,TU,WE,TH,FR,SA",
        "19980101T090000",
        """1998 EST January 1-31
           1999 EST January 1-31
           2000 EST January 1-31""",
    ),
    Example(
        "every day in January, for 3 years, said otherwise",
        "FREQ=DAILY;UNTIL=20000131T140000Z;BYMONTH=1",
        "19980101T090000",
        """1998 EST January 1-31
           1999 EST January 1-31
           2000 EST January 1-31""",
    ),
    Example(
        "weekly for 10 occurrences",
        "FREQ=WEEKLY;COUNT=10",
        "19970902T090000",
        """1997 EDT September 2,9,16,23,30;October 7,14,21
           1997 EST October 28;November 4""",
    ),
    Example(
        "weekly until December 24, 1997",
        "FREQ=WEEKLY;UNTIL=19971224T000000Z",
        "19970902T090000",
        """1997 EDT September 2,9,16,23,30;October 7,14,21
           1997 EST October 28;November 4,11,18,25;December 2,9,16,23""",
    ),
    Example(
        "every other week",
        "FREQ=WEEKLY;INTERVAL=2;WKST=SU",
        "19970902T090000",
        """1997 EDT September 2,16,30;October 14
           1997 EST October 28;November 11,25;December 9,23
           1998 EST January 6,20;February 3,17
           ...""",
    ),
    Example(
        "weekly on Tuesday and Thursday for five weeks",
        "FREQ=WEEKLY;UNTIL=19971007T000000Z;WKST=SU;BYDAY=TU,TH",
        "19970902T090000",
        "1997 EDT September 2,4,9,11,16,18,23,25,30;October 2",
    ),
    Example(
        "weekly on Tuesday and Thursday for five weeks, counted",
        "FREQ=WEEKLY;COUNT=10;WKST=SU;BYDAY=TU,TH",
        "19970902T090000",
        "1997 EDT September 2,4,9,11,16,18,23,25,30;October 2",
    ),
    Example(
        "every other week on Monday, Wednesday and Friday until December 24, 1997",
        "FREQ=WEEKLY;INTERVAL=2;UNTIL=19971224T000000Z;WKST=SU;BYDAY=MO,WE,FR",
        "19970901T090000",
        """1997 EDT September 1,3,5,15,17,19,29;October 1,3,13,15,17
           1997 EST October 27,29,31;November 10,12,14,24,26,28;December 8,10,12,22""",
    ),
    Example(
        "every other week on Tuesday and Thursday, for 8 occurrences",
        "FREQ=WEEKLY;INTERVAL=2;COUNT=8;WKST=SU;BYDAY=TU,TH",
        "19970902T090000",
        "1997 EDT September 2,4,16,18,30;October 2,14,16",
    ),
    Example(
        "monthly on the first Friday for 10 occurrences",
        "FREQ=MONTHLY;COUNT=10;BYDAY=1FR",
        "19970905T090000",
        """1997 EDT September 5;October 3
           1997 EST November 7;December 5
           1998 EST January 2;February 6;March 6;April 3
           1998 EDT May 1;June 5""",
    ),
    Example(
        "monthly on the first Friday until December 24, 1997",
        "FREQ=MONTHLY;UNTIL=19971224T000000Z;BYDAY=1FR",
        "19970905T090000",
        """1997 EDT September 5;October 3
           1997 EST November 7;December 5""",
    ),
    Example(
        "every other month on the first and last Sunday for 10 occurrences",
        "FREQ=MONTHLY;INTERVAL=2;COUNT=10;BYDAY=1SU,-1SU",
        "19970907T090000",
        """1997 EDT September 7,28
           1997 EST November 2,30
           1998 EST January 4,25;March 1,29
           1998 EDT May 3,31""",
    ),
    Example(
        "monthly on the second-to-last Monday for 6 months",
        "FREQ=MONTHLY;COUNT=6;BYDAY=-2MO",
        "19970922T090000",
        """1997 EDT September 22;October 20
           1997 EST November 17;December 22
           1998 EST January 19;February 16""",
    ),
    Example(
        "monthly on the third-to-the-last day",
        "FREQ=MONTHLY;BYMONTHDAY=-3",
        "19970928T090000",
        """1997 EDT September 28
           1997 EST October 29;November 28;December 29
           1998 EST January 29;February 26
           ...""",
    ),
    Example(
        "monthly on the 2nd and 15th for 10 occurrences",
        "FREQ=MONTHLY;COUNT=10;BYMONTHDAY=2,15",
        "19970902T090000",
        """1997 EDT September 2,15;October 2,15
           1997 EST November 2,15;December 2,15
           1998 EST January 2,15""",
    ),
    Example(
        "monthly on the first and last day for 10 occurrences",
        "FREQ=MONTHLY;COUNT=10;BYMONTHDAY=1,-1",
        "19970930T090000",
        """1997 EDT September 30;October 1
           1997 EST October 31;November 1,30;December 1,31
           1998 EST January 1,31;February 1""",
    ),
    Example(
        "every 18 months on the 10th thru 15th for 10 occurrences",
        "FREQ=MONTHLY;INTERVAL=18;COUNT=10;BYMONTHDAY=10,11,12,13,14,15",
        "19970910T090000",
        """1997 EDT September 10,11,12,13,14,15
           1999 EST March 10,11,12,13""",
    ),
    Example(
        "every Tuesday, every other month",
        "FREQ=MONTHLY;INTERVAL=2;BYDAY=TU",
        "19970902T090000",
        """1997 EDT September 2,9,16,23,30
           1997 EST November 4,11,18,25
           1998 EST January 6,13,20,27;March 3,10,17,24,31
           ...""",
    ),
    Example(
        "yearly in June and July for 10 occurrences",
        "FREQ=YEARLY;COUNT=10;BYMONTH=6,7",
        "19970610T090000",
        """1997 EDT June 10;July 10
           1998 EDT June 10;July 10
           1999 EDT June 10;July 10
           2000 EDT June 10;July 10
           2001 EDT June 10;July 10""",
    ),
    Example(
        "every other year on January, February, and March for 10 occurrences",
        "FREQ=YEARLY;INTERVAL=2;COUNT=10;BYMONTH=1,2,3",
        "19970310T090000",
        """1997 EST March 10
           1999 EST January 10;February 10;March 10
           2001 EST January 10;February 10;March 10
           2003 EST January 10;February 10;March 10""",
    ),
    Example(
        "every third year on the 1st, 100th, and 200th day for 10 occurrences",
        "FREQ=YEARLY;INTERVAL=3;COUNT=10;BYYEARDAY=1,100,200",
        "19970101T090000",
        """1997 EST January 1
           1997 EDT April 10;July 19
           2000 EST January 1
           2000 EDT April 9;July 18
           2003 EST January 1
           2003 EDT April 10;July 19
           2006 EST January 1""",
    ),
    Example(
        "every 20th Monday of the year",
        "FREQ=YEARLY;BYDAY=20MO",
        "19970519T090000",
        """1997 EDT May 19
           1998 EDT May 18
           1999 EDT May 17
           ...""",
    ),
    Example(
        "Monday of week number 20",
        "FREQ=YEARLY;BYWEEKNO=20;BYDAY=MO",
        "19970512T090000",
        """1997 EDT May 12
           1998 EDT May 11
           1999 EDT May 17
           ...""",
    ),
    Example(
        "every Thursday in March",
        "FREQ=YEARLY;BYMONTH=3;BYDAY=TH",
        "19970313T090000",
        """1997 EST March 13,20,27
           1998 EST March 5,12,19,26
           1999 EST March 4,11,18,25
           ...""",
    ),
    Example(
        "every Thursday, but only during June, July, and August",
        "FREQ=YEARLY;BYDAY=TH;BYMONTH=6,7,8",
        "19970605T090000",
        """1997 EDT June 5,12,19,26;July 3,10,17,24,31;August 7,14,21,28
           1998 EDT June 4,11,18,25;July 2,9,16,23,30;August 6,13,20,27
           1999 EDT June 3,10,17,24;July 1,8,15,22,29;August 5,12,19,26
           ...""",
    ),
    Example(
        # There the start is an instant whatever the rule says, and an EXDATE takes it out again; here it is none.
        "every Friday the 13th",
        "FREQ=MONTHLY;BYDAY=FR;BYMONTHDAY=13",
        "19970902T090000",
        """1998 EST February 13;March 13;November 13
           1999 EDT August 13
           2000 EDT October 13
           ...""",
    ),
    Example(
        "the first Saturday that follows the first Sunday of the month",
        "FREQ=MONTHLY;BYDAY=SA;BYMONTHDAY=7,8,9,10,11,12,13",
        "19970913T090000",
        """1997 EDT September 13;October 11
           1997 EST November 8;December 13
           1998 EST January 10;February 7;March 7
           1998 EDT April 11;May 9;June 13
           ...""",
    ),
    Example(
        "every 4 years, the first Tuesday after a Monday in November",
        "FREQ=YEARLY;INTERVAL=4;BYMONTH=11;BYDAY=TU;BYMONTHDAY=2,3,4,5,6,7,8",
        "19961105T090000",
        """1996 EST November 5
           2000 EST November 7
           2004 EST November 2
           ...""",
    ),
    Example(
        "the third instance into the month of one of Tuesday, Wednesday, or Thursday",
        "FREQ=MONTHLY;COUNT=3;BYDAY=TU,WE,TH;BYSETPOS=3",
        "19970904T090000",
        """1997 EDT September 4;October 7
           1997 EST November 6""",
    ),
    Example(
        "the second-to-last weekday of the month",
        "FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-2",
        "19970929T090000",
        """1997 EDT September 29
           1997 EST October 30;November 27;December 30
           1998 EST January 29;February 26;March 30
           ...""",
    ),
    Example(
        # Erratum 3883 (verified): printed is 170000Z, which is one o'clock in New York.
        "every 3 hours from 9:00 AM to 5:00 PM on a specific day",
        "FREQ=HOURLY;INTERVAL=3;UNTIL=19970902T210000Z",
        "19970902T090000",
        "1997 EDT September 2 at 09:00,12:00,15:00",
    ),
    Example(
        "every 15 minutes for 6 occurrences",
        "FREQ=MINUTELY;INTERVAL=15;COUNT=6",
        "19970902T090000",
        "1997 EDT September 2 at 09:00,09:15,09:30,09:45,10:00,10:15",
    ),
    Example(
        "every hour and a half for 4 occurrences",
        "FREQ=MINUTELY;INTERVAL=90;COUNT=4",
        "19970902T090000",
        "1997 EDT September 2 at 09:00,10:30,12:00,13:30",
    ),
    Example(
        "every 20 minutes from 9:00 AM to 4:40 PM every day",
        "FREQ=DAILY;BYHOUR=9,10,11,12,13,14,15,16;BYMINUTE=0,20,40",
        "19970902T090000",
        f"""1997 EDT September 2 at {EVERY_20_MINUTES};September 3 at {EVERY_20_MINUTES}
            ...""",
    ),
    Example(
        "every 20 minutes from 9:00 AM to 4:40 PM every day, said otherwise",
        "FREQ=MINUTELY;INTERVAL=20;BYHOUR=9,10,11,12,13,14,15,16",
        "19970902T090000",
        f"""1997 EDT September 2 at {EVERY_20_MINUTES};September 3 at {EVERY_20_MINUTES}
            ...""",
    ),
    Example(
        "weeks that start on Monday",
        "FREQ=WEEKLY;INTERVAL=2;COUNT=4;BYDAY=TU,SU;WKST=MO",
        "19970805T090000",
        "1997 EDT August 5,10,19,24",
    ),
    Example(
        "weeks that start on Sunday",
        "FREQ=WEEKLY;INTERVAL=2;COUNT=4;BYDAY=TU,SU;WKST=SU",
        "19970805T090000",
        "1997 EDT August 5,17,19,31",
    ),
    Example(
        "an invalid date (i.e., February 30) is ignored",
        "FREQ=MONTHLY;BYMONTHDAY=15,30;COUNT=5",
        "20070115T090000",
        """2007 EST January 15,30
           2007 EST February 15
           2007 EDT March 15,30""",
    ),
]
each_example = pytest.mark.parametrize("example", EXAMPLES, ids=[example.name for example in EXAMPLES])


def start_of(example: Example) -> datetime:
    """Give where an example begins."""
    return datetime.strptime(example.start, "%Y%m%dT%H%M%S").replace(tzinfo=NEW_YORK)


def printed_instants(example: Example) -> list[datetime]:
    """Read the dates that the RFC prints."""
    return [instant for line in example.printed.removesuffix("...").splitlines() for instant in _of_line(line, example)]


def _of_line(line: str, example: Example) -> Iterator[datetime]:
    if not line.strip():
        return
    year, zone, rest = line.split(maxsplit=2)
    for group in rest.split(";"):
        dates, _, times = group.partition(" at ")
        month, days = dates.split()
        for day in _days(days):
            for time in times.split(",") if times else [f"{start_of(example):%H:%M}"]:
                local = datetime.strptime(f"{year} {month} {day} {time}", "%Y %B %d %H:%M").replace(tzinfo=UTC)
                yield local - OFFSETS[zone]


def _days(text: str) -> Iterator[int]:
    for part in text.split(","):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


def instants_of(recurrence: Recurrence) -> Iterator[datetime]:
    """Walk from the first instant to the last."""
    instant: datetime | None = recurrence.first()
    while instant is not None:
        yield instant
        instant = recurrence.next_after(instant)


def test_the_table_is_read_as_it_is_printed() -> None:
    """The dates of a line are those of its offset, in order, and each list says whether it is the whole one."""
    first, second = EXAMPLES[:2]

    assert printed_instants(first) == [datetime(1997, 9, day, 13, tzinfo=UTC) for day in range(2, 12)]
    assert printed_instants(second)[-1] == datetime(1997, 12, 23, 14, tzinfo=UTC)
    assert len(printed_instants(second)) == 29 + 31 + 30 + 23
    for example in EXAMPLES:
        assert printed_instants(example) == sorted(printed_instants(example))
        assert example.printed.endswith("...") != ("COUNT=" in example.rule or "UNTIL=" in example.rule)


@each_example
def test_the_instants_are_those_printed(example: Example) -> None:
    """A rule gives the dates that the RFC prints: none more where it ends, and more where the RFC says so."""
    recurrence = Recurrence(example.rule, start_of(example), "America/New_York")
    expected = printed_instants(example)

    found = list(islice(instants_of(recurrence), len(expected) + 1))

    assert found[: len(expected)] == expected
    assert (len(found) > len(expected)) == example.printed.endswith("...")


@each_example
def test_each_instant_is_found_from_just_before_it(example: Example) -> None:
    """From a microsecond before it each date is the next one, and from the date itself a later one is."""
    recurrence = Recurrence(example.rule, start_of(example), "America/New_York")

    for instant in printed_instants(example):
        assert recurrence.next_after(instant - MICROSECOND) == instant
        following = recurrence.next_after(instant)
        assert following is None or following > instant


def test_a_start_outside_of_the_rule_needs_no_exdate() -> None:
    """The RFC's EXDATE of Friday the 13th changes nothing, and is warned of: the start was no instant anyway."""
    example = next(example for example in EXAMPLES if example.name == "every Friday the 13th")
    start = start_of(example)

    with pytest.warns(UserWarning, match=r"exdates: 1997-09-02 13:00:00\+00:00 is no instant of rrule 'FREQ=MONTHLY"):
        recurrence = Recurrence(example.rule, start, "America/New_York", exdates=[start])

    assert list(islice(instants_of(recurrence), 5)) == printed_instants(example)
