"""How soon a rule says what comes next, and whether a race of workers for generators loses or doubles an instant."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from oncetask import Client, Recurrence
from tests.racing import race
from tests.support import Shift

_GENERATORS = 50
_BEGAN = datetime(2016, 11, 22, 9, 0, 7, tzinfo=UTC)
_NOW = datetime(2026, 11, 22, 11, 7, 3, tzinfo=UTC)
_FREQUENCIES = ("SECONDLY", "MINUTELY", "HOURLY", "DAILY", "WEEKLY", "MONTHLY", "YEARLY")
_PARTS = (
    "",
    ";COUNT=1000000000",
    ";INTERVAL=7",
    ";INTERVAL=7;COUNT=20000000",
    ";BYHOUR=9;COUNT=100000000",
    ";BYDAY=MO,TU,WE,TH,FR",
    ";BYDAY=MO,TU,WE,TH,FR;COUNT=99999999",
    ";BYMONTH=2;BYDAY=MO",
    ";BYMONTH=1,2,3,4,5,6,7,8,9;BYDAY=MO,WE;COUNT=9999999",
    ";BYMINUTE=1,2,3,4;BYSETPOS=-1",
    ";INTERVAL=1009;BYDAY=MO,TU,WE,TH,FR;BYHOUR=1,2,3;COUNT=99999999",
)
_OTHERS = (
    "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29;BYDAY=MO",  # the next one is in 2044
    "FREQ=SECONDLY;BYMONTH=2;BYMONTHDAY=29;BYDAY=MO",
    "FREQ=DAILY;BYMONTH=2;BYMONTHDAY=29;BYDAY=MO;INTERVAL=11",
    "FREQ=SECONDLY;INTERVAL=86399;BYHOUR=9",  # once a day, a second earlier each day: only in some centuries
    "FREQ=MONTHLY;BYDAY=1MO,-1SU,TU;COUNT=9999999;BYSETPOS=-1,1,2",
    "FREQ=YEARLY;BYWEEKNO=1,20,53;COUNT=999999",
    "FREQ=YEARLY;INTERVAL=1009;BYDAY=MO;COUNT=9",
)


def rules() -> dict[str, float]:
    """Give how long rules that began ten years ago take to say what comes next, in milliseconds: made, and asked.

    Each is made anew for every try, and the best of five counts: the first one meets cold caches of the machine.
    """
    texts = [f"FREQ={frequency}{parts}" for frequency in _FREQUENCIES for parts in _PARTS]
    taken = sorted(min(_taken(text) for _ in range(5)) for text in (*texts, *_OTHERS))
    return {
        "next_after_rules": len(taken),
        "next_after_median_ms": taken[len(taken) // 2],
        "next_after_worst_ms": taken[-1],
    }


def _taken(text: str) -> float:
    started = time.perf_counter()
    Recurrence(text, _BEGAN, "Europe/Berlin").next_after(_NOW)
    return 1_000 * (time.perf_counter() - started)


async def instants(connect: Callable[[], Awaitable[Client]], minutes: int) -> dict[str, float]:
    """Give how many instants fifty generators had, and how many of them a race of three workers ran once, and never."""
    shift, clients = Shift(), [await connect() for _ in range(3)]
    for client in clients:
        shift.of(client.store)
    started = time.perf_counter()
    witness, expected = await race(clients, shift, generators=_GENERATORS, runs=minutes)
    return {
        "race_instants": len(expected),
        "race_run_once": sum(number == 1 for key, number in witness.runs.items() if key in expected),
        "race_run_more_often": sum(number > 1 for number in witness.runs.values()),
        "race_run_never": len(expected - witness.runs.keys()),
        "race_seconds": time.perf_counter() - started,
    }
