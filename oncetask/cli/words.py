"""A recurrence in words: what its rule says, and what it leaves open and so takes from its beginning.

`ruling.py` finds the words for the days and times of an RRULE, cronsim those for a cron expression. All of it is about
the wall clock of the recurrence's zone, which is not named here.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from cronsim import CronSim

from oncetask.cli.phrases import ordinal
from oncetask.cli.ruling import rule_in_words
from oncetask.clock import EPOCH
from oncetask.recurrence.crons import NICKNAMES
from oncetask.recurrence.parts import parse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from oncetask.recurrence import Recurrence

__all__ = ["in_words"]


def in_words(recurrence: Recurrence) -> str:
    """Say a recurrence in English: `every 2 weeks on Monday and Wednesday at 09:00, 5 times`."""
    start = recurrence.dtstart.astimezone(ZoneInfo(recurrence.timezone)).replace(tzinfo=None)
    if recurrence.cron_expression is not None:
        rule = _cron(recurrence.cron_expression)
    else:
        rule = rule_in_words(parse(recurrence.rrule or ""), start)
    return ", ".join([rule, *_left_out(recurrence)])


def _cron(expression: str) -> str:
    """Take cronsim's words, in the style of ours: it begins with a capital, and knows no 22nd."""
    words = CronSim(NICKNAMES.get(expression.strip().lower(), expression), EPOCH).explain()
    words = re.sub(r"\b(\d+)th\b", lambda match: ordinal(int(match[1])), words)
    return words[0].lower() + words[1:].replace(", and ", " and ")


def _left_out(recurrence: Recurrence) -> Iterator[str]:
    if number := len(recurrence.exdates):
        yield f"without {number} of its dates"
