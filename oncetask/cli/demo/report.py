"""The demo's closing words, all from the tasks as the store has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from oncetask.cli.output import Column, printable
from oncetask.cli.records import as_json
from oncetask.cli.session import program

if TYPE_CHECKING:
    from oncetask.cli.demo.run import Report
    from oncetask.cli.output import Output
    from oncetask.task import Task

__all__ = ["print_report", "report_as_json"]

_LARGEST = 5
_SKIPPED = 10
_PREFIX = 12
_NEXT = (
    ("--help", "what else there is"),
    ("demo --keep", "keep the tasks, then look at them with list, show and stats"),
    ("demo FOLDER", "the same on your own files"),
    ("worker MODULE:APP", "run the tasks of your own App: README.md tells how to write one"),
)


def print_report(output: Output, report: Report) -> None:
    """Print sums, the largest files, what was special, what was checked, and what to try next."""
    totals = _totals(report)
    columns = [Column(name, number=True) for name in totals]
    output.table(columns, [[_figure(value) for value in totals.values()]], title="Measured", drawn=True)
    output.text("")
    largest = sorted(_results(report), key=lambda each: -each[1]["bytes"])[:_LARGEST]
    output.table(
        [*(Column(name, number=True) for name in ("bytes", "lines", "words")), Column("sha256"), Column("file")],
        [
            [*(f"{result[name]:,}" for name in ("bytes", "lines", "words")), result["sha256"][:_PREFIX] + "…", name]
            for name, result in largest
        ],
        title="Largest files",
        drawn=True,
    )
    output.text("")
    _print_flaky(output, report.found.files[report.flaky].name, report.tasks[report.flaky])
    for skipped in report.found.skipped[:_SKIPPED]:
        output.text(f"skipped  {printable(skipped)}", "yellow")
    if (more := len(report.found.skipped) - _SKIPPED) > 0:
        output.text(f"skipped  {more} more", "yellow")
    if report.found.more:
        output.text(f"There are more files than {len(report.tasks):,}: --most N takes more.", "yellow")
    for check in report.checks:
        output.text(f"{'ok' if check.holds else 'WRONG':<9}{check.says}", "green" if check.holds else "red")
    output.text("")
    output.text(report.fate)
    output.text("Next:")
    for command, what in _NEXT:
        output.text(f"  {program()} {command:<19}{what}")


def report_as_json(report: Report) -> dict[str, Any]:
    """Give the same for programs, with every file."""
    return {
        "ok": all(check.holds for check in report.checks),
        "where": report.where,
        "folder": str(report.found.root),
        "totals": _totals(report),
        "files": [{"file": name, **result} for name, result in _results(report)],
        "failsTwice": as_json(report.tasks[report.flaky]) if report.tasks else None,
        "enqueuedTwice": {
            "taskId": report.tasks[report.twin].id if report.tasks else None,
            "created": report.second_created,
            "runs": report.succeeded.get(report.tasks[report.twin].id, 0) if report.tasks else 0,
        },
        "skipped": report.found.skipped,
        "more": report.found.more,
        "checks": [{"holds": check.holds, "says": check.says} for check in report.checks],
        "fate": report.fate,
    }


def _results(report: Report) -> list[tuple[str, dict[str, Any]]]:
    pairs = zip(report.found.files, report.tasks, strict=False)
    return [(file.name, task.result) for file, task in pairs if isinstance(task.result, dict)]


def _totals(report: Report) -> dict[str, int | float]:
    results = [result for _, result in _results(report)]
    sums: dict[str, int | float] = {name: sum(r[name] for r in results) for name in ("bytes", "lines", "words")}
    seconds = round(report.seconds, 3)
    return {
        "files": len(results),
        **sums,
        "seconds": seconds,
        "tasks/s": round(len(report.tasks) / seconds, 1) if seconds else 0.0,
    }


def _figure(value: float) -> str:
    return f"{value:,}"


def _print_flaky(output: Output, name: str, task: Task) -> None:
    output.text(f"Fails twice before it succeeds (0.1 s and 0.2 s apart): {printable(name)}", "bold")
    for error in task.errors:
        output.text(f"  attempt {error.attempt}  {error.type}: {printable(error.message)}", "red")
    output.text(f"  attempt {task.attempts}  {task.status}", "green")
    output.text("")
