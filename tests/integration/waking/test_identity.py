"""Identity tokens, from a metadata server and from a key file, both played by a local server."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import google.auth.compute_engine._metadata as metadata
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth.exceptions import DefaultCredentialsError

from oncetask.clock import Now
from oncetask.waking import HttpKick
from oncetask.waking.identity import IdentityToken
from tests.integration.waking.servers import LIMIT, Scheduler, served
from tests.support import T0

AUDIENCE = "https://europe-west3-demo.cloudfunctions.net/scheduler"


def a_token(audience: str, seconds: float) -> str:
    """Make what looks like an identity token that is good for so many seconds; nobody checks its signature."""
    parts = [{"alg": "none"}, {"aud": audience, "exp": int(time.time() + seconds)}, "signature"]
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)


class Google:
    """A metadata server and a token endpoint that count what they give."""

    def __init__(self) -> None:
        self.given: list[str] = []
        self.good_for = 3_600.0
        google = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                url = urlsplit(self.path)
                if url.path.endswith("/identity"):
                    self._answer(google.give(parse_qs(url.query)["audience"][0]).encode(), "text/html")
                else:  # a ping, or who this is
                    self._answer(b'{"email": "ticker@demo.iam.gserviceaccount.com"}')

            def do_POST(self) -> None:
                sent = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                claims = sent["assertion"][0].split(".")[1]
                audience = json.loads(base64.urlsafe_b64decode(claims + "=="))["target_audience"]
                self._answer(json.dumps({"id_token": google.give(audience)}).encode())

            def _answer(self, body: bytes, content_type: str = "application/json") -> None:
                self.send_response(200)
                self.send_header("Content-Type", content_type)
                self.send_header("Metadata-Flavor", "Google")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Keep quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.where = f"127.0.0.1:{self.server.server_port}"

    def give(self, audience: str) -> str:
        """Make a token and remember it."""
        self.given.append(a_token(audience, self.good_for))
        return self.given[-1]


@pytest.fixture
def google(monkeypatch: pytest.MonkeyPatch) -> Iterator[Google]:
    """A Google of one's own, whose metadata server is the one that google.auth asks."""
    playing = Google()
    monkeypatch.setattr(metadata, "_GCE_METADATA_HOST", playing.where)
    monkeypatch.setattr(metadata, "_GCE_DEFAULT_MDS_IP", playing.where)
    with playing.server:
        serving = threading.Thread(target=playing.server.serve_forever, args=(0.01,), daemon=True)
        serving.start()
        yield playing
        playing.server.shutdown()
        serving.join(LIMIT)


def test_a_token_is_fetched_once_and_kept(google: Google) -> None:
    """The metadata server is asked for the audience; the token is good for an hour."""
    token = IdentityToken(AUDIENCE)
    first = token()
    assert json.loads(base64.urlsafe_b64decode(first.split(".")[1] + "=="))["aud"] == AUDIENCE
    assert token() == first
    assert google.given == [first]


def test_a_token_that_is_about_to_expire_is_fetched_anew(google: Google) -> None:
    """One that would be refused on its way is not sent."""
    google.good_for = 60.0
    token = IdentityToken(AUDIENCE)
    token()
    google.good_for = 3_600.0
    assert token() == google.given[1]
    assert token() == google.given[1]
    assert len(google.given) == 2


def test_a_key_file_gives_tokens_too(google: Google, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """GOOGLE_APPLICATION_CREDENTIALS goes before the metadata server."""
    key = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    account: dict[str, Any] = {
        "type": "service_account",
        "client_email": "ticker@demo.iam.gserviceaccount.com",
        "private_key": key.private_bytes(encoding, form, serialization.NoEncryption()).decode(),
        "token_uri": f"http://{google.where}/token",
    }
    file = tmp_path / "key.json"
    file.write_text(json.dumps(account))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    assert IdentityToken(AUDIENCE)() == google.given[0]


def test_without_an_account_there_is_no_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It says so at each call: an account may be there later."""
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "absent.json"))
    token = IdentityToken(AUDIENCE)
    for _ in range(2):
        with pytest.raises(DefaultCredentialsError):
            token()


async def test_a_kick_with_an_audience_brings_its_token(google: Google) -> None:
    """The function sees who calls."""
    scheduler = Scheduler()
    scheduler.release.set()
    async with served(scheduler) as address:
        waker = HttpKick(f"http://{address}/", audience=AUDIENCE, timeout=LIMIT)
        await waker.wake(T0, env="default", now=Now(T0, T0))
    assert [request.headers["authorization"] for request in scheduler.requests] == [f"Bearer {google.given[0]}"]
