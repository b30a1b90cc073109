"""What is claimed next of what was read ahead."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from oncetask.slots import Room
from oncetask.task import Task
from oncetask.waiting import Waiting
from tests.support import T0, a_handler, a_task, at, exactly

NOW = exactly(T0)


class Time:
    """A loop's time that stands still until a test moves it."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        """Give the time."""
        return self.seconds


def keyed(task_id: str, key: str = "ada", **fields: Any) -> Task:
    """Give a due task that waits for a resource key."""
    return a_task(task_id, **{"resource_key": key, "wait_until": at(-1), "version": 1, **fields})


def plain(task_id: str, **fields: Any) -> Task:
    """Give a due task without a resource key."""
    return a_task(task_id, **{"wait_until": at(-1), "version": 1, **fields})


def room(total: int = 100, **kinds: int) -> Room:
    """Give room for so many in all, and of each kind."""
    return Room(total, kinds or {"greet": total}, 0, frozenset())


@pytest.fixture
def time() -> Time:
    """The loop's time."""
    return Time()


@pytest.fixture
def waiting(time: Time) -> Waiting:
    """Nothing yet, of one kind."""
    return Waiting({"greet": a_handler()}, time=time, now=lambda: NOW)


def picked(waiting: Waiting, left: Room | None = None) -> tuple[list[str], list[str]]:
    """Pick, and give the ids: of those that stand for themselves, and for their keys."""
    found = waiting.pick(room() if left is None else left)
    return [task.id for task in found.plain], [task.id for task in found.keyed]


class TestKinds:
    """Shares, room and order."""

    def test_one_kind_is_first_in_first_out(self, waiting: Waiting) -> None:
        """What was found first is given first, as far as there is room; each version once."""
        waiting.add([plain("a"), plain("b"), plain("c")])
        assert picked(waiting, room(2)) == (["a", "b"], [])
        waiting.add([plain("a"), plain("d")])
        assert picked(waiting) == (["c", "d"], [])

    def test_a_flood_leaves_room(self, time: Time) -> None:
        """Of a kind with a thousand tasks and one with three, each gets half of the slots until the three are out."""
        waiting = Waiting({"flood": a_handler(), "trickle": a_handler()}, time=time, now=lambda: NOW)
        waiting.add([plain(f"f{n}", kind="flood") for n in range(1_000)])
        waiting.add([plain(f"t{n}", kind="trickle") for n in range(3)])
        got, _ = picked(waiting, room(8, flood=8, trickle=8))
        assert Counter(task_id[0] for task_id in got) == {"f": 5, "t": 3}

    def test_priority_is_a_share(self, time: Time) -> None:
        """A kind of priority 3 gets three of four slots, also where they free one by one."""
        waiting = Waiting({"high": a_handler(priority=3), "low": a_handler()}, time=time, now=lambda: NOW)
        waiting.add([plain(f"{kind}{n}", kind=kind) for kind in ("low", "high") for n in range(100)])
        got = [picked(waiting, room(1, high=1, low=1))[0][0][:-1].rstrip("0123456789") for _ in range(40)]
        assert Counter(got) == {"high": 30, "low": 10}

    def test_a_full_kind_is_passed_over(self, time: Time) -> None:
        """A kind without room of its own leaves the slots to others, and comes once there is room."""
        waiting = Waiting({"one": a_handler(), "two": a_handler()}, time=time, now=lambda: NOW)
        waiting.add([plain("a", kind="one"), plain("b", kind="two"), plain("c", kind="two")])
        assert picked(waiting, room(8, one=0, two=8)) == (["b", "c"], [])
        assert picked(waiting, room(8, one=8, two=8)) == (["a"], [])

    def test_what_is_known_to_be_old_is_dropped(self, waiting: Waiting) -> None:
        """A record older than what this worker wrote since is not given."""
        waiting.add([plain("a"), plain("b")])
        waiting.note("a", 5)
        assert picked(waiting) == (["b"], [])
        waiting.add([plain("a", version=5)])
        assert picked(waiting) == (["a"], [])

    def test_what_goes_first(self, waiting: Waiting) -> None:
        """What was found by a look at the front goes before what was read ahead."""
        waiting.add([plain("b"), plain("c")])
        waiting.add([plain("a1"), plain("a2")], first=True)
        assert picked(waiting) == (["a1", "a2", "b", "c"], [])


