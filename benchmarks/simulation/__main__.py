"""Print what the simulation says: the tables of docs/scaling.md, or the answer to a question of your own."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from functools import partial
from typing import Any

from benchmarks.simulation.assumptions import Assumptions, Settings, told
from benchmarks.simulation.scenarios import TABLES, Row, question

_LARGE = 1_000


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulation", description=__doc__)
    names = [*TABLES, "assumptions", "ask"]
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=f"{', '.join(names)}; none: all but ask")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--seed", type=int, default=1, help="the same seed gives the same result")
    parser.add_argument("--scale", type=float, default=1.0, help="how large the runs are (0.01: in a second)")
    own = parser.add_argument_group("ask: a burst with settings of your own")
    own.add_argument("--tasks", type=int, default=100_000)
    for one in fields(Settings):
        _add(own, one.name, one.default)
    asked = parser.parse_args()
    if unknown := set(asked.tables) - set(names):
        parser.error(f"there is no table {min(unknown)!r}; there are: {', '.join(names)}")
    known = Assumptions()
    chosen: dict[str, Callable[[], Iterable[Row]]] = {
        **{name: partial(make, known, asked.scale, asked.seed) for name, make in TABLES.items()},
        "assumptions": partial(_assumptions, known),
        "ask": partial(_answer, known, asked, parser.error),
    }
    answers: dict[str, Any] = {}
    for name in asked.tables or names[:-1]:
        began = time.perf_counter()
        rows = list(chosen[name]())
        if asked.json:
            answers[name] = rows
        else:
            _show(name, getattr(TABLES.get(name), "__doc__", "") or "", rows, time.perf_counter() - began)
    if asked.json:
        print(json.dumps({"seed": asked.seed, "scale": asked.scale, **answers}, indent=2))


def _add(group: Any, name: str, default: object) -> None:
    if isinstance(default, bool):
        group.add_argument(f"--{name}", action=argparse.BooleanOptionalAction, default=default)
    else:
        group.add_argument(f"--{name}", type=float if isinstance(default, float) else int, default=default)


def _assumptions(known: Assumptions) -> Iterable[Row]:
    for name, value, unit, source, what in told(known):
        yield {"name": name, "value": f"{value:g}", "unit": unit, "source": source, "what": what}


def _answer(known: Assumptions, asked: argparse.Namespace, fail: Callable[[str], Any]) -> Iterable[Row]:
    try:
        settings = Settings(**{one.name: getattr(asked, one.name) for one in fields(Settings)})
    except ValueError as error:
        fail(str(error))
        raise
    return question(known, settings, tasks=asked.tasks, seed=asked.seed)


def _show(name: str, title: str, rows: list[Row], seconds: float) -> None:
    """Print rows under their columns; where the columns change a new table begins."""
    print(f"{name}: {title}".rstrip(": "), f"({seconds:.1f} s)")
    while rows:
        columns = list(rows[0])
        part = [row for row in rows if list(row) == columns]
        rows = [row for row in rows if list(row) != columns]
        cells = [columns, *([_cell(row, column) for column in columns] for row in part)]
        widths = [max(len(line[n]) for line in cells) for n in range(len(columns))]
        for line in cells:
            print("  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    print(flush=True)


def _cell(row: Mapping[str, str | float], column: str) -> str:
    value = row[column]
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if float(value).is_integer() or abs(value) >= _LARGE else f"{value:,.2f}"


if __name__ == "__main__":
    main()
