"""Waking between ticks: who sees to it that a tick runs when a task is due.

A waker is a hint on top of the ticks and never replaces them: what it misses, the next tick or worker finds. Nobody has
to wake where Firestore itself does, by a trigger on created documents (`oncetask.functions.on_task_created`).
"""

from oncetask.waking.alarm import CloudTasksAlarm
from oncetask.waking.environment import waker_from_environment
from oncetask.waking.kick import HttpKick
from oncetask.waking.port import NoWaker, Waker

__all__ = ["CloudTasksAlarm", "HttpKick", "NoWaker", "Waker", "waker_from_environment"]
