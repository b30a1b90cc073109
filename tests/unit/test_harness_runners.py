"""The harness: under every runner of tests that uses asyncio's own loop, and with its fixture."""

from __future__ import annotations

import asyncio
import gc
import unittest
import warnings
from datetime import timedelta

import pytest

from oncetask import App, Context, Payload
from oncetask.testing import Harness
from tests.support import T0, at


class Job(Payload, kind="job"):
    """What these run."""


APP = """
from datetime import UTC, datetime, timedelta
import asyncio, unittest
import pytest
from oncetask import App, Context, Discard, Payload
from oncetask.testing import Harness

START = datetime(2030, 1, 1, tzinfo=UTC)

class Mail(Payload, kind="mail"):
    to: str

app = App(timeout=86_400)

@app.handler(Mail)
async def mail(ctx, mail):
    await asyncio.sleep(3600)
    if mail.to == "nobody":
        raise Discard("no such address")
"""


@pytest.fixture
def suite(pytester: pytest.Pytester) -> pytest.Pytester:
    """A folder of tests as users have it, with the warnings that they would see as errors."""
    pytester.makeini("[pytest]\nfilterwarnings = error\nasyncio_default_fixture_loop_scope = function\n")
    return pytester


async def several_days() -> None:
    """Use a harness, whoever runs this."""
    app = App()

    @app.handler(Job)
    async def job(_: Context, __: Job) -> None:
        await asyncio.sleep(60)

    async with Harness(app, start=T0) as h:
        task = await h.enqueue(Job(), delay=timedelta(days=3))
        await h.advance(timedelta(days=4))
        h.assert_completed(task)
        await h.enqueue(Job())
        await h.advance(1)  # it runs on when the end comes
        assert h.now == at(4 * 86_400 + 1)


@pytest.mark.parametrize("debug", [True, False])
def test_asyncio_run(*, debug: bool) -> None:
    """`asyncio.run` is enough; in debug mode too nothing is told of tasks or loops that were left."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asyncio.run(several_days(), debug=debug)
        gc.collect()


def test_unittest() -> None:
    """`IsolatedAsyncioTestCase` enters one as it enters other contexts, and a failing test fails."""

    class Case(unittest.IsolatedAsyncioTestCase):
        async def asyncSetUp(self) -> None:
            self.h = await self.enterAsyncContext(Harness(App(), start=T0))

        async def test_good(self) -> None:
            """Time passes."""
            await self.h.advance(60)
            self.assertEqual(self.h.now, at(60))  # noqa: PT009  # as its users write it

        async def test_bad(self) -> None:
            """It is not there."""
            self.h.assert_enqueued(Job)

    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(Case).run(result)
    assert (result.testsRun, result.errors) == (2, [])
    ((_, text),) = result.failures
    assert "there should be at least one task of kind 'job', not 0" in text


def test_the_fixture_with_pytest_asyncio(suite: pytest.Pytester) -> None:
    """The report of a failing test shows its tasks and the instant; those of passing ones do not."""
    suite.makepyfile(
        APP
        + """
@pytest.mark.asyncio
async def test_good(oncetask_harness):
    async with oncetask_harness(app, start=START) as h:
        await h.run(Mail(to="seen-by-nobody"))

@pytest.mark.asyncio
async def test_bad(oncetask_harness):
    async with oncetask_harness(app, start=START) as h:
        await h.run(Mail(to="nobody"), task_id="the-mail")
        assert not "this"

@pytest.mark.asyncio
async def test_early(oncetask_harness):
    oncetask_harness(app)
    raise ValueError("before it was entered")
"""
    )
    result = suite.runpytest_subprocess("-rA")
    result.assert_outcomes(passed=1, failed=2)
    result.stdout.fnmatch_lines(
        [
            "*- oncetask tasks -*",
            "at 2030-01-01T01:00:00+00:00",
            "mail the-mail: done-failed, attempts 1, data {'to': 'nobody'}",
            "    attempt 1: Discard: no such address",
            "*- oncetask tasks -*",
            "(not entered)",
        ]
    )
    assert "seen-by-nobody" not in result.stdout.str()


def test_the_fixture_in_a_fixture(suite: pytest.Pytester) -> None:
    """A fixture of one's own that enters it gives it to the test, and the report shows its tasks all the same."""
    suite.makepyfile(
        APP
        + """
import pytest_asyncio

@pytest_asyncio.fixture
async def h(oncetask_harness):
    async with oncetask_harness(app, start=START) as harness:
        yield harness

@pytest.mark.asyncio
async def test_good(h):
    await h.enqueue(Mail(to="ada"), delay=timedelta(days=30))
    await h.advance(timedelta(days=31))
    h.assert_completed(h.tasks.one())

@pytest.mark.asyncio
async def test_bad(h):
    await h.enqueue(Mail(to="ada"), task_id="the-mail")
    h.assert_idle()
"""
    )
    result = suite.runpytest_subprocess()
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*- oncetask tasks -*", "at 2030-01-01T00:00:00+00:00", "mail the-mail: pending*"])


def test_the_fixture_with_anyio(suite: pytest.Pytester) -> None:
    """With anyio's plugin, on asyncio, time limits of anyio's own are virtual too."""
    suite.makepyfile(
        APP
        + """
import anyio

@pytest.fixture
def anyio_backend():
    return "asyncio"

@pytest.fixture
async def h(oncetask_harness):
    async with oncetask_harness(app, start=START) as harness:
        yield harness

@pytest.mark.anyio
async def test_good(h):
    with anyio.fail_after(86_400):
        await h.enqueue(Mail(to="ada"))
        await h.advance(3_600)
        await anyio.sleep(10)
    h.assert_completed(h.tasks.one())
    assert h.now == START + timedelta(seconds=3_610)

@pytest.mark.anyio
async def test_bad(h):
    await h.run(Mail(to="nobody"), task_id="the-mail")
    h.assert_completed("the-mail")
"""
    )
    suite.makeini("[pytest]\nfilterwarnings = error\n")
    result = suite.runpytest_subprocess("-p", "no:asyncio")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*- oncetask tasks -*", "at 2030-01-01T01:00:00+00:00", "mail the-mail: done-failed*"])
