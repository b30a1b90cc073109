"""The servers that other task runners need: found, and run on a free port in a folder of their own."""

from __future__ import annotations

import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from benchmarks.peers.programs import Missing, free_port, running

__all__ = ["Postgresql", "Redis", "Server", "Sqlite", "postgresql_programs"]

_SECONDS_TO_START = 30
_INIT = ("--username=postgres", "--auth=scram-sha-256", "--encoding=UTF8", "--no-locale")
_DEBIAN = Path("/usr/lib/postgresql")


class Server(Protocol):
    """Where a task runner keeps its tasks."""

    def version(self) -> str:
        """Give name and version; raise `Missing` where it cannot run."""
        ...

    def running(self, folder: Path) -> AbstractContextManager[str]:
        """Run it with its data in an empty folder; yields its address, of the form that its clients expect."""
        ...


class Redis:
    """`redis-server` with the settings that are built into it: snapshots every few minutes, no append-only file."""

    def version(self) -> str:
        """Give name and version; raise `Missing` where it is not installed."""
        return f"Redis {_version(_program('redis-server'))}"

    @contextmanager
    def running(self, folder: Path) -> Iterator[str]:
        """Run it behind a password, since other users of the machine reach the port, too."""
        port, password = free_port(), secrets.token_hex()
        settings, log = folder / "redis.conf", folder / "redis.log"
        settings.write_text(f"bind 127.0.0.1\nport {port}\nrequirepass {password}\ndir {folder}\n")
        with running([_program("redis-server"), settings], log) as server:
            server.wait_until(lambda: _listens(port), timeout=_SECONDS_TO_START)
            yield f"redis://:{password}@127.0.0.1:{port}/0"


class Postgresql:
    """`postgres` with the settings that `initdb` writes: each commit is on the disk before it is answered."""

    def version(self) -> str:
        """Give name and version; raise `Missing` where it is not installed, or root has nobody to run it as."""
        _owner()
        return f"PostgreSQL {_version(postgresql_programs() / 'postgres')}"

    @contextmanager
    def running(self, folder: Path) -> Iterator[str]:
        """Run a new cluster behind a password, since other users of the machine reach the port, too."""
        programs, (user, group) = postgresql_programs(), _owner()
        port, password, log = free_port(), secrets.token_hex(), folder / "postgres.log"
        data, told = folder / "data", folder / "password"
        data.mkdir()
        told.write_text(password)
        if user is not None and group is not None:
            for path in (folder, data, told):
                os.chown(path, user, group)
        with running(
            (programs / "initdb", "--pgdata", data, "--pwfile", told, *_INIT),
            folder / "initdb.log",
            user=user,
            group=group,
        ) as initdb:
            initdb.wait_until_done(timeout=_SECONDS_TO_START)
        # No socket file: a temporary folder's path may be longer than the system allows for one.
        options = ("-h", "127.0.0.1", "-p", str(port), "-c", "unix_socket_directories=")
        ready = (programs / "pg_isready", "--quiet", "-h", "127.0.0.1", "-p", str(port))
        with running(
            (programs / "postgres", "-D", data, *options),
            log,
            stop_with=signal.SIGINT,  # SIGTERM would wait until every client has gone
            user=user,
            group=group,
        ) as server:
            server.wait_until(lambda: subprocess.call(ready) == 0, timeout=_SECONDS_TO_START)
            yield f"postgresql://postgres:{password}@127.0.0.1:{port}/postgres"


class Sqlite:
    """A file, and no server."""

    def version(self) -> str:
        """Give name and version."""
        return f"SQLite {sqlite3.sqlite_version}"

    @contextmanager
    def running(self, folder: Path) -> Iterator[str]:
        """Yield the path of a file that does not exist yet."""
        yield str(folder / "tasks.db")


def postgresql_programs(debian: Path = _DEBIAN) -> Path:
    """Find the folder with PostgreSQL's own programs, which many systems keep off the path; the newest of several."""
    folders = [Path(found).resolve().parent for found in [shutil.which("postgres")] if found]
    if shutil.which("pg_config"):
        told = subprocess.run(["pg_config", "--bindir"], capture_output=True, text=True, check=False)  # noqa: S607  # on the path
        folders.append(Path(told.stdout.strip()))
    folders += sorted(debian.glob("*/bin"), key=lambda folder: _numbers(folder.parent.name), reverse=True)
    for folder in folders:
        if all((folder / name).is_file() for name in ("initdb", "postgres", "pg_isready")):
            return folder
    raise Missing("PostgreSQL's programs (initdb, postgres, pg_isready) are not installed")


def _owner() -> tuple[int, int] | tuple[None, None]:
    """Give the user and group to run PostgreSQL as, which refuses to run as root; None for our own."""
    if os.geteuid() != 0:
        return None, None
    for name in ("postgres", "nobody"):
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            continue
        return found.pw_uid, found.pw_gid
    raise Missing("PostgreSQL does not run as root, and there is no user `postgres` or `nobody` to run it as")


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise Missing(f"{name} is not installed")
    return found


def _version(program: str | Path) -> str:
    told = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"\d+(\.\d+)+", told)
    return found.group() if found else "of unknown version"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))


def _listens(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0
