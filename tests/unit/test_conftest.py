"""What the fixtures that hold for every test keep away from it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def session(pytester: pytest.Pytester) -> pytest.Pytester:
    """A session that has this project's conftest, and a package ``oncetask`` with one more module, which blocks."""
    package = pytester.mkpydir("oncetask")
    (package / "__init__.py").write_text(f"__path__.append({str(ROOT / 'oncetask')!r})\n")  # plugins use the others
    (package / "blocking.py").write_text("import time\ndef block(): time.sleep(0)\n")
    pytester.makeconftest((ROOT / "tests" / "conftest.py").read_text())
    pytester.makeini("[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n")
    return pytester


def run(session: pytest.Pytester) -> pytest.RunResult:
    """Runs the session in a process of its own, where that ``oncetask`` is found first."""
    path = os.pathsep.join([str(session.path), str(ROOT)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", path)
        return session.runpytest_subprocess()


def test_blocking_the_loop_fails(session: pytest.Pytester) -> None:
    """A test fails when oncetask blocks the event loop, even if something catches the error."""
    session.makepyfile(
        """
        from oncetask.blocking import block

        async def test_open():
            block()

        async def test_swallowed():
            try:
                block()
            except Exception:
                pass

        def test_outside_of_a_loop():
            block()
        """
    )
    result = run(session)
    result.assert_outcomes(passed=2, failed=1, errors=2)
    result.stdout.fnmatch_lines(["*The event loop was blocked by time.sleep.*"])


def test_foreign_environment_is_out_of_sight(session: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables that would send a test to somebody's cloud are gone while it runs."""
    foreign = ["ONCETASK_STORE", "GOOGLE_CLOUD_PROJECT", "FIRESTORE_EMULATOR_HOST", "K_SERVICE"]
    for name in foreign:
        monkeypatch.setenv(name, "somewhere")
    session.makepyfile(
        f"""
        import os

        def test_clean():
            assert not set(os.environ) & set({foreign})
        """
    )
    run(session).assert_outcomes(passed=1)
