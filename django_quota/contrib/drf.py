"""For Django REST framework: responses to our errors, and a permission. Needs the extra `drf`.

No other module of the package imports this one.
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
        "django_quota.contrib.drf needs Django REST framework: pip install 'django-quota[drf]'"
    ) from error

from django_quota.exceptions import ConfigurationError, QuotaError, find_quota_error
from django_quota.tokens.payer import require_payer
from django_quota.web import messages
from django_quota.web.answers import error_details, log_outage_as_warning
from django_quota.web.required import require_wallet
from django_quota.web.responses import add_private_headers

__all__ = ["HasQuotaWallet", "WalletDenied", "exception_handler"]


class WalletDenied(PermissionDenied):  # type: ignore[misc]
    """`HasQuotaWallet` raises it in place of an error of this package, which is its `error`.

    It is a subclass of DRF's PermissionDenied, which DRF expects of a permission: without our
    exception handler the response is a plain 403, and the browsable API leaves out the form.
    """

    def __init__(self, error: QuotaError) -> None:
        super().__init__(messages.error_body(error, "")["message"], error.code)
        self.error = error


class HasQuotaWallet(BasePermission):  # type: ignore[misc]
    """For users whose wallet can be billed; renews an expired token.

    The view may name the scopes that it needs: `quota_scopes = ["credits.spend"]`. Raises
    WalletDenied; or ConfigurationError, which only the developer can fix.
    """

    def has_permission(self, request: Any, view: Any) -> bool:
        try:
            require_payer(request.user, request)
            require_wallet(request.user, frozenset(getattr(view, "quota_scopes", ())))
        except ConfigurationError:
            raise
        except QuotaError as error:
            raise WalletDenied(error) from error
        return True


def exception_handler(exc: Exception, context: dict[str, Any]) -> Response | None:
    """For REST_FRAMEWORK["EXCEPTION_HANDLER"], or to be called first by the project's own handler.

    Returns the response of a fetch() for errors of this package (docs/errors.rst), and the response
    of DRF's own handler for other errors. None, so that DRF raises the error again, if DRF does not
    know it, and for ConfigurationError.
    """
    error = exc.error if isinstance(exc, WalletDenied) else find_quota_error(exc)
    if error is None or isinstance(error, ConfigurationError):
        return default_handler(exc, context)
    # Before the rollback, after which the transaction of ATOMIC_REQUESTS refuses any query.
    details = error_details(context["request"], error)
    set_rollback()
    response = Response(details.body, status=details.status, headers=details.headers)
    return add_private_headers(log_outage_as_warning(response, context["request"], error))
