"""Where the tasks of `oncetask dev` live: in an emulator if there is one, else in an SQLite file."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from oncetask.cli.dev.emulator import (
    EmulatorError,
    Missing,
    Running,
    Startable,
    answers,
    free_port,
    locate,
    running_emulator,
)
from oncetask.errors import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from oncetask.cli.dev.emulator import Location

__all__ = ["DevPlace", "choose", "opened"]

_FILE = "oncetask.db"
_RULES = "firestore.rules"
_PROJECT = "demo-oncetask"


@dataclass(frozen=True, slots=True)
class DevPlace:
    """What was chosen, and why."""

    url: str
    """As `connect` takes it."""
    why: str
    """For people."""
    emulator: Running | Startable | None = None
    host: str | None = None
    """`host:port` of the emulator, once it runs."""
    project: str = ""

    @property
    def variables(self) -> str:
        """The environment variables with which other programs find the tasks."""
        host = f"FIRESTORE_EMULATOR_HOST={self.host} " if self.host else ""
        return f"{host}ONCETASK_STORE={self.url}"


def choose(store: str | None, *, use_emulator: bool) -> DevPlace:
    """Choose, and lead all that this process does with Firestore to the emulator; starts nothing.

    What users' modules open when they are imported goes there as well, so this comes first. `store`: taken as it is.
    """
    if store is not None:
        return DevPlace(store, "as --store says")
    location: Location = locate(os.environ) if use_emulator else Missing("--no-emulator")
    if isinstance(location, Missing):
        return DevPlace(f"sqlite:///{_FILE}", f"SQLite in ./{_FILE}, without the Firestore emulator: {location.reason}")
    host = location.host if isinstance(location, Running) else f"127.0.0.1:{free_port()}"
    project = os.environ.get("GOOGLE_CLOUD_PROJECT") or _PROJECT
    os.environ.update(FIRESTORE_EMULATOR_HOST=host, GOOGLE_CLOUD_PROJECT=project)
    why = "the Firestore emulator that FIRESTORE_EMULATOR_HOST names"
    if isinstance(location, Startable):
        rules = f"with ./{_RULES}" if Path(_RULES).is_file() else f"without rules, for there is no ./{_RULES}"
        why = f"a Firestore emulator in memory, {rules}: what is in it is gone when this ends"
    return DevPlace(f"firestore://{project}", why, location, host, project)


@contextmanager
def opened(place: DevPlace, *, functions: str) -> Iterator[None]:
    """Have the emulator run for the length of a block, if it is one. `functions`: `host:port` for its events.

    Raises EmulatorError where it does not come up, and StoreUnavailable where one that should run already does not.
    """
    match place.emulator:
        case Startable():
            rules = Path(_RULES) if Path(_RULES).is_file() else None
            port = int((place.host or "").rpartition(":")[2])
            try:
                with running_emulator(place.emulator, rules=rules, port=port, functions=functions):
                    yield
            except EmulatorError as error:
                raise EmulatorError(f"{error} (--no-emulator does without it)") from error
        case Running(host) if not answers(host):
            msg = f"FIRESTORE_EMULATOR_HOST says that an emulator runs at {host}, and none answers: start or unset it"
            raise StoreUnavailable(msg)
        case _:
            yield
