"""The mistakes: single lines as somebody might have written them, each with the tests that ought to notice."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["MUTATIONS", "Mutation"]


@dataclass(frozen=True, slots=True)
class Mutation:
    """One line of the source, and the same line with a mistake in it."""

    name: str
    file: str
    line: str
    """What stands there, exactly once."""
    mistake: str
    thought: str
    """Why somebody might write that."""
    tests: tuple[str, ...]
    """Files or folders of tests that are run, and one of which has to fail."""


MUTATIONS = (
    Mutation(
        "somebody else's lease ends by the lenient bound of the present",
        "oncetask/lifecycle.py",
        "    return now.earliest if _may_still_run(task) else now.latest\n",
        "    return now.latest\n",
        "one bound of the present is as good as the other",
        ("tests/unit/test_lifecycle.py",),
    ),
    Mutation(
        "a claim does not count up",
        "oncetask/lifecycle.py",
        "        attempts=task.attempts + 1,\n",
        "        attempts=task.attempts or 1,\n",
        "the first attempt is 1",
        ("tests/unit/test_lifecycle.py", "tests/integration/worker/test_outcomes.py"),
    ),
    Mutation(
        "a completion wins over a cancel that was stored before",
        "oncetask/lifecycle.py",
        "    if task.is_cancelled:\n        return release(",
        "    if task.is_cancelled and not has_cleanup:\n        return release(",
        "what has a cleanup is dealt with elsewhere",
        ("tests/unit/test_lifecycle.py", "tests/integration/client/test_cancel_races.py"),
    ),
    Mutation(
        "a rescued task goes to the end of the line",
        "oncetask/lifecycle.py",
        '_free("rescued", task, errors=errors, leased_until=_later(now, delay))',
        '_free("rescued", task, errors=errors, wait_until=_later(now, delay))',
        "a crash is a failure like others",
        ("tests/unit/test_lifecycle.py", "tests/unit/test_key_protocol.py"),
    ),
    Mutation(
        "a cancel takes the lease away",
        "oncetask/lifecycle.py",
        '"cancelled_at": now.earliest, "wait_until": NO_WAIT}',
        '"cancelled_at": now.earliest, "wait_until": NO_WAIT, "lease_owner": None}',
        "what is cancelled is nobody's any more",
        ("tests/unit/test_lifecycle.py", "tests/integration/client/test_cancel_races.py"),
    ),
    Mutation(
        "a lease is renewed when it ends",
        "oncetask/leases.py",
        "_RENEWED_AT = 1 / 3\n",
        "_RENEWED_AT = 1\n",
        "it holds until then",
        ("tests/unit/test_leases.py", "tests/integration/worker/test_leases.py"),
    ),
    Mutation(
        "a task that is still open is taken for one's own",
        "oncetask/leases.py",
        "            if found is not None and lifecycle.holds(found, self._ids[task_id]):\n",
        "            if found is not None and found.outcome is None:\n",
        "nobody else would have left it open",
        ("tests/unit/test_leases.py", "tests/integration/worker/test_leases.py"),
    ),
    Mutation(
        "what somebody else has claimed is started as well",
        "oncetask/engine.py",
        "            if one.version is None:\n                continue\n",
        "            if one.error is not None:\n                continue\n",
        "a claim without an error is a claim",
        ("tests/integration/worker/test_sharing.py", "tests/unit/test_key_protocol.py"),
    ),
    Mutation(
        "the cleanup begins beside a handler that does not stop",
        "oncetask/running.py",
        '        stopped = isinstance(ended, Interrupted) and ended.reason == "cancelled" and ended.ended\n',
        '        stopped = isinstance(ended, Interrupted) and ended.reason == "cancelled"\n',
        "interrupted is interrupted",
        ("tests/integration/worker/test_cancelling.py",),
    ),
    Mutation(
        "a tick claims until its budget has ended",
        "oncetask/drain.py",
        "        return not self._stopping and self._read() < self._claims_until\n",
        "        return not self._stopping and self._read() < self._budget.ends\n",
        "there is budget left until then",
        ("tests/unit/test_drain.py", "tests/unit/test_drain_edges.py", "tests/integration/drain/test_tick.py"),
    ),
    Mutation(
        "who takes a key over does not shut out its former holder",
        "oncetask/keys.py",
        "        fences = [lifecycle.fence(task) for task in left]\n",
        "        fences = [lifecycle.fence(task) for task in left if task.lease_owner is None]\n",
        "a lease that is there ends by itself",
        ("tests/unit/test_keys.py", "tests/unit/test_key_protocol.py"),
    ),
    Mutation(
        "SQLite takes a change of an older record",
        "oncetask/store/sqlite/schema.py",
        "AND tasks.version = given.column2",
        "AND tasks.version >= given.column2",
        "an older version is in order",
        ("tests/contract/test_apply.py",),
    ),
    Mutation(
        "SQLite stores a task anew whose id exists",
        "oncetask/store/sqlite/schema.py",
        "ON CONFLICT (env, id) DO NOTHING",
        "ON CONFLICT (env, id) DO UPDATE SET version = excluded.version, data = excluded.data",
        "the newest enqueue counts",
        ("tests/contract/test_create.py",),
    ),
    Mutation(
        "Firestore takes a change of any record that exists",
        "oncetask/store/firestore/writes.py",
        "    set_micros(pb.current_document.update_time, transition.before.version)\n",
        "    pb.current_document.exists = True\n",
        "it has to exist",
        ("tests/contract/test_apply.py", "tests/unit/test_firestore_writes.py"),
    ),
    Mutation(
        "Firestore forgets that an answer got lost",
        "oncetask/store/firestore/batchwrite.py",
        "                for write in pending:\n                    write.doubtful = True\n",
        "                for write in pending:\n                    write.doubtful = False\n",
        "it is tried again anyway",
        ("tests/integration/firestore/test_writing.py", "tests/unit/test_firestore_writes.py"),
    ),
)
