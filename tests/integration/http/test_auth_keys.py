"""The keys of an issuer: who fetches them, how often, and what happens while their server does not answer."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from oncetask.http import OIDC
from oncetask.http.auth import Refused, keys
from oncetask.http.auth.keys import FRESH, PAUSE, PAUSE_WITHOUT, USABLE, Keys
from tests.integration.http.issuer import (
    AUDIENCE,
    CALLER,
    ISSUER,
    KeyServer,
    call,
    ec_key,
    key_server,
    published,
    rsa_key,
    token,
)
from tests.support import FakeClock

LIMIT = 20.0
"""Seconds after which a test gives up waiting; nothing takes nearly as long."""


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The issuer is on this machine, whatever proxy leads out of it."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def issuer() -> Iterator[KeyServer]:
    """An issuer of this test's own, whose keys may change."""
    with key_server() as served:
        yield served


@pytest.fixture
def clock() -> FakeClock:
    """The time by which keys grow old."""
    return FakeClock()


@pytest.fixture
def fetched(issuer: KeyServer, clock: FakeClock) -> Keys:
    """The issuer's keys, as `OIDC` keeps them; none is fetched yet."""
    return Keys(issuer.url, clock=clock)


async def unavailable(asked: Keys, kid: str = "rsa") -> Refused:
    """Give the refusal of one about whom nobody can tell."""
    with pytest.raises(Refused) as caught:
        await asked.find(kid)
    assert caught.value.status == 503
    assert caught.value.headers == {"Retry-After": "3"}
    return caught.value


async def until_asked(issuer: KeyServer) -> None:
    """Wait until the issuer is being asked."""
    assert await asyncio.to_thread(issuer.asked.wait, LIMIT)


async def test_keys_are_fetched_once_and_kept(fetched: Keys, issuer: KeyServer, clock: FakeClock) -> None:
    """Until they are ten minutes old; nothing is fetched before somebody needs it."""
    assert issuer.fetches == 0
    for kid in ("rsa", "ec", "rsa"):
        found = await fetched.find(kid)
        assert found is not None
        assert found.key_id == kid
    clock.advance(FRESH)
    assert await fetched.find("rsa")
    assert issuer.fetches == 1
    clock.advance(0.001)
    assert await fetched.find("rsa")
    assert issuer.fetches == 2


async def test_concurrent_first_requests_share_one_fetch(issuer: KeyServer) -> None:
    """A burst at the start asks the issuer once, and keeps the loop free meanwhile."""
    auth = OIDC(AUDIENCE, CALLER, issuers=ISSUER, jwks_url=issuer.url)
    issuer.open.clear()
    asking = [asyncio.create_task(auth.admit(call(f"Bearer {token()}"))) for _ in range(50)]
    await until_asked(issuer)
    assert not any(task.done() for task in asking)
    issuer.open.set()
    await asyncio.wait_for(asyncio.gather(*asking), LIMIT)
    assert issuer.fetches == 1


async def test_a_fetch_outlives_the_one_who_began_it(fetched: Keys, issuer: KeyServer) -> None:
    """A client that leaves does not take the keys away from the others."""
    issuer.open.clear()
    first = asyncio.create_task(fetched.find("rsa"))
    await until_asked(issuer)
    second = asyncio.create_task(fetched.find("rsa"))
    await asyncio.sleep(0)
    first.cancel()
    issuer.open.set()
    assert await asyncio.wait_for(second, LIMIT)
    assert first.cancelled()
    assert issuer.fetches == 1


async def test_a_new_key_is_found_by_its_first_token(fetched: Keys, issuer: KeyServer, clock: FakeClock) -> None:
    """An issuer changed its keys: an unknown name is a reason to ask, if the last time is half a minute ago."""
    assert await fetched.find("rsa")
    issuer.keys = [published("new", rsa_key("new"))]
    clock.advance(PAUSE - 0.001)
    assert await fetched.find("new") is None
    assert issuer.fetches == 1
    clock.advance(0.001)
    assert await fetched.find("new")
    assert await fetched.find("rsa") is None  # withdrawn
    assert issuer.fetches == 2


async def test_a_flood_of_forged_names_is_no_flood_of_fetches(
    fetched: Keys, issuer: KeyServer, clock: FakeClock
) -> None:
    """One fetch in half a minute, however many ask."""
    for _ in range(3):
        assert await asyncio.gather(*(fetched.find(f"forged-{n}") for n in range(200))) == [None] * 200
        clock.advance(PAUSE)
    assert issuer.fetches == 3


