"""`Recurrence`: when something happens again and again."""

from __future__ import annotations

import functools
import warnings
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal, Self, get_args

from oncetask.clock import EPOCH, Duration, check_instant, seconds
from oncetask.errors import InvalidRecurrence
from oncetask.recurrence.crons import CronWalk
from oncetask.recurrence.parts import parse
from oncetask.recurrence.walk import RuleWalk
from oncetask.recurrence.wallclock import WallClock

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from oncetask.recurrence.walk import Walk

__all__ = ["CatchUp", "Overlap", "Recurrence"]

CatchUp = Literal["one", "all", "skip"]
"""What becomes of instants that passed while nothing could run them."""
Overlap = Literal["allow", "skip", "cancel-previous"]
"""What an occurrence does while the one before it is not done."""

_MICROSECOND = timedelta(microseconds=1)
_MOST_EXDATES = 1_000
_REMEMBERED = 128
_FIELDS: Final = {
    "rrule": "rrule",
    "cron": "cron_expression",
    "dtstart": "dtstart",
    "timezone": "timezone",
    "exdates": "exdates",
    "catchUp": "catch_up",
    "overlap": "overlap",
}
"""Field of the stored map -> attribute."""


class Recurrence:
    """Instants given by a rule: RFC 5545's RRULE, a cron expression, or an interval. Immutable, equal by its values.

    A rule is expanded on the wall clock of its zone, in whole seconds. A local time that does not exist, since the
    clocks were put forward, takes the offset before the gap (02:30 runs at 03:30); one that exists twice is the first
    (RFC 5545, 3.3.5). So in the hour that comes twice nothing runs a second time; what has to run every five minutes
    of every day takes `timezone="UTC"`, or `Recurrence.every`.
    """

    __slots__ = (
        "_before",
        "_behind",
        "_excluded",
        "_until",
        "_walk",
        "_wall_clock",
        "catch_up",
        "cron_expression",
        "dtstart",
        "exdates",
        "overlap",
        "rrule",
        "timezone",
    )

    rrule: str | None
    """RFC 5545's rule; None where it is a cron expression."""
    cron_expression: str | None
    """The cron expression; None where it is an RRULE."""
    dtstart: datetime
    """Where it begins, in UTC."""
    timezone: str
    """The IANA zone on whose wall clock the rule is expanded."""
    exdates: tuple[datetime, ...]
    """Instants of the rule that are left out, in UTC."""
    catch_up: CatchUp
    """What becomes of instants that passed while nothing ran."""
    overlap: Overlap
    """What becomes of an instant while the last occurrence is not done."""
    _walk: Walk
    _wall_clock: WallClock
    _until: datetime | None
    _excluded: frozenset[datetime]
    _before: datetime
    """Just before `dtstart`."""
    _behind: dict[datetime, datetime | None]
    """What comes after instants that are left out, as far as that was asked for."""

    def __init__(  # noqa: PLR0917  # the public signature
        self,
        rrule: str,
        dtstart: datetime,
        timezone: str = "UTC",
        exdates: Iterable[datetime] = (),
        catch_up: CatchUp = "one",
        overlap: Overlap = "allow",
    ) -> None:
        """Follow an RRULE such as `FREQ=WEEKLY;BYDAY=MO;BYHOUR=9;BYMINUTE=0;BYSECOND=0` (RFC 5545, 3.3.10).

        `dtstart` (aware): where the rule begins; what the rule leaves open, the time of day say, is taken from it. It
        is an instant itself only if the rule says so. `timezone`: an IANA zone. `exdates` (aware): instants to leave
        out. `catch_up`: of the instants that passed while nothing ran, because no worker was there or a clock had
        jumped, "one" runs the last one, "all" runs each, in order, and "skip" none. `overlap`: while the last
        occurrence is not done, "allow" starts the next one all the same, "skip" leaves it out, and "cancel-previous"
        cancels the last one.

        Raises InvalidRecurrence for a malformed rule, one without any instant, an unknown zone or a naive time;
        TypeError for what is no text or datetime. Warns of exdates that the rule does not have.
        """
        self._settle(
            rrule=rrule,
            cron_expression=None,
            dtstart=dtstart,
            timezone=timezone,
            exdates=exdates,
            catch_up=catch_up,
            overlap=overlap,
        )
        self._warn_of_strange_exdates()

    @classmethod
    def cron(
        cls,
        expression: str,
        timezone: str = "UTC",
        *,
        start: datetime = EPOCH,
        exdates: Iterable[datetime] = (),
        catch_up: CatchUp = "one",
        overlap: Overlap = "allow",
    ) -> Self:
        """Follow a cron expression: minute, hour, day of month, month, day of week; or six fields, seconds first.

        `start` (aware): nothing before it. The rest is as for `Recurrence(...)`.
        """
        made = cls._made(
            rrule=None,
            cron_expression=expression,
            dtstart=_checked("start", start),
            timezone=timezone,
            exdates=exdates,
            catch_up=catch_up,
            overlap=overlap,
        )
        made._warn_of_strange_exdates()  # noqa: SLF001  # its own
        return made

    @classmethod
    def every(
        cls,
        interval: Duration,
        *,
        start: datetime = EPOCH,
        exdates: Iterable[datetime] = (),
        catch_up: CatchUp = "one",
        overlap: Overlap = "allow",
    ) -> Self:
        """Repeat after every `interval` (whole seconds, or a timedelta of such), counted from `start` (aware).

        It knows no wall clock: an interval of a day drifts against one twice a year. Left out, `start` is 1970, so
        that every hour is on the hour in UTC.
        """
        try:
            length = seconds("interval", interval)
        except ValueError as error:
            raise InvalidRecurrence(str(error)) from error
        if not length.is_integer():
            msg = f"interval must be whole seconds, not {interval!r}"
            raise InvalidRecurrence(msg)
        made = cls._made(
            rrule=f"FREQ=SECONDLY;INTERVAL={int(length)}",
            cron_expression=None,
            dtstart=_checked("start", start),
            timezone="UTC",
            exdates=exdates,
            catch_up=catch_up,
            overlap=overlap,
        )
        made._warn_of_strange_exdates()  # noqa: SLF001  # its own
        return made

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Self:
        """Read the stored form, whoever wrote it. Raises InvalidRecurrence that says what is wrong with it."""
        values = {attribute: fields.get(field) for field, attribute in _FIELDS.items()}
        exdates = values["exdates"]
        values["exdates"] = () if exdates is None else tuple(exdates) if isinstance(exdates, list | tuple) else exdates
        defaults: dict[str, object] = {"timezone": "UTC", "catch_up": "one", "overlap": "allow"}
        if values["cron_expression"] is not None:
            defaults["dtstart"] = EPOCH
        values |= {name: value for name, value in defaults.items() if values[name] is None}
        try:
            return cls._remembered(**values)
        except TypeError:
            pass  # something that cannot be looked up either: made without that, it is called by its name
        try:
            return cls._made(**values)
        except TypeError as error:
            raise InvalidRecurrence(str(error)) from error

    def to_fields(self) -> dict[str, Any]:
        """Give the form that is stored: `rrule` or `cron`, `dtstart`, `timezone`, `exdates`, `catchUp`, `overlap`."""
        values = {field: getattr(self, attribute) for field, attribute in _FIELDS.items()}
        values["exdates"] = list(self.exdates)
        return {field: value for field, value in values.items() if value is not None and value != []}

    def first(self, after: datetime | None = None) -> datetime:
        """Give the first instant, or the first one later than `after` (aware). Raises InvalidRecurrence: there is none.

        There is always one where `after` is left out: a rule without any is refused when it is made.
        """
        found = self._next(self._before) if after is None else self.next_after(after)
        if found is None:
            since = "" if after is None else f" after {after}"
            until = "the year 9999" if self._until is None else f"its UNTIL, {self._until}"
            but = " but its exdates" if self.exdates else ""
            place = f"with dtstart {self.dtstart} in {self.timezone}"
            msg = f"{self._rule} {place} has no instant{since} up to {until}{but}"
            raise InvalidRecurrence(msg)
        return found

    def next_after(self, instant: datetime) -> datetime | None:
        """Give the first instant later than `instant` (aware), in UTC; None: there is none any more.

        It is computed, not walked to, so it takes the same time however long ago the rule began.
        """
        return self._next(max(_checked("instant", instant), self._before))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Recurrence) and self._values() == other._values()

    def __hash__(self) -> int:
        return hash(self._values())

    def __repr__(self) -> str:
        inner = ", ".join(f"{name}={getattr(self, name)!r}" for name in _FIELDS.values() if getattr(self, name))
        return f"Recurrence({inner})"

    def __reduce__(self) -> tuple[object, ...]:
        return type(self).from_fields, (self.to_fields(),)

    def __setattr__(self, name: str, value: object) -> None:
        msg = f"a Recurrence does not change; make another one instead of setting {name!r} to {value!r}"
        raise AttributeError(msg)

    def __delattr__(self, name: str) -> None:
        msg = f"a Recurrence does not change: {name!r} stays"
        raise AttributeError(msg)

    def _values(self) -> tuple[object, ...]:
        return tuple(getattr(self, name) for name in _FIELDS.values())

    @property
    def _rule(self) -> str:
        return f"rrule {self.rrule!r}" if self.rrule is not None else f"cron expression {self.cron_expression!r}"

    @classmethod
    @functools.lru_cache(_REMEMBERED)
    def _remembered(cls, **values: Any) -> Self:
        """Make one, or give the one that was made of the same values: workers read the same few again and again."""
        return cls._made(**values)

    @classmethod
    def _made(cls, **values: Any) -> Self:
        made = object.__new__(cls)
        made._settle(**values)
        return made

    def _settle(
        self,
        *,
        rrule: str | None,
        cron_expression: str | None,
        dtstart: datetime,
        timezone: str,
        exdates: Iterable[datetime],
        catch_up: str,
        overlap: str,
    ) -> None:
        begin = _checked("dtstart", dtstart).replace(microsecond=0)
        excluded = _exdates(exdates)
        wall_clock = WallClock(timezone)
        until: datetime | None = None
        walk: Walk
        if rrule is not None and cron_expression is not None:
            msg = f"either rrule or cron says when, not both: {rrule!r:.80} and {cron_expression!r:.80}"
            raise InvalidRecurrence(msg)
        try:
            start = wall_clock.wall(begin)
            before = begin - _MICROSECOND
            if cron_expression is not None:
                walk = CronWalk(cron_expression, start)
            else:
                parts = parse(rrule)  # type: ignore[arg-type]  # None is among what it refuses
                walk, until = RuleWalk(parts, start, wall_clock.begin(begin)), parts.until
                if until is not None and until.tzinfo is None:
                    until = wall_clock.end(until)
        except OverflowError as error:
            msg = f"dtstart must lie within the years 1 to 9999 in {timezone}, not {dtstart!r}"
            raise InvalidRecurrence(msg) from error
        values: dict[str, object] = {
            "rrule": rrule,
            "cron_expression": cron_expression,
            "dtstart": begin,
            "timezone": timezone,
            "exdates": excluded,
            "catch_up": _one_of("catch_up", catch_up, get_args(CatchUp)),
            "overlap": _one_of("overlap", overlap, get_args(Overlap)),
            "_walk": walk,
            "_wall_clock": wall_clock,
            "_before": before,
            "_behind": {},
            "_until": until,
            "_excluded": frozenset(excluded),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)
        self.first()  # raises where there is none

    def _warn_of_strange_exdates(self) -> None:
        for exdate in self.exdates:
            if exdate < self.dtstart or self._next_of_rule(exdate - _MICROSECOND) != exdate:
                msg = f"exdates: {exdate} is no instant of {self._rule} in {self.timezone}, so it leaves nothing out"
                warnings.warn(msg, UserWarning, stacklevel=3)

    def _next(self, instant: datetime) -> datetime | None:
        found, passed = self._next_of_rule(instant), list[datetime]()
        while found is not None and found in self._excluded:
            passed.append(found)
            found = self._behind[found] if found in self._behind else self._next_of_rule(found)
        self._behind.update(dict.fromkeys(passed, found))
        return found

    def _next_of_rule(self, instant: datetime) -> datetime | None:
        found = self._wall_clock.next_after(instant, self._walk)
        return None if found is None or (self._until is not None and found > self._until) else found


def _checked(name: str, value: datetime) -> datetime:
    try:
        return check_instant(name, value)
    except ValueError as error:
        raise InvalidRecurrence(str(error)) from error


def _exdates(exdates: Iterable[datetime]) -> tuple[datetime, ...]:
    if isinstance(exdates, str | bytes | dict | datetime) or not hasattr(exdates, "__iter__"):
        msg = f"exdates must be aware datetimes, in a list say, not {exdates!r:.80}"
        raise TypeError(msg)
    read = tuple(sorted({_checked("exdates", exdate) for exdate in exdates}))
    if len(read) > _MOST_EXDATES:
        msg = f"exdates may be {_MOST_EXDATES:,} at most, not {len(read):,}: let the rule say it, or pause it meanwhile"
        raise InvalidRecurrence(msg)
    return read


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        msg = f"{name} must be one of {', '.join(map(repr, allowed))}, not {value!r}"
        raise InvalidRecurrence(msg)
    return value
