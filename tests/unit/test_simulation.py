"""The simulation of production Firestore: nothing is lost in it, and each limit holds where arithmetic puts it."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path

import pytest

from benchmarks.simulation import closeup, flow
from benchmarks.simulation.assumptions import Assumptions, Settings, Source, told
from benchmarks.simulation.database import Database, capacity, ramp
from benchmarks.simulation.keys import one_key
from benchmarks.simulation.ranges import ranges
from benchmarks.simulation.scenarios import TABLES
from benchmarks.simulation.tasks import NEVER, Tasks
from oncetask import crowding

KNOWN = Assumptions()
FEW = Settings(workers=5)


@pytest.mark.parametrize(
    "settings",
    [
        FEW,
        replace(FEW, shards=7, kinds=3),
        replace(FEW, handler=0.1, claim=5, ahead=20),
        replace(FEW, shards=2, instant=True, watermark=True, handler=1.0),
        replace(FEW, shards=3, waiting=True),
    ],
)
def test_every_task_is_started_once_and_costs_three_writes(settings: Settings) -> None:
    """Whatever the settings are: a run that lost a task, or ran one twice, raises."""
    result = closeup.burst(KNOWN, settings, tasks=1_501)
    assert result.tasks == 1_501
    assert result.writes_per_task == 3
    assert result.timeline[-1].backlog == 0


@pytest.mark.parametrize("shards", [1, 4])
def test_a_burst_takes_three_writes_of_each_task_at_the_rate_of_its_ranges(shards: int) -> None:
    """That is where one index range, or several side by side, saturate."""
    settings = replace(FEW, shards=shards, workers=20)
    tasks = 10_000 * shards
    result = closeup.burst(KNOWN, settings, tasks=tasks)
    least = 3 * tasks / (KNOWN.range_writes * shards) - KNOWN.range_burst
    assert least <= result.seconds <= 1.05 * least + 1


def test_slots_are_the_limit_where_handlers_are_long() -> None:
    """Five workers of 32 slots run at most 160 tasks of two seconds at a time."""
    result = closeup.burst(KNOWN, replace(FEW, shards=8, handler=2.0), tasks=1_600)
    assert 10 * 2.0 <= result.seconds <= 10 * 2.0 * 1.15


def test_a_cold_collection_ramps_up_from_500_by_half_every_five_minutes() -> None:
    """However many shards there are."""
    assert ramp(KNOWN, 299.9, warm=False) == 500
    assert ramp(KNOWN, 600, warm=False) == 500 * 1.5**2
    cold = Settings(shards=32, warm=False)
    first_steps = 300 * 500 * (1 + 1.5 + 1.5**2)
    assert flow.burst(KNOWN, cold, tasks=int(first_steps / 3)).seconds == pytest.approx(900, abs=3)


@pytest.mark.parametrize(
    ("settings", "tasks"),
    [
        (Settings(workers=20), 5_000),
        (Settings(workers=20, shards=8, handler=0.1), 20_000),
        (Settings(workers=2, shards=8, handler=1.0), 2_000),
    ],
)
def test_both_models_give_the_same_answer(settings: Settings, tasks: int) -> None:
    """The one in steps of a second is enough for what lasts minutes."""
    quick, exact = flow.burst(KNOWN, settings, tasks=tasks), closeup.burst(KNOWN, settings, tasks=tasks)
    assert quick.seconds == pytest.approx(exact.seconds, rel=0.12, abs=1)
    assert quick.p95_s == pytest.approx(exact.p95_s, rel=0.12, abs=1)


def test_a_day_saturates_in_its_busy_hour_and_not_beside_it() -> None:
    """Four times 116 tasks a second are 1,389 writes: too much for two ranges, and fine for four."""
    two, four = (
        flow.day(KNOWN, Settings(shards=shards, handler=0.1), tasks=10_000_000, busy_hour=True) for shards in (2, 4)
    )
    waiting = 3_600 * (4e7 / 86_400 - 1_000 / 3)
    assert waiting <= two.most_backlog <= 2 * waiting
    assert two.most_shard_writes == pytest.approx(500)
    assert four.most_backlog < 1
    assert four.most_shard_writes == pytest.approx(3 * 4e7 / 86_400 / 4, rel=0.01)


def test_the_same_seed_gives_the_same_result_and_another_one_does_not() -> None:
    """Nothing but the seed decides what is drawn."""
    runs = [closeup.window(KNOWN, FEW, rate=50, seconds=4, seed=seed) for seed in (1, 1, 2)]
    assert runs[0] == runs[1]
    assert runs[0].p99_s != runs[2].p99_s


@pytest.mark.parametrize("instant", [False, True])
def test_one_worker_is_refused_nothing_and_four_that_share_a_line_little(*, instant: bool) -> None:
    """As on the emulator, where the line takes about as much: who is refused reads on elsewhere."""
    settings = Settings(kinds=8, waiting=True, instant=instant)
    one, two, four = (closeup.burst(KNOWN, replace(settings, workers=n), tasks=5_000) for n in (1, 2, 4))
    assert one.refused_percent == 0
    assert one.reads_per_task == pytest.approx(1, abs=0.02)
    assert 5 <= two.refused_percent <= 25
    assert 15 <= four.refused_percent <= 35
    assert max(two.reads_per_task, four.reads_per_task) < 2.3


def test_workers_read_as_those_of_oncetask_do() -> None:
    """The numbers are those of its code."""
    assert (KNOWN.page_part, KNOWN.longest_leap) == (crowding._SMALLEST_PART, crowding._LONGEST_LEAP)
    assert (KNOWN.forgets, KNOWN.alone) == (crowding._FORGETS, crowding._ALONE)


def test_each_listening_worker_costs_reads() -> None:
    """Ten times the workers, about ten times the reads of the same tasks."""
    few, many = (closeup.window(KNOWN, Settings(workers=n, handler=0.1), rate=20, seconds=5) for n in (3, 30))
    assert 7 <= many.reads_per_task / few.reads_per_task <= 13


def test_a_key_is_run_as_fast_as_its_calls_follow_each_other() -> None:
    """A lock is not written from task to task, so it limits runs of the key and not tasks."""
    fast, rare, batched = (
        one_key(KNOWN, rate=rate, handler=0.1, batch=batch, tasks=500)
        for rate, batch in ((100.0, 1), (0.05, 1), (100.0, 100))
    )
    assert fast.per_second == pytest.approx(1 / (0.1 + 0.03), rel=0.05)
    assert fast.lock_writes_per_second < 0.1
    assert rare.tasks_a_run == pytest.approx(1, abs=0.1)
    assert batched.p99_s < 1
    for rate in (0.5, 1.0, 5.0):
        assert one_key(KNOWN, rate=rate, handler=0.0, tasks=500).lock_writes_per_second <= 1.05


def test_each_kind_has_ranges_of_its_own() -> None:
    """In the indexes that are deployed: so four kinds take four times as much as one."""
    assert all(one.is_of_kind for one in ranges())
    assert [capacity(KNOWN, Settings(kinds=kinds), ranges()) for kinds in (1, 4)] == [500, 2_000]


def test_kinds_share_a_range_as_long_as_an_index_does_not_begin_with_the_kind(tmp_path: Path) -> None:
    """With such indexes only, thirty kinds take thirty times as much."""
    settings = Settings(kinds=30)
    for prefix, wanted in ((["isCancelled"], 500), (["leaseOwner"], 750), (["kind", "isCancelled"], 15_000)):
        path = _indexes(tmp_path, ["kind", "dueAt"], [*prefix, "dueAt"])
        assert capacity(KNOWN, settings, ranges(path)) == wanted


def test_a_range_is_written_by_what_changes_its_entry(tmp_path: Path) -> None:
    """A claimed task leaves those without an owner; what is under random texts is spread."""
    (alone,) = ranges(_indexes(tmp_path, ["leaseOwner", "dueAt"]))
    assert (alone.writes, alone.is_of_kind) == ({"create": 1, "claim": 1, "renew": 0, "complete": 0}, False)
    assert not ranges(_indexes(tmp_path, ["resourceKey", "outcome", "waitUntil"], ["isGenerator", "dueAt"]))
    assert ranges(), "the project's own file has some"


def test_writes_of_one_range_are_committed_in_turn() -> None:
    """After what it takes at once: a second's worth."""
    database = Database(KNOWN, Settings(shards=2), bucket=1)
    assert database.write(0, 500, 0.0) == (0.0, 0.0)
    assert database.write(0, 250, 0.0) == (0.0, 0.5)
    assert database.write(0, 250, 0.1) == (0.5, 1.0)
    assert database.write(1, 100, 0.1) == (0.1, 0.1)
    assert sum(database.busiest.values()) == 1_000


