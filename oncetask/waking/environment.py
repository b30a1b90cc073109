"""Which waker the environment variables ask for."""

from __future__ import annotations

import os
from collections.abc import Mapping

from oncetask.waking.alarm import CloudTasksAlarm
from oncetask.waking.checks import check_audience, check_queue, check_service_account, check_url
from oncetask.waking.kick import HttpKick
from oncetask.waking.port import NoWaker, Waker

__all__ = ["waker_from_environment"]

_URL = "ONCETASK_WAKE_URL"
_AUDIENCE = "ONCETASK_WAKE_AUDIENCE"
_QUEUE = "ONCETASK_WAKE_QUEUE"
_ACCOUNT = "ONCETASK_WAKE_SERVICE_ACCOUNT"


def waker_from_environment(environ: Mapping[str, str] | None = None) -> Waker:
    """Make the waker that ONCETASK_WAKE names: `none` (as is unset), `http` or `cloudtasks`.

    `http` needs ONCETASK_WAKE_URL, and ONCETASK_WAKE_AUDIENCE where the function checks who calls. `cloudtasks` needs
    ONCETASK_WAKE_QUEUE, ONCETASK_WAKE_URL and ONCETASK_WAKE_SERVICE_ACCOUNT, and takes an ONCETASK_WAKE_AUDIENCE that
    is not the url. `environ`: left out: this process's. Does no I/O. Raises ValueError that names the variable, and
    Unsupported where google-cloud-tasks is missing.
    """
    given = {name: value for name, value in (os.environ if environ is None else environ).items() if value}
    choice = given.get("ONCETASK_WAKE", "none")
    audience = check_audience(_AUDIENCE, given[_AUDIENCE]) if _AUDIENCE in given else None
    if choice == "none":
        return NoWaker()
    if choice == "http":
        return HttpKick(check_url(_URL, given.get(_URL, ""), loopback=True).geturl(), audience=audience)
    if choice == "cloudtasks":
        return CloudTasksAlarm(
            check_queue(_QUEUE, given.get(_QUEUE, "")),
            check_url(_URL, given.get(_URL, ""), loopback=False).geturl(),
            check_service_account(_ACCOUNT, given.get(_ACCOUNT, "")),
            audience,
        )
    msg = f"ONCETASK_WAKE must be none, http or cloudtasks, not {choice!r}"
    raise ValueError(msg)
