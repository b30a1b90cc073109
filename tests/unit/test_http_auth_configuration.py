"""How it is said who may call: arguments and environment, and what is refused of them."""

from __future__ import annotations

import pickle
import subprocess
import sys
from datetime import timedelta
from typing import Any

import pytest

from oncetask.http import IAM, OIDC
from oncetask.http.auth import Loopback, Refused, auth_from_environment

AUDIENCE = "https://tasks.example.com"
CALLER = "scheduler@project.iam.gserviceaccount.com"


@pytest.mark.parametrize(
    "callers", [CALLER, [CALLER], (CALLER, "1234567890"), {CALLER}, iter([CALLER]), "auth0|1234", "b1f0-77"]
)
def test_callers_are_emails_and_subjects_one_or_several(callers: Any) -> None:
    """A text is one caller, not a list of its letters."""
    OIDC(AUDIENCE, callers)


@pytest.mark.parametrize(
    ("callers", "error"),
    [
        ([], "callers must not be empty"),
        ((), "callers must not be empty"),
        ("", "each of callers must be"),
        ([CALLER, ""], "each of callers must be"),
        ("*", "wildcards, .*not '[*]'"),
        (["*@example.com"], "wildcards"),
        (["@example.com"], "a whole email address"),
        (["someone@"], "a whole email address"),
        (["a@b@c"], "a whole email address"),
        (["serviceAccount:" + CALLER], "without a prefix such as 'serviceAccount:'"),
        ("a@example.com,b@example.com", "without spaces, commas"),
        (" " + CALLER, "without spaces"),
        (CALLER + "\n", "without spaces"),
    ],
)
def test_wrong_callers_are_refused(callers: Any, error: str) -> None:
    """The message names the argument and what would be right: a list that matches nobody would be found out late."""
    with pytest.raises(ValueError, match=error) as caught:
        OIDC(AUDIENCE, callers)
    assert "callers" in str(caught.value)


@pytest.mark.parametrize("wrong", [None, 5, b"someone@example.com", [None], [b"someone@example.com"]])
@pytest.mark.parametrize("name", ["audience", "callers", "issuers"])
def test_what_is_no_text_is_refused_by_name(name: str, wrong: Any) -> None:
    """Audience, callers and issuers alike."""
    arguments: dict[str, Any] = {"audience": AUDIENCE, "callers": CALLER, name: wrong}
    with pytest.raises(TypeError, match=rf"{name} must be"):
        OIDC(**arguments)


@pytest.mark.parametrize("wrong", [[], "", "https://a.example.com https://b.example.com", "https://*.example.com"])
@pytest.mark.parametrize("name", ["audience", "issuers"])
def test_wrong_audience_and_issuers_are_refused_by_name(name: str, wrong: Any) -> None:
    """An empty list would mean that anything counts, with some libraries."""
    arguments: dict[str, Any] = {"audience": AUDIENCE, "callers": CALLER, name: wrong}
    with pytest.raises(ValueError, match=name):
        OIDC(**arguments)


@pytest.mark.parametrize(
    "url", ["https://a.example.com/keys", "http://localhost:9/k", "http://127.0.0.1", "http://[::1]/"]
)
def test_keys_are_fetched_safely(url: str) -> None:
    """By https, or from this machine."""
    OIDC(AUDIENCE, CALLER, jwks_url=url)


@pytest.mark.parametrize(
    "url",
    [
        "http://issuer.example.com/keys",
        "http://localhost.example.com",
        "file:///etc/passwd",
        "ftp://localhost/keys",
        "keys",
        "",
        "https://",
        "https://a.example.com:port/",
        "https://[::1/",
    ],
)
def test_keys_are_not_fetched_in_the_clear(url: str) -> None:
    """Whoever is on the line could send keys of his own."""
    with pytest.raises(ValueError, match=r"jwks_url must be an https url"):
        OIDC(AUDIENCE, CALLER, jwks_url=url)


def test_a_key_url_must_be_a_text() -> None:
    """Its type is checked like those of the others."""
    with pytest.raises(TypeError, match="jwks_url must be an https url"):
        OIDC(AUDIENCE, CALLER, jwks_url=None)  # type: ignore[arg-type]  # what users without a type checker write


@pytest.mark.parametrize("leeway", [0, 300, timedelta(seconds=30)])
def test_leeway_is_a_short_duration(leeway: Any) -> None:
    """Seconds or timedelta, zero to five minutes."""
    OIDC(AUDIENCE, CALLER, leeway=leeway)


