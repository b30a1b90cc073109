"""What stores have in common that know no write batches and transactions of the caller's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from oncetask.errors import Unsupported
from oncetask.store import TaskStore

if TYPE_CHECKING:
    from collections.abc import Sequence

    from oncetask.lifecycle import Transition
    from oncetask.task import Task

__all__ = ["BatchlessStore"]


class BatchlessStore(TaskStore):
    """A store whose users have no writes of their own to join."""

    what: str
    """What this store is, for messages."""

    def new_batch(self) -> NoReturn:
        """There is no write batch."""
        self._no_batch()

    def create_in(self, batch: Any, task: Task) -> NoReturn:  # noqa: ARG002  # the port's signature
        """There is no transaction to join."""
        self._no_batch()

    def change_in(self, batch: Any, transitions: Sequence[Transition]) -> NoReturn:  # noqa: ARG002  # as above
        """There is no transaction to join."""
        self._no_batch()

    def _no_batch(self) -> NoReturn:
        msg = f"write batches and transactions of the caller's need a Firestore store; this one is {self.what}"
        raise Unsupported(msg)
