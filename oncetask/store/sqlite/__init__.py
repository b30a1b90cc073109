"""The embedded store: one SQLite file, several processes, nothing but the standard library.

`adapter` speaks the port's verbs, `reading` and `writing` are what they do to the database, `schema` holds the tables
and their rows, `connection` runs everything on one thread and commits in groups, `bell` tells other processes that
something was written.
"""

from oncetask.store.sqlite.adapter import SqliteStore

__all__ = ["SqliteStore"]
