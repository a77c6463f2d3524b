"""Keys and id_tokens for tests: honest ones, and whatever an attacker might send."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from functools import cache
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

ISSUER = "https://api.usequota.ai"
CLIENT_ID = "quota_client_test"
NONCE = "n-0S6_WzA2Mj"
NOW = 1_800_000_000


@cache
def _made(name: str, bits: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def rsa_key(name: str = "quota", bits: int = 2048) -> rsa.RSAPrivateKey:
    """The RSA key of that name: made once, as it is slow."""
    return _made(name, bits)


def jwk(kid: str | None = "k1", *, name: str = "quota", bits: int = 2048, **changes: Any) -> Any:
    """The public half as a member of a JWK Set; a change to None removes that member."""
    document = RSAAlgorithm.to_jwk(rsa_key(name, bits).public_key(), as_dict=True)
    document |= {"use": "sig", "alg": "RS256", "kid": kid} | changes
    return {member: value for member, value in document.items() if value is not None}


def ec_jwk(kid: str = "k1") -> Any:
    public = ec.generate_private_key(ec.SECP256R1()).public_key()
    return ECAlgorithm.to_jwk(public, as_dict=True) | {"kid": kid}


def okp_jwk(kid: str = "k1") -> Any:
    public = ed25519.Ed25519PrivateKey.generate().public_key()
    return OKPAlgorithm.to_jwk(public, as_dict=True) | {"kid": kid}


def public_pem(name: str = "quota") -> bytes:
    public = rsa_key(name).public_key()
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def claims(**changes: Any) -> dict[str, Any]:
    """The claims of an honest id_token; a change to `...` removes that claim."""
    honest = {
        "iss": ISSUER,
        "sub": "8c5f3f0e-7a4e-4b57-9c7e-0d6f0f5b1c11",
        "aud": CLIENT_ID,
        "exp": NOW + 3600,
        "iat": NOW,
        "nonce": NONCE,
    }
    return {name: value for name, value in (honest | changes).items() if value is not ...}


def sign(
    payload: dict[str, Any] | None = None, *, kid: str | None = "k1", key: str = "quota"
) -> str:
    """An id_token as Quota would sign it; `payload` may hold anything that JSON can."""
    header = {"alg": "RS256", "typ": "JWT"} | ({"kid": kid} if kid is not None else {})
    return forge(header, payload or claims(), key=key)


def b64(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def signing_input(header: Any, payload: Any) -> str:
    """The first two parts of a token; bytes and JSON values both go."""
    parts = (
        part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, payload)
    )
    return ".".join(b64(part) for part in parts)


def forge(header: Any, payload: Any, signature: bytes | None = None, *, key: str = "quota") -> str:
    """A token with any header and payload at all; by default with a right RS256 signature."""
    unsigned = signing_input(header, payload)
    if signature is None:
        signature = rsa_key(key).sign(unsigned.encode(), padding.PKCS1v15(), hashes.SHA256())
    return f"{unsigned}.{b64(signature)}"


def forge_rs512(header: Any, payload: Any) -> str:
    unsigned = signing_input(header, payload)
    signature = rsa_key().sign(unsigned.encode(), padding.PKCS1v15(), hashes.SHA512())
    return f"{unsigned}.{b64(signature)}"


def forge_hmac(header: Any, payload: Any, secret: bytes) -> str:
    unsigned = signing_input(header, payload)
    return f"{unsigned}.{b64(hmac.digest(secret, unsigned.encode(), hashlib.sha256))}"
