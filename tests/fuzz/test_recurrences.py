"""Rules, cron expressions and zones: any text is a recurrence that answers, or is refused with its name."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from oncetask import InvalidRecurrence, Recurrence
from oncetask.cli.words import in_words
from oncetask.recurrence import begin, plan
from tests.fuzz.effort import examples
from tests.fuzz.strategies import anything, edges, mutated, texts

FREQUENCIES = ["SECONDLY", "MINUTELY", "HOURLY", "DAILY", "WEEKLY", "MONTHLY", "YEARLY"]
ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia", "Africa/Casablanca"]
ASTRIDE = [  # when the clocks of these zones are changed
    *("2025-03-30T00:59:59+00:00", "2025-10-26T00:30:00+00:00", "2011-12-30T09:59:59+00:00"),
    *("2025-04-05T14:45:00+00:00", "2023-03-19T02:00:00+00:00"),
]
instants = (
    st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001  # zones follow
    | st.datetimes(timezones=st.just(UTC))
    | st.sampled_from([*ASTRIDE, "0001-01-01T00:00:00+00:00", "9999-12-31T23:59:59.999999+00:00"]).map(
        datetime.fromisoformat
    )
)
starts = instants | edges
zones = st.sampled_from(ZONES)
odd_zones = (
    texts | mutated(zones) | st.sampled_from(["../UTC", "/etc/passwd", "localtime", "Etc", "posix/UTC", "tzdata"])
)

_numbers = st.lists(
    st.integers(-400, 400) | st.sampled_from([0, 1, 29, 30, 31, 53, 60, 10**12]), min_size=1, max_size=4
)
_days = st.lists(
    st.builds(
        lambda nth, day: f"{nth or ''}{day}",
        st.sampled_from([None, None, 1, -1, 5, 53, -53, 0]),
        st.sampled_from(["MO", "WE", "SU", "XX"]),
    ),
    min_size=1,
    max_size=4,
)
_PARTS: dict[str, st.SearchStrategy[Any]] = {
    "FREQ": st.sampled_from(FREQUENCIES),
    "INTERVAL": st.integers(1, 5)
    | st.sampled_from([7, 60, 86_399, 86_400, 999_983, 146_097, 10**6, 10**12 - 1, 0, -1]),
    "COUNT": st.integers(1, 5) | st.sampled_from([10**6, 10**12 - 1, 0]),
    "UNTIL": st.sampled_from(
        ["00010101T000000Z", "20300101T000000Z", "20300101T000000", "99991231T235959Z", "20301301T0"]
    ),
    "WKST": st.sampled_from(["MO", "SU", "WE"]),
    "BYDAY": _days.map(",".join),
    **{
        name: st.lists(st.integers(least, most), min_size=1, max_size=5).map(lambda n: ",".join(map(str, n)))
        for name, least, most in (
            ("BYMONTH", 1, 12),
            ("BYMONTHDAY", -31, 31),
            ("BYYEARDAY", -366, 366),
            ("BYWEEKNO", -53, 53),
            ("BYHOUR", 0, 23),
            ("BYMINUTE", 0, 59),
            ("BYSECOND", 0, 60),
            ("BYSETPOS", -366, 366),
        )
    },
}


@st.composite
def rules(draw: st.DrawFn) -> str:
    """Give a rule by the grammar of RFC 5545: many of these never match, or hardly ever."""
    names = draw(st.lists(st.sampled_from(sorted(_PARTS)), unique=True, max_size=7))
    names = ["FREQ", *(name for name in names if name != "FREQ")]
    wild = draw(st.integers(0, 9)) == 0
    values = {
        name: draw(_numbers.map(str).map(lambda n: n.strip("[]")) if wild and name != "FREQ" else _PARTS[name])
        for name in names
    }
    return ";".join(f"{name}={value}" for name, value in values.items())


_field = st.sampled_from(
    ["*", "0", "1-5", "*/7", "L", "?", "LW", "5#3", "5#5", "MON-FRI", "W", "31", "30", "2", "59/59", "5,6", "1-0"]
)
crons = st.builds(" ".join, st.lists(_field, min_size=4, max_size=7))
SOUND = ["FREQ=DAILY;BYHOUR=9", "FREQ=MONTHLY;BYDAY=-1FR;BYSETPOS=1", "FREQ=SECONDLY;INTERVAL=7;COUNT=3"]
SOUND_CRONS = ["0 9 * * MON-FRI", "*/5 * * * *", "0 0 29 2 *", "0 0 L * *", "15 0 9 ? * 5#3", "@daily"]


def check(recurrence: Recurrence, times: list[datetime]) -> None:
    """Let a recurrence answer whatever it is asked: instants in UTC that increase, and none before its beginning."""
    first = recurrence.first()
    assert first.tzinfo is UTC
    assert first >= recurrence.dtstart
    instant, steps = first, 0
    while (following := recurrence.next_after(instant)) is not None and steps < 10:
        assert following > instant
        assert following not in recurrence.exdates
        instant, steps = following, steps + 1
    for time in times:
        after = recurrence.next_after(time)
        assert after is None or after > max(time, first - timedelta(microseconds=1))
        if time.year == 1:  # no store's present
            continue
        try:
            begun = begin(recurrence, time)
        except InvalidRecurrence:
            assert after is None
        else:
            spawn, _ = plan(recurrence, begun, now=max(time, begun), most=3)
            assert list(spawn) == sorted(set(spawn))
    assert Recurrence.from_fields(recurrence.to_fields()) == recurrence
    assert in_words(recurrence)


def made(fields: dict[str, Any]) -> Recurrence | None:
    """Read a stored rule; None where it is refused, with its reason in a line that can be kept."""
    try:
        return Recurrence.from_fields(fields)
    except InvalidRecurrence as error:
        names = ("rrule", "cron", "dtstart", "timezone", "exdates", "catch_up", "overlap", "either")
        assert any(name in str(error) for name in names), error  # noqa: PT017  # or there is one
        return None


@examples(400)
@given(rules(), zones, starts, st.lists(instants, max_size=2))
@example("FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30", "UTC", datetime(2025, 1, 1, tzinfo=UTC), [])
@example("FREQ=SECONDLY;INTERVAL=999999999999", "Europe/Berlin", datetime(2025, 1, 1, tzinfo=UTC), [])
@example("FREQ=SECONDLY;INTERVAL=86400;BYHOUR=1;BYSETPOS=366", "Pacific/Apia", datetime(2025, 1, 1, tzinfo=UTC), [])
@example("FREQ=MINUTELY;BYMONTHDAY=31;BYMONTH=2,4,6", "UTC", datetime(2025, 1, 1, tzinfo=UTC), [])
@example("FREQ=SECONDLY;COUNT=999999999999", "UTC", datetime(1, 1, 2, tzinfo=UTC), [datetime(9999, 12, 31, tzinfo=UTC)])
@example("FREQ=WEEKLY;INTERVAL=999983;BYDAY=MO;WKST=SU", "UTC", datetime(1970, 1, 1, tzinfo=UTC), [])
def test_any_rule_answers_or_is_refused(rule: str, zone: str, start: datetime, times: list[datetime]) -> None:
    """Rules of the grammar, those that never match among them, end with an answer; the time limit is this test's."""
    recurrence = made({"rrule": rule, "dtstart": start, "timezone": zone})
    if recurrence is not None:
        check(recurrence, times)


