"""Recurrence: rules that give instants, and what a generator does at them. Pure; nothing here reads a clock.

`model.py` is what users see. `parts.py` reads an RRULE, `days.py` and `times.py` expand it, `walk.py` joins the two,
`crons.py` does the same for cron; both on a wall clock, which `wallclock.py` brings to the time of the world.
`planning.py` decides what a generator spawns.
"""

from oncetask.recurrence.model import CatchUp, Overlap, Recurrence
from oncetask.recurrence.planning import MOST_AT_ONCE, Plan, begin, plan

__all__ = ["MOST_AT_ONCE", "CatchUp", "Overlap", "Plan", "Recurrence", "begin", "plan"]
