"""`OIDC`: which tokens count, and whose; keys and tokens are real, the issuer is a server of this test."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import logging
import time
from collections.abc import Iterator
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import HTTPConnection

from oncetask.http import OIDC
from oncetask.http.auth import Refused
from tests.integration.http.issuer import (
    AUDIENCE,
    CALLER,
    ISSUER,
    KeyServer,
    call,
    claims,
    ec_key,
    key_server,
    published,
    rsa_key,
    token,
)

NOW = int(time.time())


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The issuer is on this machine, whatever proxy leads out of it."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture(scope="module")
def issuer() -> Iterator[KeyServer]:
    """An issuer whose keys do not change."""
    with key_server() as keys:
        yield keys


@pytest.fixture
def auth(issuer: KeyServer) -> OIDC:
    """Admits CALLER, and the subject 1234567890 only where a test says so."""
    return oidc(issuer)


def oidc(issuer: KeyServer, callers: Any = CALLER, **options: Any) -> OIDC:
    """Make an OIDC of the test's issuer."""
    return OIDC(options.pop("audience", AUDIENCE), callers, issuers=ISSUER, jwks_url=issuer.url, **options)


async def refusal(auth: OIDC, asked: HTTPConnection) -> Refused:
    """Give the refusal; fails where the caller is admitted."""
    with pytest.raises(Refused) as caught:
        await auth.admit(asked)
    return caught.value


async def flaw(auth: OIDC, wrong: str) -> str:
    """Give what the bearer of a wrong token is told; everything about the answer is checked here."""
    refused = await refusal(auth, call(f"Bearer {wrong}"))
    assert refused.status == 401
    challenge = f'Bearer realm="oncetask", error="invalid_token", error_description="{refused.message}"'
    assert refused.headers == {"WWW-Authenticate": challenge}
    return refused.message


def raw(header: Any, payload: Any, signature: bytes = b"") -> str:
    """Put a token together by hand."""
    texts = (part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, payload))
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in (*texts, signature))


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Bearer  "])
async def test_a_caller_of_the_list_is_admitted(auth: OIDC, scheme: str) -> None:
    """The name of the scheme is in any case."""
    await auth.admit(call(f"{scheme} {token()}"))


async def test_a_websocket_is_judged_like_a_request(auth: OIDC) -> None:
    """By its header; there is no other place for a token."""
    good = {"type": "websocket", "headers": [(b"authorization", f"Bearer {token()}".encode())]}
    await auth.admit(HTTPConnection(good))
    in_url = {"type": "websocket", "headers": [], "query_string": f"access_token={token()}".encode()}
    assert (await refusal(auth, HTTPConnection(in_url))).status == 401


async def test_both_kinds_of_signature_count(auth: OIDC) -> None:
    """RS256 and ES256."""
    await auth.admit(call(f"Bearer {token(ec_key('ec'), kid='ec', alg='ES256')}"))


@pytest.mark.parametrize(
    ("callers", "changes"),
    [
        ([CALLER, "other@example.com"], {}),
        (["other@example.com", CALLER], {}),
        (["1234567890"], {}),
        (["1234567890"], {"email": None, "email_verified": None}),
        (["other@example.com", "1234567890"], {"email_verified": False}),
    ],
)
async def test_a_caller_is_known_by_email_or_subject(issuer: KeyServer, callers: list[str], changes: Any) -> None:
    """Wherever on the list he stands."""
    await oidc(issuer, callers).admit(call(f"Bearer {token(**changes)}"))


