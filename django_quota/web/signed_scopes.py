"""Signs the scopes in links, so that only this site can make links that ask for more scopes."""

from django.core import signing

#: Seconds for which a signed scope is valid.
SCOPE_LIFETIME = 3600
_SCOPE_SALT = "django_quota.scope"


def sign_scope(scope: str) -> str:
    """Sign `scope` for a URL, so that only this site can make links that ask for more scopes."""
    return signing.TimestampSigner(salt=_SCOPE_SALT).sign(scope) if scope else ""


def read_scope(value: str | None) -> str:
    """Return the scope that `sign_scope` has signed within SCOPE_LIFETIME, else ""."""
    try:
        signer = signing.TimestampSigner(salt=_SCOPE_SALT)
        return signer.unsign(value or "", max_age=SCOPE_LIFETIME)
    except signing.BadSignature:
        return ""
