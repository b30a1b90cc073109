"""The ends of the calendar, of the numbers and of patience: what a rule does there, by name."""

from __future__ import annotations

import sys
import threading
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from oncetask.errors import InvalidRecurrence
from oncetask.recurrence import Recurrence

START = datetime(2026, 1, 1, 9, tzinfo=UTC)
FIRST_OF_ALL = datetime.min.replace(tzinfo=UTC)


@pytest.mark.parametrize(
    "rule", ["FREQ=MONTHLY;BYDAY=53MO", "FREQ=YEARLY;BYMONTH=12;BYDAY=53MO", "FREQ=MONTHLY;BYDAY=1MO,18SA"]
)
def test_more_weekdays_than_a_month_has(rule: str) -> None:
    """BYDAY that counts further than a month goes is refused by its name."""
    with pytest.raises(InvalidRecurrence, match="BYDAY"):
        Recurrence(rule, START)


@pytest.mark.parametrize("number", [52, 53, -52, -53])
def test_the_last_weeks_of_a_year(number: int) -> None:
    """Weeks that reach into the next year or the one before are those of ISO 8601."""
    recurrence = Recurrence(f"FREQ=YEARLY;BYWEEKNO={number}", datetime(1990, 1, 1, tzinfo=UTC))
    expected = []
    for day in (date(1990, 1, 1) + timedelta(n) for n in range(40 * 365)):
        year, week, _ = day.isocalendar()
        if number in {week, week - date(year, 12, 28).isocalendar().week - 1}:
            expected.append(day)
    found, instant = [], recurrence.first()
    while instant.date() <= expected[-1]:
        found.append(instant.date())
        instant = recurrence.next_after(instant)  # type: ignore[assignment]
    assert found == expected


def test_the_first_instant_of_the_calendar() -> None:
    """A start at the beginning of the year 1 is refused by its name, an exdate there is only strange."""
    with pytest.raises(InvalidRecurrence, match="dtstart must lie within the years 1 to 9999"):
        Recurrence("FREQ=DAILY", FIRST_OF_ALL)
    with pytest.raises(InvalidRecurrence, match="dtstart must lie within the years 1 to 9999"):
        Recurrence.cron("@daily", start=FIRST_OF_ALL)
    with pytest.warns(UserWarning, match="exdates: 0001-01-01"):
        Recurrence("FREQ=DAILY", START, exdates=[FIRST_OF_ALL])


def test_an_end_that_utc_has_no_year_for() -> None:
    """A local UNTIL at the end of the calendar is as good as none."""
    recurrence = Recurrence("FREQ=DAILY;UNTIL=99991231T235959", START, "America/New_York")
    assert recurrence.next_after(datetime(9999, 12, 30, 20, tzinfo=UTC)) == datetime(9999, 12, 31, 9, tzinfo=UTC)
    with pytest.raises(InvalidRecurrence, match="no instant"):
        Recurrence("FREQ=DAILY;UNTIL=00010101T000000", START, "Asia/Tokyo")


@pytest.mark.parametrize("zone", ["localtime", "posixrules"])
def test_a_zone_of_the_machine(zone: str) -> None:
    """What means another zone on each machine is none."""
    with pytest.raises(InvalidRecurrence, match=f"timezone '{zone}' is no IANA zone"):
        Recurrence("FREQ=DAILY", START, zone)


def test_a_thousand_dates_are_left_out() -> None:
    """Behind them comes the next one, whatever was asked for before, and everything is left out in its turn."""
    out = [START + timedelta(days=n) for n in range(1_000)]
    recurrence = Recurrence("FREQ=DAILY", START, exdates=out)
    for n in (0, 999, 500, 1, 998):
        assert recurrence.next_after(START + timedelta(days=n, hours=-1)) == START + timedelta(days=1_000)
    assert recurrence.first() == START + timedelta(days=1_000)
    with pytest.raises(InvalidRecurrence, match="has no instant up to the year 9999 but its exdates"):
        Recurrence("FREQ=DAILY;COUNT=1000", START, exdates=out)


def test_a_start_in_the_hour_that_comes_twice() -> None:
    """The second time nothing begins again, and COUNT counts what follows."""
    second = datetime(2026, 10, 25, 1, 30, tzinfo=UTC)
    for start, first in ((second - timedelta(hours=1), 25), (second, 26)):
        recurrence = Recurrence("FREQ=DAILY;COUNT=2", start, "Europe/Berlin")
        found = [recurrence.first(), recurrence.next_after(recurrence.first())]
        hours = 0 if first == 25 else 1
        assert found[0] == datetime(2026, 10, first, 0 + hours, 30, tzinfo=UTC)
        assert recurrence.next_after(found[1] or second) is None


@pytest.mark.parametrize("zone", ["x" * 10**6, "Europe/Berlin" * 8_000, "a/" * 3_000])
def test_an_endless_zone(zone: str) -> None:
    """A zone of any length is refused like another one, in a short message."""
    with pytest.raises(InvalidRecurrence, match=r"^timezone ") as caught:
        Recurrence("FREQ=DAILY", START, zone)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("cron", ["@daily", "nonsense", "", 5, []])
def test_a_rule_and_a_cron_expression(cron: Any) -> None:
    """A document that has both is refused: one of them would not be heard."""
    with pytest.raises(InvalidRecurrence, match=r"not both|cron"):
        Recurrence.from_fields({"rrule": "FREQ=DAILY", "cron": cron, "dtstart": START})


@pytest.mark.parametrize("field", ["rrule", "dtstart", "timezone", "exdates", "catchUp", "overlap"])
def test_lists_and_maps_in_a_field(field: str) -> None:
    """What a field holds instead is refused by the name of the field."""
    names = {"catchUp": "catch_up"}.get(field, field)
    values: list[Any] = [[[]], {"a": 1}]
    for rubbish in values:
        with pytest.raises(InvalidRecurrence, match=names):
            Recurrence.from_fields({"rrule": "FREQ=DAILY", "dtstart": START, field: rubbish})


def test_threads_may_share_one() -> None:
    """Several threads may ask the same recurrence."""
    recurrence = Recurrence("FREQ=DAILY;BYMONTH=1,2,3;COUNT=10000000", datetime(1000, 1, 1, tzinfo=UTC))
    failed: list[BaseException] = []

    def ask(first: int) -> None:
        try:
            for year in range(first, 9_000, 97):
                recurrence.next_after(datetime(year, 1, 1, tzinfo=UTC))
        except Exception as error:  # noqa: BLE001  # told below
            failed.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    threads = [threading.Thread(target=ask, args=(1_500 + n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.setswitchinterval(interval)
    assert not failed
