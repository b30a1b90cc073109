"""What callers do, through the real `Client`: each on a machine of its own, one thing after the other."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from oncetask import Receipt, Recurrence
from oncetask.errors import InvalidRecurrence, OncetaskError, StoreUnavailable, TaskNotFound
from tests.simulation.apps import PAYLOADS, Job
from tests.simulation.machines import Machine
from tests.simulation.timeline import SECOND
from tests.support import T0

if TYPE_CHECKING:
    from tests.simulation.world import World

__all__ = ["ClientMachine", "Janitor"]

_BUSY = 6


class ClientMachine(Machine):
    """Does what the profile says, in an order that is drawn, until it is tired."""

    def __init__(self, world: World, name: str, *, first: int) -> None:
        """`first`: so many tasks are enqueued before anything else."""
        super().__init__(world, name)
        self.is_tired = False
        self._first = first
        self.spawn(self._live())

    async def _live(self) -> None:
        lots, profile = self.world.lots, self.world.profile
        if profile.is_crowded:
            await self._try("crowd")
        for _ in range(self._first):
            await self._try("enqueue")
        while not self.is_tired:
            await asyncio.sleep(lots.random() * profile.pause)
            if not self.is_tired:
                await self._try(lots.choice(profile.verbs))

    async def _try(self, verb: str) -> None:
        """Do one thing; a store that is not there is nothing that a caller could not expect."""
        try:
            await getattr(self, f"_{verb}")()
        except (StoreUnavailable, TaskNotFound) as error:
            self.world.note(self.name, verb, "fails:", repr(error))

    # -- enqueue ------------------------------------------------------------------------------------------------------

    async def _enqueue(self) -> None:
        payload, options, since = self._payload(), self._options(), self.world.micros
        receipt = await self.client.enqueue(payload, **options)
        self.world.note(self.name, "has enqueued", payload.kind, receipt, sorted(options))
        self.world.oracle.enqueued(self, receipt, since)

    async def _enqueue_many(self) -> None:
        payloads = [self._payload() for _ in range(self.world.lots.randrange(2, 5))]
        options, since = self._options(), self.world.micros
        try:
            receipts = await self.client.enqueue_many(payloads, **options)
        except StoreUnavailable as error:
            receipts = [receipt for receipt in error.receipts or () if isinstance(receipt, Receipt)]
            for receipt in receipts:
                if receipt.created:
                    self.world.oracle.enqueued(self, receipt, since)
            if not receipts or self.world.lots.random() < 0.3:
                raise
            ids = [receipt.task_id for receipt in receipts]
            receipts = await self.client.enqueue_many(payloads, task_ids=ids, **options)
        self.world.note(self.name, "has enqueued", *receipts)
        for receipt in receipts:
            self.world.oracle.enqueued(self, receipt, since)

    async def _crowd(self) -> None:
        """Keep one kind and one key busy for a long time."""
        for _ in range(_BUSY):
            await self.client.enqueue(PAYLOADS["single"]())
            await self.client.enqueue(PAYLOADS["strict"](), resource_key="busy")

    async def _recur(self) -> None:
        rule, since = self._rule(), self.world.micros
        kind = self.world.lots.choice(("plain", "undone", "short", "single"))
        options = self._key() if self.world.lots.random() < 0.2 else {}
        try:
            receipt = await self.client.enqueue(PAYLOADS[kind](), recurrence=rule, **options)
        except InvalidRecurrence:
            return  # its last instant has just passed
        self.world.note(self.name, "has enqueued", rule, receipt)
        self.world.oracle.enqueued(self, receipt, since)

    def _payload(self) -> Job:
        lots = self.world.lots
        kind = lots.choice(self.world.profile.kinds)
        return PAYLOADS[kind](mark=f"m{lots.randrange(9)}" if lots.random() < 0.25 else None)

    def _options(self) -> dict[str, Any]:
        lots, profile = self.world.lots, self.world.profile
        options: dict[str, Any] = {}
        if profile.is_crowded:
            return options
        if profile.keys and lots.random() < profile.keyed:
            options |= self._key()
        if lots.random() < 0.3:
            options["delay"] = lots.choice((0, 0.3, 2.0)) * lots.random()
        elif lots.random() < 0.15:
            options["wait_until"] = self.world.now + timedelta(seconds=lots.uniform(-30, 6))
        if lots.random() < 0.1:
            options["timeout"] = lots.choice((0.4, 3.0))
        if lots.random() < 0.12:
            start = options.get("wait_until", self.world.now + timedelta(seconds=2))
            options["deadline"] = start + timedelta(seconds=lots.uniform(0.1, 9))
        if "delay" in options:
            options.pop("deadline", None)
        return options

    def _key(self) -> dict[str, Any]:
        return {"resource_key": f"key-{self.world.lots.randrange(max(1, self.world.profile.keys))}"}

    def _rule(self) -> Recurrence:
        lots = self.world.lots
        more: dict[str, Any] = {
            "catch_up": lots.choice(("one", "all", "skip")),
            "overlap": lots.choice(("allow", "skip", "cancel-previous")),
        }
        match lots.choice(("every", "cron", "count")):
            case "every":
                start = T0 + timedelta(seconds=lots.randrange(-5, 5))
                return Recurrence.every(lots.choice((3, 4, 7)), start=start, **more)
            case "cron":
                return Recurrence.cron(lots.choice(("*/5 * * * * *", "*/12 * * * * *", "* * * * *")), **more)
        start = T0 + timedelta(seconds=self.world.micros // SECOND + lots.randrange(4))
        return Recurrence(f"FREQ=SECONDLY;INTERVAL=2;COUNT={lots.randrange(1, 5)}", start, **more)

    # -- change -------------------------------------------------------------------------------------------------------

    async def _cancel(self) -> None:
        await self._one("cancel", self.client.cancel_task)

    async def _reset(self) -> None:
        await self._one("reset", self.client.reset_task)

    async def _delete(self) -> None:
        await self._one("delete", self.client.delete_task)

    async def _pause_schedule(self) -> None:
        await self._one("pause_schedule", self.client.pause_schedule, generators=True)

    async def _resume_schedule(self) -> None:
        await self._one("resume_schedule", self.client.resume_schedule, generators=True)

    async def _one(self, verb: str, do: Any, *, generators: bool = False) -> None:
        oracle, since = self.world.oracle, self.world.micros
        ids = oracle.generators if generators else oracle.ids
        if not ids:
            return
        task_id = self.world.lots.choice(ids)
        done = await do(task_id)
        self.world.note(self.name, verb, task_id, done)
        oracle.changed(self, verb, task_id, since, done=done)

    async def _cancel_ids(self) -> None:
        await self._several("cancel_ids", self.client.cancel_tasks_by_ids)

    async def _reset_ids(self) -> None:
        await self._several("reset_ids", self.client.reset_tasks_by_ids)

    async def _delete_ids(self) -> None:
        await self._several("delete_ids", self.client.delete_tasks_by_ids)

    async def _several(self, verb: str, do: Any) -> None:
        ids = self.world.oracle.ids
        some = [self.world.lots.choice(ids) for _ in range(min(3, len(ids)))]
        self.world.note(self.name, verb, *some, await do(some))

    async def _cancel_key(self) -> None:
        kind = self.world.lots.choice((None, "plain"))
        key = self._key()["resource_key"]
        self.world.note(self.name, "cancels", key, await self.client.cancel_tasks_by_resource_key(kind, key))

    async def _cancel_kind(self) -> None:
        kind = self.world.lots.choice(self.world.profile.kinds)
        self.world.note(self.name, "cancels", kind, await self.client.cancel_tasks_by_kind(kind))

    async def _pause_kind(self) -> None:
        kind = self.world.lots.choice(self.world.profile.kinds)
        self.world.note(self.name, "pauses", kind, await self.client.pause_kind(kind))

    async def _resume_kind(self) -> None:
        for kind in await self.client.paused_kinds():
            self.world.note(self.name, "resumes", kind, await self.client.resume_kind(kind))

    # -- look ---------------------------------------------------------------------------------------------------------

    async def _wait(self) -> None:
        if ids := self.world.oracle.ids:
            task_id = self.world.lots.choice(ids)
            try:
                task = await self.client.wait(task_id, timeout=3)
            except TimeoutError:
                return
            self.world.oracle.saw(self, task, done=True)

    async def _watch(self) -> None:
        if ids := self.world.oracle.ids:
            seen: list[int] = []
            try:
                async with asyncio.timeout(2):
                    async for task in self.client.watch(self.world.lots.choice(ids)):
                        self.world.oracle.saw(self, task, before=seen)
                        seen.append(task.version)
            except TimeoutError:
                return


class Janitor(Machine):
    """Lets everything go on that somebody has stopped, and stops what would go on for ever."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world, name)
        self.spawn(self._clear_up())

    async def _clear_up(self) -> None:
        while True:
            try:
                for kind in await self.client.paused_kinds():
                    await self.client.resume_kind(kind)
                await self.client.cancel_tasks_by_ids(self.world.oracle.generators)
            except OncetaskError as error:
                self.world.fail(f"the janitor could not do its work, though nothing goes wrong: {error!r}")
            await asyncio.sleep(20)
