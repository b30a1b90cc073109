"""`CloudTasksAlarm` through Google's own client against a local gRPC server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]  # grpcio ships no types
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.cloud import tasks_v2

from oncetask.waking import CloudTasksAlarm, alarm
from oncetask.waking.cloudtasks import Alarms
from tests.integration.waking.servers import LIMIT, CloudTasks, tasks_client
from tests.support import T0, at, between, exactly

QUEUE = "projects/demo/locations/europe-west3/queues/alarms"
URL = "https://europe-west3-demo.cloudfunctions.net/scheduler"
ACCOUNT = "ticker@demo.iam.gserviceaccount.com"

SHORT = 0.05
"""Seconds, the patience of alarms that are not meant to be answered in time."""


@pytest.fixture
async def cloud() -> CloudTasks:
    """Cloud Tasks, as far as alarms need it."""
    return CloudTasks()


@pytest.fixture
async def client(cloud: CloudTasks) -> AsyncIterator[tasks_v2.CloudTasksAsyncClient]:
    """Google's client of it."""
    async with cloud.served() as address, tasks_client(address) as client:
        yield client


@pytest.fixture
async def waker(client: tasks_v2.CloudTasksAsyncClient) -> AsyncIterator[CloudTasksAlarm]:
    """A waker with all the patience that a test has."""
    waker = CloudTasksAlarm(QUEUE, URL, ACCOUNT, client=client, timeout=LIMIT)
    yield waker
    await waker.aclose()


def seconds_of(cloud: CloudTasks) -> list[float]:
    """Give the seconds after T0 for which alarms are set, in the order of their setting."""
    return [(task.schedule_time - T0).total_seconds() for task in cloud.tasks.values()]


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Give what oncetask has warned of."""
    return [record.getMessage() for record in caplog.records if record.name == "oncetask"]


async def test_an_alarm_posts_to_the_function_with_an_identity_token(cloud: CloudTasks, waker: CloudTasksAlarm) -> None:
    """It is named by environment and second, behind a hash, in the queue."""
    await waker.wake(at(90.25), env="staging.eu", now=exactly(T0))
    (call,) = cloud.calls
    task = call.task
    assert call.parent == QUEUE
    second = int(at(91).timestamp())
    path, _, name = task.name.rpartition("/")
    assert path == f"{QUEUE}/tasks"
    assert name[16:] == f"-oncetask-staging_eu-{second}"
    assert task.schedule_time == at(91)
    assert task.http_request.url == URL
    assert task.http_request.http_method == tasks_v2.HttpMethod.POST
    assert task.http_request.oidc_token == tasks_v2.OidcToken(service_account_email=ACCOUNT, audience=URL)


async def test_an_audience_of_its_own_goes_into_the_token(
    cloud: CloudTasks, client: tasks_v2.CloudTasksAsyncClient
) -> None:
    """A function behind a domain may expect another one than its url."""
    waker = CloudTasksAlarm(QUEUE, URL, ACCOUNT, "https://tasks.example.com", client=client, timeout=LIMIT)
    await waker.wake(T0, env="default", now=exactly(T0))
    assert cloud.calls[0].task.http_request.oidc_token.audience == "https://tasks.example.com"


async def test_what_is_due_now_is_called_at_the_next_second(cloud: CloudTasks, waker: CloudTasksAlarm) -> None:
    """The latest that it may be now decides, and a tenth of a second for the clocks of two services."""
    await waker.wake(T0, env="default", now=between(at(-5), at(0.9)))
    await waker.wake(T0, env="default", now=between(at(-5), at(0.900001)))
    assert seconds_of(cloud) == [1, 2]


async def test_many_who_are_due_in_one_second_set_one_alarm(cloud: CloudTasks, waker: CloudTasksAlarm) -> None:
    """Those who ask meanwhile wait for the same call, and later ones make none."""
    cloud.release.clear()
    asking = [asyncio.create_task(waker.wake(at(5 + n / 200), env="default", now=exactly(T0))) for n in range(1, 101)]
    await cloud.called(1)
    assert not any(one.done() for one in asking)
    cloud.release.set()
    await asyncio.gather(*asking)
    await waker.wake(at(5.1), env="default", now=exactly(at(4)))
    assert len(cloud.calls) == 1
    assert seconds_of(cloud) == [6]


async def test_an_alarm_that_somebody_else_has_set_is_as_good(
    cloud: CloudTasks, client: tasks_v2.CloudTasksAsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    """A second process is refused the name, and remembers that there is one."""
    for process in range(2):
        waker = CloudTasksAlarm(QUEUE, URL, ACCOUNT, client=client, timeout=LIMIT)
        for _ in range(2):
            await waker.wake(at(5), env="default", now=exactly(T0))
        assert len(cloud.calls) == process + 1
    assert len(cloud.tasks) == 1
    assert warnings(caplog) == []


async def test_environments_and_targets_have_alarms_of_their_own(
    cloud: CloudTasks, client: tasks_v2.CloudTasksAsyncClient
) -> None:
    """One queue may serve several, even those whose names are spelt alike there."""
    for url in (URL, f"{URL}-2"):
        waker = CloudTasksAlarm(QUEUE, url, ACCOUNT, client=client, timeout=LIMIT)
        for env in ("a.b", "a_b"):
            await waker.wake(at(5), env=env, now=exactly(T0))
    assert len(cloud.tasks) == 4


async def test_a_name_is_remembered_for_a_while(
    cloud: CloudTasks, waker: CloudTasksAlarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The memory is bounded; what was asked for lately stays."""
    monkeypatch.setattr(alarm, "_REMEMBERED", 2)
    for second in (10, 20, 10, 30, 10, 20):
        await waker.wake(at(second), env="default", now=exactly(T0))
    assert [(call.task.schedule_time - T0).total_seconds() for call in cloud.calls] == [11, 21, 31, 21]


