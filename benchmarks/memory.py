"""How much memory a worker takes beside a long queue: the most that its process ever had in RAM, in MB of 2**20 bytes.

Each figure is a process of its own, `python -m benchmarks.memory TASKS`: a worker on the store of ONCETASK_STORE,
environment ONCETASK_ENV, that stops after so many tasks; with 0 it listens for a while, with `bare` it only opens the
store.
"""

from __future__ import annotations

import asyncio
import resource
import sys
import uuid
from pathlib import Path

from benchmarks.others import say, started
from benchmarks.report import Bar, at_most
from oncetask import App, Client, Context, Payload, Worker, connect

__all__ = ["BARS", "measure"]

_MEGABYTE = 2**20
_AT_ONCE = 5_000
_LARGE = 10_000
_LISTENS_SECONDS = 3.0
_LATER_SECONDS = 86_400.0
_BAR = at_most(150)
BARS: dict[str, dict[str, Bar]] = {
    "sqlite": {"idle_mb": _BAR, "drained_mb": _BAR, "drained_large_mb": _BAR},
    "firestore": {},
}
app = App("memory")
_ran = 0
_enough = asyncio.Event()
_wanted = 0


class Small(Payload, kind="small"):
    """Nothing to do."""

    n: int
    text: str = ""


@app.handler(Small)
async def small(_: Context, __: Small) -> None:
    """Count."""
    global _ran  # noqa: PLW0603  # what this process waits for
    _ran += 1
    if _ran == _wanted:
        _enough.set()


async def measure(url: str, waiting: int = 100_000, drained: int = 10_000, large: int = 2_000) -> dict[str, float]:
    """Measure workers beside so many tasks that wait.

    `idle`: none of them is due yet. `drained`: half of them are due, of which so many are run. `drained_large`: as many
    as `large` are due, each with 10 kB of payload, and all of them are run.
    """
    figures = {"bare_mb": await _peak(url, _unique(), "bare")}
    env = _unique()
    async with connect(url, env=env) as client:
        await _enqueue(client, waiting, delay=_LATER_SECONDS)
        figures["idle_mb"] = await _peak(url, env, "0")
        await _check(client, waiting)
    env = _unique()
    async with connect(url, env=env) as client:
        await _enqueue(client, waiting // 2, delay=_LATER_SECONDS)
        await _enqueue(client, waiting // 2)
        figures["drained_mb"] = await _peak(url, env, str(drained))
        await _check(client, waiting - drained)
    env = _unique()
    async with connect(url, env=env) as client:
        await _enqueue(client, large, text="x" * _LARGE)
        figures["drained_large_mb"] = await _peak(url, env, str(large))
        await _check(client, 0)
    return figures


async def _enqueue(client: Client, tasks: int, *, delay: float = 0.0, text: str = "") -> None:
    for start in range(0, tasks, _AT_ONCE):
        some = [Small(n=n, text=text) for n in range(start, min(start + _AT_ONCE, tasks))]
        await client.enqueue_many(some, delay=delay) if delay else await client.enqueue_many(some)


async def _peak(url: str, env: str, what: str) -> float:
    async with started("benchmarks.memory", what, ONCETASK_STORE=url, ONCETASK_ENV=env) as other:
        return float(await other.hear())


async def _check(client: Client, most: int) -> None:
    """Exit where more tasks are left than there may be; a worker may have run some more than it was to."""
    left = await client.pending_count()
    if left > most:
        sys.exit(f"{left} tasks are left, not at most {most}: the figures mean nothing")


def _most_memory() -> float:
    """Give the most that this process had in RAM."""
    status = Path("/proc/self/status")
    if status.exists():  # what getrusage says there may be the parent's
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1_024 / _MEGABYTE
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _MEGABYTE


def _unique() -> str:
    return f"bench-{uuid.uuid4().hex[:8]}"


async def _work(tasks: int | None) -> None:
    global _wanted  # noqa: PLW0603  # what this process waits for
    _wanted = tasks or 0
    async with connect() as client:
        await client.store.open()
        if tasks is not None:
            async with Worker(app, client):
                await (_enough.wait() if tasks else asyncio.sleep(_LISTENS_SECONDS))
    say(_most_memory())


if __name__ == "__main__":
    asyncio.run(_work(None if sys.argv[1] == "bare" else int(sys.argv[1])))
