"""The pytest side of the emulator: its fixtures, and what becomes of tests that need one where there is none.

Such a test carries the marker ``emulator``, or uses ``emulator_host`` and gets the marker by itself. Without
an emulator it is skipped, and the last line of the output says how many were and why; where ``CI`` is set it
fails.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

import pytest

from tests.emulator import Location, Missing, locate, running_emulator


@dataclass
class _Tally:
    """What this session found, and how its emulator tests went."""

    location: Location
    in_ci: bool
    ran: int = 0
    missed: int = 0

    def refuse(self) -> None:
        """Ends a test that needs an emulator, if there is none."""
        if not isinstance(self.location, Missing):
            return
        self.pass_over(f"needs the Firestore emulator: {self.location.reason}")

    def pass_over(self, reason: str) -> NoReturn:
        """Skip a test, or fail it in CI, where no test for the emulator may be left out."""
        if self.in_ci:
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)

    def last_line(self) -> str:
        """What to tell at the very end; empty if all is well."""
        if not (self.missed and isinstance(self.location, Missing)):
            return ""
        who = "1 test that needs" if self.missed == 1 else f"{self.missed} tests that need"
        was = "was" if self.missed == 1 else "were"
        fate = "failed, because CI is set" if self.in_ci else f"{was} skipped"
        return f"{who} the Firestore emulator {fate}: {self.location.reason}"


_TALLY = pytest.StashKey[_Tally]()


def pytest_configure(config: pytest.Config) -> None:
    """Looks for an emulator before any test has changed the environment."""
    config.addinivalue_line("markers", "emulator: needs the Firestore emulator")
    in_ci = os.environ.get("CI", "").lower() not in {"", "0", "false"}
    config.stash[_TALLY] = _Tally(locate(os.environ), in_ci)
    # An emulator of a few minutes does not earn what optimising it costs: a third of the time of these tests.
    os.environ.setdefault("JAVA_TOOL_OPTIONS", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Marks what uses the emulator, so that ``-m emulator`` finds all of it."""
    if "emulator_host" in getattr(item, "fixturenames", ()) and not item.get_closest_marker("emulator"):
        item.add_marker("emulator")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips or fails a marked test before any of its fixtures is made."""
    tally = item.config.stash[_TALLY]
    if item.get_closest_marker("emulator") and isinstance(tally.location, Missing):
        tally.missed += 1
        tally.refuse()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    """Counts the marked tests that do run."""
    if item.get_closest_marker("emulator"):
        item.config.stash[_TALLY].ran += 1


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Lets one of several processes that share the tests (pytest-xdist) hand over its counts."""
    tally = session.config.stash[_TALLY]
    if (output := getattr(session.config, "workeroutput", None)) is not None:
        output["emulator"] = (tally.ran, tally.missed)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Takes the counts of one of them."""
    ran, missed = getattr(node, "workeroutput", {}).get("emulator", (0, 0))
    tally = node.config.stash[_TALLY]
    tally.ran += ran
    tally.missed += missed


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Says how many emulator tests ran."""
    terminalreporter.write_line(f"emulator tests run: {config.stash[_TALLY].ran}")


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Has the last word, below pytest's own closing line."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter and (line := config.stash[_TALLY].last_line()):
        reporter.write_line(line, yellow=True)


def pass_over(config: pytest.Config, reason: str) -> NoReturn:
    """Skip a test that this machine's emulator is not fit for; in CI it fails."""
    config.stash[_TALLY].pass_over(reason)


@pytest.fixture(scope="session")
def emulator_host(pytestconfig: pytest.Config) -> Iterator[str]:
    """``host:port`` of the session's emulator, started when the first test asks for it."""
    tally = pytestconfig.stash[_TALLY]
    tally.refuse()
    with running_emulator(tally.location) as host:
        yield host


@pytest.fixture
def project_id() -> str:
    """A project of this test's own: the emulator keeps projects apart, so nothing has to be cleared."""
    return f"test-{uuid.uuid4().hex[:20]}"


@pytest.fixture
def firestore_environment(emulator_host: str, project_id: str) -> dict[str, str]:
    """The environment of a subprocess that is to work on this test's project in the emulator."""
    return {**os.environ, "FIRESTORE_EMULATOR_HOST": emulator_host, "GOOGLE_CLOUD_PROJECT": project_id}