async def test_what_is_too_far_ahead_is_left_to_the_ticks(cloud: CloudTasks, waker: CloudTasksAlarm) -> None:
    """Cloud Tasks takes 30 days, of which a minute is kept for the way."""
    farthest = T0 + timedelta(days=30) - timedelta(minutes=1)
    await waker.wake(farthest + timedelta(microseconds=1), env="default", now=exactly(T0))
    assert cloud.calls == []
    await waker.wake(farthest, env="default", now=exactly(T0))
    assert len(cloud.tasks) == 1


async def test_what_is_unavailable_for_a_moment_is_tried_again(
    cloud: CloudTasks, waker: CloudTasksAlarm, caplog: pytest.LogCaptureFixture
) -> None:
    """A connection that was cut while it was idle costs no alarm."""
    cloud.faults = [grpc.StatusCode.UNAVAILABLE]
    await waker.wake(T0, env="default", now=exactly(T0))
    assert len(cloud.calls) == 2
    assert len(cloud.tasks) == 1
    assert warnings(caplog) == []


async def test_a_refusal_is_a_warning_and_the_next_enqueue_tries_again(
    cloud: CloudTasks, waker: CloudTasksAlarm, caplog: pytest.LogCaptureFixture
) -> None:
    """An alarm that was refused is not remembered as set; ten refusals are one warning."""
    cloud.faults = [grpc.StatusCode.PERMISSION_DENIED] * 10
    for _ in range(10):
        await waker.wake(T0, env="default", now=exactly(T0))
    (warning,) = warnings(caplog)
    assert f"{QUEUE} did not take an alarm: PermissionDenied: 403 as the test wants it" in warning
    assert cloud.tasks == {}
    await waker.wake(T0, env="default", now=exactly(T0))
    assert len(cloud.tasks) == 1


