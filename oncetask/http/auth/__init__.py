"""Who may call: the port `Auth`, and three that implement it.

`Loopback` is what stands where nothing is configured. `OIDC` checks callers' tokens. `IAM` leaves it to Cloud Run.
"""

from __future__ import annotations

from oncetask.http.auth.environment import auth_from_environment
from oncetask.http.auth.loopback import IAM, Loopback
from oncetask.http.auth.oidc import OIDC
from oncetask.http.auth.port import Auth, Refused

__all__ = ["IAM", "OIDC", "Auth", "Loopback", "Refused", "auth_from_environment"]
