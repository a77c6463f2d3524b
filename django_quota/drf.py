"""For Django REST framework: our errors as answers, and a permission. Needs the extra `drf`.

Nothing else of the package imports this module.
"""

from typing import Any

try:
    from rest_framework.exceptions import PermissionDenied
    from rest_framework.permissions import BasePermission
    from rest_framework.response import Response
    from rest_framework.views import exception_handler as default_handler
    from rest_framework.views import set_rollback
except ImportError as error:
    raise ImportError(
        "django_quota.drf needs Django REST framework: pip install 'django-quota[drf]'"
    ) from error

from . import messages
from .answers import error_answer
from .exceptions import ConfigurationError, QuotaError
from .required import require_wallet
from .web import private

__all__ = ["HasQuotaWallet", "WalletDenied", "exception_handler"]


class WalletDenied(PermissionDenied):  # type: ignore[misc]
    """The no of `HasQuotaWallet`; `error` is the error of this package that it stands for.

    It is one of DRF's own, because these are what DRF expects of a permission: without our
    handler it is a plain 403, and the browsable API merely leaves out the form.
    """

    def __init__(self, error: QuotaError) -> None:
        super().__init__(messages.error_body(error, "")["message"], error.code)
        self.error = error


class HasQuotaWallet(BasePermission):  # type: ignore[misc]
    """For users with a wallet that can be billed; an expired token is renewed.

    The view may name the scopes that it needs: `quota_scopes = ["credits.spend"]`. Raises
    WalletDenied, and ConfigurationError, which only the developer can mend.
    """

    def has_permission(self, request: Any, view: Any) -> bool:
        try:
            require_wallet(request.user, frozenset(getattr(view, "quota_scopes", ())))
        except ConfigurationError:
            raise
        except QuotaError as error:
            raise WalletDenied(error) from error
        return True


def exception_handler(exc: Exception, context: dict[str, Any]) -> Response | None:
    """REST_FRAMEWORK["EXCEPTION_HANDLER"]: what fetch() gets for errors of this package
    (docs/errors.rst), and DRF's own answer for any other.

    None, which makes DRF raise it again, for ConfigurationError.
    """
    error = exc.error if isinstance(exc, WalletDenied) else exc
    if not isinstance(error, QuotaError) or isinstance(error, ConfigurationError):
        return default_handler(exc, context)
    # Before the rollback: from then on the transaction of ATOMIC_REQUESTS takes no query.
    said = error_answer(context["request"], error)
    set_rollback()
    return private(Response(said.body, status=said.status, headers=said.headers))
