"""Processes of a test: started, listened to, stopped, and gone with it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

__all__ = ["LIMIT", "Program", "Programs", "eventually"]

LIMIT = 30.0
"""Seconds after which a test gives up waiting; nothing takes nearly as long."""

_ROOT = Path(__file__).parents[3]


async def eventually(holds: Callable[[], Awaitable[bool]], *, seconds: float = LIMIT) -> None:
    """Look until something holds of what nobody tells of; fails loudly after so many seconds."""
    async with asyncio.timeout(seconds):
        while not await holds():  # noqa: ASYNC110  # there is no event of it
            await asyncio.sleep(0.03)


class Program:
    """A process whose output is read as it comes."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        """Listen from now on."""
        self.process = process
        self.out: list[str] = []
        self.log: list[str] = []
        self._news = asyncio.Condition()
        assert process.stdout is not None
        assert process.stderr is not None
        self._listening = [
            asyncio.create_task(self._listen(process.stdout, self.out)),
            asyncio.create_task(self._listen(process.stderr, self.log)),
        ]

    @property
    def pid(self) -> int:
        """Its number."""
        return self.process.pid

    async def logged(self, *words: str) -> str:
        """Wait for a line of its log that has all of these words; fails loudly, and when it ends without one."""
        return await self._line(self.log, words)

    async def told(self) -> Any:
        """Wait for its first line on stdout, which is JSON."""
        return json.loads(await self._line(self.out, ()))

    async def stopped(self) -> None:
        """Wait until it was stopped by a signal, which it may have sent itself; fails loudly where it ends instead."""
        status = Path(f"/proc/{self.pid}/stat")

        async def is_stopped() -> bool:  # whoever waited for it would wait for ever where it ends instead
            state = await asyncio.to_thread(_state_in, status)
            assert state != "Z", "\n".join(self.log)
            return state == "T"

        await eventually(is_stopped)

    def go_on(self) -> None:
        """Let a stopped one go on."""
        self.process.send_signal(signal.SIGCONT)

    async def terminated(self) -> int:
        """Tell it to end, and wait for that; gives its exit code."""
        self.process.terminate()
        return await self.ended()

    async def ended(self) -> int:
        """Wait for its end; gives its exit code."""
        code = await asyncio.wait_for(self.process.wait(), LIMIT)
        await asyncio.wait_for(asyncio.gather(*self._listening), LIMIT)
        return code

    async def aclose(self) -> None:
        """Kill it, stopped or not, with all that it has started."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        await self.ended()

    async def _listen(self, stream: asyncio.StreamReader, lines: list[str]) -> None:
        async for line in stream:
            async with self._news:
                lines.append(line.decode(errors="replace").rstrip("\n"))
                self._news.notify_all()
        async with self._news:
            self._news.notify_all()

    async def _line(self, lines: list[str], words: tuple[str, ...]) -> str:
        def found() -> str | None:
            return next((line for line in lines if all(word in line for word in words)), None)

        def is_over() -> bool:
            return found() is not None or all(task.done() for task in self._listening)

        with suppress(TimeoutError):
            async with asyncio.timeout(LIMIT), self._news:
                await self._news.wait_for(is_over)
        line = found()
        assert line is not None, f"it never said {words}, but:\n" + "\n".join([*self.out, *self.log])
        return line


def _state_in(status: Path) -> str:
    """Give a letter: T for stopped, Z for ended."""
    return status.read_text().rpartition(")")[2].split()[0]


class Programs:
    """The processes of one test, in one environment."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """`environment`: of all of them."""
        self._environment = environment
        self._started: list[Program] = []

    async def start(self, module: str, *arguments: object, before: tuple[str, ...] = (), **variables: str) -> Program:
        """Run `python -m MODULE ARGUMENTS`; `before`: what stands before that. `variables`: more environment."""
        command = (*before, sys.executable, "-m", module, *map(str, arguments))
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=_ROOT,
            env={**self._environment, **variables},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            limit=2**20,
        )
        self._started.append(Program(process))
        return self._started[-1]

    async def aclose(self) -> None:
        """End what still runs."""
        for program in self._started:
            await program.aclose()
