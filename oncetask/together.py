"""Questions that are asked at the same time, answered by one: thirty keys that begin together read their locks once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

__all__ = ["Together"]

Q = TypeVar("Q")
A = TypeVar("A")


class Together(Generic[Q, A]):
    """Collects what is asked in one iteration of the loop, and asks it in one call in the next."""

    def __init__(self, answer: Callable[[Mapping[str, Q]], Awaitable[Mapping[str, A]]]) -> None:
        """`answer` gives an answer for each name."""
        self._answer = answer
        self._asked: dict[str, tuple[Q, asyncio.Future[A]]] = {}
        self._calls: set[asyncio.Task[None]] = set()

    async def ask(self, name: str, question: Q) -> A:
        """Ask something about `name`. A second question about one name makes the first leave at once."""
        loop = asyncio.get_running_loop()
        if name in self._asked:
            self._send()
        if not self._asked:
            loop.call_soon(self._send)
        answered: asyncio.Future[A] = loop.create_future()
        self._asked[name] = (question, answered)
        return await answered

    def _send(self) -> None:
        asked, self._asked = self._asked, {}
        if not asked:
            return
        call = asyncio.get_running_loop().create_task(self._call(asked))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)

    async def _call(self, asked: Mapping[str, tuple[Q, asyncio.Future[A]]]) -> None:
        try:
            answers = await self._answer({name: question for name, (question, _) in asked.items()})
            settled = [(answered, answers[name]) for name, (_, answered) in asked.items()]
        except BaseException as error:
            for _, answered in asked.values():
                if not answered.done():
                    answered.set_exception(error)
            if not isinstance(error, Exception):
                raise
            return
        for answered, answer in settled:
            if not answered.done():
                answered.set_result(answer)
