"""Writes of which the emulator did not say whether it had applied them: told from what was written upon them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from tests.chaos.ledger import Change

__all__ = ["without_gaps"]


def without_gaps(known: Iterable[Change], doubtful: Iterable[Change], newest: Mapping[str, int | None]) -> list[Change]:
    """Give all changes that were applied, in the order of their versions.

    Each write names the version that it is built upon, so one that nobody is known to have written is that of a
    doubtful one. `newest`: the last version of each document of which something is doubtful; None: it is gone.
    """
    changes, open_questions = list(known), defaultdict[str, list[Change]](list)
    for change in doubtful:
        open_questions[change.task_id].append(change)
    histories: dict[str, list[Change]] = {task_id: [] for task_id in open_questions}
    for change in changes:
        if change.task_id in histories:
            histories[change.task_id].append(change)
    for task_id, questions in open_questions.items():
        changes += _applied(histories[task_id], questions, newest[task_id])
    return sorted(changes, key=lambda change: change.at)  # those of one version stay in their order


def _applied(history: Sequence[Change], questions: list[Change], newest: int | None) -> Iterator[Change]:
    versions = {change.at: change for change in history}
    unexplained = {change.base for change in history if change.base} | ({newest} if newest else set())
    for version in sorted(base for base in unexplained - versions.keys() if base is not None):
        if (found := _built_on(_last(versions, version), questions)) is not None:
            versions[version] = replace(found, at=version)
            yield versions[version]
    last = _last(versions, None)
    if newest is None and last is not None and last.fields is not None:
        deletions = [change for change in questions if change.fields is None]
        if (found := _built_on(last, deletions)) is not None:
            yield found


def _last(versions: Mapping[int, Change], before: int | None) -> Change | None:
    """Give the last change below a version; None: there is none."""
    known = [version for version in versions if before is None or version < before]
    return versions[max(known)] if known else None


def _built_on(last: Change | None, questions: Sequence[Change]) -> Change | None:
    base = 0 if last is None or last.fields is None else last.at
    return next((change for change in questions if change.base == base), None)
