"""The emulator with its triggers, and the functions of `functions/`, each served in a process of its own."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import httpx
import pytest

from oncetask.cli.dev.emulator import free_port
from tests.conftest import FOREIGN_PREFIXES
from tests.emulator import Startable, locate, running_emulator
from tests.emulator_plugin import pass_over
from tests.functions.serving import caller_of, function
from tests.integration.examples.serving import LIMIT, Program

_TRIGGER = {
    "eventType": "google.cloud.firestore.document.v1.created",
    "database": "(default)",
    "namespace": "(default)",
    "document": {"value": "oncetask/{env}/onceTasks/{id}", "matchType": "PATH_PATTERN"},
}


@dataclass(frozen=True)
class Deployment:
    """Three functions on one emulator. Its trigger is for the tasks of the API; the scheduler has others."""

    emulator: str
    url: str
    """The store of `api` and `on_task_created`."""
    url_without_trigger: str
    """The store of `scheduler`, so that nothing but ticks runs its tasks."""
    api: httpx.Client
    scheduler: httpx.Client
    on_task_created: httpx.Client
    events: Program
    """The process of `on_task_created`."""


@pytest.fixture(scope="session")
def deployment(pytestconfig: pytest.Config) -> Iterator[Deployment]:
    """What is deployed, on an emulator of its own: only one that is started for it knows where functions are."""
    location = locate({name: value for name, value in os.environ.items() if name != "FIRESTORE_EMULATOR_HOST"})
    if not isinstance(location, Startable):
        pass_over(
            pytestconfig, "the emulator that runs already knows no functions, and no other one can be started here"
        )
    host, port = f"127.0.0.1:{free_port()}", free_port()
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN_PREFIXES)}
    inherited["FIRESTORE_EMULATOR_HOST"] = host
    project, other = (f"test-{uuid.uuid4().hex[:20]}" for _ in range(2))
    here, there = ({**inherited, "ONCETASK_STORE": f"firestore://{name}"} for name in (project, other))
    with ExitStack() as stack:
        # They open their store when they are first called, so all of this may start at the same time.
        api = stack.enter_context(function("api", here))
        scheduler = stack.enter_context(function("scheduler", there))
        events = stack.enter_context(function("on_task_created", here, port=port))
        stack.enter_context(
            running_emulator(
                location,
                port=int(host.rpartition(":")[2]),
                functions=f"127.0.0.1:{port}",
                heap_megabytes=256,
            )
        )
        _register_trigger(host, project)
        yield Deployment(
            emulator=host,
            url=here["ONCETASK_STORE"],
            url_without_trigger=there["ONCETASK_STORE"],
            api=stack.enter_context(caller_of(api)),
            scheduler=stack.enter_context(caller_of(scheduler)),
            on_task_created=stack.enter_context(caller_of(events)),
            events=events,
        )


def _register_trigger(emulator: str, project: str) -> None:
    """Tell the emulator whom to tell of new tasks; Eventarc is told by the deployment."""
    url = f"http://{emulator}/emulator/v1/projects/{project}/eventarcTrigger?eventarcTriggerId=on-task-created"
    httpx.post(url, json=_TRIGGER, timeout=LIMIT, trust_env=False).raise_for_status()
