"""Funding by developers: POST /developers/keys and POST /v1/funding/oauth_user."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.http import HttpRequest, JsonResponse

from . import ledger
from .accounts import require_developer
from .api import ApiError, bad_request, json_view, read_bearer_token, read_json, read_text
from .models import ApiKey, Funding, User
from .state import state
from .tokens import checksum
from .webhook_delivery import notify

__all__ = ["fund_user", "keys"]

MAX_AMOUNT_CREDITS = 2**63 - 1
MAX_KEY_LENGTH = 200


@json_view("POST")
def keys(request: HttpRequest) -> JsonResponse:
    """Create an API key. Only this reply contains it."""
    developer = require_developer(request).user
    name = read_text(read_json(request), "name")
    reply = {"name": name, "key": ApiKey.add(developer, name)}
    return JsonResponse(reply, status=201, headers={"Cache-Control": "no-store"})


@dataclass(frozen=True, kw_only=True)
class _Order:
    """A valid request to fund a user."""

    key: str
    user_id: str
    amount: int
    description: str


@json_view("POST")
def fund_user(request: HttpRequest) -> JsonResponse:
    """Move credits from the wallet of the API key's developer to a user's, once for each key."""
    developer = _require_api_key(request)
    order = _read_order(request)
    asked = json.dumps([order.user_id, order.amount])
    # Transactions of the sandbox take the write lock first, so a second request with the key waits.
    with transaction.atomic():
        known = Funding.objects.filter(developer=developer, idempotency_key=order.key).first()
        if known is None:
            status, body = _fund(developer, order)
            if status == 200 or state.knobs.keep_funding_refusals:
                Funding.objects.create(
                    developer=developer,
                    idempotency_key=order.key,
                    request=asked,
                    status=status,
                    body=body,
                )
            return JsonResponse(body, status=status)
    if known.request != asked:
        raise ApiError(409, "idempotency_conflict", "Another request has used this key.")
    return JsonResponse(known.body, status=known.status)


def _read_order(request: HttpRequest) -> _Order:
    """Return the request's order. Raises a 400."""
    key = request.headers.get("Idempotency-Key", "")
    if not key or len(key) > MAX_KEY_LENGTH:
        raise bad_request(f"Idempotency-Key must have 1 to {MAX_KEY_LENGTH} characters.")
    data = read_json(request)
    amount, description = data.get("amount"), data.get("description", "")
    if type(amount) is not int or not 0 < amount <= MAX_AMOUNT_CREDITS:
        raise bad_request("amount must be a positive integer of credits.")
    if not isinstance(description, str):
        raise bad_request("description must be a string.")
    user_id = read_text(data, "user_id")
    return _Order(key=key, user_id=user_id, amount=amount, description=description)


def _require_api_key(request: HttpRequest) -> User:
    value = read_bearer_token(request)
    key = ApiKey.objects.select_related("user").filter(key_checksum=checksum(value)).first()
    if key is None:
        raise ApiError(
            401,
            "invalid_api_key",
            "This endpoint requires an API key of a developer.",
            "Get one from POST /developers/keys; it starts with sk-quota-.",
            {"WWW-Authenticate": "Bearer"},
        )
    developer: User = key.user
    return developer


def _fund(developer: User, order: _Order) -> tuple[int, dict[str, Any]]:
    """Return the status and the body of the answer."""
    user = _find_user(order.user_id)
    if user is None:
        return _refusal(404, "user_not_found", "There is no user with this id.")
    entry = ledger.grant(developer, user, order.amount, order.description)
    if entry is None:
        return _refusal(402, "insufficient_credits", "Your wallet cannot cover this amount.")
    notify("balance.updated", user, developer, new_balance=entry.balance_after)
    return 200, {
        "success": True,
        "user_id": order.user_id,
        "amount": order.amount,
        "balance_after": entry.balance_after,
        "ledger_id": f"led_{entry.pk}",
    }


def _find_user(user_id: str) -> User | None:
    try:
        return User.objects.filter(pk=uuid.UUID(user_id)).first()
    except ValueError:
        return None


def _refusal(status: int, code: str, message: str) -> tuple[int, dict[str, Any]]:
    return status, json.loads(ApiError(status, code, message).response().content)
