"""The pytest side of the indexes: a session fails where `firestore.indexes.json` does not fit the queries that it sent.

Every process notes its queries: pytest's own, those that share the tests (pytest-xdist), and, by way of `PYTHONPATH`,
each Python that a test starts with the environment it has itself. The session that began it judges at the end. Whether
an index is of no use can be told only where all tests have run and passed.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests.emulator import Missing, locate
from tests.indexes.definitions import Definitions
from tests.indexes.derivation import described, missing, needless
from tests.indexes.recorder import FOLDER, record_to

_EVERY_PROCESS = Path(__file__).parent / "indexes" / "in_every_process"
_CHOOSING = ("keyword", "markexpr", "deselect", "ignore", "ignore_glob", "lf", "stepwise", "collectonly")
_FILE = "firestore.indexes.json"


@dataclass
class _Notes:
    """What all processes of this session have noted, and what came of it."""

    whole: bool
    folder: TemporaryDirectory[str] = field(default_factory=lambda: TemporaryDirectory(prefix="sent-queries-"))
    environment: pytest.MonkeyPatch = field(default_factory=pytest.MonkeyPatch)
    queries: int = 0
    faults: list[str] = field(default_factory=list)

    def begin(self) -> None:
        self.environment.setenv(FOLDER, self.folder.name)
        self.environment.setenv("PYTHONPATH", str(_EVERY_PROCESS), prepend=os.pathsep)
        record_to(self.folder.name)

    def end(self) -> None:
        self.environment.undo()
        self.folder.cleanup()

    def judge(self, definitions: Definitions, *, passed: bool) -> None:
        """Find what the definitions lack, and what they need not have."""
        known = []
        for shape, test in self._sent():
            try:
                ways = missing(shape, definitions)
                known.append(shape)
            except ValueError as error:
                ways = [str(error)]
            if ways:
                self.faults.append(
                    "\n    ".join([f"no index serves: {described(shape)}", f"first sent by {test}", *ways])
                )
        self.queries = len(known)
        if self.whole and passed:
            self.faults += [f"no query of the whole suite needs: {index}" for index in needless(known, definitions)]

    def _sent(self) -> list[tuple[Any, str]]:
        first: dict[str, tuple[Any, str]] = {}
        for file in sorted(Path(self.folder.name).glob("*.jsonl")):
            for line in file.read_text().splitlines():
                note = json.loads(line)
                first.setdefault(json.dumps(note["shape"]), (note["shape"], note["test"]))
        return list(first.values())


_NOTES = pytest.StashKey[_Notes]()


def pytest_configure(config: pytest.Config) -> None:
    """Begins to note queries, unless another session has started this one and does so already."""
    if FOLDER not in os.environ:
        is_choice = any(config.getoption(name, default=None) for name in _CHOOSING)
        everything = config.args_source is pytest.Config.ArgsSource.TESTPATHS and not is_choice
        config.stash[_NOTES] = _Notes(everything and not isinstance(locate(os.environ), Missing))
        config.stash[_NOTES].begin()


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Judges, and fails the session."""
    notes = session.config.stash.get(_NOTES, None)
    if notes is None or exitstatus not in {pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED}:
        return
    definitions = Definitions.read(session.config.rootpath / _FILE)
    notes.judge(definitions, passed=exitstatus == pytest.ExitCode.OK)
    if notes.faults:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Says what is wrong, or how many queries were looked at."""
    notes = config.stash.get(_NOTES, None)
    if notes is None:
        return
    if notes.faults:
        terminalreporter.section(f"{_FILE} does not fit the queries", red=True)
        for fault in notes.faults:
            terminalreporter.write_line(fault)
    else:
        terminalreporter.write_line(f"kinds of queries sent, each served by {_FILE}: {notes.queries}")


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Has the last word, below pytest's own closing line, which knows of tests only."""
    notes = config.stash.get(_NOTES, None)
    if notes is None:
        return
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter and notes.faults:
        reporter.write_line(f"FAILED {_FILE}: it does not fit the queries that were sent, as said above", red=True)
    notes.end()
