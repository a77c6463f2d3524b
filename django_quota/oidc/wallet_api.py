"""Quota's API for a user's wallet: the balance, the packages, the checkout and the funding.

Functions that act for a user take the user's access token as an argument, and the one that acts for
the developer takes the developer's API key; none looks one up.
"""

from dataclasses import dataclass

from django.views.decorators.debug import sensitive_variables

from django_quota.conf import get_settings
from django_quota.exceptions import (
    ConfigurationError,
    IdempotencyKeyRefused,
    ProviderUnavailable,
    QuotaError,
    RequestRefused,
)
from django_quota.money import whole_number

from .discovery import is_trusted, origin_of
from .refusals import error_for
from .transport import Reply, call_api, get_public, send_request

_BAD_API_KEY = "Quota refuses QUOTA_API_KEY: check that it is a current sk-quota-... of yours."
#: What a refusal of a funding means. No user can fix it, so it is none of the errors that would
#: send the user to a page of Quota.
_ADVICE_TO_DEVELOPER = {
    401: _BAD_API_KEY,
    402: "Your own wallet at Quota, which pays for grants, cannot cover this one: top it up.",
    403: _BAD_API_KEY,
}
_SAME_KEY = "Then grant again with the same idempotency_key."
#: Statuses that do not say whether the request was carried out (RFC 9110 section 15.5.9, RFC 8470).
_UNCERTAIN = (408, 425)


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


@dataclass(frozen=True, kw_only=True)
class FundingReply:
    """The answer of `POST /v1/funding/oauth_user`: the entry in Quota's ledger, and the user's
    balance in credits. "" and None if Quota does not give them.
    """

    ledger_id: str
    balance_after: int | None


def fetch_balance(access_token: str) -> BalanceReply:
    """Return the balance of the wallet that a user's token spends from (quota-protocol section 10).

    Raises what `call_api` raises, and ProviderUnavailable if the answer is about a developer's
    wallet.
    """
    url = f"{get_settings().base_url}/v1/balance"
    body = call_api("GET", url, bearer=access_token)
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
    url = f"{get_settings().base_url}/api/payments/checkout"
    purchase = {"package_id": package_id, "success_url": success_url, "cancel_url": cancel_url}
    body = call_api("POST", url, bearer=access_token, json_body=purchase)
    # The name of the field is not documented (quota-protocol section 12); both are likely.
    page = body.get("checkout_url") or body.get("url")
    if isinstance(page, str) and (origin_of(page).startswith("https://") or is_trusted(page)):
        return page
    raise ProviderUnavailable("Quota named no payment page; try again later.", status=200)


@sensitive_variables("api_key")
def fund_user(
    api_key: str, *, user_id: str, amount: int, description: str, idempotency_key: str
) -> FundingReply:
    """Credit `amount` credits to a user's wallet, from the developer's (quota-protocol section 13).

    `user_id` is the user's `sub`. Quota credits once for each `idempotency_key`.

    Raises ConfigurationError if Quota refuses the API key or the developer's wallet is empty;
    IdempotencyKeyRefused if the key belongs to another funding; RequestRefused for other refusals;
    RateLimited; and ProviderUnavailable if Quota may have credited the user, or if `request_sent`
    of the error is False.
    """
    reply = send_request(
        "POST",
        f"{get_settings().base_url}/v1/funding/oauth_user",
        bearer=api_key,
        headers={"Idempotency-Key": idempotency_key},
        json_body={"user_id": user_id, "amount": amount, "description": description},
    )
    if not reply.ok:
        raise _funding_refusal(reply)
    body = reply.json or {}
    if body.get("success") is not True:
        raise ProviderUnavailable(
            "Quota does not say whether it credited the user.", status=reply.status
        )
    if (body.get("user_id", user_id), body.get("amount", amount)) != (user_id, amount):
        raise IdempotencyKeyRefused(
            "Quota has carried out another grant under this idempotency_key, perhaps for another "
            "site with the same OAuth app. Use a key that no other grant has.",
            status=409,
        )
    return FundingReply(
        ledger_id=_plain_text(body.get("ledger_id")),
        balance_after=whole_number(body.get("balance_after")),
    )


def _funding_refusal(reply: Reply) -> QuotaError:
    status, code = reply.status, reply.error_code
    known = f"HTTP {status} {code}".rstrip()
    if status in _ADVICE_TO_DEVELOPER:
        return ConfigurationError(f"{_ADVICE_TO_DEVELOPER[status]} {_SAME_KEY} ({known})")
    if status == 404:
        return RequestRefused(
            "Quota does not know this user as a user of yours: check that QUOTA_API_KEY and "
            f"QUOTA_CLIENT_ID belong to the same developer. {_SAME_KEY} ({known})",
            status=status,
            provider_code=code,
        )
    if status == 409:
        return IdempotencyKeyRefused(
            "Quota refuses this idempotency_key: another request with it is under way, or it "
            f"belongs to another grant. Try again, then use another key. ({known})",
            status=status,
            provider_code=code,
        )
    return error_for(None if status in _UNCERTAIN else status, code, reply.retry_after)
