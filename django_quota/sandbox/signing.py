"""Lookup and rewriting of id_tokens that the sandbox signed."""

from __future__ import annotations

import json
import uuid
from typing import Any

from jwcrypto import jws
from jwcrypto.common import JWException
from oauth2_provider.models import get_id_token_model

from .models import SigningKey

__all__ = ["find_id_token", "override_claims"]


def _verify_token(token: str) -> tuple[dict[str, Any], dict[str, Any], SigningKey] | None:
    """Return header, claims and key of a token, or None if none of our keys signed it."""
    try:
        parsed = jws.JWS()
        parsed.deserialize(token)
        header = parsed.jose_header
        kid = header.get("kid") if isinstance(header, dict) else None
        key = SigningKey.objects.filter(kid=kid).first() if isinstance(kid, str) else None
        if key is None or header.get("alg") != "RS256":
            return None
        parsed.verify(key.jwk)
        claims = json.loads(parsed.payload)
    except (JWException, ValueError, TypeError):
        return None
    return header, claims, key


def find_id_token(token: str) -> Any | None:
    """Return the IDToken row of a token, even if expired; None if the sandbox did not sign it."""
    verified = _verify_token(token)
    if verified is None:
        return None
    try:
        jti = uuid.UUID(str(verified[1].get("jti")))
    except ValueError:
        return None
    return get_id_token_model().objects.filter(jti=jti).first()


def override_claims(token: str, overrides: dict[str, Any]) -> str:
    """Replace claims of a token and sign it again. A claim whose override is None is removed."""
    verified = _verify_token(token)
    if verified is None:
        raise ValueError("The token is not signed by the sandbox.")
    header, claims, key = verified
    claims = {name: value for name, value in (claims | overrides).items() if value is not None}
    signed = jws.JWS(json.dumps(claims))
    signed.add_signature(key.jwk, protected=json.dumps(header))
    compact: str = signed.serialize(compact=True)
    return compact
