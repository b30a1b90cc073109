"""`oncetask demo`: real work on real files, checked afterwards."""

from __future__ import annotations

import shutil
import stat
import tempfile
from pathlib import Path
from typing import Annotated
from urllib.parse import quote
from uuid import uuid4

import typer

import oncetask
from oncetask.cli.demo.files import Found, find_files
from oncetask.cli.demo.report import print_report, report_as_json
from oncetask.cli.demo.run import run_demo
from oncetask.cli.exits import BadInput, NotDone
from oncetask.cli.logs import LogLevel, set_up_logging
from oncetask.cli.options import Env, Json, Store
from oncetask.cli.output import Output
from oncetask.client import connect

__all__ = ["demo"]


def demo(
    *,
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FOLDER]", help="Whose files to measure; left out: oncetask's own source.", show_default=False
        ),
    ] = None,
    most: Annotated[int, typer.Option("--most", metavar="N", min=1, help="How many files at most.")] = 10_000,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the tasks, to look at them afterwards.")] = False,
    store: Store = None,
    env: Env = None,
    json_: Json = False,
) -> None:
    """See it work: a task for each file of a folder, run by a worker in this process, and checked.

    Each task computes SHA-256, lines and words of its file. One of them fails
    twice before it succeeds; one is enqueued twice and runs once.

    The tasks live in a temporary SQLite file, or in --store (never in
    ONCETASK_STORE), in a new environment of their own, and are deleted at the
    end. Exit 1 if anything is not as it should be.

    [bold]Example:[/bold] oncetask demo ~/Documents --keep

    [bold]On the emulator:[/bold] FIRESTORE_EMULATOR_HOST=127.0.0.1:8080
    oncetask demo --store firestore://demo-oncetask
    """
    output = Output(as_json=json_)
    set_up_logging(LogLevel.ERROR, as_json=json_)
    found = _files(folder, most)
    env = env if env is not None else f"demo-{uuid4().hex[:8]}"
    temporary = tempfile.mkdtemp(prefix="oncetask-demo-") if store is None else None
    url = store if store is not None else f"sqlite:///{quote(f'{temporary}/demo.db')}"
    try:
        client = connect(url, env=env)
        report = run_demo(client, found, output, keep=keep or temporary is not None)
    finally:
        if temporary is not None and not keep:
            shutil.rmtree(temporary, ignore_errors=True)
    report.fate = _fate(url, env, keep=keep, temporary=temporary)
    if output.as_json:
        output.document(report_as_json(report))
    else:
        print_report(output, report)
    if wrong := [check for check in report.checks if not check.holds]:
        raise NotDone(f"the demo went wrong: {'; '.join(check.says for check in wrong)}")


def _files(folder: Path | None, most: int) -> Found:
    """Find what there is to measure. Raises BadInput where that is nothing."""
    root = folder if folder is not None else Path(oncetask.__file__).parent
    try:
        is_folder = stat.S_ISDIR(root.stat().st_mode)
    except OSError as error:
        msg = f"FOLDER {str(root)!r} cannot be read: {error.strerror}"
        raise BadInput(msg) from error
    if not is_folder:
        msg = f"FOLDER {str(root)!r} is a file; give the folder that it is in: {str(root.parent)!r}"
        raise BadInput(msg)
    found = find_files(root, most=most, source_only=folder is None)
    if not found.files:
        why = f"; skipped: {'; '.join(found.skipped[:3])}" if found.skipped else ", not even in its subfolders"
        msg = f"FOLDER {str(root)!r} has no file that can be read{why}"
        raise BadInput(msg)
    return found


def _fate(url: str, env: str, *, keep: bool, temporary: str | None) -> str:
    if keep:
        return f"The tasks were kept: oncetask list --store {url} --env {env}"
    if temporary is not None:
        return f"The database was {temporary}/demo.db; it has been removed (--keep keeps it)."
    return "The demo's tasks have been deleted (--keep keeps them)."
