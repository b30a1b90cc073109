"""The options that commands share, and how their values are read."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from oncetask.cli.exits import BadInput
from oncetask.cli.logs import LogLevel

__all__ = ["AppOption", "Concurrency", "Env", "Ids", "Json", "Level", "Port", "Store", "Target", "Yes", "instant"]

_CONNECTION = "Where"

Store = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="URL",
        help="firestore://PROJECT\\[/DATABASE], sqlite:///FILE or memory://. Left out: ONCETASK_STORE, else the Google "
        "project that this machine knows, else ./oncetask.db.",
        rich_help_panel=_CONNECTION,
    ),
]
Env = Annotated[
    str | None,
    typer.Option(
        "--env",
        metavar="NAME",
        help="The environment, whose tasks no other one sees. Left out: ONCETASK_ENV, else default.",
        rich_help_panel=_CONNECTION,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Write JSON to stdout, and errors as JSON to stderr.")]
AppOption = Annotated[
    str | None,
    typer.Option("--app", metavar="MODULE:APP", help="The App with the handlers, found from the current folder."),
]
Target = Annotated[
    str, typer.Argument(metavar="MODULE:APP", help="The App, found from the current folder.", show_default=False)
]
Concurrency = Annotated[int, typer.Option("--concurrency", metavar="N", help="How many tasks it runs at a time.")]
Port = Annotated[
    int,
    typer.Option("--port", metavar="PORT", min=0, max=65_535, help="The port; 0: one that is free, which it tells."),
]
Level = Annotated[LogLevel, typer.Option("--log-level", metavar="LEVEL", help="debug, info, warning or error.")]
Ids = Annotated[list[str], typer.Argument(metavar="ID...", help="The ids of the tasks.", show_default=False)]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def instant(name: str, text: str) -> datetime:
    """Read an ISO 8601 instant, which has to say its zone. Raises BadInput."""
    try:
        read = datetime.fromisoformat(text)
    except ValueError as error:
        msg = f"{name} must be an instant in ISO 8601, such as 2030-01-31T08:00:00+01:00, not {text!r} ({error})"
        raise BadInput(msg) from error
    if read.tzinfo is None:
        msg = f"{name} must say its zone, such as {text}Z or {text}+01:00; {text!r} could mean any"
        raise BadInput(msg)
    return read
