"""`examples/firebase_functions`, served as its deployment serves it, and found as Firebase's tools find it."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from google.events.cloud.firestore import DocumentEventData  # type: ignore[import-untyped]  # ships no types

from oncetask import Payload, SyncClient, TaskStatus, connect_sync
from tests.functions.events import Sent, binary, document
from tests.functions.serving import FUNCTIONS, caller_of, function
from tests.integration.examples.serving import LIMIT
from tests.integration.places import FirestorePlace
from tests.integration.stores import ON_FIRESTORE

EXAMPLE = Path(__file__).parents[3] / "examples" / "firebase_functions"
SERVED: dict[str, dict[str, str]] = {
    "greet": {},
    "on_task_created": {"FUNCTION_SIGNATURE_TYPE": "cloudevent"},  # as the deployment of a trigger sets it
    "scheduler": {},
}
ADA = {"name": "Ada", "address": "ada@example.org"}


class Greeting(Payload, kind="greeting"):
    """What `tasks.py` takes."""

    name: str
    address: str


@pytest.fixture
def functions(opened_place: FirestorePlace) -> Iterator[dict[str, httpx.Client]]:
    """The three of them, each in a process of its own, which forks as it does in the cloud."""
    about = {"GOOGLE_CLOUD_PROJECT": opened_place.project, "FIREBASE_AUTH_EMULATOR_HOST": "127.0.0.1:9"}
    environment = {**opened_place.environment, **about}
    with ExitStack() as stack:
        programs = {
            name: stack.enter_context(function(name, {**environment, **kind}, source=EXAMPLE / "main.py"))
            for name, kind in SERVED.items()
        }
        yield {name: stack.enter_context(caller_of(program)) for name, program in programs.items()}


@pytest.fixture
def store(opened_place: FirestorePlace) -> Iterator[SyncClient]:
    """Another look at the tasks."""
    with connect_sync(opened_place.url) as client:
        yield client


def signed_in(project: str, uid: str) -> dict[str, str]:
    """Give the header of a user; where the emulator of Firebase Authentication is meant, nobody signs."""
    now = int(time.time())
    claims = {"iss": f"https://securetoken.google.com/{project}", "aud": project, "sub": uid, "user_id": uid}
    parts = ({"alg": "none", "typ": "JWT"}, {**claims, "iat": now, "exp": now + 600, "auth_time": now})
    encoded = (base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts)
    return {"Authorization": f"Bearer {'.'.join(encoded)}."}


@ON_FIRESTORE
def test_it_greets_on_firebase(
    functions: dict[str, httpx.Client], store: SyncClient, opened_place: FirestorePlace
) -> None:
    """A user's task is the user's; an event of it, or the next minute, runs it. Many users may call at a time."""
    user = signed_in(opened_place.project, "ada")
    refused = functions["greet"].post("/", json={"data": ADA})
    assert (refused.status_code, refused.json()["error"]["message"]) == (401, "sign in first")
    wrong = functions["greet"].post("/", json={"data": {"name": "Ada"}}, headers=user)
    assert (wrong.status_code, wrong.json()["error"]["details"][0]["loc"]) == (400, ["address"])
    assert list(store.iter_tasks()) == []

    with ThreadPoolExecutor(4) as threads:  # of which each may be the one that starts the loop
        guests = [{"name": "Ada", "address": f"{n}@example.org"} for n in range(4)]
        answers = list(
            threads.map(lambda guest: functions["greet"].post("/", json={"data": guest}, headers=user), guests)
        )
    assert all(answer.json()["result"]["created"] for answer in answers)
    ids = [answer.json()["result"]["taskId"] for answer in answers]
    assert {(task.status, task.owner) for task in store.get_tasks_by_ids(ids)} == {(TaskStatus.PENDING, "ada")}

    headers, content = event(opened_place.project, ids[0])
    assert functions["on_task_created"].post("/", headers=headers, content=content).status_code == 200
    done = {(task.status, task.result) for task in store.get_tasks_by_ids(ids)}
    assert done == {(TaskStatus.DONE_COMPLETED, "greeted Ada")}

    last = store.enqueue(Greeting(name="Eve", address="nowhere")).task_id
    minute = functions["scheduler"].post("/", headers={"X-CloudScheduler-JobName": "minute"})
    assert (minute.status_code, minute.content) == (200, b"")
    assert store.get_task(last).status is TaskStatus.DONE_FAILED


def event(project: str, task_id: str) -> Sent:
    """Make an event as Eventarc sends it: Firebase's library reads all of it, the document too."""
    path = document(task_id)
    name = f"projects/{project}/databases/(default)/documents/{path}"
    body = DocumentEventData.serialize(DocumentEventData(value={"name": name}))
    headers, content = binary(path.replace(":", "%3A"), body=body)
    others = {"project": project, "database": "(default)", "namespace": "(default)", "location": "nam5"}
    others |= {"subject": f"documents/{path}", "time": "2026-11-22T07:00:00.123456Z"}
    return {**headers, **{f"ce-{name}": value for name, value in others.items()}}, content


def test_it_is_the_same_app() -> None:
    """Its tasks are those of `functions/`: what differs is how they are served."""
    assert (EXAMPLE / "tasks.py").read_text() == (FUNCTIONS / "tasks.py").read_text()


def test_the_tools_find_it() -> None:
    """Firebase's tools load the file on the machine that deploys it, where there is no store and no project."""
    asks = f"from firebase_functions.private.serving import get_functions; assert set(get_functions()) == {set(SERVED)}"
    ran = subprocess.run(
        (sys.executable, "-c", asks), cwd=EXAMPLE, capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert not list(EXAMPLE.glob("*.db"))
