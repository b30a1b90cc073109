"""Tells whether something became worse between two results of `python -m benchmarks --output FILE`.

Two runs are seldom equally fast: on another machine, or beside other work, every rate differs. So what is judged is
what hardly depends on that: ratios within one run, as to the floor, and counts, as of reads for each task. Rates,
times and sizes are only told, unless `--absolute` asks to judge them too, as is right for two runs on one quiet
machine. A bar that is missed and was not missed before is a regression as well.

The exit status is 0 without a regression, 1 with one, 2 if a file cannot be read.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

__all__ = ["Change", "Measured", "Run", "Unreadable", "changes", "direction", "load", "main", "newly_missed"]


class Unreadable(Exception):
    """A file is not the result of a run; the message names the file, the field and what would be right."""


class Better(Enum):
    """Which way a figure improves."""

    HIGHER = 1
    LOWER = -1


_RULES = (
    (re.compile(r"_of_(floor|one)(_|$)"), Better.HIGHER, True),
    (re.compile(r"_(per_task|percent)$"), Better.LOWER, True),
    (re.compile(r"_per_second$"), Better.HIGHER, False),
    (re.compile(r"_(ms|ms_late|mb|seconds)$"), Better.LOWER, False),
    (re.compile(r"(^|_)(reads|writes|rpcs|refused|aborted)(_|$)"), Better.LOWER, True),
)
"""What the name of a figure says: which way it improves, and whether it is judged between different machines."""


@dataclass(frozen=True)
class Measured:
    """One section of a run."""

    title: str
    figures: Mapping[str, float]
    missed: frozenset[str]


@dataclass(frozen=True)
class Run:
    """What a file tells of one run."""

    about: str
    sections: Mapping[str, Measured]


@dataclass(frozen=True)
class Change:
    """A figure in two runs; None where a run does not have it."""

    name: str
    before: float | None
    after: float | None

    @property
    def share(self) -> float | None:
        """By which share of the first figure the second one is higher; None where one is missing."""
        if self.before is None or self.after is None:
            return None
        if self.before == self.after:
            return 0.0
        return (self.after - self.before) / abs(self.before) if self.before else math.copysign(math.inf, self.after)

    def verdict(self, tolerance: float, *, absolute: bool) -> str:
        """Say `worse`, `better`, what stands in the way of saying so, or nothing if it is much the same."""
        if self.share is None:
            return "only after" if self.before is None else "only before"
        better, judged = direction(self.name)
        if better is None:
            return "not judged"
        # At the tolerance itself nothing has changed, whatever the last binary digit says.
        if abs(self.share) <= tolerance or math.isclose(abs(self.share), tolerance):
            return ""
        word = "better" if self.share * better.value > 0 else "worse"
        return word if judged or absolute else f"{word}, not judged"


def direction(name: str) -> tuple[Better | None, bool]:
    """Tell from a name which way the figure improves, and whether it is judged between different machines."""
    for pattern, better, comparable in _RULES:
        if pattern.search(name):
            return better, comparable
    return None, False


def changes(before: Measured, after: Measured) -> list[Change]:
    """Pair the figures of a section: in the order of the second run, then those that only the first one has."""
    names = [*after.figures, *(name for name in before.figures if name not in after.figures)]
    return [Change(name, before.figures.get(name), after.figures.get(name)) for name in names]


def newly_missed(before: Run, after: Run) -> list[str]:
    """Name the bars that the second run misses and the first one did not, as `section.figure`."""
    old = {(name, bar) for name, section in before.sections.items() for bar in section.missed}
    new = {(name, bar) for name, section in after.sections.items() for bar in section.missed}
    return [f"{name}.{bar}" for name, bar in sorted(new - old)]


def load(path: Path) -> Run:
    """Read the result of a run; raises `Unreadable`."""
    try:
        document = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise Unreadable(f"{path}: {error}") from error
    try:
        return _run(document)
    except Unreadable as error:
        raise Unreadable(f"{path}: {error}") from None


def _run(document: Any) -> Run:
    read = [_section(part, f"sections[{n}]") for n, part in enumerate(_field(document, "sections", list))]
    names = [name for name, _ in read]
    for n, name in enumerate(names):
        if name in names[:n]:
            raise Unreadable(f"sections[{n}].name: must be unlike all others, is {name!r} again")
    about = [f"{key} {document[key]}" for key in ("oncetask", "commit", "python", "cpus", "when") if key in document]
    return Run(", ".join(about), dict(read))


def _section(document: Any, where: str) -> tuple[str, Measured]:
    figures = _field(document, "figures", dict, where)
    for name, figure in figures.items():
        if isinstance(figure, bool) or not isinstance(figure, int | float) or not math.isfinite(figure):
            raise Unreadable(f"{where}.figures.{name}: must be a finite number, is {figure!r}")
    missed = _field(document, "missed", list, where)
    title, name = (_field(document, field, str, where) for field in ("title", "name"))
    return name, Measured(title, figures, frozenset(map(str, missed)))


def _field(document: Any, name: str, kind: type, where: str = "") -> Any:
    """Take a field out of an object, or raise `Unreadable` with the place that is wrong."""
    words: dict[type, str] = {dict: "an object", list: "a list", str: "a text"}
    if not isinstance(document, dict):
        raise Unreadable(f"{where or 'the whole'}: must be an object, is {document!r:.50}")
    path = f"{where}.{name}".lstrip(".")
    if name not in document:
        raise Unreadable(f"{path}: is missing")
    if not isinstance(document[name], kind):
        raise Unreadable(f"{path}: must be {words[kind]}, is {document[name]!r:.50}")
    return document[name]


def report(before: Run, after: Run, tolerance: float, *, absolute: bool) -> Iterator[str]:
    """Print what changed, section by section; gives the regressions, as `section.figure`."""
    print(f"before: {before.about}\nafter:  {after.about}\n")
    for name in [*after.sections, *(name for name in before.sections if name not in after.sections)]:
        if name not in before.sections or name not in after.sections:
            print(f"{name}: only {'after' if name in after.sections else 'before'}\n")
            continue
        print(f"{after.sections[name].title} ({name})")
        for change in changes(before.sections[name], after.sections[name]):
            verdict = change.verdict(tolerance, absolute=absolute)
            share = "" if change.share is None else f"{change.share:+.1%}"
            shown = f"{_shown(change.before)} {_shown(change.after)} {share:>9}"
            print(f"  {change.name.replace('_', ' '):38} {shown}  {verdict}".rstrip())
            if verdict == "worse":
                yield f"{name}.{change.name}"
        print()


def _shown(figure: float | None) -> str:
    return f"{'-' if figure is None else format(figure, ',.2f'):>14}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare two files, and end with the status that says whether something became worse."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("before", type=Path, metavar="BEFORE.json")
    parser.add_argument("after", type=Path, metavar="AFTER.json")
    parser.add_argument("--tolerance", type=_tolerance, default=0.1, help="the share that means nothing (default: 0.1)")
    parser.add_argument("--absolute", action="store_true", help="judge rates, times and sizes, too")
    asked = parser.parse_args(arguments)
    try:
        before, after = load(asked.before), load(asked.after)
    except Unreadable as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    worse = list(report(before, after, asked.tolerance, absolute=asked.absolute))
    missed = newly_missed(before, after)
    for what, names in (("worse", worse), ("newly missed", missed)):
        if names:
            print(f"{what}: {', '.join(names)}")
    if worse or missed:
        sys.exit(1)
    print("no regression")


def _tolerance(text: str) -> float:
    share = float(text)
    if not 0 <= share < math.inf:
        raise argparse.ArgumentTypeError(f"{text}: must be a share of at least 0, as 0.1 for 10 %")
    return share


if __name__ == "__main__":
    main()
