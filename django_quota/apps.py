"""The app configuration: registers the system checks and connects the signals.

It imports checks, and what talks to Quota, only when they run: the HTTP libraries take most of the
time of a start, and many processes (a shell, a worker) need none of them.
"""

from functools import partial
from typing import Any

from django.apps import AppConfig
from django.core.checks import CheckMessage, Tags, register
from django.db.models.signals import pre_delete
from django.utils.translation import gettext_lazy as _


def _run_check(name: str, **kwargs: Any) -> list[CheckMessage]:
    from . import checks

    found: list[CheckMessage] = getattr(checks, name)(**kwargs)
    return found


#: The functions of `checks`, and the tag that `manage.py check --tag` selects them by. Made once:
#: Django calls `ready()` again where a test overrides INSTALLED_APPS, and registers a check twice
#: unless it is the same object.
CHECKS = [
    (partial(_run_check, "check_settings"), [Tags.security]),
    (partial(_run_check, "check_encryption_key"), [Tags.security]),
    (partial(_run_check, "check_impersonation"), [Tags.security]),
    (partial(_run_check, "check_spending_limits"), [Tags.security]),
    (partial(_run_check, "check_surroundings"), [Tags.security]),
    (partial(_run_check, "check_installation"), []),
    (partial(_run_check, "check_urls"), [Tags.urls]),
]


class QuotaConfig(AppConfig):
    """The configuration that "django_quota" in INSTALLED_APPS selects."""

    name = "django_quota"
    verbose_name = _("Quota")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from . import models
        from .tokens import stops

        for check, tags in CHECKS:
            register(check, *tags)
        pre_delete.connect(
            _queue_deleted, sender=models.QuotaToken, dispatch_uid="django_quota.revoke"
        )
        stops.install()


def _queue_deleted(**kwargs: Any) -> None:
    from .tokens import revocation

    revocation.queue_deleted(**kwargs)
