"""Whether a token is what it says it is. Needs PyJWT, and is imported only where tokens are checked."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import jwt

from oncetask.http.auth.keys import ALGORITHMS, Keys
from oncetask.http.auth.port import unauthorized

__all__ = ["Tokens"]

_REQUIRED = ["iss", "aud", "exp", "iat", "sub"]
_FLAWS: tuple[tuple[type[Exception], str], ...] = (
    (jwt.ExpiredSignatureError, "has expired"),
    (jwt.ImmatureSignatureError, "is not valid yet"),
    (jwt.InvalidAudienceError, "is for another audience"),
    (jwt.InvalidIssuerError, "is of another issuer"),
    (jwt.MissingRequiredClaimError, "lacks a claim"),
)
"""What a caller is told. PyJWT looks at claims only after the signature, so a forger hears of none of these."""

_log = logging.getLogger("oncetask")


class Tokens:
    """What counts as a token: its issuers and their keys, its audience, its time."""

    def __init__(self, jwks_url: str, *, audience: Sequence[str], issuers: Sequence[str], leeway: float) -> None:
        """`leeway`: seconds."""
        self._keys = Keys(jwks_url)
        self._audience = audience
        self._issuers = issuers
        self._leeway = leeway

    async def claims(self, token: str) -> dict[str, Any]:
        """Give the claims of a token, checked but for whose it is; `sub` is a text.

        Raises Refused: 401 for a token that does not count, 503 where the issuer's keys cannot be had.
        """
        try:
            key = await self._key(token)
            return jwt.decode(
                token,
                key.key,
                algorithms=[key.algorithm_name],  # the key's, not the token's choice
                audience=self._audience,
                issuer=self._issuers,
                leeway=self._leeway,
                options={"require": _REQUIRED, "enforce_minimum_key_length": True},
            )
        except (jwt.PyJWTError, ValueError, RecursionError) as error:
            flaw = next((flaw for kind, flaw in _FLAWS if isinstance(error, kind)), "is not valid")
            # Only the error's name: its text may quote the token.
            _log.warning(
                "refused a token, which should be for %s: it %s (%s)%s",
                " or ".join(self._audience),
                flaw,
                type(error).__name__,
                _advice(token),
            )
        raise unauthorized(f"the token {flaw}", error="invalid_token")

    async def _key(self, token: str) -> jwt.PyJWK:
        """Find the key by the token's header, which nobody has verified; raises PyJWTError where there is none."""
        header = jwt.get_unverified_header(token)
        if header.get("alg") not in ALGORITHMS:
            raise jwt.InvalidAlgorithmError
        kid = header.get("kid")
        key = await self._keys.find(kid) if isinstance(kid, str) else None
        if key is None:
            raise jwt.InvalidKeyError
        return key


def _advice(token: str) -> str:
    if token.endswith(".SIGNATURE_REMOVED_BY_GOOGLE"):
        return "; Cloud Run has checked it and removed its signature: use IAM() (ONCETASK_AUTH=iam) behind that check"
    return ""