@pytest.mark.parametrize("leeway", [-1, 300.001, float("nan"), timedelta(days=1)])
def test_a_long_leeway_is_refused(leeway: Any) -> None:
    """It would make expired tokens good."""
    with pytest.raises(ValueError, match="leeway must be"):
        OIDC(AUDIENCE, CALLER, leeway=leeway)


@pytest.mark.parametrize(
    "environ", [{}, {"ONCETASK_AUTH": ""}, {"ONCETASK_AUTH": " "}, {"ONCETASK_AUDIENCE": AUDIENCE}]
)
def test_nothing_said_means_loopback(environ: dict[str, str]) -> None:
    """It fails closed."""
    assert isinstance(auth_from_environment(environ), Loopback)


@pytest.mark.parametrize("word", ["iam", "IAM", " iam "])
def test_iam_is_said_in_so_many_words(word: str) -> None:
    """One word, in any case."""
    assert isinstance(auth_from_environment({"ONCETASK_AUTH": word}), IAM)


@pytest.mark.parametrize("word", ["oidc", "OIDC "])
def test_oidc_takes_audience_and_callers(word: str) -> None:
    """Several are separated by commas; spaces and a comma too many do no harm."""
    environ = {"ONCETASK_AUTH": word, "ONCETASK_AUDIENCE": f"{AUDIENCE}, other", "ONCETASK_CALLERS": f"{CALLER} , 123,"}
    auth = auth_from_environment(environ)
    assert isinstance(auth, OIDC)
    assert auth._emails == (CALLER.encode(),)
    assert auth._subjects == (b"123",)
    assert auth._tokens._audience == (AUDIENCE, "other")


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"ONCETASK_AUTH": "none"}, "ONCETASK_AUTH must be .*not 'none'"),
        ({"ONCETASK_AUTH": "oidc,iam"}, "ONCETASK_AUTH must be"),
        ({"ONCETASK_AUTH": "oidc"}, "ONCETASK_AUDIENCE must be set"),
        ({"ONCETASK_AUTH": "oidc", "ONCETASK_CALLERS": CALLER}, "ONCETASK_AUDIENCE must be set"),
        ({"ONCETASK_AUTH": "oidc", "ONCETASK_AUDIENCE": AUDIENCE}, "ONCETASK_CALLERS must be set"),
        ({"ONCETASK_AUTH": "oidc", "ONCETASK_AUDIENCE": AUDIENCE, "ONCETASK_CALLERS": " , "}, "ONCETASK_CALLERS must"),
        ({"ONCETASK_AUTH": "oidc", "ONCETASK_AUDIENCE": AUDIENCE, "ONCETASK_CALLERS": "*"}, "ONCETASK_CALLERS is not"),
        ({"ONCETASK_CALLERS": CALLER}, "ONCETASK_CALLERS is looked at only"),
        ({"ONCETASK_AUTH": "iam", "ONCETASK_CALLERS": CALLER}, "ONCETASK_CALLERS is looked at only"),
    ],
)
def test_an_environment_that_makes_no_sense_is_refused(environ: dict[str, str], named: str) -> None:
    """The message names the variable; a list of callers that nobody looks at is a mistake too."""
    with pytest.raises(ValueError, match=named):
        auth_from_environment(environ)


def test_the_process_environment_is_what_counts_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is at the call, not as it was at the import."""
    monkeypatch.setenv("ONCETASK_AUTH", "iam")
    assert isinstance(auth_from_environment(), IAM)


def test_a_refusal_survives_pickling() -> None:
    """As every error of oncetask does, with what the answer is made of."""
    refused = pickle.loads(pickle.dumps(Refused(401, "no", headers={"WWW-Authenticate": "Bearer"})))  # noqa: S301  # our own
    assert isinstance(refused, Refused)
    assert (refused.status, refused.message, str(refused)) == (401, "no", "no")
    assert refused.headers == {"WWW-Authenticate": "Bearer"}


def test_what_checks_tokens_is_imported_only_where_tokens_are_checked() -> None:
    """PyJWT and cryptography take a tenth of a second of a cold start."""
    program = "import sys, oncetask.http; print(sorted({'jwt', 'cryptography'} & set(sys.modules)))"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert ended.stdout.strip() == "[]"


@pytest.mark.parametrize("missing", ["jwt", "cryptography"])
def test_without_its_libraries_it_says_what_to_install(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Starlette may be there for another reason; PyJWT without cryptography would find every key unusable."""
    monkeypatch.setitem(sys.modules, missing, None)
    for module in ("tokens", "keys"):
        monkeypatch.delitem(sys.modules, f"oncetask.http.auth.{module}", raising=False)
    with pytest.raises(ImportError, match=r"oncetask\[http\]"):
        OIDC(AUDIENCE, CALLER)
