"""Validation of an OpenID Connect id_token (OpenID Connect Core 1.0 section 3.1.3.7).

The functions are pure: settings, time and keys are arguments. PyJWT verifies the signature. The
claims are checked here, because the log needs a separate reason for each refusal, and because
PyJWT takes no time as an argument.
"""

from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.utils.crypto import constant_time_compare

from django_quota.exceptions import SignInFailed

if TYPE_CHECKING:
    from jwt.types import Options

#: The only algorithm accepted, whatever the token's header says (RFC 8725 section 3.1).
ALGORITHM = "RS256"
_SIGNATURE_ONLY: "Options" = {
    "verify_signature": True,
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
    "verify_aud": False,
    "verify_iss": False,
    "verify_sub": False,
    "verify_jti": False,
}
_MAX_UNIX_TIME = 1 << 53  # above, floats are not exact
#: Seconds since iat after which an id_token is refused: no real sign-in takes a day (OpenID Connect
#: Core 1.0 section 3.1.3.7 item 10).
MAX_AGE = 86_400
MIN_RSA_BITS = 2048  # RFC 7518 section 3.3
MAX_TOKEN_LENGTH = 65_536  # characters; claims about groups and roles can be long
#: The required claims (OpenID Connect Core 1.0 section 2), and the nonce, which we always send.
_REQUIRED = ("iss", "sub", "aud", "exp", "iat", "nonce")
MAX_SUBJECT_LENGTH = 255  # OpenID Connect Core 1.0 section 2

_BAD_HEADER = "the id_token's header is not supported (crit, or a kid that is not a string)"


@dataclass(frozen=True, kw_only=True)
class Identity:
    """A person as the validated id_token describes them.

    `subject` is the only stable key. `email` is in the provider's spelling, "" if not given; only
    if `email_verified` is True does the address belong to the person. `claims` are all claims, for
    the backend's hooks.
    """

    issuer: str
    subject: str
    email: str = ""
    email_verified: bool = False
    name: str = ""
    picture: str = ""
    claims: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def from_claims(cls, claims: Mapping[str, Any]) -> "Identity":
        """Return the identity in validated claims, without malformed optional claims."""
        return cls(
            issuer=claims["iss"],
            subject=claims["sub"],
            email=_email(claims.get("email")),
            email_verified=claims.get("email_verified") is True,
            name=_line(claims.get("name")),
            picture=_picture(claims.get("picture")),
            claims=claims,
        )


def _refuse(reason: str) -> SignInFailed:
    return SignInFailed("invalid_id_token", reason)


def _line(value: object) -> str:
    """Return `value` as one line of at most 255 characters, "" if it is not text.

    Control characters are removed: PostgreSQL refuses NUL.
    """
    return "".join(c for c in value if c.isprintable())[:255] if isinstance(value, str) else ""


def _email(value: object) -> str:
    email = _line(value)
    try:
        validate_email(email)
    except ValidationError:
        return ""
    return email if email == value and len(email) <= 254 else ""


def _picture(value: object) -> str:
    """Return `value` if it is an http or https URL, else ""."""
    if not isinstance(value, str) or len(value) > 1000 or not value.isprintable():
        return ""
    try:
        return value if urlsplit(value).scheme in ("https", "http") else ""
    except ValueError:
        return ""


def key_id(token: object) -> str | None:
    """Return the `kid` in the header of `token`, unverified, None if there is none.

    Raises SignInFailed if `token` is not a JWT signed with RS256.
    """
    if not isinstance(token, str) or not token:
        raise _refuse("the reply has no usable id_token")
    if len(token) > MAX_TOKEN_LENGTH:
        raise _refuse("the id_token is too long")
    try:
        header = jwt.get_unverified_header(token)
    except (jwt.DecodeError, ValueError, RecursionError):
        raise _refuse("the id_token is not a JWT") from None
    except jwt.PyJWTError:
        raise _refuse(_BAD_HEADER) from None
    if header.get("alg") != ALGORITHM:
        raise _refuse("the id_token is not signed with RS256")
    kid = header.get("kid")
    # RFC 7515 section 4.1.11: unknown critical extensions must be refused, and we know none.
    if "crit" in header or not isinstance(kid, str | None):
        raise _refuse(_BAD_HEADER)
    return kid


def usable_keys(document: Mapping[str, Any]) -> list[jwt.PyJWK]:
    """Return the keys of a JWK Set (RFC 7517 section 5) that may sign id_tokens."""
    keys = document.get("keys")
    return [
        key for member in (keys if isinstance(keys, list) else []) if (key := _usable_key(member))
    ]


def _usable_key(member: object) -> jwt.PyJWK | None:
    if not isinstance(member, dict) or member.get("kty") != "RSA":
        return None
    if member.get("use", "sig") != "sig" or member.get("alg", ALGORITHM) != ALGORITHM:
        return None
    if not isinstance(member.get("kid", ""), str):
        return None
    operations = member.get("key_ops", ["verify"])  # RFC 7517 section 4.3
    if not isinstance(operations, list) or "verify" not in operations:
        return None
    if "d" in member:  # a private key: PyJWT could spend hours on finding its primes
        return None
    try:
        key = jwt.PyJWK(member, ALGORITHM)
    except (jwt.PyJWTError, ValueError, TypeError, KeyError):
        return None
    public = key.key
    strong = isinstance(public, RSAPublicKey) and public.key_size >= MIN_RSA_BITS
    return key if strong else None


