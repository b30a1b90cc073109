"""The files of a folder, whatever else is in it."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["File", "Found", "find_files"]

_KINDS = (
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


@dataclass(frozen=True, slots=True)
class File:
    """A regular file, as it was when it was found."""

    path: Path
    name: str
    """Its path below the folder."""
    size: int
    changed_ns: int

    def is_unchanged(self) -> bool:
        """Tell whether it still is as it was found."""
        try:
            now = self.path.stat()
        except OSError:
            return False
        return (now.st_size, now.st_mtime_ns) == (self.size, self.changed_ns)


@dataclass(frozen=True, slots=True)
class Found:
    """What is in a folder."""

    root: Path
    files: list[File]
    skipped: list[str]
    """What is no file to be read, each with the reason."""
    more: bool
    """There are more files than were wanted."""


def find_files(root: Path, *, most: int, source_only: bool = False) -> Found:
    """Find the first `most` files below `root`, in the order of their names; links are not followed.

    `source_only`: without the caches that Python itself writes beside its source.
    """
    root = Path(os.path.abspath(root))  # noqa: PTH100  # as the user sees it: links above are none of our business
    files: list[File] = []
    skipped: list[str] = []
    for path in _below(root, skipped, source_only=source_only):
        name = str(path.relative_to(root))
        found = _look_at(path, name)
        if isinstance(found, str):
            skipped.append(f"{name}: {found}")
        elif len(files) == most:
            return Found(root, files, skipped, more=True)
        else:
            files.append(found)
    return Found(root, files, skipped, more=False)


def _below(root: Path, skipped: list[str], *, source_only: bool) -> Iterator[Path]:
    def complain(error: OSError) -> None:
        skipped.append(f"{os.path.relpath(error.filename, root)}: {error.strerror}")

    for folder, subfolders, names in os.walk(root, onerror=complain):
        links = [name for name in subfolders if Path(folder, name).is_symlink()]
        subfolders[:] = sorted(n for n in subfolders if n not in links and not (source_only and n == "__pycache__"))
        for name in sorted([*names, *links]):
            yield Path(folder, name)


def _look_at(path: Path, name: str) -> File | str:
    """Give the file, or the reason why it cannot be measured."""
    try:
        status = path.lstat()
    except OSError as error:
        return error.strerror or "cannot be looked at"
    if not stat.S_ISREG(status.st_mode):
        return next((kind for is_kind, kind in _KINDS if is_kind(status.st_mode)), "no regular file")
    if not os.access(path, os.R_OK):
        return "may not be read"
    return File(path, name, status.st_size, status.st_mtime_ns)