@examples(300)
@given(texts | mutated(rules() | st.sampled_from(SOUND)), zones, starts)
@example("FREQ=DAILY;BYHOUR=\u0661", "UTC", datetime(2025, 1, 1, tzinfo=UTC))
@example("FREQ=DAILY;INTERVAL=" + "9" * 1_900, "UTC", datetime(2025, 1, 1, tzinfo=UTC))
def test_any_text_is_a_rule_or_refused(rule: str, zone: str, start: datetime) -> None:
    """A text that is nearly a rule is one, or is refused."""
    recurrence = made({"rrule": rule, "dtstart": start, "timezone": zone})
    if recurrence is not None:
        check(recurrence, [])


@examples(400)
@given(crons | texts | mutated(crons | st.sampled_from(SOUND_CRONS)), zones, starts, st.lists(instants, max_size=2))
@example("0 0 30 2 *", "UTC", datetime(2025, 1, 1, tzinfo=UTC), [])
@example("0 0 29 2 MON#5", "UTC", datetime(2025, 1, 1, tzinfo=UTC), [])
@example("* * * * *", "UTC", datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC), [])
def test_any_cron_expression_answers_or_is_refused(
    expression: str, zone: str, start: datetime, times: list[datetime]
) -> None:
    """A cron expression, or a text that is nearly one, answers or is refused."""
    recurrence = made({"cron": expression, "dtstart": start, "timezone": zone})
    if recurrence is not None:
        check(recurrence, times)


@examples(300)
@given(odd_zones)
def test_any_zone_is_known_or_refused(zone: str) -> None:
    """A zone is one that the machine has, or is refused; no file is looked for outside of the zones."""
    recurrence = made({"cron": "30 2 * * *", "timezone": zone})
    if recurrence is not None:
        assert recurrence.timezone == zone
        check(recurrence, [])


fields = st.sampled_from(["rrule", "cron", "dtstart", "timezone", "exdates", "catchUp", "overlap", "pausedAt", "more"])
rule_fields = st.fixed_dictionaries(
    {},
    optional={
        "rrule": st.sampled_from(SOUND),
        "cron": st.sampled_from(SOUND_CRONS),
        "dtstart": starts,
        "timezone": zones,
        "exdates": st.lists(starts, max_size=3),
        "catchUp": st.sampled_from(["one", "all", "skip"]),
        "overlap": st.sampled_from(["allow", "skip", "cancel-previous"]),
    },
)


@examples(400)
@given(rule_fields, st.dictionaries(fields, anything | st.lists(anything, max_size=3), max_size=2))
def test_any_stored_map_is_a_recurrence_or_refused(sound: dict[str, Any], wrong: dict[str, Any]) -> None:
    """Whatever a document has for a rule, it is one or is refused with the reason."""
    recurrence = made({**sound, **wrong})
    if recurrence is not None:
        check(recurrence, [])
