"""A codec that encrypts, with keys that can be rotated: Fernet of `cryptography`, which also notices changes."""

from __future__ import annotations

import os

from cryptography.fernet import Fernet, MultiFernet

__all__ = ["FernetCodec", "codec"]


class FernetCodec:
    """Encrypts with the first of its keys, and decrypts with each."""

    def __init__(self, *keys: str) -> None:
        """`keys`: as `Fernet.generate_key()` gives them, the newest first."""
        self._fernet = MultiFernet([Fernet(key) for key in keys])

    def encode(self, plain: bytes) -> bytes:
        """Encrypt."""
        return self._fernet.encrypt(plain)

    def decode(self, coded: bytes) -> bytes:
        """Decrypt. Raises InvalidToken for another key, and for what somebody has changed."""
        return self._fernet.decrypt(coded)


def codec() -> FernetCodec:
    """Make the codec of the keys in TASK_KEYS, with commas between; ONCETASK_CODEC=encryption:codec asks for it."""
    return FernetCodec(*os.environ["TASK_KEYS"].split(","))
