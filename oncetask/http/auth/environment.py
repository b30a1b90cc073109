"""Who may call, as the environment says."""

from __future__ import annotations

import os
from collections.abc import Mapping

from oncetask.http.auth.loopback import IAM, Loopback
from oncetask.http.auth.oidc import OIDC
from oncetask.http.auth.port import Auth

__all__ = ["auth_from_environment"]


def auth_from_environment(environ: Mapping[str, str] = os.environ) -> Auth:
    """Give what ONCETASK_AUTH says: `oidc`, `iam`, or Loopback where it is unset or empty.

    `oidc` needs ONCETASK_AUDIENCE and ONCETASK_CALLERS, each one value or several with commas between them.

    Raises ValueError for what makes no sense, also for a list of callers that nobody would look at.
    """
    chosen = environ.get("ONCETASK_AUTH", "").strip().lower()
    callers = _listed(environ, "ONCETASK_CALLERS")
    if chosen == "oidc":
        return _oidc(_listed(environ, "ONCETASK_AUDIENCE"), callers)
    if chosen not in {"", "iam"}:
        raise ValueError(
            'ONCETASK_AUTH must be "oidc" (with ONCETASK_AUDIENCE and ONCETASK_CALLERS), "iam" (Cloud Run checks the '
            f"callers) or unset (only callers on this machine), not {environ['ONCETASK_AUTH']!r}"
        )
    if callers:
        raise ValueError(
            f"ONCETASK_CALLERS is looked at only where ONCETASK_AUTH is 'oidc', not {chosen!r}: set that, or unset "
            "ONCETASK_CALLERS"
        )
    return IAM() if chosen else Loopback()


def _oidc(audience: list[str], callers: list[str]) -> OIDC:
    examples = {
        "ONCETASK_AUDIENCE": (audience, "https://my-service-abc.a.run.app"),
        "ONCETASK_CALLERS": (callers, "someone@my-project.iam.gserviceaccount.com"),
    }
    for name, (values, example) in examples.items():
        if not values:
            raise ValueError(f"{name} must be set where ONCETASK_AUTH is 'oidc', for example to {example!r}")
    try:
        return OIDC(audience, callers)
    except ValueError as error:
        raise ValueError(f"ONCETASK_AUDIENCE or ONCETASK_CALLERS is not right: {error}") from error


def _listed(environ: Mapping[str, str], name: str) -> list[str]:
    return [part.strip() for part in environ.get(name, "").split(",") if part.strip()]
