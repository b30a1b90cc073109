"""The time of `oncetask.testing` on a running loop: it jumps over timers, and waits for what really takes time."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from types import SimpleNamespace

import anyio.to_thread
import httpx
import pytest

from oncetask import App, Context, NoRetry, Payload
from oncetask.testing import Harness
from oncetask.testing.virtual import VirtualTime
from tests.support import T0, at


class Job(Payload, kind="job"):
    """What these run."""


@asynccontextmanager
async def a_server(answer: Callable[[], Awaitable[str]]) -> AsyncIterator[str]:
    """Serve HTTP on a port of this machine, and give its address; in the end, wait until all is answered."""
    serving: list[asyncio.Task[None] | None] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.append(asyncio.current_task())
        await reader.readuntil(b"\r\n\r\n")
        text = await answer()
        head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(text)}\r\nconnection: close\r\n\r\n"
        writer.write((head + text).encode())
        with suppress(ConnectionError):
            await writer.drain()
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    async with server:
        yield f"http://{host}:{port}/"
        await asyncio.gather(*filter(None, serving))


def run_job(app: App) -> Callable[[Callable[[], Awaitable[object]]], None]:
    """Let a function of the test's own be the handler of `Job`, tried once."""

    def decorate(function: Callable[[], Awaitable[object]]) -> None:
        @app.handler(Job, timeout=600, retry=NoRetry())
        async def job(_: Context, __: Job) -> object:
            return await function()

    return decorate


async def test_sleeps_of_days_take_no_time() -> None:
    """The loop's clock and the harness's go on together, and the test's own time limit has no part in it."""
    async with Harness(App(), start=T0) as h:
        began = asyncio.get_running_loop().time()
        await asyncio.sleep(3 * 86_400)
        assert h.now == at(3 * 86_400)
        assert asyncio.get_running_loop().time() - began == pytest.approx(3 * 86_400)


async def test_sleepers_wake_in_order_at_their_instants() -> None:
    """Several tasks that sleep wake as they would, each at its own time."""
    woke: list[tuple[float, str]] = []
    async with Harness(App(), start=T0) as h, asyncio.TaskGroup() as group:

        async def sleep(seconds: float) -> None:
            await asyncio.sleep(seconds)
            woke.append(((h.now - T0).total_seconds(), f"{seconds}"))

        for seconds in (500.25, 0.001, 86_400.5):
            group.create_task(sleep(seconds))
    assert woke == [(0.001, "0.001"), (500.25, "500.25"), (86_400.5, "86400.5")]


async def test_time_limits_are_virtual() -> None:
    """`asyncio.timeout` and `wait_for` end when virtual time says so."""
    async with Harness(App(), start=T0) as h:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3_600):
                await asyncio.Event().wait()
        assert h.now == at(3_600)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 60)
        assert h.now == at(3_660)


@pytest.mark.parametrize("fraction", [0.783_217_409, 0.1, 0.999_999_999])
async def test_whole_seconds_stay_whole(monkeypatch: pytest.MonkeyPatch, fraction: float) -> None:
    """What is measured has no rest of the moment at which the machine was started."""
    loop = asyncio.get_running_loop()
    with monkeypatch.context() as patched:
        patched.setattr(loop, "time", lambda: 1_055 + fraction)
        virtual = VirtualTime()
    with virtual.installed():
        began = loop.time()
        for _ in range(10):
            await asyncio.sleep(60)
        assert loop.time() - began == 600


async def test_after_half_a_year_timers_still_go_off() -> None:
    """Where a float shows no nanoseconds any more, a sleep of a second still ends after a second."""
    async with Harness(App(), start=T0) as h:
        for days in range(200, 2_000, 100):
            await asyncio.sleep(100 * 86_400)
            await asyncio.sleep(1)
            assert abs(h.now - T0 - timedelta(days=days - 100, seconds=(days - 100) / 100)) < timedelta(milliseconds=1)


@pytest.mark.parametrize("with_harness", [True, False])
@pytest.mark.parametrize("run", [asyncio.to_thread, anyio.to_thread.run_sync], ids=["asyncio", "anyio"])
async def test_threads_take_real_time(run: Callable[..., Awaitable[object]], *, with_harness: bool) -> None:
    """A function in a thread is waited for, within a handler and in the test, though a timer is at hand to jump to."""
    app = App()

    async def work() -> object:
        async with asyncio.timeout(500):
            return await run(time.sleep, 0.05)

    run_job(app)(work)
    async with Harness(app, start=T0) as h:
        if with_harness:
            h.assert_completed(await h.run(Job()))
        else:
            await work()
        assert T0 < h.now < at(60)


async def test_a_thread_that_waits_for_its_time_is_a_thread_at_work() -> None:
    """While one waits with a time limit of its own, time passes as outside: it may go on at any moment."""
    app, gate = App(), threading.Event()

    @app.handler(Job, timeout=600)
    def job(_: Context, __: Job) -> bool:
        return gate.wait(0.05)

    async with Harness(app, start=T0) as h:
        h.assert_completed(await h.run(Job()), result=False)
        assert T0 < h.now < at(60)


async def test_an_advance_does_not_wait_for_a_thread_that_goes_on() -> None:
    """What a thread does not finish by the end of an advance is left running, and ends in a later one."""
    app, gate = App(), threading.Event()
    too_late = threading.Timer(10, gate.set)

    @app.handler(Job, timeout=600)
    def job(_: Context, __: Job) -> bool:
        return gate.wait(30)

    async with Harness(app, start=T0) as h:
        task = await h.enqueue(Job())
        await h.advance(0.3)
        too_late.start()
        await h.advance(0.05)
        assert (h.now, h.task(task).status) == (at(0.35), "leased")
        assert not gate.is_set()
        too_late.cancel()
        gate.set()
        await h.run_due()
        h.assert_completed(task, result=True)