async def test_a_slow_service_keeps_an_enqueue_for_the_timeout_only(
    cloud: CloudTasks, client: tasks_v2.CloudTasksAsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    """The call goes on without it: a late alarm is better than none."""
    waker = CloudTasksAlarm(QUEUE, URL, ACCOUNT, client=client, timeout=SHORT)
    cloud.release.clear()
    async with asyncio.timeout(LIMIT):
        await waker.wake(T0, env="default", now=exactly(T0))
        (warning,) = warnings(caplog)
        assert f"{QUEUE} has not answered within 0.05 s" in warning
        await cloud.called(1)
        (call,) = waker._calls.values()
        cloud.release.set()
        await call
    assert len(cloud.tasks) == 1
    assert len(warnings(caplog)) == 1


async def test_closing_gives_up_what_takes_too_long(cloud: CloudTasks, client: tasks_v2.CloudTasksAsyncClient) -> None:
    """A process that ends waits no longer than an enqueue does; what was given up is not remembered as set."""
    waker = CloudTasksAlarm(QUEUE, URL, ACCOUNT, client=client, timeout=SHORT)
    cloud.release.clear()
    async with asyncio.timeout(LIMIT):
        await waker.wake(T0, env="default", now=exactly(T0))
        (call,) = waker._calls.values()
        await waker.aclose()
        await asyncio.wait({call})
        assert call.cancelled()
        cloud.release.set()
        await waker.wake(T0, env="default", now=exactly(T0))
        await asyncio.gather(*waker._calls.values())
    assert len(cloud.tasks) == 1


async def test_a_cancelled_enqueue_sets_its_alarm_all_the_same(cloud: CloudTasks, waker: CloudTasksAlarm) -> None:
    """Others may wait for the same one; closing waits, too."""
    cloud.release.clear()
    asking = asyncio.create_task(waker.wake(T0, env="default", now=exactly(T0)))
    await cloud.called(1)
    asking.cancel()
    await asyncio.wait({asking})
    cloud.release.set()
    await waker.aclose()
    assert len(cloud.tasks) == 1


async def test_without_credentials_a_wake_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """They are looked for anew each time, since they may be there later."""
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "absent.json"))
    waker = CloudTasksAlarm(QUEUE, URL, ACCOUNT, timeout=LIMIT)
    await waker.wake(T0, env="default", now=exactly(T0))
    (warning,) = warnings(caplog)
    assert "DefaultCredentialsError" in warning
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(key_file(tmp_path)))
    opened = await waker._opened()
    assert await waker._opened() is opened
    await waker.aclose()
    await waker.aclose()


def test_a_waker_serves_one_loop_after_the_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A call on an event loop that stands still, as after a fork, is not waited for."""
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "absent.json"))
    waker = CloudTasksAlarm(QUEUE, URL, ACCOUNT, timeout=LIMIT)

    async def begun() -> asyncio.Task[None]:
        asking = asyncio.create_task(waker.wake(T0, env="default", now=exactly(T0)))
        await asyncio.sleep(0)
        return asking

    with asyncio.Runner() as left:
        asking = left.run(begun())
        asyncio.run(waker.wake(T0, env="default", now=exactly(T0)))
        (warning,) = warnings(caplog)
        assert "DefaultCredentialsError" in warning
        left.run(asyncio.wait_for(asking, LIMIT))


async def test_an_own_client_is_made_of_the_default_credentials(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It talks to Google, as the account of the key file, and closes its connection."""
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(key_file(tmp_path)))
    alarms = await Alarms.open()
    transport: Any = alarms._client.transport
    assert transport._host == "cloudtasks.googleapis.com:443"
    assert transport._credentials.service_account_email == ACCOUNT
    await alarms.aclose()


async def test_a_callers_own_client_stays_open(cloud: CloudTasks, client: tasks_v2.CloudTasksAsyncClient) -> None:
    """Closing the waker closes what is its own; the next use begins again."""
    waker = CloudTasksAlarm(QUEUE, URL, ACCOUNT, client=client, timeout=LIMIT)
    for second in (10, 20):
        await waker.wake(at(second), env="default", now=exactly(T0))
        await waker.aclose()
    assert len(cloud.tasks) == 2


def key_file(folder: Path) -> Path:
    """Make the key file of an account that nobody knows."""
    key = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    account = {
        "type": "service_account",
        "project_id": "demo",
        "client_email": ACCOUNT,
        "private_key": key.private_bytes(encoding, form, serialization.NoEncryption()).decode(),
        "token_uri": "http://127.0.0.1:9/token",
    }
    file = folder / "key.json"
    file.write_text(json.dumps(account))
    return file
