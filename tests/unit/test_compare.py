"""The regression check between two results of the benchmarks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.compare import Better, direction, main

FIGURES = {
    "drain_of_floor": 0.8,
    "reads_per_task": 1.0,
    "refused_claims": 0.0,
    "drain_per_second": 5_000.0,
    "idle_to_start_ms": 4.0,
    "memory_mb": 100.0,
    "race_instants": 50.0,
}


def run(*sections: dict[str, Any]) -> dict[str, Any]:
    """Make the document of a run."""
    return {
        "python": "3.11.7",
        "cpus": 2,
        "oncetask": "0.1.0",
        "commit": "abc",
        "when": "2026-11-22T12:00:00Z",
        "sections": list(sections),
    }


def section(name: str = "drain_sqlite", *missed: str) -> dict[str, Any]:
    """Make a section with the usual figures."""
    return {"title": f"title of {name}", "name": name, "figures": FIGURES, "missed": missed}


def changed(**figures: float) -> dict[str, Any]:
    """Make the usual section with some figures changed, or added."""
    return {**section(), "figures": {**FIGURES, **figures}}


def compared(folder: Path, before: object, after: object, *options: str) -> int:
    """Compare two documents; gives the exit status."""
    paths = [folder / "before.json", folder / "after.json"]
    for path, document in zip(paths, (before, after), strict=True):
        path.write_text(document if isinstance(document, str) else json.dumps(document))
    try:
        main([*map(str, paths), *options])
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def lines(text: str) -> dict[str, str]:
    """Give the lines of the table by the name of their figure."""
    return {
        name.replace(" ", "_"): line for line in text.splitlines() for name in [line[2:40].strip()] if line[:2] == "  "
    }


def test_the_same_run_twice_is_no_regression(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is worse, and the last line says so."""
    assert compared(tmp_path, run(section()), run(section())) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "no regression"


@pytest.mark.parametrize(
    ("figure", "value", "status"),
    [
        ("drain_of_floor", 0.72, 0),  # exactly the tolerance, though 0.72 / 0.8 is not exactly 0.9
        ("drain_of_floor", 0.719, 1),
        ("drain_of_floor", 1.6, 0),
        ("reads_per_task", 1.1, 0),
        ("reads_per_task", 1.101, 1),
        ("reads_per_task", 0.5, 0),
        ("refused_claims", 1.0, 1),  # from none at all, any number is more
        ("drain_per_second", 1.0, 0),
        ("idle_to_start_ms", 400.0, 0),
        ("memory_mb", 1_000.0, 0),
        ("race_instants", 1.0, 0),
    ],
)
def test_only_ratios_and_counts_are_judged(tmp_path: Path, figure: str, value: float, status: int) -> None:
    """Beyond the tolerance, and to the wrong side."""
    assert compared(tmp_path, run(section()), run(changed(**{figure: value}))) == status


@pytest.mark.parametrize(
    ("figure", "value", "status"),
    [
        ("drain_per_second", 4_499.0, 1),
        ("drain_per_second", 9_000.0, 0),
        ("idle_to_start_ms", 4.5, 1),
        ("memory_mb", 111.0, 1),
        ("memory_mb", 11.0, 0),
        ("race_instants", 1.0, 0),
    ],
)
def test_absolute_figures_are_judged_where_that_is_asked_for(
    tmp_path: Path, figure: str, value: float, status: int
) -> None:
    """A name that says nothing about its direction is not judged even then."""
    assert compared(tmp_path, run(section()), run(changed(**{figure: value})), "--absolute") == status


def test_the_tolerance_is_an_option(tmp_path: Path) -> None:
    """A share of the first figure."""
    slower = run(changed(reads_per_task=1.4))
    assert compared(tmp_path, run(section()), slower, "--tolerance", "0.4") == 0
    assert compared(tmp_path, run(section()), slower, "--tolerance", "0.39") == 1


@pytest.mark.parametrize("tolerance", ["-0.1", "inf", "nan", "much"])
def test_a_tolerance_is_a_share(tmp_path: Path, tolerance: str) -> None:
    """Anything else is bad usage."""
    assert compared(tmp_path, run(section()), run(section()), f"--tolerance={tolerance}") == 2


