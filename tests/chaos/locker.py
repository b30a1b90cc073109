"""Somebody who holds the write lock of an SQLite file: `python -m tests.chaos.locker FILE`, until it is told to let go.

It writes something into its transaction, says that it holds the lock, and rolls back at the end of its input; if it is
killed the transaction is left as it is.
"""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing

__all__: list[str] = []


def _hold(path: str) -> None:
    with closing(sqlite3.connect(path, timeout=60, isolation_level=None)) as sql:
        sql.execute("BEGIN IMMEDIATE")
        sql.execute("UPDATE clock SET version = version + 1000000000000000")  # would be noticed, were it to stay
        sys.stdout.write("held\n")
        sys.stdout.flush()
        sys.stdin.readline()
        sql.execute("ROLLBACK")


if __name__ == "__main__":
    _hold(sys.argv[1])
