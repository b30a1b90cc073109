"""`oncetask enqueue`."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from oncetask import Recurrence, SyncClient, Worker, connect
from oncetask.cli.targets import load_app
from tests.integration.cli.conftest import Cli
from tests.integration.places import FilePlace


def test_the_id_is_on_stdout_and_the_rest_on_stderr(cli: Cli, client: SyncClient) -> None:
    """`id=$(oncetask enqueue …)` works: stdout is the id and nothing else."""
    answer = cli("enqueue", "greet", '{"name": "Ada"}')
    assert answer.code == 0
    task = client.get_task(answer.out.strip())
    assert (task.kind, task.data) == ("greet", {"name": "Ada"})
    assert answer.err.startswith("created: sqlite:///")


def test_the_second_time_is_told(cli: Cli) -> None:
    """A task id that exists is not created again, and that is no failure."""
    assert cli("enqueue", "greet", "{}", "--task-id", "one", "--json").json == {"taskId": "one", "created": True}
    second = cli("enqueue", "greet", "{}", "--task-id", "one")
    assert (second.code, second.out) == (0, "one\n")
    assert second.err.startswith("exists already, nothing was stored")


def test_options_reach_the_task(cli: Cli, client: SyncClient) -> None:
    """Key, time, limit and owner are stored as given."""
    options = (
        "--resource-key",
        "k",
        "--wait-until",
        "2031-01-01T01:00:00+01:00",
        "--timeout",
        "7.5",
        "--owner",
        "ada",
        "--deadline",
        "2031-01-02T00:00:00Z",
    )
    task = client.get_task(cli("enqueue", "greet", "{}", *options).out.strip())
    assert (task.resource_key, task.timeout, task.owner) == ("k", 7.5, "ada")
    assert task.deadline == datetime(2031, 1, 2, tzinfo=UTC)
    assert task.wait_until == datetime(2031, 1, 1, tzinfo=UTC)


def test_a_delay_counts_from_now(cli: Cli, client: SyncClient) -> None:
    """--delay is seconds after the creation."""
    task = client.get_task(cli("enqueue", "greet", "{}", "--delay", "60").out.strip())
    assert (task.wait_until - task.created_at).total_seconds() == pytest.approx(60)


def test_data_comes_from_a_file_or_stdin(cli: Cli, client: SyncClient, folder: Path) -> None:
    """@FILE and - are read, as UTF-8."""
    (folder / "mail.json").write_text('{"to": "Zoë"}', encoding="utf-8-sig")  # as Windows writes it
    assert client.get_task(cli("enqueue", "mail", "@mail.json").out.strip()).data == {"to": "Zoë"}
    read = cli("enqueue", "mail", "-", stdin='{"to": "Bjørn"}'.encode())
    assert client.get_task(read.out.strip()).data == {"to": "Bjørn"}


def test_a_raw_payload_takes_any_object(cli: Cli, client: SyncClient) -> None:
    """Without an App all of the JSON arrives, also under names that payloads use themselves."""
    data = '{"kind": "x", "wait_until": 1, "list": [[1], {"": null}], "big": 123456789012345678901234567890}'
    assert client.get_task(cli("enqueue", "raw", data).out.strip()).data == {
        "kind": "x",
        "wait_until": 1,
        "list": [[1], {"": None}],
        "big": 123456789012345678901234567890,
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("greet", '{"name"'), "data is no JSON: Expecting ':' delimiter at line 1, column 8"),
        (("greet", "[1]"), "data must be a JSON object"),
        (("greet", '{"a": NaN}'), "data may not hold NaN"),
        (("greet", "[" * 100_000), "data is JSON that is nested too deep"),
        (("greet", f'{{"a": {"1" * 5_000}}}'), "data cannot be read as JSON: Exceeds the limit"),
        (("greet", "@nowhere.json"), "data cannot be read from 'nowhere.json'"),
        (("Greet", "{}"), "kind must be 1 to 100 of the characters a-z 0-9 . _ -"),
        (("greet", "{}", "--task-id", "a/b"), "task_id may not contain a slash"),
        (("greet", "{}", "--wait-until", "2030-01-01T00:00:00"), "wait_until must say its zone"),
        (("greet", "{}", "--wait-until", "soon"), "wait_until must be an instant in ISO 8601"),
        (("greet", "{}", "--delay", "-1"), "delay must be zero or more"),
        (("greet", "{}", "--delay", "1", "--wait-until", "2030-01-01T00:00:00Z"), "wait_until and delay exclude"),
        (("greet", "{}", "--timeout", "0"), "timeout must be more than zero"),
        (("greet", "{}", "--deadline", "2031-01-01"), "deadline must say its zone"),
        (("greet", "{}", "--delay", "9", "--deadline", "2020-01-01T00:00:00Z"), "deadline must be later than"),
        (("greet", "{}", "--wait", "-5"), "wait must be zero or more"),
        (("greet", "{}", "--wait=soon"), "wait must be seconds, or stand without a value, not 'soon'"),
        (("greet", '{"name": 1}', "--app", "jobs:app"), "data does not fit Greet (kind 'greet'): name: "),
        (("greet", "{}", "--rrule", "FREQ=DAILY", "--cron", "@daily"), "--rrule and --cron exclude each other: "),
        (("greet", "{}", "--rrule", "DAILY"), "rrule 'DAILY': 'DAILY' must be of the form NAME=VALUE"),
        (("greet", "{}", "--cron", "soon"), "cron expression 'soon': Wrong number of fields"),
        (("greet", "{}", "--cron", "@daily", "--timezone", "Mars"), "timezone 'Mars' is no IANA zone"),
        (("greet", "{}", "--cron", "@daily", "--dtstart", "soon"), "dtstart must be an instant in ISO 8601"),
        (
            ("greet", "{}", "--cron", "@daily", "--catch-up", "most"),
            "catch_up must be one of 'one', 'all', 'skip', not",
        ),
        (
            ("greet", "{}", "--cron", "@daily", "--overlap", "no"),
            "overlap must be one of 'allow', 'skip', 'cancel-previ",
        ),
        (("greet", "{}", "--timezone", "UTC"), "--timezone goes with --rrule or --cron, and neither is given"),
        (("greet", "{}", "--catch-up", "all"), "--catch-up goes with --rrule or --cron, and neither is given"),
        (("greet", "{}", "--cron", "@daily", "--delay", "1"), "--delay and --cron exclude each other: its rule says"),
        (
            ("greet", "{}", "--rrule", "FREQ=DAILY", "--wait-until", "2031-01-01T00:00:00Z"),
            "--wait-until and --rrule exclude each other: its rule says when it runs; --dtstart says from when on",
        ),
        (
            ("greet", "{}", "--cron", "@daily", "--wait"),
            "--wait and --cron exclude each other: a schedule is done only",
        ),
        (
            ("greet", "{}", "--rrule", "FREQ=DAILY;COUNT=1", "--dtstart", "2020-01-01T00:00:00Z"),
            "rrule 'FREQ=DAILY;COUNT=1' with dtstart 2020-01-01 00:00:00+00:00 in UTC has no instant after",
        ),
        (("great", "{}", "--app", "jobs:app"), "kind 'great' has no handler in this app; it has handlers for: greet"),
    ],
)
def test_bad_input_is_named(cli: Cli, arguments: tuple[str, ...], message: str) -> None:
    """Bad input exits with 2, and the line on stderr names the field and the value."""
    answer = cli("enqueue", *arguments)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith(f"error: {message}")


def test_a_schedule_is_made_from_the_shell(cli: Cli, client: SyncClient) -> None:
    """--cron with its options makes a generator; stderr tells what it will do, and when first."""
    options = ("--timezone", "Europe/Berlin", "--dtstart", "2030-01-01T00:00:00Z", "--overlap", "skip")
    arguments = ("enqueue", "greet", '{"name": "Ada"}', "--task-id", "g", "--cron", "0 9 * * *", "--catch-up", "all")
    answer = cli(*arguments, *options)
    assert (answer.code, answer.out) == (0, "g\n")
    told = "at 09:00 every day (Europe/Berlin), first at 2030-01-01 09:00:00+01:00"
    assert answer.err.splitlines()[1:] == [told]
    start = datetime(2030, 1, 1, tzinfo=UTC)
    rule = Recurrence.cron("0 9 * * *", "Europe/Berlin", start=start, catch_up="all", overlap="skip")
    assert client.get_task("g").recurrence == rule.to_fields()
    again = cli(*arguments, *options)
    assert (again.code, len(again.err.splitlines())) == (0, 1)


def test_a_rule_begins_now(cli: Cli, client: SyncClient) -> None:
    """--rrule without --dtstart begins now, in whole seconds, and so runs at once where it leaves the time open."""
    before = datetime.now(UTC).replace(microsecond=0)
    generator = client.get_task(cli("enqueue", "greet", "{}", "--rrule", "FREQ=DAILY").out.strip())
    assert before <= generator.wait_until <= datetime.now(UTC)
    assert generator.recurrence is not None
    assert generator.recurrence["dtstart"] == generator.wait_until


def test_bytes_that_are_no_text_are_refused(cli: Cli) -> None:
    """Latin-1 on stdin is wrong input, not a traceback."""
    answer = cli("enqueue", "mail", "-", stdin=b'{"to": "Bj\xf8rn"}')
    assert answer.code == 2
    assert answer.err.startswith("error: data cannot be read from 'stdin': 'utf-8' codec can't decode byte 0xf8")


def test_an_app_gives_the_id(cli: Cli) -> None:
    """With --app the payload's idempotency key makes the id."""
    arguments = ("enqueue", "greet", '{"name": "once-1"}', "--app", "jobs:app", "--json")
    assert cli(*arguments).json == {"taskId": "greet:once-1", "created": True}
    assert cli(*arguments).json == {"taskId": "greet:once-1", "created": False}


