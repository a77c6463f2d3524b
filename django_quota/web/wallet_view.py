"""`@wallet_view`: the decorator of every view of a user's wallet."""

from functools import wraps
from typing import Protocol

from django.http import HttpRequest, HttpResponseBase

from django_quota.exceptions import NotConnected, QuotaError
from django_quota.tokens.payer import user_of

from .answers import error_response
from .responses import personal_view


class _View(Protocol):
    def __call__(self, request: HttpRequest) -> HttpResponseBase: ...


def wallet_view(view: _View) -> _View:
    """Decorate a view as `personal_view` does, for signed-in users only, with errors of this
    package turned into responses."""

    @wraps(view)
    def wrapped(request: HttpRequest) -> HttpResponseBase:
        if not user_of(request).is_authenticated:
            return error_response(request, NotConnected("Nobody is signed in."))
        try:
            return view(request)
        except QuotaError as error:
            return error_response(request, error)

    return personal_view(wrapped)
