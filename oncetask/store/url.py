"""Which store a url means, and which one where none is given."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from oncetask.errors import StoreUnavailable
from oncetask.payload import has_surrogates

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oncetask.store import TaskStore

__all__ = ["environment", "open_store"]

_EXAMPLES = "firestore://PROJECT[/DATABASE], sqlite:///file.db (four slashes for an absolute path) or memory://"
_PROJECT = re.compile(r"[A-Za-z0-9][A-Za-z0-9.:_-]*")  # with "example.com:" in front of it, for some
_ENV = re.compile(r"(?!\.{1,2}$)(?!__.*__$)[A-Za-z0-9._-]{1,100}")
_PASSING_DISKS = ("K_SERVICE", "FUNCTION_TARGET", "CLOUD_RUN_JOB", "KUBERNETES_SERVICE_HOST")
_EMULATOR_PROJECT = "demo-oncetask"
_log = logging.getLogger("oncetask")


def environment(env: str | None) -> str:
    """Give the environment: the argument, else ONCETASK_ENV, else "default"; checked."""
    name = env if env is not None else os.environ.get("ONCETASK_ENV") or "default"
    if not isinstance(name, str) or not _ENV.fullmatch(name):
        msg = f"env must be 1 to 100 of the characters A-Z a-z 0-9 . _ -, not {name!r}"
        raise ValueError(msg)
    return name


def open_store(
    url: str | None, *, env: str | None, firestore: Any = None, credentials: Any = None
) -> TaskStore:  # the Firestore library's own types
    """Make the store, without any I/O but that of finding out which project this machine belongs to.

    Raises ValueError for a url that names no store and StoreUnavailable where none can be chosen.
    """
    name = environment(env)
    if firestore is not None:
        if url is not None:
            msg = f"url must be left out where an own Firestore client is passed in, not {url!r}"
            raise ValueError(msg)
        return _firestore(env=name, client=firestore)
    url = url if url is not None else os.environ.get("ONCETASK_STORE") or None
    if url is None:
        return _default(name, credentials)
    if not isinstance(url, str):
        msg = f"url must be a text such as {_EXAMPLES}, not {url!r}"
        raise TypeError(msg)
    return _named(url, name, credentials)


def _named(url: str, env: str, credentials: object) -> TaskStore:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        msg = f"url must be {_EXAMPLES}, not {url!r} ({error})"
        raise ValueError(msg) from error
    plain = not (parts.query or parts.fragment)
    path = unquote(parts.path[1:])
    if parts.scheme == "memory" and not parts.netloc and not path and plain:
        return _sqlite(":memory:", env)
    if parts.scheme == "sqlite" and not parts.netloc and plain and _is_file(path):
        return _sqlite(path, env)
    if parts.scheme == "firestore" and _PROJECT.fullmatch(parts.netloc) and "/" not in path and plain:
        return _firestore(env=env, project=parts.netloc, database=path or None, credentials=credentials)
    msg = f"url must be {_EXAMPLES}, not {url!r}"
    raise ValueError(msg)


def _is_file(path: str) -> bool:
    """Tell whether a file may be called so; half a surrogate pair, say, has no bytes."""
    return path not in {"", ":memory:"} and "\0" not in path and not has_surrogates(path)


def _default(env: str, credentials: object) -> TaskStore:
    project = _google_project(os.environ)
    if project:
        return _firestore(env=env, project=project, database=None, credentials=credentials)
    for name in _PASSING_DISKS:
        if os.environ.get(name):
            msg = (
                f"no store is configured, and {name} says that this disk will not last, so SQLite in a file would "
                f"lose tasks: set ONCETASK_STORE to {_EXAMPLES}, or GOOGLE_CLOUD_PROJECT"
            )
            raise StoreUnavailable(msg)
    _log.info("no ONCETASK_STORE and no Google project found: tasks are kept in ./oncetask.db (SQLite)")
    return _sqlite("oncetask.db", env)


def _google_project(environ: Mapping[str, str]) -> str | None:
    named = environ.get("GOOGLE_CLOUD_PROJECT")
    if named or environ.get("FIRESTORE_EMULATOR_HOST"):
        return named or _EMULATOR_PROJECT
    if not _has_google_credentials(environ):
        return None  # google.auth would ping the metadata server for ten seconds before it said the same
    import google.auth  # noqa: PLC0415  # slow to import, and rarely needed
    from google.auth.exceptions import DefaultCredentialsError  # noqa: PLC0415

    try:
        _, project = google.auth.default()
    except DefaultCredentialsError:
        return None
    return project if isinstance(project, str) else None


def _has_google_credentials(environ: Mapping[str, str]) -> bool:
    if environ.get("GOOGLE_APPLICATION_CREDENTIALS") or any(environ.get(name) for name in _PASSING_DISKS):
        return True
    folder = Path(environ.get("CLOUDSDK_CONFIG") or Path.home() / ".config" / "gcloud")
    if (folder / "application_default_credentials.json").is_file():
        return True
    try:
        return "Google" in Path("/sys/class/dmi/id/product_name").read_text()
    except OSError:
        return False


def _sqlite(path: str, env: str) -> TaskStore:
    from oncetask.store.sqlite import SqliteStore  # noqa: PLC0415  # Firestore needs none of it

    return SqliteStore(path, env=env)


def _firestore(**options: Any) -> TaskStore:  # the Firestore library's own types
    from oncetask.store.firestore import FirestoreStore  # noqa: PLC0415  # a second of imports; SQLite needs none of it

    return FirestoreStore(**options)
