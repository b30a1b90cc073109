"""Whether the demo did what it promises: every result is computed once more, and compared with what is stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from oncetask.cli.demo.work import measure
from oncetask.cli.output import printable
from oncetask.task import TaskStatus

if TYPE_CHECKING:
    from oncetask.cli.demo.files import File
    from oncetask.cli.demo.run import Report
    from oncetask.task import Task

__all__ = ["Check", "check_results"]

_NAMED = 3


@dataclass(frozen=True, slots=True)
class Check:
    """Something promised; `says` what was seen."""

    says: str
    holds: bool


def check_results(report: Report, *, failures: int) -> list[Check]:
    """Check completeness, each result, the retries and the single run."""
    files, tasks = report.found.files, report.tasks
    if len(tasks) != len(files):
        return [Check(f"{len(files)} tasks were enqueued and {len(tasks)} are in the store", holds=False)]
    completed = [task.status is TaskStatus.DONE_COMPLETED for task in tasks]
    checks = [
        _all("tasks completed", "did not complete", files, completed),
        *_check_hashes(files, tasks),
        _check_flaky(tasks[report.flaky], failures),
        _check_twin(report),
    ]
    if report.left:
        checks.append(Check(f"{report.left} tasks of the demo could not be deleted", holds=False))
    return checks


def _check_hashes(files: list[File], tasks: list[Task]) -> list[Check]:
    same: list[bool] = []
    changed: list[str] = []
    for file, task in zip(files, tasks, strict=True):
        try:
            with file.path.open("rb") as opened:
                equal = task.result == measure(opened)
        except OSError:
            equal = False
        if not equal and not file.is_unchanged():
            changed.append(file.name)
        same.append(equal or not file.is_unchanged())
    checks = [_all("stored results equal those computed anew", "differ from those computed anew", files, same)]
    if changed:
        checks.append(Check(f"changed while they were measured, so not compared: {_names(changed)}", holds=True))
    return checks


def _check_flaky(task: Task, failures: int) -> Check:
    tried = [error.attempt for error in task.errors]
    as_wanted = tried == list(range(1, failures + 1)) and task.attempts == failures + 1
    return Check(f"one task failed {len(tried)} times and succeeded at attempt {task.attempts}", holds=as_wanted)


def _check_twin(report: Report) -> Check:
    runs = report.succeeded.get(report.tasks[report.twin].id, 0)
    ran = "once" if runs == 1 else f"{runs} times"
    says = f"one task was enqueued twice (the second time: created={report.second_created}) and ran {ran}"
    return Check(says, holds=runs == 1 and not report.second_created)


def _all(good: str, bad: str, files: list[File], held: list[bool]) -> Check:
    if all(held):
        return Check(f"{len(held):,} of {len(held):,} {good}", holds=True)
    names = [file.name for file, holds in zip(files, held, strict=True) if not holds]
    return Check(f"{len(names):,} of {len(held):,} {bad}: {_names(names)}", holds=False)


def _names(names: list[str]) -> str:
    shown = ", ".join(printable(name) for name in names[:_NAMED])
    return shown + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