def test_a_claim_that_is_not_committed_yet_is_not_seen_but_refuses_others() -> None:
    """As with any store: what a query has shown may be gone."""
    database, tasks = Database(KNOWN, FEW, bucket=1), Tasks(1_500, 1)
    assert tasks.create(1_500, asked=0.0, now=0.0, database=database) == 2.0
    assert (tasks.find(0, 0.0, 2), tasks.find(0, 1.0, 2)) == ([], [0, 1])
    won, known_at = tasks.claim([0, 1], 1.0, database)
    assert (won, tasks.find(0, 1.0, 2), tasks.claim([0, 1], 1.0, database)) == ([0, 1], [0, 1], ([], known_at))
    assert tasks.find(0, known_at, 2) == [2, 3]
    assert tasks.claimed[2] == NEVER


def test_every_assumption_says_its_unit_and_where_it_comes_from() -> None:
    """None of them hides in the code."""
    lines = list(told(KNOWN))
    assert len(lines) == len(fields(Assumptions))
    assert all(unit and what and Source(source) for _, _, unit, source, what in lines)
    assert KNOWN.money(reads=2, writes=3) == pytest.approx(1.2 + 5.4 + 0.2)


@pytest.mark.parametrize("wrong", [{"shards": 0}, {"workers": -1}, {"ahead": 0}, {"handler": -0.1}])
def test_settings_that_make_no_sense_are_refused_by_name(wrong: Mapping[str, int]) -> None:
    """The message names the setting."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Settings(**wrong)  # type: ignore[arg-type]


def test_every_table_has_rows_of_one_shape_that_json_can_hold() -> None:
    """At a hundredth of their size; the days take as long as ever, and are tested above."""
    for name in TABLES.keys() - {"day", "profile", "burst", "crowd"}:
        rows = list(TABLES[name](KNOWN, 0.005, 1))
        assert rows
        assert all(row.keys() == rows[0].keys() for row in rows), name
        assert all(math.isfinite(value) for row in rows for value in row.values() if not isinstance(value, str)), name


def test_the_command_answers_a_question_in_json() -> None:
    """`ask` takes every setting as an option."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.simulation",
        "ask",
        "--tasks=300",
        "--shards=2",
        "--workers=3",
        "--json",
    ]
    answer = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=20, text=True).stdout)
    assert answer["ask"][0]["tasks"] == 300
    assert answer["seed"] == 1


def _indexes(folder: Path, *indexes: list[str]) -> Path:
    path = folder / "indexes.json"
    listed = [{"collectionGroup": "onceTasks", "fields": [{"fieldPath": one} for one in index]} for index in indexes]
    path.write_text(json.dumps({"indexes": listed}))
    return path
