"""The command line: any arguments end with an exit code and a line on stderr, never with a traceback."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from oncetask.cli.entry import run
from tests.fuzz.effort import examples
from tests.fuzz.strategies import ODD_TEXTS, mutated

CODES = {0, 1, 2, 3}
COMMANDS = {
    "enqueue": [
        "--task-id",
        "--resource-key",
        "--delay",
        "--wait-until",
        "--timeout",
        "--deadline",
        "--owner",
        "--rrule",
    ],
    "list": ["--kind", "--status", "--resource-key", "--owner", "--limit", "--parent"],
    "show": [],
    "cancel": ["--kind", "--resource-key", "--yes"],
    "reset": ["--yes"],
    "delete": ["--yes"],
    "stats": [],
    "schedules": ["--preview", "--rrule", "--cron", "--timezone", "--dtstart"],
    "pause": [],
    "resume": [],
    "nonsense": [],
}
"""Commands that end by themselves, and options of theirs."""

words = (
    st.text(max_size=12)
    | st.sampled_from(ODD_TEXTS)
    | st.sampled_from(
        ["0", "-1", "1e999", "nan", "job", "{}", "[]", "{", "@", "@nobody.json", "-", "--", "--json", "-y"]
    )
    | st.sampled_from(["2030-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2030-01-01"])
    | st.sampled_from(
        ["memory://", "sqlite:///", "firestore://", "sqlite:///nowhere/at/all.db", "FREQ=DAILY", "@daily"]
    )
    | mutated(st.sampled_from(["0 9 * * MON-FRI", "FREQ=WEEKLY;BYDAY=MO", "Europe/Berlin", '{"n": [1]}']))
)


@st.composite
def arguments(draw: st.DrawFn) -> list[str]:
    """Give a command with options and words in any order."""
    command = draw(st.sampled_from(sorted(COMMANDS)))
    options = st.sampled_from(["--json", "--env", "--store", *COMMANDS[command]])
    given_options = draw(st.lists(st.tuples(options, words).map(list) | words.map(lambda word: [word]), max_size=4))
    sound = ["job", "{}"] if command == "enqueue" and draw(st.booleans()) else []
    return [command, *sound, *(word for one in given_options for word in one)]


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder and a store of the test's own, and nobody at the keyboard."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ONCETASK_STORE", f"sqlite:///{tmp_path / 'tasks.db'}")


def ask(*argv: str) -> int:
    """Run a command in this process."""
    stdin = sys.stdin
    sys.stdin = io.TextIOWrapper(io.BytesIO(b"\xff{"))
    try:
        return run(argv)
    finally:
        sys.stdin = stdin


@examples(40)
@given(argv=arguments())
@example(argv=["enqueue", "job", "-"])
@example(argv=["enqueue", "job", "{}", "--wait-until", "0001-01-01T00:00:00+14:00"])
@example(argv=["list", "--store", "sqlite:///a\ud800"])
def test_any_command_ends_with_a_code(argv: list[str]) -> None:
    """A command with strange options does what it says, or says what is wrong with them."""
    assert ask(*argv) in CODES


@examples(30)
@given(argv=st.lists(words, max_size=5))
def test_any_words_end_with_a_code(argv: list[str]) -> None:
    """Words that are no command are wrong usage."""
    assert ask(*argv) in CODES
