"""Two releases, and two services, at work in one environment."""

from __future__ import annotations

import asyncio
import json
import sys

import pytest

from oncetask import Client, Payload, Task, TaskStatus
from tests.integration.places import Place
from tests.integration.processes import release_1, release_2, warehouse
from tests.integration.processes.conftest import Crew

_LIMIT = 30.0


async def _enqueue(client: Client, *payloads: Payload) -> None:
    """Enqueue each under the id of its kind."""
    for payload in payloads:
        assert (await client.enqueue(payload, task_id=payload.kind)).created


async def _done(client: Client, *kinds: str) -> dict[str, str]:
    """Wait until these are done, and give their results."""
    tasks = await asyncio.gather(*(client.wait(kind, _LIMIT) for kind in kinds))
    assert {task.status for task in tasks} == {TaskStatus.DONE_COMPLETED}
    return {task.id: task.result for task in tasks}


async def _failed_once(client: Client, task_id: str) -> Task:
    """Wait until an attempt has failed."""
    async with asyncio.timeout(_LIMIT):
        async for task in client.watch(task_id):
            if task.errors:
                return task
    pytest.fail(f"{task_id} is done without an error")


def _problem(task: Task) -> str:
    """Give the one reason for which attempts failed."""
    assert {error.type for error in task.errors} == {"InvalidPayload"}
    (message,) = {error.message for error in task.errors}
    return message


async def test_new_tasks_come_while_old_workers_run(connected: Client, crew: Crew) -> None:
    """What the old release can read it runs; the rest is tried again until the new one is there, and ends well."""
    old = await crew.start("release_1")
    await _enqueue(
        connected,
        release_2.Sms(text="five"),
        release_2.Order(number=1, gift=True),
        release_2.Invoice(number=2, currency="CHF"),
        release_2.Parcel(address="Main Street 3"),
        release_2.Refund(number=4, reason="broken"),
    )
    unseen = await connected.get_task("sms")
    assert await _done(connected, "order", "refund") == {"order": "1: Order(number=1)", "refund": "1: Refund(number=4)"}
    invoice, parcel = [await _failed_once(connected, kind) for kind in ("invoice", "parcel")]
    assert "currency: Extra inputs are not permitted (was 'CHF')" in _problem(invoice)
    assert "street: Field required" in _problem(parcel)
    assert (await connected.get_task("sms")).version == unseen.version

    await crew.start("release_2")
    old.terminate()
    assert await old.wait() == 0
    assert await _done(connected, "invoice", "parcel", "sms") == {
        "invoice": "2: Invoice(number=2, currency='CHF')",
        "parcel": "2: Parcel(address='Main Street 3')",
        "sms": "2: Sms(text='five')",
    }
    assert "currency" in _problem(await connected.get_task("invoice"))
    assert (await connected.get_task("sms")).attempts == 1


async def test_old_tasks_are_left_for_new_workers(connected: Client, crew: Crew, place: Place) -> None:
    """New workers run what the old release stored, as far as they can; a rollback helps the rest."""
    await _enqueue(
        connected,
        release_1.Fax(text="five"),
        release_1.Order(number=1),
        release_1.Invoice(number=2),
        release_1.Parcel(street="Main Street 3"),
        release_1.Refund(number=4),
    )
    unseen = await connected.get_task("fax")
    new = await crew.start("release_2")
    assert await _done(connected, "order", "invoice", "parcel") == {
        "order": "2: Order(number=1, gift=False)",
        "invoice": "2: Invoice(number=2, currency='EUR')",
        "parcel": "2: Parcel(address='Main Street 3')",
    }
    refund = await connected.wait("refund", _LIMIT)
    assert (refund.status, refund.attempts) == (TaskStatus.DONE_FAILED, 2)
    assert "reason: Field required" in _problem(refund)
    assert (await connected.get_task("fax")).version == unseen.version

    new.terminate()
    assert await new.wait() == 0
    assert await connected.reset_task("refund")
    old = await crew.start("release_1")
    assert await _done(connected, "refund", "fax") == {"refund": "1: Refund(number=4)", "fax": "1: Fax(text='five')"}
    old.terminate()
    assert await old.wait() == 0

    await connected.enqueue(release_1.Fax(text="six"), task_id="late")
    assert (await connected.stats()).counts["fax"] == {TaskStatus.PENDING: 1, TaskStatus.DONE_COMPLETED: 1}
    assert await _doctor(place) == ["1 open task of kind 'fax', which has no handler in this app"]


async def test_two_services_share_an_environment(connected: Client, crew: Crew) -> None:
    """Each worker runs its own kinds only, and does not touch the others: not even cancelled tasks."""
    picks = [await connected.enqueue(warehouse.Pick(shelf=n)) for n in range(3)]
    assert await connected.cancel_task(picks[0].task_id)
    unseen = [await connected.get_task(pick.task_id) for pick in picks]
    await crew.start("release_2")
    await _enqueue(connected, release_2.Order(number=1))
    await _done(connected, "order")
    left = [await connected.get_task(pick.task_id) for pick in picks]
    assert [task.version for task in left] == [task.version for task in unseen]
    assert [task.status for task in left] == [TaskStatus.CANCELLATION_PENDING, TaskStatus.PENDING, TaskStatus.PENDING]

    await crew.start("warehouse")
    assert (await connected.wait(picks[0].task_id, _LIMIT)).status is TaskStatus.DONE_CANCELLED
    mixed = [payload for n in range(20) for payload in (release_2.Order(number=n), warehouse.Pick(shelf=n))]
    tasks = [await connected.wait(receipt.task_id, _LIMIT) for receipt in await connected.enqueue_many(mixed)]
    whose = [(task.status, task.attempts, task.errors, task.result.partition(":")[0]) for task in tasks]
    assert whose == [(TaskStatus.DONE_COMPLETED, 1, (), service) for _ in range(20) for service in ("2", "warehouse")]


async def _doctor(place: Place) -> list[str]:
    """Give what `oncetask doctor` finds wrong for the new release."""
    app = f"{release_2.__name__}:app"
    doctor = (sys.executable, "-m", "oncetask", "doctor", "--app", app, "--json")
    ran = await asyncio.create_subprocess_exec(*doctor, env=place.environment, stdout=asyncio.subprocess.PIPE)
    out, _ = await ran.communicate()
    assert ran.returncode == 1
    return [finding["message"] for finding in json.loads(out)["findings"]]
