"""A function's process: what it needs to start, and how it ends."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import oncetask
from oncetask import TaskStatus
from tests.functions.holding import Hold
from tests.functions.serving import FUNCTIONS, caller_of, function
from tests.integration.examples.serving import LIMIT
from tests.integration.places import FilePlace

_LOADS_ALL = """
import sys
from importlib.util import find_spec
from functions_framework.aio import create_asgi_app
assert find_spec("benchmarks") is None, sys.path
for target in ("scheduler", "api", "on_task_created"):
    create_asgi_app(target)
"""


def test_the_folder_is_all_that_is_deployed(tmp_path: Path) -> None:
    """Beside the folder `functions/` they need what is installed, and nothing else of the repository."""
    deployed, installed = tmp_path / "workspace", tmp_path / "installed"
    shutil.copytree(FUNCTIONS, deployed)
    installed.mkdir()
    (installed / "oncetask").symlink_to(Path(oncetask.__file__).parent)
    paths = os.pathsep.join((str(installed), sysconfig.get_path("purelib")))
    environment = {**os.environ, "PYTHONPATH": paths, "ONCETASK_STORE": f"sqlite:///{tmp_path / 'tasks.db'}"}
    # Without -S the repository would be found by way of its editable installation.
    command = (sys.executable, "-S", "-P", "-W", "error", "-c", _LOADS_ALL)
    ran = subprocess.run(
        command, cwd=deployed, env=environment, capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


async def test_a_tick_ends_before_its_process(tmp_path: Path) -> None:
    """After SIGTERM nobody else is served, and a tick that runs goes on: its task completes, its caller is answered."""
    place = FilePlace(tmp_path)
    client = place.connect()
    called = asyncio.Queue[asyncio.StreamWriter]()
    async with await asyncio.start_server(lambda _, writer: called.put_nowait(writer), "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        task_id = (await client.enqueue(Hold(port=port))).task_id
        source = Path(__file__).with_name("holding.py")
        with function("scheduler", place.environment, source=source) as program, caller_of(program) as caller:
            tick = asyncio.create_task(asyncio.to_thread(caller.post, "/"))
            runs = await asyncio.wait_for(called.get(), LIMIT)
            ending = asyncio.create_task(asyncio.to_thread(program.terminate))
            await refused(caller.base_url.port or 0)
            assert (await client.get_task(task_id)).status is TaskStatus.LEASED
            runs.close()
            report = (await tick).json()
            assert await ending == 0
    assert (report["claimed"], report["completed"], report["interrupted"]) == (1, 1, 0)
    assert (await client.get_task(task_id)).status is TaskStatus.DONE_COMPLETED
    await place.aclose()


async def refused(port: int) -> None:
    """Wait until nobody listens there any more."""
    async with asyncio.timeout(LIMIT):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                return
            writer.close()
            await asyncio.sleep(0.02)