class TestKeys:
    """One of each, and none of a busy one."""

    def test_one_of_each_key(self, waiting: Waiting) -> None:
        """A key is offered once, for its first task; then it counts as held, whatever else is found of it."""
        passed = waiting.add([keyed("a1"), keyed("b1", "bob"), keyed("a2"), plain("c")])
        assert [task.id for task in passed] == ["a2"]
        assert picked(waiting) == (["c"], ["a1", "b1"])
        assert [task.id for task in waiting.add([keyed("a3")])] == ["a3"]
        assert picked(waiting) == ([], [])

    def test_what_needs_no_key(self, waiting: Waiting) -> None:
        """A dead worker's task of a busy key is given all the same: it is only rescued."""
        waiting.add([keyed("a1")])
        picked(waiting)
        dead = keyed("a2", lease_owner="other", leased_until=at(-1), attempts=1)
        assert waiting.add([dead]) == []
        assert picked(waiting) == (["a2"], [])

    def test_a_closed_key_comes_back(self, waiting: Waiting, time: Time) -> None:
        """It is looked past until its time, and offered then with the task that was given, old or not."""
        waiting.add([keyed("a1")])
        picked(waiting)
        waiting.note("a1", 9)
        waiting.close("ada", keyed("a1"), 2)
        assert waiting.opens_in() == 2
        assert picked(waiting) == ([], [])
        time.seconds += 2
        assert waiting.opens_in() == 0
        assert picked(waiting) == ([], ["a1"])
        assert waiting.opens_in() is None

    def test_a_free_key_is_offered_behind_the_others(self, waiting: Waiting) -> None:
        """A key that had its turn comes after what waits already."""
        waiting.add([keyed("a1"), keyed("b1", "bob"), plain("c")])
        assert picked(waiting, room(1)) == ([], ["a1"])
        waiting.free("ada", keyed("a2"))
        assert picked(waiting, room(3)) == (["c"], ["b1", "a2"])

    def test_what_was_found_while_it_was_held(self, waiting: Waiting) -> None:
        """It is told to whoever holds the key; where he did not run it, it is offered when the key is free."""
        waiting.add([keyed("a1")])
        picked(waiting)
        assert waiting.newest_of("ada") is None
        waiting.add([keyed("a2", version=2), keyed("a3", version=3)])
        newest = waiting.newest_of("ada")
        assert newest is not None
        assert newest.id == "a3"
        waiting.free("ada")
        assert picked(waiting) == ([], ["a3"])
        waiting.note("a3", 7)
        waiting.free("ada")
        assert picked(waiting) == ([], [])

    def test_what_was_run_meanwhile_is_not_offered(self, waiting: Waiting) -> None:
        """A key whose last known task was run by its holder is simply forgotten."""
        waiting.add([keyed("a1")])
        picked(waiting)
        waiting.add([keyed("a2")])
        waiting.note("a2", 5)
        waiting.free("ada")
        assert picked(waiting) == ([], [])
        waiting.add([keyed("a4")])
        assert picked(waiting) == ([], ["a4"])

    def test_crowds(self, waiting: Waiting) -> None:
        """Busy keys for which many wait are named, the largest first, until they are free."""
        waiting.add([keyed(f"{key}0", key) for key in ("ada", "bob", "cy")])
        picked(waiting)
        for key, number in (("ada", 10), ("bob", 30), ("cy", 9)):
            waiting.add([keyed(f"{key}-{n}", key) for n in range(number)])
        assert waiting.crowds() == ["bob", "ada"]
        assert waiting.busy_keys() == ["bob", "ada", "cy"]
        waiting.free("bob")
        assert waiting.crowds() == ["ada"]

    def test_forgetting_what_is_offered(self, waiting: Waiting) -> None:
        """What stands for a key stays, since it may not be found again; the others will be. Held keys stay held."""
        waiting.add([keyed("a1")])
        picked(waiting)
        waiting.add([keyed("b1", "bob"), plain("c")])
        waiting.clear()
        waiting.add([keyed("a2"), keyed("b1", "bob"), plain("c")])
        assert picked(waiting) == (["c"], ["b1"])

    def test_more_keys_than_are_remembered(self, waiting: Waiting) -> None:
        """Beyond ten thousand closed keys the first ones are looked at early, instead of being forgotten."""
        for n in range(10_005):
            waiting.close(f"key-{n}", keyed(f"t{n}", f"key-{n}"), 60)
        offered, keys = picked(waiting)
        assert (offered, len(keys)) == ([], 5)


class TestWhatChangesMeanwhile:
    """Between being found and being picked."""

    def test_one_that_needs_no_key_any_more(self, time: Time) -> None:
        """A task whose deadline passes while it stands for its key is given for its own sake, and the key is free."""
        present = [at(0)]
        waiting = Waiting({"greet": a_handler()}, time=time, now=lambda: exactly(present[0]))
        waiting.add([keyed("a1", deadline=at(5)), keyed("a2")])
        present[0] = at(5)
        assert picked(waiting) == (["a1"], [])
        waiting.add([keyed("a2")])
        assert picked(waiting) == ([], ["a2"])

    def test_a_crowd_is_counted_once(self, waiting: Waiting) -> None:
        """However often the same tasks are found, they are as many as they are."""
        waiting.add([keyed("a0")])
        picked(waiting)
        for _ in range(20):
            waiting.add([keyed(f"a{n}") for n in range(1, 10)])
        assert waiting.crowds() == []
        waiting.add([keyed("a10")])
        assert waiting.crowds() == ["ada"]

    def test_a_key_that_is_looked_at_again_keeps_its_crowd(self, waiting: Waiting, time: Time) -> None:
        """Only who had the key, and let it go, makes its tasks worth reading again."""
        waiting.add([keyed("a0")])
        picked(waiting)
        waiting.add([keyed(f"a{n}") for n in range(1, 20)])
        waiting.close("ada", keyed("a0"), 2)
        time.seconds += 2
        assert picked(waiting) == ([], ["a0"])
        assert waiting.crowds() == ["ada"]
        waiting.free("ada")
        assert waiting.crowds() == []