def test_a_bar_that_is_newly_missed_is_a_regression(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One that was missed before is not, and one that is kept again even less."""
    kept, missing = run(section()), run(section("drain_sqlite", "drain_per_second"))
    assert compared(tmp_path, kept, missing) == 1
    assert "newly missed: drain_sqlite.drain_per_second" in capsys.readouterr().out
    assert compared(tmp_path, missing, missing) == 0
    assert compared(tmp_path, missing, kept) == 0


def test_the_table_tells_every_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both values, the change, and what is to be thought of it."""
    after = changed(reads_per_task=1.5, drain_of_floor=1.0, drain_per_second=4_000.0, race_instants=60.0)
    assert compared(tmp_path, run(section()), run(after)) == 1
    out = capsys.readouterr().out
    table = lines(out)
    assert table["reads_per_task"].split() == ["reads", "per", "task", "1.00", "1.50", "+50.0%", "worse"]
    assert table["drain_of_floor"].endswith("+25.0%  better")
    assert table["drain_per_second"].endswith("5,000.00       4,000.00    -20.0%  worse, not judged")
    assert table["race_instants"].endswith("+20.0%  not judged")
    assert table["memory_mb"].endswith("+0.0%")
    assert out.splitlines()[-1] == "worse: drain_sqlite.reads_per_task"


def test_what_only_one_run_has_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Sections and figures alike; that is no regression."""
    before, after = changed(old_per_task=1.0), changed(new_per_task=1.0)
    assert compared(tmp_path, run(before, section("gone")), run(after, section("added"))) == 0
    out = capsys.readouterr().out
    assert "\nadded: only after\n" in out
    assert "\ngone: only before\n" in out
    assert lines(out)["old_per_task"].endswith("only before")
    assert lines(out)["new_per_task"].endswith("only after")


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{", "Expecting property name"),
        ([], "the whole: must be an object, is []"),
        ({}, "sections: is missing"),
        ({"sections": {}}, "sections: must be a list, is {}"),
        ({"sections": [1]}, "sections[0]: must be an object, is 1"),
        (run(section(), section()), "sections[1].name: must be unlike all others, is 'drain_sqlite' again"),
        (run({**section(), "title": 1}), "sections[0].title: must be a text, is 1"),
        (run({**section(), "missed": None}), "sections[0].missed: must be a list, is None"),
        (run({**section(), "figures": []}), "sections[0].figures: must be an object, is []"),
        (run({**section(), "figures": {"x": "1"}}), "sections[0].figures.x: must be a finite number, is '1'"),
        (run({**section(), "figures": {"x": True}}), "sections[0].figures.x: must be a finite number, is True"),
        (run(changed(x=float("nan"))), "sections[0].figures.x: must be a finite number, is nan"),
    ],
)
def test_a_file_of_another_shape_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], document: object, message: str
) -> None:
    """The message names the file and the field."""
    assert compared(tmp_path, run(section()), document) == 2
    error = capsys.readouterr().err
    assert error.startswith(str(tmp_path / "after.json"))
    assert message in error


def test_a_file_that_is_not_there_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The message names it."""
    with pytest.raises(SystemExit, match="2"):
        main([str(tmp_path / "none.json"), str(tmp_path / "none.json")])
    assert "none.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "better", "judged"),
    [
        ("enqueue_of_floor", Better.HIGHER, True),
        ("four_of_one", Better.HIGHER, True),
        ("two_of_one_with_20_ms", Better.HIGHER, True),
        ("workers_4_refused_claims_percent", Better.LOWER, True),
        ("bulk_cancel_rpcs_per_500", Better.LOWER, True),
        ("refused_writes", Better.LOWER, True),
        ("writes_per_second", Better.HIGHER, False),
        ("concurrent_limits_last_ms_late", Better.LOWER, False),
        ("race_run_once", None, False),
    ],
)
def test_a_name_says_which_way_its_figure_improves(name: str, better: Better | None, judged: bool) -> None:
    """By its unit, or by what it counts."""
    assert direction(name) == (better, judged)
