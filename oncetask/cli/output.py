"""What commands write: tables for people, tab-separated lines for pipes, JSON for programs. Messages go to stderr."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from oncetask.cli.records import plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Column", "Output", "printable"]


_GAP = 2
_NARROWEST_LAST = 30


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table."""

    title: str
    number: bool = False
    style: str = ""
    may_be_cut: bool = False
    """On a terminal: only what fits; the others are folded, so that ids stay whole. For the last column."""


class Output:
    """Where one command writes to."""

    def __init__(self, *, as_json: bool = False) -> None:
        """`as_json`: stdout is for JSON and nothing else."""
        self.as_json = as_json
        self.stdout = Console(markup=False, highlight=False, emoji=False)
        self.stderr = Console(markup=False, highlight=False, emoji=False, stderr=True)
        self.is_terminal = self.stdout.is_terminal

    def document(self, value: Any) -> None:  # whatever JSON can say
        """Write the one JSON document of a command."""
        print(json.dumps(plain(value), indent=2))

    def line(self, value: Any) -> None:  # whatever JSON can say
        """Write one of many JSON documents, a line each."""
        print(json.dumps(plain(value)), flush=True)

    def event(self, **event: Any) -> None:  # whatever JSON can say
        """Write what has happened to a command that goes on; for people it stands in the log."""
        if self.as_json:
            self.line(event)

    def text(self, text: str, style: str = "") -> None:
        """Write a line for people to stdout, as long as it is."""
        self.stdout.print(Text(text, style=style), soft_wrap=True)

    def note(self, text: str, style: str = "") -> None:
        """Write a message to stderr."""
        self.stderr.print(Text(printable(text), style=style), soft_wrap=True)

    def table(
        self, columns: Sequence[Column], rows: Iterable[Sequence[str]], *, title: str | None = None, drawn: bool = False
    ) -> None:
        """Write a table: drawn on a terminal, else a heading and lines, their fields separated by tabs.

        `drawn`: everywhere, since it is part of a report.
        """
        if not (drawn or self.is_terminal):
            for row in ([column.title for column in columns], *rows):
                sys.stdout.write("\t".join(printable(cell) for cell in row) + "\n")
            return
        listed = [[printable(cell) for cell in row] for row in rows]
        table = _draw(columns, listed, title)
        if columns[-1].may_be_cut:
            others = _draw(columns[:-1], [row[:-1] for row in listed], title)
            room = self.stdout.width - self.stdout.measure(others).maximum - _GAP
            if room < _NARROWEST_LAST:  # no room beside the others: below them, for the rows that have something there
                self.stdout.print(others)
                if any(row[-1] for row in listed):
                    self.stdout.print()
                listed = [[row[0], row[-1]] for row in listed if row[-1]]
                table = _draw([columns[0], columns[-1]], listed, None)
            else:
                table.columns[-1].max_width = room
        if listed:
            self.stdout.print(table)


def _draw(columns: Sequence[Column], rows: Sequence[Sequence[str]], title: str | None) -> Table:
    table = Table(
        box=None, title=title, title_justify="left", title_style="bold", padding=(0, _GAP, 0, 0), pad_edge=False
    )
    for column in columns:
        table.add_column(
            column.title,
            justify="right" if column.number else "left",
            no_wrap=column.may_be_cut or column.number,
            overflow="ellipsis" if column.may_be_cut else "fold",
            header_style="dim",
            style=column.style or None,
        )
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def printable(text: str) -> str:
    """Escape what a terminal would obey instead of show: anybody may have written a task's texts."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