@pytest.fixture
def working(cli: Cli, place: FilePlace) -> Iterator[None]:
    """Has a worker run the user's tasks, on a loop of its own beside the command."""
    app = load_app("jobs:app")
    ending = asyncio.Event()
    started = threading.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def work() -> None:
        async with connect(place.url) as client, Worker(app, client):
            loops.append(asyncio.get_running_loop())
            started.set()
            await ending.wait()

    thread = threading.Thread(target=asyncio.run, args=(work(),))
    thread.start()
    assert started.wait(20)
    yield
    loops[0].call_soon_threadsafe(ending.set)
    thread.join()


@pytest.mark.usefixtures("working")
def test_waiting_gives_the_result(cli: Cli) -> None:
    """--wait prints the result after the id; with --json the task is in the document."""
    answer = cli("enqueue", "greet", '{"name": "Ada"}', "--task-id", "t", "--wait")
    assert (answer.code, answer.out.partition("\n")[0]) == (0, "t")
    assert json.loads(answer.out.partition("\n")[2]) == {"greeting": "Hello Ada"}
    document = cli("enqueue", "--wait", "greet", '{"name": "Bob"}', "--json").json
    assert (document["created"], document["task"]["status"]) == (True, "done-completed")


@pytest.mark.usefixtures("working")
def test_waiting_for_what_fails_ends_with_1(cli: Cli) -> None:
    """--wait exits with 1 and the last error where the task did not complete."""
    answer = cli("enqueue", "greet", '{"name": "nobody"}', "--task-id", "t", "--wait", "30")
    assert answer.code == 1
    assert answer.err.endswith("error: task 't' ended done-failed: ValueError: there is nobody\\nto greet\n")
    again = cli("enqueue", "greet", '{"name": "nobody"}', "--task-id", "t", "--wait", "30", "--json")
    assert (again.code, again.json["task"]["status"], again.error["type"]) == (1, "done-failed", "NotDone")


def test_waiting_without_a_worker_ends_with_1(cli: Cli) -> None:
    """--wait 0 gives up at once, and says how the task stands."""
    answer = cli("enqueue", "greet", "{}", "--task-id", "t", "--wait", "0")
    assert (answer.code, answer.out) == (1, "t\n")
    assert answer.err.endswith("error: task 't' is still pending after 0 s\n")
