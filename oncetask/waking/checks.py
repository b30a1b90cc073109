"""What the settings of wakers have to look like; errors name the setting, its value and what would be right."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import SplitResult, urlsplit

__all__ = ["check_audience", "check_queue", "check_service_account", "check_url"]

_QUEUE = re.compile(r"projects/[A-Za-z0-9.:-]+/locations/[a-z0-9-]+/queues/[A-Za-z0-9-]{1,100}")
_ACCOUNT = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
_VISIBLE = re.compile(r"[!-~]+")


def check_url(name: str, value: object, *, loopback: bool) -> SplitResult:
    """Check an address to send a token to, and give its parts. Raises TypeError, ValueError.

    `loopback`: plain http is fine too, to this machine only.
    """
    right = "an https url such as https://REGION-PROJECT.cloudfunctions.net/scheduler"
    if loopback:
        right += " (http only to this machine: http://127.0.0.1:8080/tick)"
    _check_text(name, value, right)
    wrong = ValueError(f"{name} must be {right}, without user, password or fragment, not {value!r}")
    try:
        parts = urlsplit(str(value))
        _ = parts.port  # looked at only now
    except ValueError as error:
        raise wrong from error
    plain = parts.username is None and parts.password is None and not parts.fragment
    safe = parts.scheme == "https" or (loopback and parts.scheme == "http" and _is_loopback(parts.hostname))
    if not (_VISIBLE.fullmatch(str(value)) and parts.hostname and plain and safe):
        raise wrong
    return parts


def check_audience(name: str, value: object) -> str:
    """Check whom an identity token is for. Raises TypeError, ValueError."""
    return _check_text(name, value, "what the scheduler function expects, usually its url", _VISIBLE)


def check_queue(name: str, value: object) -> str:
    """Check the full name of a Cloud Tasks queue. Raises TypeError, ValueError."""
    return _check_text(name, value, "projects/PROJECT/locations/LOCATION/queues/QUEUE", _QUEUE)


def check_service_account(name: str, value: object) -> str:
    """Check the e-mail address of a service account. Raises TypeError, ValueError."""
    right = "the e-mail address of a service account, such as NAME@PROJECT.iam.gserviceaccount.com"
    return _check_text(name, value, right, _ACCOUNT)


def _check_text(name: str, value: object, right: str, pattern: re.Pattern[str] | None = None) -> str:
    msg = f"{name} must be {right}, not {value!r}"
    if not isinstance(value, str):
        raise TypeError(msg)
    if pattern is not None and not pattern.fullmatch(value):
        raise ValueError(msg)
    return value


def _is_loopback(host: str | None) -> bool:
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return host == "localhost"
