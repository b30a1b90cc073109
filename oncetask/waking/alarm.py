"""Alarms by Cloud Tasks: a request to the scheduler function at the second at which something is due.

An alarm is named by environment, target and second, so a thousand enqueues that are due in one second set one. Cloud
Tasks remembers a name for an hour after its request (nine days in queues made from a queue.yaml) and refuses it
meanwhile. So an alarm must never be taken for set whose request has gone out before the write that asks for it: its
second always lies ahead of everything that the store's clock may show, by a margin for the two clocks.
"""

from __future__ import annotations

import asyncio
import importlib.util
from collections import OrderedDict
from datetime import datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from oncetask.clock import Duration, Now, from_micros, seconds, to_micros
from oncetask.errors import Unsupported
from oncetask.threads import in_thread
from oncetask.waking.checks import check_audience, check_queue, check_service_account, check_url
from oncetask.waking.complaints import Complaints
from oncetask.waking.port import Waker

if TYPE_CHECKING:
    from oncetask.waking.cloudtasks import Alarms

__all__ = ["CloudTasksAlarm"]

_MARGIN = timedelta(milliseconds=100)
"""How far the clocks of Cloud Tasks and Firestore may be apart."""

_FARTHEST = timedelta(days=30) - timedelta(minutes=1)
"""Cloud Tasks takes 30 days; some time passes until it looks."""

_CALL = 10.0
"""Seconds that a call may take, whether its enqueue still waits or not: a late alarm is better than none."""

_REMEMBERED = 1_024
_SECOND = 1_000_000


class CloudTasksAlarm(Waker):
    """Sets an alarm for what is due within 30 days, at the next full second; the rest is left to the ticks."""

    def __init__(
        self,
        queue: str,
        url: str,
        service_account: str,
        audience: str | None = None,
        *,
        client: Any = None,  # google.cloud.tasks_v2.CloudTasksAsyncClient, whose import takes a second
        timeout: Duration = 2.0,
    ) -> None:
        """Let a queue call a scheduler function.

        `queue`: `projects/PROJECT/locations/LOCATION/queues/QUEUE`. `url`: https. `service_account`: the e-mail
        address of the account as which the queue calls; this process has to be allowed to act as that one.
        `audience`: whom its identity token is for; left out: the url. `client`: an own `CloudTasksAsyncClient`, which
        stays open; left out: one of the default credentials. `timeout`: seconds for which an enqueue waits for its
        alarm. Raises TypeError and ValueError for what is none of that, Unsupported without google-cloud-tasks.
        """
        if importlib.util.find_spec("google.cloud.tasks_v2") is None:
            msg = 'CloudTasksAlarm needs google-cloud-tasks: pip install "oncetask[cloudtasks]"'
            raise Unsupported(msg)
        self._queue = check_queue("queue", queue)
        self._url = check_url("url", url, loopback=False).geturl()
        self._account = check_service_account("service_account", service_account)
        self._audience = self._url if audience is None else check_audience("audience", audience)
        self._timeout = seconds("timeout", timeout)
        self._client = client
        self._complaints = Complaints()
        self._set: OrderedDict[str, None] = OrderedDict()
        self._calls: dict[str, asyncio.Task[None]] = {}
        self._opening: asyncio.Task[Alarms] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def wake(self, at: datetime, *, env: str, now: Now) -> None:
        """Set an alarm, unless this process has set it already; see `Waker.wake`."""
        if at - now.latest > _FARTHEST:
            return
        second = _second(at, now)
        name = self._name(env, second)
        if name in self._set:
            self._set.move_to_end(name)
            return
        self._be_here()
        call = self._calls.get(name)
        if call is None or call.done():
            self._calls[name] = call = asyncio.create_task(self._call(name, second))
        _, late = await asyncio.wait({call}, timeout=self._timeout)  # leaves the call alone if the enqueue is cancelled
        if late:
            self._complaints.say(f"{self._queue} has not answered within {self._timeout:g} s (the call goes on)")

    async def aclose(self) -> None:
        """Wait for the alarms that are being set, no longer than an enqueue would, and close the own connection."""
        self._be_here()
        if self._calls:
            _, late = await asyncio.wait(set(self._calls.values()), timeout=self._timeout)
            for call in late:
                call.cancel()
        opening, self._opening = self._opening, None
        if opening is None:
            return
        opening.cancel()
        await asyncio.wait({opening})
        if self._client is None and _succeeded(opening):
            await opening.result().aclose()

    def _be_here(self) -> None:
        """Forget what belongs to another event loop, such as one before a fork."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._opening, self._calls = loop, None, {}

    def _name(self, env: str, second: int) -> str:
        """Give the full name of an alarm.

        The hash keeps apart what reads alike once it is spelt in the characters that Cloud Tasks allows, and what calls
        different targets through one queue. It comes first because Cloud Tasks is slow with names that begin alike.
        """
        digest = sha256(f"{env}\n{self._url}\n{second}".encode()).hexdigest()[:16]
        return f"{self._queue}/tasks/{digest}-oncetask-{env.replace('.', '_')}-{second}"

    async def _call(self, name: str, second: int) -> None:
        try:
            alarms = await self._opened()
            await alarms.set(
                name,
                from_micros(second * _SECOND),
                url=self._url,
                account=self._account,
                audience=self._audience,
                timeout=_CALL,
            )
        except Exception as error:  # noqa: BLE001  # whatever it is, the task is stored
            self._complaints.say(f"{self._queue} did not take an alarm: {type(error).__name__}: {error}")
        else:
            self._set[name] = None
            if len(self._set) > _REMEMBERED:
                self._set.popitem(last=False)
        finally:
            self._calls.pop(name, None)

    async def _opened(self) -> Alarms:
        if self._opening is None or (self._opening.done() and not _succeeded(self._opening)):
            self._opening = asyncio.create_task(self._open())
        return await asyncio.shield(self._opening)

    async def _open(self) -> Alarms:
        alarms = await in_thread(_load)
        return await alarms.open() if self._client is None else alarms(self._client)


def _second(at: datetime, now: Now) -> int:
    """Give the first second, since 1970, that follows `at` and everything that may be now, by the margin."""
    return -(-to_micros(max(at, now.latest) + _MARGIN) // _SECOND)


def _load() -> type[Alarms]:
    from oncetask.waking.cloudtasks import Alarms  # noqa: PLC0415  # a second of imports, in a thread

    return Alarms


def _succeeded(opening: asyncio.Task[Alarms]) -> bool:
    return opening.done() and not opening.cancelled() and opening.exception() is None
