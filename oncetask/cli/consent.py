"""Asking before what cannot be undone."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from oncetask.cli.exits import BadInput, NotDone

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ask", "has_somebody_to_ask"]


def ask(question: Callable[[], str], *, what: str, otherwise: str, as_json: bool) -> None:
    """Ask a person, and return after a yes.

    `question` is made only where somebody can answer it. Raises NotDone, saying `otherwise`, after a no, and BadInput
    where nobody is here to ask; `what` says who wanted to: "delete asks before it deletes".
    """
    if as_json or not has_somebody_to_ask():
        raise BadInput(f"{what}, and nobody is here to answer: give --yes")
    if not typer.confirm(question(), err=True):
        raise NotDone(otherwise)


def has_somebody_to_ask() -> bool:
    """Tell whether a person can answer."""
    return sys.stdin.isatty()
