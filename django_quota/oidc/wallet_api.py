"""Quota's API for a user's wallet: the balance, the packages of credits and the checkout.

Functions that act for a user take the user's access token as an argument; none looks one up.
"""

from dataclasses import dataclass

from django_quota.conf import get_settings
from django_quota.exceptions import ProviderUnavailable
from django_quota.money import whole_number

from .discovery import is_trusted, origin_of
from .transport import call_api, get_public


@dataclass(frozen=True, kw_only=True)
class BalanceReply:
    """The answer of `GET /v1/balance` for a user's token.

    `credits` is None if the user has no wallet; `user_id` is "" if Quota does not name one.
    """

    credits: int | None
    user_id: str


@dataclass(frozen=True, kw_only=True)
class Package:
    """One package of `GET /v1/packages`; the price is in US cents."""

    id: str
    name: str
    price_cents: int
    balance_display: str


def fetch_balance(access_token: str) -> BalanceReply:
    """Return the balance of the wallet that a user's token spends from (quota-protocol section 10).

    Raises what `call_api` raises, and ProviderUnavailable if the answer is about a developer's
    wallet.
    """
    url = f"{get_settings().base_url}/v1/balance"
    body = call_api("GET", url, bearer=access_token).json or {}
    credits = whole_number(body.get("balance"))
    user_id = body.get("user_id")
    is_known = credits is not None or body.get("balance") is None
    if body.get("wallet", "oauth_user") != "oauth_user" or not is_known:
        raise ProviderUnavailable(
            "Quota sent a balance that is not that of a user's wallet; try again later.", status=200
        )
    return BalanceReply(credits=credits, user_id=user_id if isinstance(user_id, str) else "")


def fetch_packages() -> tuple[Package, ...]:
    """Return the packages of credits for sale (quota-protocol section 12); malformed ones are left
    out. Raises ProviderUnavailable.
    """
    body = get_public(f"{get_settings().base_url}/v1/packages").json or {}
    offers = body.get("packages")
    return tuple(
        Package(
            id=offer["id"],
            name=_plain_text(offer.get("name")),
            price_cents=offer["price_cents"],
            balance_display=_plain_text(offer.get("balance_display")),
        )
        for offer in (offers if isinstance(offers, list) else [])
        if isinstance(offer, dict)
        and _plain_text(offer.get("id"))
        and type(offer.get("price_cents")) is int
    )


def _plain_text(value: object) -> str:
    return value[:100] if isinstance(value, str) and value.isprintable() else ""


def create_checkout(
    access_token: str, *, package_id: str, success_url: str, cancel_url: str
) -> str:
    """Start a purchase and return the URL of its payment page.

    Quota sends the person to `success_url` or `cancel_url` afterwards. Raises what `call_api`
    raises, and ProviderUnavailable if the answer has no safe URL.
    """
    settings = get_settings()
    body = (
        call_api(
            "POST",
            f"{settings.base_url}/api/payments/checkout",
            bearer=access_token,
            json_body={
                "package_id": package_id,
                "success_url": success_url,
                "cancel_url": cancel_url,
            },
        ).json
        or {}
    )
    # The name of the field is not documented (quota-protocol section 12); both are likely.
    url = body.get("checkout_url") or body.get("url")
    if isinstance(url, str) and (origin_of(url).startswith("https://") or is_trusted(url)):
        return url
    raise ProviderUnavailable("Quota named no payment page; try again later.", status=200)