def verify(token: object, keys: Sequence[jwt.PyJWK]) -> dict[str, Any]:
    """Return the claims of `token`, whose signature one of `keys` must fit. They are not checked.

    `keys` come from `usable_keys`. Raises SignInFailed (`invalid_id_token`). RFC 7515 section 5.2.
    """
    kid = key_id(token)
    candidates = [key for key in keys if kid is None or key.key_id == kid]
    if len(candidates) != 1:
        # A token without a kid is accepted while there is a single key; trying several keys would
        # accept more than the header allows.
        raise _refuse(f"{len(candidates)} of Quota's keys fit the id_token's kid, not one")
    try:
        return jwt.decode(
            str(token),
            candidates[0],
            algorithms=[ALGORITHM],
            options=_SIGNATURE_ONLY,
        )
    except jwt.InvalidSignatureError:
        raise _refuse("the id_token's signature is wrong") from None
    except (jwt.PyJWTError, ValueError, RecursionError):
        raise _refuse("the id_token is not a JWT") from None


def validate(
    claims: Mapping[str, Any],
    *,
    issuer: str,
    audience: str,
    nonce: str,
    access_token: str,
    now: float,
    leeway: int,
) -> Identity:
    """Check the claims that `verify` returned, and return the identity in them.

    `issuer` is the provider's, `audience` our client id; `access_token` came in the same reply;
    `now` is Unix time and `leeway` the accepted clock difference, both in seconds. Raises
    SignInFailed (`invalid_id_token`) with a reason for the log. OpenID Connect Core 1.0 sections
    3.1.3.7 and 3.1.3.8.
    """
    for name in _REQUIRED:
        if name not in claims:
            raise _refuse(f"the id_token has no {name}")
    _check_parties(claims, issuer, audience)
    _check_times(claims, now, leeway)
    sent = claims["nonce"]
    if not isinstance(sent, str):
        raise _refuse("the id_token's nonce is not a string")
    # JSON can contain a lone surrogate, which strict UTF-8 cannot encode.
    if not constant_time_compare(sent.encode("utf-8", "replace"), nonce):
        raise _refuse("the id_token's nonce is not the one that was sent (nonce mismatch)")
    if claims.get("at_hash") not in (None, _at_hash(access_token)):
        raise _refuse("the id_token's at_hash does not match the access token")
    return Identity.from_claims(claims)


def _at_hash(access_token: str) -> str:
    """Return the left half of the token's SHA-256 (OpenID Connect Core 1.0 section 3.1.3.6)."""
    digest = sha256(access_token.encode()).digest()
    return urlsafe_b64encode(digest[: len(digest) // 2]).rstrip(b"=").decode()


def _check_parties(claims: Mapping[str, Any], issuer: str, audience: str) -> None:
    if claims["iss"] != issuer:
        raise _refuse("the id_token's iss is not the issuer that discovery names")
    subject = claims["sub"]
    if not isinstance(subject, str) or not subject or not subject.isprintable():
        raise _refuse("the id_token has no usable sub")
    if len(subject) > MAX_SUBJECT_LENGTH:
        raise _refuse("the id_token's sub is too long")
    aud = claims["aud"]
    audiences = [aud] if isinstance(aud, str) else aud
    if not isinstance(audiences, list) or audience not in audiences:
        raise _refuse("the id_token's aud is not our client id")
    # Item 3 refuses audiences that we do not trust. We trust the provider.
    if any(named not in (audience, issuer) for named in audiences):
        raise _refuse("the id_token's aud names another audience, too")
    party = claims.get("azp")
    if party is None and len(audiences) > 1:
        raise _refuse("the id_token has several audiences and no azp")
    if party is not None and party != audience:
        raise _refuse("the id_token's azp is not our client id")


def _check_times(claims: Mapping[str, Any], now: float, leeway: int) -> None:
    times = {name: claims[name] for name in ("exp", "iat", "nbf") if name in claims}
    for name, value in times.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not abs(value) < _MAX_UNIX_TIME:  # False for NaN
            raise _refuse(f"the id_token's {name} is not a number")
    if times["exp"] <= now - leeway:
        raise _refuse("the id_token has expired (exp); is this machine's clock right?")
    if times["iat"] > now + leeway:
        raise _refuse("the id_token is from the future (iat); is this machine's clock right?")
    if times["iat"] < now - MAX_AGE - leeway:
        raise _refuse("the id_token was issued long ago (iat); is this machine's clock right?")
    if times.get("nbf", now) > now + leeway:
        raise _refuse("the id_token is not valid yet (nbf); is this machine's clock right?")


def unverified_claims(token: str) -> dict[str, Any]:
    """Return the claims of an id_token that came with a refresh, unverified; {} if unreadable.

    OpenID Connect Core 1.0 section 3.1.3.7 item 6 accepts TLS to the token endpoint in place of the
    signature. To verify it we would have to fetch keys before the new tokens are saved; if that
    failed, the only copy of a rotated refresh token would be lost.
    """
    try:
        return jwt.decode(token, options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError, RecursionError):
        return {}