@pytest.mark.parametrize(
    ("callers", "changes"),
    [
        ([CALLER], {"email": "stranger@example.com"}),
        ([CALLER], {"email": None}),
        ([CALLER], {"email": CALLER.upper()}),
        ([CALLER], {"email": CALLER + "."}),
        ([CALLER], {"email": f" {CALLER}"}),
        ([CALLER], {"email": [CALLER]}),
        ([CALLER], {"email": "\ud800"}),
        ([CALLER], {"email_verified": False}),
        ([CALLER], {"email_verified": None}),
        ([CALLER], {"email_verified": "true"}),
        ([CALLER], {"email_verified": 1}),
        ([CALLER], {"email": None, "sub": CALLER}),
        (["1234567890"], {"sub": "12345678901", "email": "1234567890"}),
        (["1234567890"], {"sub": "\ud800"}),
        (["1234567890"], {"sub": ""}),
    ],
)
async def test_a_stranger_with_a_right_token_is_refused(
    issuer: KeyServer, callers: list[str], changes: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """403: he is who he says, but not on the list; an unverified email is anybody's, and a subject is no email."""
    stranger = token(**changes)
    refused = await refusal(oidc(issuer, callers), call(f"Bearer {stranger}"))
    assert (refused.status, refused.headers) == (403, {})
    assert repr(claims(**changes)["sub"]) in caplog.text  # what the operator may put on the list
    assert stranger not in caplog.text
    assert "@" not in refused.message


async def test_every_entry_is_compared(issuer: KeyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after a match, and in constant time, so that the time of an answer tells nothing of the list."""
    compared: list[bytes] = []
    digest = hmac.compare_digest

    def noted(first: bytes, second: bytes) -> bool:
        compared.append(second)
        return digest(first, second)

    monkeypatch.setattr("oncetask.http.auth.oidc.hmac.compare_digest", noted)
    callers = ["a@example.com", CALLER, "b@example.com"]
    await oidc(issuer, callers).admit(call(f"Bearer {token()}"))
    assert compared == [caller.encode() for caller in callers]


@pytest.mark.parametrize("authorization", [(), ("",), ("Basic dTpw",), ("Bearer",), ("Bearer ",), ("Token a.b.c",)])
async def test_a_call_without_a_bearer_token_is_refused(auth: OIDC, authorization: tuple[str, ...]) -> None:
    """401, which says what is needed."""
    refused = await refusal(auth, call(*authorization))
    assert refused.status == 401
    assert refused.headers["WWW-Authenticate"].startswith('Bearer realm="oncetask"')
    assert ("invalid_request" in refused.headers["WWW-Authenticate"]) is bool(authorization)


async def test_a_token_elsewhere_does_not_count(auth: OIDC) -> None:
    """Only the one header is looked at: others are added by proxies, or by pages."""
    asked = call(
        cookie=f"token={token()}", x_authorization=f"Bearer {token()}", proxy_authorization=f"Bearer {token()}"
    )
    assert (await refusal(auth, asked)).status == 401


async def test_two_headers_are_refused_though_each_were_right(auth: OIDC) -> None:
    """Somebody in between may have looked at the other one."""
    good = f"Bearer {token()}"
    for headers in ((good, good), (good, "Basic dTpw"), (f"{good}, {good}",), (f"{good} {good}",)):
        assert (await refusal(auth, call(*headers))).status == 401


async def test_a_header_of_more_than_8_kib_is_not_read(auth: OIDC) -> None:
    """One of exactly 8 KiB is: with a signature over all of it, its bearer is admitted."""
    size = 0
    for _ in range(3):  # base64 makes four letters of three, so the second or third guess fits
        header = f"Bearer {token(padding='x' * size)}"
        size += (8192 - len(header)) * 3 // 4
    header = "Bearer " + " " * (8192 - len(header)) + header.removeprefix("Bearer ")
    assert len(header) == 8192
    await auth.admit(call(header))
    refused = await refusal(auth, call(header.replace(" ", "  ", 1)))
    assert refused.status == 401
    assert "8 KiB" in refused.message


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"exp": NOW - 60}, "the token has expired"),
        ({"exp": 0}, "the token has expired"),
        ({"exp": -(10**30)}, "the token has expired"),
        ({"exp": "soon"}, "the token is not valid"),
        ({"exp": None}, "the token lacks a claim"),
        ({"nbf": NOW + 600}, "the token is not valid yet"),
        ({"nbf": "later"}, "the token is not valid"),
        ({"iat": NOW + 600}, "the token is not valid yet"),
        ({"iat": None}, "the token lacks a claim"),
        ({"iat": []}, "the token is not valid"),
        ({"aud": "https://other.example.com"}, "the token is for another audience"),
        ({"aud": AUDIENCE + "/"}, "the token is for another audience"),
        ({"aud": ["https://other.example.com"]}, "the token is for another audience"),
        ({"aud": {AUDIENCE: True}}, "the token is for another audience"),
        ({"aud": []}, "the token lacks a claim"),
        ({"aud": None}, "the token lacks a claim"),
        ({"iss": "https://other.example.com"}, "the token is of another issuer"),
        ({"iss": ISSUER + "/"}, "the token is of another issuer"),
        ({"iss": None}, "the token lacks a claim"),
        ({"sub": None}, "the token lacks a claim"),
        ({"sub": 1234567890}, "the token is not valid"),
    ],
)
async def test_a_token_for_another_time_or_place_is_refused(auth: OIDC, changes: Any, told: str) -> None:
    """401, and a word why: its bearer is the one for whom it was made."""
    assert await flaw(auth, token(**changes)) == told


@pytest.mark.parametrize(("claim", "sign"), [("exp", -1), ("nbf", 1), ("iat", 1)])
async def test_clocks_may_differ_by_the_leeway(issuer: KeyServer, claim: str, sign: int) -> None:
    """Half a minute within the leeway, and half a minute beyond it."""
    auth = oidc(issuer, leeway=60)
    within: Any = {claim: int(time.time()) + sign * 30}
    beyond: Any = {claim: int(time.time()) + sign * 90}
    await auth.admit(call(f"Bearer {token(**within)}"))
    assert await flaw(auth, token(**beyond))


@pytest.mark.parametrize("aud", ["first", "second", ["other", "second"]])
async def test_one_of_several_audiences_is_enough(issuer: KeyServer, aud: Any) -> None:
    """On either side."""
    await oidc(issuer, audience=["first", "second"]).admit(call(f"Bearer {token(aud=aud)}"))


async def test_a_token_with_a_foreign_signature_is_refused(auth: OIDC) -> None:
    """Of another key under the issuer's name, of the right key over something else, and one that was cut."""
    good = token()
    head, _, signature = good.rpartition(".")
    other_head, _, _ = token(sub="somebody-else").rpartition(".")
    for wrong in (
        token(rsa_key("forger")),
        token(ec_key("forger"), kid="ec", alg="ES256"),
        token(ec_key("ec"), kid="rsa", alg="ES256"),
        f"{other_head}.{signature}",
        f"{head}.{signature[:-4]}",
        f"{head}.",
        head,
        token(kid="nobody"),
        token(kid=None),
    ):
        assert await flaw(auth, wrong) == "the token is not valid"


async def test_a_forger_learns_nothing_of_what_would_be_right(auth: OIDC) -> None:
    """Claims are looked at after the signature."""
    for changes in ({"exp": 1}, {"aud": "other"}, {"iss": "other"}, {"sub": None}):
        assert await flaw(auth, token(rsa_key("forger"), **changes)) == "the token is not valid"


async def test_a_token_cannot_choose_how_it_is_checked(auth: OIDC, issuer: KeyServer) -> None:
    """No algorithm but the key's own: not none, no shared secret made of the public key, no key of its own."""
    fetched = issuer.fetches
    public = rsa_key("rsa").public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    der = rsa_key("rsa").public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    for secret in (public, public.strip(), der, json.dumps(published("rsa", rsa_key("rsa"))).encode()):
        for alg, hashed in (("HS256", "sha256"), ("hs256", "sha256"), ("HS512", "sha512")):
            header = raw({"alg": alg, "kid": "rsa"}, claims()).removesuffix(".")
            signature = hmac.digest(secret, header.encode(), hashed)
            assert await flaw(auth, raw({"alg": alg, "kid": "rsa"}, claims(), signature)) == "the token is not valid"
    for unsigned in ("none", "None", "NONE", "", None, 5, ["RS256"], {"RS256": 1}):
        assert await flaw(auth, raw({"alg": unsigned, "kid": "rsa"}, claims())) == "the token is not valid"
        assert await flaw(auth, raw({"alg": unsigned, "kid": "rsa"}, claims(), b"x")) == "the token is not valid"
    for alg in ("RS384", "RS512", "PS256"):  # signed with the right key, but not as it was agreed
        assert await flaw(auth, token(alg=alg)) == "the token is not valid"
    assert issuer.fetches == fetched  # nobody was asked for a key for these
    forger = rsa_key("forger")
    for trick in (
        {"jwk": published("rsa", forger)},
        {"jku": "http://127.0.0.1:9/keys"},
        {"x5u": "http://127.0.0.1:9/keys"},
        {"crit": ["b64"], "b64": False},
        {"crit": ["exp"]},
    ):
        wrong = jwt.encode(claims(), forger, algorithm="RS256", headers={"kid": "rsa", **trick})
        assert await flaw(auth, wrong) == "the token is not valid"


@pytest.mark.parametrize(
    "wrong",
    [
        raw(b"", b"", b""),
        raw(b"{", b"{}", b"x"),
        raw([], {}, b"x"),
        raw({"alg": "RS256", "kid": 5}, {}, b"x"),
        raw({"alg": "RS256", "kid": ["rsa"]}, {}, b"x"),
        raw({"alg": "RS256", "kid": "\ud800"}, {}, b"x"),
        raw(b"\xff\xfe", b"{}", b"x"),
        raw(b"[" * 5000, b"{}", b"x"),
        raw({"alg": "RS256", "kid": "rsa"}, b"\xff", b"x"),
        "a",
        "a.b",
        "a.b.c.d.e",
        "...",
        "=",
        "%2e",
    ],
)
async def test_what_is_no_token_is_refused(auth: OIDC, wrong: str) -> None:
    """Rubbish of every kind is a 401, not an error of the server."""
    assert (await refusal(auth, call(f"Bearer {wrong}"))).status == 401


@pytest.mark.parametrize("payload", [b"[]", b"5", b"null", b'{"exp": NaN}', b'{"iat": Infinity}', b"\xff", b"{"])
async def test_a_signed_token_that_holds_no_claims_is_refused(auth: OIDC, payload: bytes) -> None:
    """An issuer may err too."""
    signed = jwt.api_jws.PyJWS().encode(payload, rsa_key("rsa"), algorithm="RS256", headers={"kid": "rsa"})
    assert (await refusal(auth, call(f"Bearer {signed}"))).status == 401


async def test_a_weak_key_does_not_count() -> None:
    """RSA with 1024 bits can be broken; an issuer that still publishes such a key is not believed."""
    weak = rsa_key("weak", bits=1024)
    with pytest.warns(jwt.InsecureKeyLengthWarning):
        signed = token(weak)
    with key_server() as keys:
        keys.keys = [published("rsa", weak)]
        assert await flaw(oidc(keys), signed) == "the token is not valid"


async def test_a_log_tells_why_and_never_the_token(auth: OIDC, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever reads logs could use it."""
    caplog.set_level(logging.DEBUG, "oncetask")
    removed = f"{token().rpartition('.')[0]}.SIGNATURE_REMOVED_BY_GOOGLE"
    for wrong, why in (
        (token(exp=NOW - 60), "it has expired (ExpiredSignatureError)"),
        (token(aud="other"), f"should be for {AUDIENCE}: it is for another audience"),
        (token(rsa_key("forger")), "it is not valid (InvalidSignatureError)"),
        (removed, "ONCETASK_AUTH=iam"),
    ):
        caplog.clear()
        await flaw(auth, wrong)
        assert why in caplog.text
        assert all(part not in caplog.text for part in wrong.split(".")[:2])
        assert caplog.records[0].exc_info is None
    caplog.clear()
    await refusal(auth, call("Basic c2VjcmV0"))
    await refusal(auth, call())
    assert [record.levelno for record in caplog.records] == [logging.WARNING, logging.INFO]
    assert "c2VjcmV0" not in caplog.text


LETTERS = st.characters(max_codepoint=255)
PARTS = st.binary(max_size=40).map(lambda part: base64.urlsafe_b64encode(part).rstrip(b"=").decode())
HEADERS = st.dictionaries(
    st.sampled_from(["alg", "kid", "typ", "crit", "b64", "jku"]),
    st.sampled_from(["RS256", "none", "HS256", "ES256", "rsa", "ec", "b64", ["b64"], False, None, 5]),
)


@pytest.fixture(scope="module")
def known(issuer: KeyServer) -> OIDC:
    """An OIDC for many examples; its keys are fetched at the first one."""
    return oidc(issuer)


@given(
    st.text(LETTERS, max_size=60)
    | st.text(LETTERS, max_size=60).map("Bearer {}".format)
    | st.lists(PARTS, max_size=5).map(lambda parts: "Bearer " + ".".join(parts))
    | st.builds("Bearer {}.{}".format, st.builds(raw, HEADERS, st.just({}), st.binary(max_size=300)), PARTS)
    | st.builds(lambda *parts: f"Bearer {raw(*parts)}", HEADERS, st.just(claims()), st.binary(max_size=300))
)
def test_no_header_that_the_issuer_did_not_sign_is_admitted(known: OIDC, authorization: str) -> None:
    """Whatever is sent, the answer is a 401: never an admission, nor an error of the server."""

    async def ask() -> Refused:
        return await refusal(known, call(authorization))

    assert asyncio.run(ask()).status == 401


@given(st.data())
def test_no_changed_letter_of_a_good_token_is_admitted(known: OIDC, data: st.DataObject) -> None:
    """Each of its letters counts."""
    good = f"Bearer {token(iat=NOW, exp=NOW + 3600)}"
    place = data.draw(st.integers(len("Bearer "), len(good) - 1))
    letter = data.draw(st.sampled_from("abcXYZ019-_.").filter(lambda letter: letter != good[place]))
    changed = good[:place] + letter + good[place + 1 :]

    async def ask() -> Refused:
        return await refusal(known, call(changed))

    assert asyncio.run(ask()).status == 401
