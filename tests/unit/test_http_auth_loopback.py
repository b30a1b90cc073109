"""Who counts as a caller on this machine, and when `IAM` believes in a check that came before."""

from __future__ import annotations

import asyncio
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import HTTPConnection

from oncetask.http import IAM
from oncetask.http.auth import Auth, Loopback, Refused

Headers = list[tuple[str, str]]
HERE: Headers = [("host", "localhost:8080")]


def connection(
    headers: Headers | None = None, client: tuple[str, int] | None = ("127.0.0.1", 4711), kind: str = "http"
) -> HTTPConnection:
    """Give a connection as a server hands it over."""
    raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers or []]
    return HTTPConnection({"type": kind, "scheme": kind, "client": client, "headers": raw})


async def refusal(auth: Auth, asked: HTTPConnection) -> Refused:
    """Give the refusal; fails where the caller is admitted."""
    with pytest.raises(Refused) as caught:
        await auth.admit(asked)
    return caught.value


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8080", "LocalHost:1", "127.0.0.1", "127.0.0.1:8080", "[::1]", "[::1]:8080"]
)
async def test_a_caller_on_this_machine_is_admitted(peer: str, host: str) -> None:
    """Every loopback address under every loopback name, with any port."""
    await Loopback().admit(connection([("Host", host)], client=(peer, 1)))


@pytest.mark.parametrize(
    "peer",
    [
        "10.0.0.1",
        "192.168.1.2",
        "169.254.8.129",
        "203.0.113.7",
        "0.0.0.0",  # noqa: S104  # nothing is bound
        "::",
        "fe80::1",
        "2001:db8::1",
        "::ffff:10.0.0.1",
        "::ffff:203.0.113.7",
        "testclient",
        "localhost",
        "",
        "127.0.0.1.example.com",
        "0x7f.0.0.1",
    ],
)
async def test_a_caller_from_elsewhere_is_refused(peer: str) -> None:
    """What is no loopback address is not this machine, whatever the Host header says."""
    assert (await refusal(Loopback(), connection(HERE, client=(peer, 1)))).status == 403


async def test_a_connection_without_an_address_is_refused() -> None:
    """Behind a Unix socket stands a proxy, as a rule, and nobody knows who asked it."""
    assert (await refusal(Loopback(), connection(HERE, client=None))).status == 403


@pytest.mark.parametrize(
    "name",
    [
        "X-Forwarded-For",
        "X-Forwarded-Host",
        "X-Forwarded-Proto",
        "Forwarded",
        "X-Real-IP",
        "Via",
        "X-Client-IP",
        "X-Cluster-Client-IP",
        "True-Client-IP",
        "CF-Connecting-IP",
        "X-Original-Host",
    ],
)
@pytest.mark.parametrize("value", ["203.0.113.7", "127.0.0.1", ""])
async def test_a_forwarded_call_is_refused(name: str, value: str) -> None:
    """A proxy on this machine asks for somebody who is not, and says so; what he says of himself does not count."""
    assert (await refusal(Loopback(), connection([*HERE, (name, value)]))).status == 403


@pytest.mark.parametrize(
    "hosts",
    [
        [],
        [""],
        ["example.com"],
        ["localhost.example.com"],
        ["example.com:8080"],
        ["localhost@example.com"],
        ["10.0.0.1:8080"],
        ["127.0.0.1.example.com"],
        ["::1"],
        ["[::1"],
        ["[::1].example.com"],
        ["localhost:port"],
        ["localhost:1:2"],
        ["localhost/"],
        ["localhost\n"],
        [":8080"],
        ["localhost", "localhost"],
        ["localhost", "example.com"],
    ],
)
async def test_another_host_name_is_refused(hosts: list[str]) -> None:
    """A name of somebody else's may lead to this machine (DNS rebinding), and so a browser here."""
    assert (await refusal(Loopback(), connection([("Host", host) for host in hosts]))).status == 403


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize(
    "header",
    [
        ("Origin", "https://example.com"),
        ("Origin", "http://localhost"),
        ("Origin", "http://localhost:3000"),
        ("Origin", "http://127.0.0.1:8080"),
        ("Origin", "http://localhost:8080.example.com"),
        ("Origin", "null"),
        ("Origin", ""),
        ("Origin", "file://localhost:8080"),
        ("Sec-Fetch-Site", "cross-site"),
        ("Sec-Fetch-Site", "same-site"),
        ("Sec-Fetch-Site", ""),
    ],
)
async def test_a_page_of_another_origin_is_refused(kind: str, header: tuple[str, str]) -> None:
    """A browser on this machine may show anybody's page, also one from another port of this machine."""
    assert (await refusal(Loopback(), connection([*HERE, header], kind=kind))).status == 403


