"""Codecs for tests: one that never gives the same twice, as encryption does, and one that is broken."""

from __future__ import annotations

import secrets
from hashlib import sha256

__all__ = ["Broken", "Scrambled"]


class Scrambled:
    """Hides what it codes under random numbers, and knows its own by a checksum; no protection against anybody."""

    def __init__(self, key: bytes = b"a key") -> None:
        """Codes of one key are refused with another."""
        self._key = key

    def encode(self, plain: bytes) -> bytes:
        """Give a salt, a checksum and what is left of the text."""
        salt = secrets.token_bytes(8)
        return salt + self._checksum(salt, plain) + self._mixed(salt, plain)

    def decode(self, coded: bytes) -> bytes:
        """Raise ValueError for what this key has not made."""
        salt, checksum = coded[:8], coded[8:16]
        plain = self._mixed(salt, coded[16:])
        if checksum != self._checksum(salt, plain):
            raise ValueError("another key")
        return plain

    def _mixed(self, salt: bytes, text: bytes) -> bytes:
        stream = sha256(self._key + salt).digest() * (len(text) // 32 + 1)
        return bytes(a ^ b for a, b in zip(text, stream, strict=False))

    def _checksum(self, salt: bytes, plain: bytes) -> bytes:
        return sha256(self._key + salt + plain).digest()[:8]


class Broken:
    """Raises, both ways; what it says quotes what it was given."""

    def encode(self, plain: bytes) -> bytes:
        """Fail."""
        raise RuntimeError(f"cannot encode {plain!r}")

    def decode(self, coded: bytes) -> bytes:
        """Fail."""
        raise RuntimeError(f"cannot decode {coded!r}")
