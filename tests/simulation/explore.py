"""Trying seeds: one world for each, in as many processes as are wanted, and what came of it."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import get_context

from tests.simulation.profiles import PROFILES
from tests.simulation.world import World

__all__ = ["Lived", "live_through", "main"]

_CHUNK = 10
_ENOUGH = 60
"""Worlds of a profile in which everything has to be seen that it is there for."""


@dataclass(frozen=True)
class Lived:
    """What came of one seed."""

    profile: str
    seed: int
    seen: Counter[str]
    wrong: str = ""
    """What was wrong, with what is needed to see it again; empty: nothing."""


def live_through(profile: str, seed: int) -> Lived:
    """Run one world."""
    world = World(profile, seed)
    try:
        world.run()
    except Exception as error:  # noqa: BLE001  # told, with the seed
        again = f"python -m tests.simulation --profile {profile} --first {seed} --seeds 1"
        wrong = f"{profile} {seed}: {error!r}\n{world.history()}\nreplay: {again}\n"
        return Lived(profile, seed, world.seen, wrong)
    return Lived(profile, seed, world.seen)


def _live(which: tuple[str, int]) -> Lived:
    return live_through(*which)


def main(arguments: Sequence[str] | None = None) -> int:
    """Try seeds as the command line says; 1 where one of them failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1_000, help="how many, shared by the profiles")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--profile", choices=["all", *PROFILES], default="all")
    parser.add_argument("--processes", type=int, default=2)
    wanted = parser.parse_args(arguments)
    names = list(PROFILES) if wanted.profile == "all" else [wanted.profile]
    seeds = range(wanted.first, wanted.first + wanted.seeds)
    worlds = [(names[place % len(names)], seed) for place, seed in enumerate(seeds)]
    began, failed, seen = time.monotonic(), 0, {name: Counter[str]() for name in names}
    with get_context("spawn").Pool(wanted.processes) as pool:
        for lived in pool.imap(_live, worlds, chunksize=min(_CHUNK, len(worlds))):
            seen[lived.profile] += lived.seen
            if lived.wrong:
                failed += 1
                sys.stdout.write(f"{lived.wrong}\n")
                sys.stdout.flush()
    took = time.monotonic() - began
    for name, counts in seen.items():
        missing = PROFILES[name].sees - counts.keys()
        if missing and len(worlds) >= _ENOUGH * len(names):
            failed += 1
            sys.stdout.write(f"{name}: never seen: {', '.join(sorted(missing))}\n")
        told = ", ".join(f"{count} {what}" for what, count in sorted(counts.items()))
        sys.stdout.write(f"{name}: {told}\n")
    sys.stdout.write(f"{len(worlds)} seeds, {failed} failed, {took:.0f} s\n")
    return min(1, failed)