async def test_a_second_origin_does_not_hide_behind_a_good_one() -> None:
    """Of several headers each has to be right."""
    for name, good, bad in (
        ("Origin", "http://localhost:8080", "https://example.com"),
        ("Sec-Fetch-Site", "same-origin", "cross-site"),
    ):
        assert (await refusal(Loopback(), connection([*HERE, (name, good), (name, bad)]))).status == 403


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("site", ["same-origin", "none"])
async def test_a_page_of_this_origin_is_admitted(kind: str, scheme: str, site: str) -> None:
    """The dashboard's own page asks the host that it came from."""
    asked = [*HERE, ("Origin", f"{scheme}://LocalHost:8080"), ("Sec-Fetch-Site", site)]
    await Loopback().admit(connection(asked, kind=kind))


async def test_a_refusal_says_what_to_configure_and_nothing_of_what_was_sent(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its reader is somebody who wonders why his service answers nobody."""
    refused = await refusal(Loopback(), connection([("Host", "sent.example.com")]))
    assert "ONCETASK_AUTH=oidc" in refused.message
    assert "the Host header" in refused.message
    assert "sent.example.com" not in refused.message + caplog.text
    assert "the Host header" in caplog.text
    assert refused.headers == {}


NAMES = st.sampled_from(
    ["host", "origin", "sec-fetch-site", "x-forwarded-for", "x-forwarded-x", "forwarded", "via", "accept", "cookie"]
)
VALUES = st.sampled_from(
    [
        "localhost:8080",
        "http://localhost:8080",
        "same-origin",
        "localhost",
        "[::1]:80",
        "http://[::1]:80",
        "example.com",
    ]
) | st.text(st.characters(max_codepoint=255), max_size=12)


@given(
    peer=st.sampled_from(["127.0.0.1", "::1", "::ffff:127.0.0.1", "10.0.0.1"]) | st.text(max_size=8),
    headers=st.lists(st.tuples(NAMES, VALUES), max_size=4),
)
def test_only_what_looks_local_in_every_way_is_admitted(peer: str, headers: Headers) -> None:
    """Whatever is sent, a caller is admitted or refused; nobody is admitted with a header that speaks against it."""
    try:
        asyncio.run(Loopback().admit(connection(headers, client=(peer, 1))))
    except Refused:
        return
    assert peer in {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    values = {name: value for name, value in headers if name not in {"accept", "cookie"}}
    assert set(values) <= {"host", "origin", "sec-fetch-site"}
    assert values["host"] in {"localhost:8080", "localhost", "[::1]:80"}
    assert values.get("origin") in {None, f"http://{values['host']}"}
    assert values.get("sec-fetch-site") in {None, "same-origin"}


@pytest.fixture
def on_cloud_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of a service on Cloud Run."""
    monkeypatch.setenv("K_SERVICE", "tasks")
    monkeypatch.delenv("FUNCTIONS_EMULATOR", raising=False)


@pytest.mark.usefixtures("on_cloud_run")
async def test_on_cloud_run_iam_admits_everybody(caplog: pytest.LogCaptureFixture) -> None:
    """The platform has checked the caller before the request got here."""
    for header in ("Authorization", "X-Serverless-Authorization"):
        headers = [("Host", "tasks.example.com"), ("X-Forwarded-For", "203.0.113.7"), (header, "Bearer a.b.c")]
        await IAM().admit(connection(headers, client=("169.254.8.129", 1)))
    assert caplog.records == []


@pytest.mark.usefixtures("on_cloud_run")
async def test_a_call_without_a_token_is_a_warning_once(caplog: pytest.LogCaptureFixture) -> None:
    """Where the platform does check, no such call can arrive: the operator is told what he may have forgotten."""
    auth = IAM()
    for _ in range(3):
        await auth.admit(connection([("Host", "tasks.example.com")], client=("169.254.8.129", 1)))
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "--no-allow-unauthenticated" in caplog.text


@pytest.mark.parametrize("elsewhere", ["", "KUBERNETES_SERVICE_HOST", "FUNCTIONS_EMULATOR"])
async def test_elsewhere_iam_admits_only_callers_on_this_machine(
    elsewhere: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody checks callers on a laptop, nor in an own Knative or Firebase's emulator, though these set K_SERVICE."""
    monkeypatch.delenv("FUNCTIONS_EMULATOR", raising=False)
    if elsewhere:
        monkeypatch.setenv("K_SERVICE", "tasks")
        monkeypatch.setenv(elsewhere, "true")
    auth = IAM()
    assert "this is not Cloud Run" in caplog.text
    await auth.admit(connection(HERE))
    refused = await refusal(auth, connection([*HERE, ("Authorization", "Bearer a.b.c")], client=("203.0.113.7", 1)))
    assert refused.status == 403
    assert "outside Cloud Run" in refused.message