async def test_kept_keys_go_on_while_their_server_is_down(
    fetched: Keys, issuer: KeyServer, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """For a day, and the server is asked at most twice a minute; a name that nobody knows cannot be judged."""
    assert await fetched.find("rsa")
    issuer.status = 500
    clock.advance(FRESH + 1)
    for _ in range(10):
        assert await fetched.find("rsa")
    assert issuer.fetches == 2
    assert "HTTP Error 500" in caplog.text
    await unavailable(fetched, "new")
    clock.advance(USABLE - FRESH - 1)
    assert await fetched.find("rsa")
    assert issuer.fetches == 3
    clock.advance(0.001)
    await unavailable(fetched)
    clock.advance(PAUSE)
    issuer.status = 200
    assert await fetched.find("rsa")
    assert await fetched.find("new") is None
    assert issuer.fetches == 4


async def test_without_any_keys_nobody_can_tell(fetched: Keys, issuer: KeyServer, clock: FakeClock) -> None:
    """503, and the server is asked again after three seconds: nobody can call until it answers."""
    issuer.status = 503
    await asyncio.gather(*(unavailable(fetched) for _ in range(20)))
    clock.advance(PAUSE_WITHOUT - 0.001)
    await unavailable(fetched)
    assert issuer.fetches == 1
    issuer.status = 200
    clock.advance(0.001)
    assert await fetched.find("rsa")
    assert issuer.fetches == 2


async def test_a_caller_hears_503_and_may_try_again() -> None:
    """With a right token, while nobody listens where the keys should be."""
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}/keys"
    auth = OIDC(AUDIENCE, CALLER, issuers=ISSUER, jwks_url=url)
    with pytest.raises(Refused, match="cannot be checked at the moment") as caught:
        await auth.admit(call(f"Bearer {token()}"))
    assert caught.value.status == 503
    assert url not in caught.value.message


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"<html>", "JSONDecodeError"),
        (b"\xff", "UnicodeDecodeError"),
        (b"[]", "not a JSON object"),
        (b"null", "not a JSON object"),
        (b"{}", "did not contain any keys"),
        (b'{"keys": 5}', "Invalid JWK Set value"),
        (b'{"keys": [5, {}, {"kty": "RSA"}]}', "did not contain any usable keys"),
        (b"[" * 100_000, "RecursionError"),
        (b" " * (1024 * 1024 + 1), "more than 1 MiB"),
    ],
)
async def test_an_answer_without_keys_is_none(
    fetched: Keys, issuer: KeyServer, caplog: pytest.LogCaptureFixture, body: bytes, why: str
) -> None:
    """The log says what is wrong with it."""
    issuer.body = body
    await unavailable(fetched)
    assert why in caplog.text


@pytest.mark.parametrize(
    "useless",
    [
        {"kty": "oct", "k": "c2VjcmV0", "kid": "useless", "alg": "HS256"},
        published("useless", rsa_key("rsa"), use="enc"),
        published("useless", rsa_key("rsa"), alg="RS512"),
        published(None, rsa_key("rsa")),
    ],
)
async def test_keys_for_something_else_are_left_out(
    fetched: Keys, issuer: KeyServer, caplog: pytest.LogCaptureFixture, useless: dict[str, Any]
) -> None:
    """Shared secrets, keys for encryption or other algorithms, and those without a name."""
    issuer.keys = [useless, published("ec", ec_key("ec"))]
    assert await fetched.find("useless") is None
    assert await fetched.find("ec")
    issuer.keys = [useless]
    await unavailable(Keys(issuer.url))
    assert "no key for RS256 or ES256" in caplog.text


async def test_a_key_need_not_say_what_it_is_for(fetched: Keys, issuer: KeyServer) -> None:
    """`use` and `alg` may be left out of a key set."""
    issuer.keys = [published("rsa", rsa_key("rsa"), use=None, alg=None)]
    found = await fetched.find("rsa")
    assert found is not None
    assert found.algorithm_name == "RS256"


async def test_a_redirect_is_not_followed(fetched: Keys, issuer: KeyServer, caplog: pytest.LogCaptureFixture) -> None:
    """It might lead out of https, or to a server that nobody named."""
    with key_server() as elsewhere:
        issuer.status, issuer.location = 302, elsewhere.url
        await unavailable(fetched)
        assert elsewhere.fetches == 0
    assert "HTTP Error 302" in caplog.text


@pytest.mark.parametrize("endless", [False, True])
async def test_a_server_that_never_ends_its_answer_is_given_up(
    endless: bool,
    fetched: Keys,
    issuer: KeyServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """At the time limit of a fetch, so that a request can still be answered; also where a little comes all the time."""
    monkeypatch.setattr(keys, "TIMEOUT", 0.1)
    issuer.endless = endless
    if not endless:
        issuer.open.clear()
    await asyncio.wait_for(unavailable(fetched), LIMIT)
    assert "TimeoutError" in caplog.text
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


async def test_each_loop_fetches_for_itself(fetched: Keys, issuer: KeyServer) -> None:
    """What another thread's loop waits for cannot be awaited here, and might never end."""
    issuer.open.clear()
    elsewhere = asyncio.create_task(asyncio.to_thread(asyncio.run, fetched.find("rsa")))
    await until_asked(issuer)
    issuer.asked.clear()
    here = asyncio.create_task(fetched.find("rsa"))
    await until_asked(issuer)
    issuer.open.set()
    assert await asyncio.wait_for(here, LIMIT)
    assert await asyncio.wait_for(elsewhere, LIMIT)
    assert issuer.fetches == 2
