"""What a benchmark says: figures by name, the bars that some of them have to keep, and how both are shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

__all__ = ["Bar", "Section", "at_least", "at_most", "exactly", "show"]

Figures = Mapping[str, float]


@dataclass(frozen=True)
class Bar:
    """Between which bounds a figure has to be; both count as kept."""

    lowest: float | None = None
    highest: float | None = None

    def holds(self, figure: float) -> bool:
        """Tell whether a figure keeps it."""
        return (self.lowest is None or figure >= self.lowest) and (self.highest is None or figure <= self.highest)

    def __str__(self) -> str:
        if self.lowest == self.highest:
            return f"exactly {self.lowest:,g}"
        if self.highest is None:
            return f"at least {self.lowest:,g}"
        return f"at most {self.highest:,g}"


def at_least(bound: float) -> Bar:
    """Make the bar of a figure that should be high."""
    return Bar(lowest=bound)


def at_most(bound: float) -> Bar:
    """Make the bar of a figure that should be low."""
    return Bar(highest=bound)


def exactly(value: float) -> Bar:
    """Make the bar of a figure that has one right value."""
    return Bar(value, value)


@dataclass(frozen=True)
class Section:
    """The figures of one benchmark."""

    title: str
    figures: Figures
    bars: Mapping[str, Bar] = field(default_factory=dict)

    def missed(self) -> Iterable[str]:
        """Name the figures that do not keep their bar; one that was not measured misses nothing."""
        return [name for name, bar in self.bars.items() if name in self.figures and not bar.holds(self.figures[name])]


def show(section: Section) -> None:
    """Print a section as a table."""
    missed = section.missed()
    print(section.title)
    for name, figure in section.figures.items():
        bar = section.bars.get(name)
        told = "" if bar is None else f"  {'MISSED: ' if name in missed else ''}{bar}"
        print(f"  {name.replace('_', ' '):38} {figure:14,.2f}{told}")
    print(flush=True)
