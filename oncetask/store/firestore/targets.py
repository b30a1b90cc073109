"""What is known of one target of a `Listen` stream, and what of it is billed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from oncetask.store.firestore.codec import micros

if TYPE_CHECKING:
    from oncetask.store.firestore.listen import Watch
    from oncetask.store.firestore.rpc import Pb

__all__ = ["Target"]


@dataclass(eq=False, slots=True)
class Target:
    """A query, or a document by its name, that the server tells about."""

    request: Pb
    watch: Watch
    found: dict[str, Pb] = field(default_factory=dict)
    billed: dict[str, int] = field(default_factory=dict)
    """The versions of what was told since the target was added, and is not known to be gone.

    To each change the emulator tells all documents of a target anew, and of those that are gone nothing.
    """
    current: bool = False
    """The server has sent everything that matched when the target was added."""
    asked_again: bool = False

    def forget(self) -> None:
        """Begin anew; what is told again is not billed again."""
        self.found.clear()
        self.current = False

    def take_in(self, document: Pb) -> bool:
        """Take in what the server tells; true where that is billed."""
        name, version = document.name, micros(document.update_time)
        is_news = self.billed.get(name) != version
        self.found[name], self.billed[name] = document, version
        return is_news

    def drop(self, name: str) -> bool:
        """Forget a document; true where it was there."""
        self.found.pop(name, None)
        return self.billed.pop(name, None) is not None

    def take_stock(self) -> int:
        """Note that everything has been told; gives how many documents have gone without a word."""
        self.current = True
        gone = self.billed.keys() - self.found.keys()
        return sum(self.drop(name) for name in gone)
