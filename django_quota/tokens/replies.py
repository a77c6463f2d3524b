"""Check Quota's reply to a renewal."""

import logging
from dataclasses import replace

from django_quota.conf import get_settings
from django_quota.exceptions import ReauthenticationRequired
from django_quota.oidc import id_token
from django_quota.oidc.endpoints import TokenReply

logger = logging.getLogger("django_quota.tokens")


def checked_reply(reply: TokenReply, external_id: str) -> TokenReply:
    """Return `reply`, without its id_token if that is unreadable or for another client.

    A renewed id_token must have the same sub, iss and aud (OpenID Connect Core 1.0 section 12.2).
    Raises ReauthenticationRequired if its sub differs.
    """
    if reply.id_token is None:
        return reply
    claims = id_token.unverified_claims(reply.id_token)
    if claims and claims.get("sub") != external_id:
        # Using these tokens would charge another person's wallet, and keeping the old ones would
        # repeat the renewal for ever.
        raise ReauthenticationRequired(
            "The renewed tokens belong to another person and were dropped; let the user sign in "
            "again.",
            provider_code="other_subject",
        )
    settings, audience = get_settings(), claims.get("aud")
    ours = settings.client_id in (audience if isinstance(audience, list) else [audience])
    if ours and claims.get("iss") in (settings.base_url, settings.issuer or settings.base_url):
        return reply
    # The tokens are this person's. The id_token is only a hint for the sign-out: keep the old one.
    logger.warning("a renewed id_token was dropped: it is unreadable, or for another client")
    return replace(reply, id_token=None)