@pytest.mark.parametrize("within", ["a handler", "the test"])
async def test_sockets_work(within: str) -> None:
    """A request to a real server is answered, as long as the answer comes by itself."""
    app = App()

    async def answer() -> str:
        return "well"

    async def ask() -> str:
        async with httpx.AsyncClient(trust_env=False) as client:
            return (await client.get(address)).text

    run_job(app)(ask)
    async with a_server(answer) as address, Harness(app, start=T0) as h:
        if within == "a handler":
            h.assert_completed(await h.run(Job()), result="well")
        else:
            assert await ask() == "well"


async def test_a_server_that_takes_its_time_is_given_as_much_as_the_test_says() -> None:
    """With `patience`, an answer that takes real time comes before the time limit of the one who asked."""
    app, loop = App(), asyncio.get_running_loop()

    async def answer() -> str:  # it comes from a thread that nobody knows of
        late: asyncio.Future[str] = loop.create_future()
        threading.Timer(0.1, loop.call_soon_threadsafe, [late.set_result, "late"]).start()
        return await late

    async def ask() -> str:
        async with httpx.AsyncClient(trust_env=False, timeout=5) as client:
            return (await client.get(address)).text

    run_job(app)(ask)
    async with a_server(answer) as address:
        async with Harness(app, start=T0, patience=20) as h:
            h.assert_completed(await h.run(Job()), result="late")
            assert h.now == T0
        async with Harness(app, start=T0, patience=0) as h:
            h.assert_failed(await h.run(Job()), error=httpx.ReadTimeout)
            began = h.now
            assert await ask() == "late"  # the test itself lets no time pass, and it does as outside
            assert timedelta(seconds=0.09) < h.now - began < timedelta(seconds=5)


@pytest.mark.parametrize("pipes", [True, False])
async def test_processes_work(*, pipes: bool) -> None:
    """A process that a handler starts is given the patience of the test, whether it has pipes or not."""
    app = App()
    code = "import sys; print('out'); sys.exit(7)"

    async def start() -> object:
        pipe = asyncio.subprocess.PIPE if pipes else asyncio.subprocess.DEVNULL
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=pipe)
        out, _ = await process.communicate()
        return [process.returncode, out and out.decode()]

    run_job(app)(start)
    async with Harness(app, start=T0, patience=20) as h:
        h.assert_completed(await h.run(Job()), result=[7, "out\n" if pipes else None])


@pytest.mark.parametrize("raised", [None, ValueError("the test's own")])
async def test_afterwards_time_is_the_machines_again(raised: Exception | None) -> None:
    """When the block ends, also by an error, sleeps take their time and the loop is as it was."""
    loop = asyncio.get_running_loop()
    before = set(vars(loop))
    with suppress(ValueError):
        async with Harness(App()):
            await asyncio.sleep(1_000)
            if raised is not None:
                raise raised
    assert set(vars(loop)) == before
    assert abs(loop.time() - time.monotonic()) < 100
    began = time.monotonic()
    await asyncio.sleep(0.02)
    assert time.monotonic() - began > 0.01


async def test_one_harness_at_a_time() -> None:
    """A second one within is refused and leaves the first at work; one after the other they are welcome."""
    async with Harness(App(), start=T0) as h:
        with pytest.raises(RuntimeError, match="one Harness at a time"):
            async with Harness(App()):
                pass
        await h.advance(10)
        assert h.now == at(10)
    async with Harness(App(), start=T0) as h:
        await h.advance(20)
        assert h.now == at(20)


async def test_a_harness_may_be_entered_again() -> None:
    """It begins anew, with nothing of the first time."""
    harness = Harness(App(), start=T0)
    for _ in range(2):
        async with harness as h:
            assert (h.now, len(h.tasks)) == (T0, 0)
            await h.enqueue(Job())
            await h.advance(5)


async def test_a_foreign_loop_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop whose waiting cannot be replaced, such as uvloop's, gives an error that names it."""
    monkeypatch.setattr(asyncio, "get_running_loop", SimpleNamespace)
    with pytest.raises(TypeError, match="asyncio's own selector event loop, not SimpleNamespace"):
        VirtualTime()


async def test_nothing_is_left_behind() -> None:
    """After the end there is no task, timer or thread that was not there before, whatever still ran."""
    app, threads = App(), set(threading.enumerate())
    tasks = asyncio.all_tasks()

    class Threaded(Payload, kind="threaded"):
        pass

    @app.handler(Job, timeout=86_400)
    async def job(ctx: Context, _: Job) -> None:
        ctx.progress(0.5)
        await asyncio.Event().wait()

    @app.handler(Threaded, timeout=86_400)
    def threaded(ctx: Context, _: Threaded) -> None:
        ctx.wait_aborted_sync()

    async with Harness(app, start=T0) as h:
        for payload in (Job(), Threaded(), Threaded()):
            await h.enqueue(payload)
        await h.advance(100)
        await h.crash()
        await h.advance(200)
        assert len(h.tasks.with_status("leased")) == 3
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == tasks
    assert [timer for timer in asyncio.get_running_loop()._scheduled if not timer.cancelled()] == []  # type: ignore[attr-defined]
    for thread in set(threading.enumerate()) - threads:
        await asyncio.to_thread(thread.join, 20)  # it is told of its end, and comes to it
        assert not thread.is_alive() or thread.name.startswith("asyncio_")
