"""`examples/testing`, run as a reader runs it; and each of its tests notices when the shop is broken."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_EXAMPLE = Path(__file__).parents[3] / "examples" / "testing"
_TESTS = {
    "test_a_bank_that_is_away_for_some_time",
    "test_a_bank_that_is_away_for_too_long",
    "test_a_cancelled_order_never_starts",
    "test_a_card_that_is_refused",
    "test_a_month_of_nights",
    "test_a_worker_dies_while_it_packs",
    "test_an_order_is_cancelled_while_it_is_packed",
    "test_an_order_is_paid_once",
    "test_summer_time",
}


def run_tests(folder: Path, *only: str) -> subprocess.CompletedProcess[str]:
    """Run them, or only some, with what they would see as warnings made errors."""
    plugins = ("-p", "pytest_asyncio.plugin", "-p", "oncetask.testing.plugin", "-p", "no:cacheprovider")
    chosen = ("-k", " or ".join(only)) if only else ()
    command = [sys.executable, "-W", "error", "-m", "pytest", "-rA", *plugins, *chosen]
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=50, check=False)


def outcomes(ran: subprocess.CompletedProcess[str]) -> dict[str, set[str]]:
    """Give the names of what passed and of what failed."""
    found = re.findall(r"^(PASSED|FAILED|ERROR) \S+::(\w+)", ran.stdout, re.MULTILINE)
    return {word: {name for outcome, name in found if outcome == word} for word in ("PASSED", "FAILED", "ERROR")}


def test_they_pass(tmp_path: Path) -> None:
    """All of them do, without a warning."""
    folder = shutil.copytree(_EXAMPLE, tmp_path / "testing")
    ran = run_tests(folder)
    assert outcomes(ran) == {"PASSED": _TESTS, "FAILED": set(), "ERROR": set()}, ran.stdout
    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.parametrize(
    ("right", "wrong", "noticed"),
    [
        ("max_attempts=6", "max_attempts=2", "test_a_bank_that_is_away_for_some_time"),
        ("max_attempts=6", "max_attempts=7", "test_a_bank_that_is_away_for_too_long"),
        ("raise Discard(str(refused)) from refused", "raise", "test_a_card_that_is_refused"),
        ("return self.order\n", "return None\n", "test_an_order_is_paid_once"),
        (
            "ctx.state.warehouse.release(job.order)",
            "pass",
            "test_an_order_is_cancelled_while_it_is_packed",
        ),
        ('return f"table:{self.table}"', "return None", "test_an_order_is_cancelled_while_it_is_packed"),
        (
            "ctx.state.warehouse.reserve(job.order)\n",
            "ctx.state.warehouse.reserve(job.order)\n    if ctx.attempt > 1:\n        raise RuntimeError\n",
            "test_a_worker_dies_while_it_packs",
        ),
        ("timeout=3_600)(write", "timeout=60)(write", "test_a_month_of_nights"),
        (', timezone="Europe/Berlin"', "", "test_summer_time"),
        ("self.reserved.discard(order)", "self.reserved.remove(order)", "test_a_cancelled_order_never_starts"),
    ],
    ids=[
        "too few attempts",
        "too many attempts",
        "a refusal that is retried",
        "no idempotency key",
        "no cleanup",
        "no resource key",
        "not repeatable",
        "too little time",
        "another zone",
        "a cleanup that relies on the start",
    ],
)
def test_they_notice(right: str, wrong: str, noticed: str, tmp_path: Path) -> None:
    """Where the shop is broken in one place, the test that is about it fails."""
    folder = shutil.copytree(_EXAMPLE, tmp_path / "testing")
    changed = 0
    for name in ("shop.py", "conftest.py"):
        text = (folder / name).read_text()
        changed += right in text
        (folder / name).write_text(text.replace(right, wrong))
    assert changed == 1
    assert outcomes(run_tests(folder, noticed))["FAILED"] == {noticed}


def test_the_docs_show_what_is_run() -> None:
    """The tests in docs/testing.md that are told to be in these files are there, word for word."""
    text = (Path(__file__).parents[3] / "docs" / "testing.md").read_text()
    shown = re.findall(r"\[`examples/testing/(\w+\.py)`\].*?```python\n(.*?)```", text, re.DOTALL)
    assert {name for name, _ in shown} == {"test_payments.py", "test_cancelling.py", "test_nightly.py"}
    for name, block in shown:
        assert block in (_EXAMPLE / name).read_text(), name
