"""`oncetask reset` and `oncetask delete`: one answer for each id."""

from __future__ import annotations

from oncetask.cli.answers import change_each, checked, named, report
from oncetask.cli.consent import ask
from oncetask.cli.options import Env, Ids, Json, Store, Yes
from oncetask.cli.output import Output
from oncetask.cli.records import how_many
from oncetask.cli.session import with_client

__all__ = ["delete", "reset"]


def reset(*, ids: Ids, store: Store = None, env: Env = None, json_: Json = False) -> None:
    """Run done tasks again, from the first attempt.

    Exit 1 if one of them was not found, or is not done; the others are reset
    all the same.

    With --json: {"reset": [ID...], "notDone": [ID...], "notFound": [ID...]}.

    [bold]Example:[/bold] oncetask reset send-email:42 send-email:43
    """
    unique = checked(ids)
    answers = with_client(store, env, lambda client: change_each(unique, client.reset_task))
    reasons = named("not done, so they were not reset", answers.refused)
    report(Output(as_json=json_), answers, done="reset", refused="notDone", reasons=reasons)


def delete(*, ids: Ids, yes: Yes = False, store: Store = None, env: Env = None, json_: Json = False) -> None:
    """Delete tasks for good.

    Asks before, unless --yes is given. Exit 1 if one of them was not found, or
    is running; the others are deleted all the same.

    With --json: {"deleted": [ID...], "running": [ID...], "notFound": [ID...]}.

    [bold]Example:[/bold] oncetask delete send-email:42 --yes
    """
    unique = checked(ids)
    if not yes:
        ask(
            lambda: f"Delete {how_many(len(unique))} for good?",
            what="delete asks before it deletes",
            otherwise="nothing was deleted",
            as_json=json_,
        )
    answers = with_client(store, env, lambda client: change_each(unique, client.delete_task))
    reasons = named("running, so they were not deleted", answers.refused)
    report(Output(as_json=json_), answers, done="deleted", refused="running", reasons=reasons)
