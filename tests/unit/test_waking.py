"""Wakers without any server: what they may be told, when alarms ring, and how often they complain."""

from __future__ import annotations

import logging
import sys
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oncetask import Unsupported
from oncetask.waking import CloudTasksAlarm, HttpKick, NoWaker, alarm, waker_from_environment
from oncetask.waking.complaints import Complaints
from tests.support import T0, FakeClock, at, between, exactly

QUEUE = "projects/demo/locations/europe-west3/queues/alarms"
URL = "https://europe-west3-demo.cloudfunctions.net/scheduler"
ACCOUNT = "ticker@demo.iam.gserviceaccount.com"
ALARM = {
    "ONCETASK_WAKE": "cloudtasks",
    "ONCETASK_WAKE_QUEUE": QUEUE,
    "ONCETASK_WAKE_URL": URL,
    "ONCETASK_WAKE_SERVICE_ACCOUNT": ACCOUNT,
}


async def test_no_waker_does_nothing() -> None:
    """It takes what the others take, and closes."""
    waker = NoWaker()
    await waker.wake(T0, env="default", now=exactly(T0))
    await waker.aclose()


@given(due=st.floats(-1e6, 1e6), latest=st.floats(-1e6, 1e6), behind=st.floats(0, 1e3))
def test_an_alarm_never_rings_before_what_it_was_set_for(due: float, latest: float, behind: float) -> None:
    """It follows its task and everything that may be now by a tenth of a second, and by less than a second more."""
    now = between(at(latest - behind), at(latest))
    rings = timedelta(seconds=alarm._second(at(due), now) - int(T0.timestamp()))
    wanted = max(at(due), now.latest) - T0
    assert wanted + timedelta(seconds=0.1) <= rings < wanted + timedelta(seconds=1.1)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/tick",
        "http://localhost.example.com/",
        "ftp://127.0.0.1/",
        "https://",
        "https:///tick",
        "https://user@example.com/",
        "https://:secret@example.com/",
        "https://example.com/#tick",
        "https://example.com:port/",
        "https://example.com:99999/",
        "https://example.com/ti ck",
        "https://example.com/\r\nX: 1",
        "https://[::1/",
        "/tick",
        "",
    ],
)
def test_a_bad_url_is_refused(url: str) -> None:
    """Plain http is for this machine alone, since a token may go along."""
    with pytest.raises(ValueError, match=r"^url must be an https url such as .* not "):
        HttpKick(url)
    with pytest.raises(ValueError, match=r"^url must be an https url such as "):
        CloudTasksAlarm(QUEUE, url, ACCOUNT)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8080/tick", "http://127.9.9.9/", "http://[::1]:80", "http://localhost"]
)
def test_this_machine_may_be_kicked_without_encryption(url: str) -> None:
    """Cloud Tasks could not reach it."""
    HttpKick(url)
    with pytest.raises(ValueError, match=r"^url must be an https url such as "):
        CloudTasksAlarm(QUEUE, url, ACCOUNT)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"timeout": 0}, "timeout must be more than zero"),
        ({"audience": ""}, "audience must be what the scheduler function expects"),
        ({"audience": "a b"}, "audience must be what the scheduler function expects"),
        ({"audience": "https://example.com", "token": str}, "audience and token exclude each other"),
    ],
)
def test_bad_options_of_a_kick_are_refused(options: dict[str, object], says: str) -> None:
    """The message names the option."""
    with pytest.raises(ValueError, match=says):
        HttpKick(URL, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("queue", "account", "options", "says"),
    [
        ("alarms", ACCOUNT, {}, "queue must be projects/PROJECT/locations/LOCATION/queues/QUEUE, not 'alarms'"),
        (f"{QUEUE}/tasks/1", ACCOUNT, {}, "queue must be projects/"),
        (QUEUE, "ticker", {}, "service_account must be the e-mail address of a service account"),
        (QUEUE, ACCOUNT, {"audience": ""}, "audience must be what the scheduler function expects"),
        (QUEUE, ACCOUNT, {"timeout": -1}, "timeout must be more than zero"),
    ],
)
def test_bad_options_of_an_alarm_are_refused(queue: str, account: str, options: dict[str, object], says: str) -> None:
    """The message names the option and what would be right."""
    with pytest.raises(ValueError, match=says):
        CloudTasksAlarm(queue, URL, account, **options)  # type: ignore[arg-type]


