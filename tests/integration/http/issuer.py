"""An issuer of tokens for tests: keys made here, published by a real HTTP server that counts who asks for them."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from starlette.requests import HTTPConnection

AUDIENCE = "https://tasks.example.com"
CALLER = "scheduler@project.iam.gserviceaccount.com"
ISSUER = "https://issuer.example.com"

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


@cache
def rsa_key(name: str, bits: int = 2048) -> rsa.RSAPrivateKey:
    """Give the RSA key of this name, made once."""
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


@cache
def ec_key(name: str) -> ec.EllipticCurvePrivateKey:
    """Give the key of this name on the curve P-256, made once."""
    return ec.generate_private_key(ec.SECP256R1())


def published(kid: str | None, key: PrivateKey, **fields: Any) -> dict[str, Any]:
    """Give the public half of a key as it stands in a key set; `fields` set to None are left out."""
    if isinstance(key, rsa.RSAPrivateKey):
        public = jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
        algorithm = "RS256"
    else:
        public = jwt.algorithms.ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
        algorithm = "ES256"
    given = {**public, "kid": kid, "alg": algorithm, "use": "sig", **fields}
    return {name: value for name, value in given.items() if value is not None}


def claims(**changes: Any) -> dict[str, Any]:
    """Give the claims of a good token of CALLER; `changes` set to None are left out."""
    now = int(time.time())
    given = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "iat": now,
        "exp": now + 3600,
        "sub": "1234567890",
        "email": CALLER,
        "email_verified": True,
        **changes,
    }
    return {name: value for name, value in given.items() if value is not None}


def token(key: PrivateKey | None = None, *, kid: str | None = "rsa", alg: str = "RS256", **changes: Any) -> str:
    """Sign the claims of a good token, with changes."""
    headers = {} if kid is None else {"kid": kid}
    return jwt.encode(claims(**changes), key or rsa_key("rsa"), algorithm=alg, headers=headers)


def call(*authorizations: str, **headers: str) -> HTTPConnection:
    """Give a connection with so many Authorization headers, and others."""
    raw = [(b"authorization", value.encode("latin-1")) for value in authorizations]
    raw += [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    return HTTPConnection({"type": "http", "headers": raw, "client": ("203.0.113.7", 4711)})


class KeyServer:
    """Publishes `keys`; every answer waits for `open`.

    `status`, `body` and `location` may make it a bad one; an `endless` one comes in bits for as long as it is read.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.keys = [published("rsa", rsa_key("rsa")), published("ec", ec_key("ec"))]
        self.fetches = 0
        self.status = 200
        self.body: bytes | None = None
        self.location: str | None = None
        self.endless = False
        self.closing = threading.Event()
        self.asked = threading.Event()
        self.open = threading.Event()
        self.open.set()

    def answer(self) -> bytes:
        """Count a fetch, and give its body."""
        self.fetches += 1
        self.asked.set()
        assert self.open.wait(30)
        return self.body if self.body is not None else json.dumps({"keys": self.keys}).encode()


@contextmanager
def key_server() -> Iterator[KeyServer]:
    """Serve keys on a free port of this machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # the name that the standard library calls
            body = keys.answer()
            self.send_response(keys.status)
            if keys.location is not None:
                self.send_header("Location", keys.location)
            self.send_header("Content-Length", str(1024 * 1024 if keys.endless else len(body)))
            self.end_headers()
            with suppress(ConnectionError):  # whoever asked may have left
                while keys.endless and not keys.closing.wait(0.01):
                    self.wfile.write(b" ")
                self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass  # the standard library would write to stderr

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        keys = KeyServer(f"http://127.0.0.1:{server.server_port}/keys")
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        serving.start()
        try:
            yield keys
        finally:
            keys.open.set()
            keys.closing.set()
            server.shutdown()
            serving.join()
