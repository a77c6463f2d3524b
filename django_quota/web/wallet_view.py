"""`@wallet_view`: the decorator of every view of a user's wallet.

It requires a signed-in user, protects the response from caches, and answers errors.
"""

from functools import wraps
from typing import Protocol

from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponseBase
from django.views.decorators.csrf import csrf_protect

from django_quota.exceptions import NotConnected, QuotaError
from django_quota.tokens.payer import user_of

from .answers import error_response
from .responses import add_private_headers, outside_transactions, prefetch_response


class _View(Protocol):
    def __call__(self, request: HttpRequest) -> HttpResponseBase: ...


def wallet_view(view: _View) -> _View:
    """Decorate a view for signed-in users: outside of transactions, never cached, with errors of
    this package turned into responses."""

    @wraps(view)
    def wrapped(request: HttpRequest) -> HttpResponseBase:
        if (response := prefetch_response(request)) is not None:
            return response  # a view may change what is remembered of a payment
        if not user_of(request).is_authenticated:
            return error_response(request, NotConnected("Nobody is signed in."))
        try:
            return add_private_headers(view(request))
        except QuotaError as error:
            return error_response(request, error)

    # Like Django's own login view, protected also in a project without the CSRF middleware.
    return outside_transactions(login_not_required(csrf_protect(wrapped)))