def test_what_is_no_text_is_refused_as_such() -> None:
    """A TypeError, which names the value."""
    with pytest.raises(TypeError, match=r"^queue must be .* not None"):
        CloudTasksAlarm(None, URL, ACCOUNT)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^url must be .* not b'https"):
        HttpKick(b"https://example.com")  # type: ignore[arg-type]


def test_an_alarm_without_its_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an extra, and missing it should show before the first task."""
    monkeypatch.setitem(sys.modules, "google.cloud.tasks_v2", None)
    with pytest.raises(Unsupported, match=r'pip install "oncetask\[cloudtasks\]"'):
        CloudTasksAlarm(QUEUE, URL, ACCOUNT)


@pytest.mark.parametrize(
    ("environ", "kind"),
    [
        ({}, NoWaker),
        ({"ONCETASK_WAKE": ""}, NoWaker),
        ({"ONCETASK_WAKE": "none", "ONCETASK_WAKE_URL": "rubbish"}, NoWaker),
        ({"ONCETASK_WAKE": "http", "ONCETASK_WAKE_URL": URL}, HttpKick),
        ({"ONCETASK_WAKE": "http", "ONCETASK_WAKE_URL": URL, "ONCETASK_WAKE_AUDIENCE": URL}, HttpKick),
        ({"ONCETASK_WAKE": "http", "ONCETASK_WAKE_URL": "http://127.0.0.1:8080/tick"}, HttpKick),
        (ALARM, CloudTasksAlarm),
        ({**ALARM, "ONCETASK_WAKE_AUDIENCE": "tasks"}, CloudTasksAlarm),
    ],
)
def test_the_environment_chooses_a_waker(environ: dict[str, str], kind: type) -> None:
    """An empty variable is none."""
    assert type(waker_from_environment(environ)) is kind


def test_the_environment_of_the_process_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read at each call."""
    assert type(waker_from_environment()) is NoWaker
    for name, value in ALARM.items():
        monkeypatch.setenv(name, value)
    made = waker_from_environment()
    assert isinstance(made, CloudTasksAlarm)
    assert (made._queue, made._url, made._account, made._audience) == (QUEUE, URL, ACCOUNT, URL)


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({"ONCETASK_WAKE": "pubsub"}, "ONCETASK_WAKE must be none, http or cloudtasks, not 'pubsub'"),
        ({"ONCETASK_WAKE": "http"}, "ONCETASK_WAKE_URL must be an https url such as .* not ''"),
        ({**ALARM, "ONCETASK_WAKE_URL": "http://127.0.0.1/"}, "ONCETASK_WAKE_URL must be an https url such as"),
        ({**ALARM, "ONCETASK_WAKE_QUEUE": "alarms"}, "ONCETASK_WAKE_QUEUE must be projects/.* not 'alarms'"),
        ({**ALARM, "ONCETASK_WAKE_SERVICE_ACCOUNT": ""}, "ONCETASK_WAKE_SERVICE_ACCOUNT must be the e-mail"),
        ({**ALARM, "ONCETASK_WAKE_AUDIENCE": "a b"}, "ONCETASK_WAKE_AUDIENCE must be .* not 'a b'"),
    ],
)
def test_nonsense_in_the_environment_is_named(environ: dict[str, str], says: str) -> None:
    """The variable, its value, and what would be right."""
    with pytest.raises(ValueError, match=says):
        waker_from_environment(environ)


def test_a_complaint_silences_the_next_ones_for_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """They are counted, and the first one after it says how many there were."""
    clock = FakeClock()
    complaints = Complaints(clock)
    for what in ("first", "second", "third"):
        complaints.say(what)
    clock.advance(59.999)
    complaints.say("fourth")
    clock.advance(0.001)
    complaints.say("fifth")
    clock.advance(60)
    complaints.say("sixth")
    before = "a task is stored, but no tick was woken for it, so it waits for the next one: "
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (logging.WARNING, f"{before}first"),
        (logging.WARNING, f"{before}fifth (3 more failures since the last warning)"),
        (logging.WARNING, f"{before}sixth"),
    ]
