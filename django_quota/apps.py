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

#: The functions of `checks`, and the tag that `manage.py check --tag` selects them by.
CHECKS = {
    "check_settings": [Tags.security],
    "check_encryption_key": [Tags.security],
    "check_impersonation": [Tags.security],
    "check_surroundings": [Tags.security],
    "check_installation": [],
    "check_urls": [Tags.urls],
}


class QuotaConfig(AppConfig):
    """The configuration that "django_quota" in INSTALLED_APPS selects."""

    name = "django_quota"
    verbose_name = _("Quota")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from . import models
        from .tokens import stops

        for name, tags in CHECKS.items():
            register(partial(_run_check, name), *tags)
        pre_delete.connect(
            _queue_deleted, sender=models.QuotaToken, dispatch_uid="django_quota.revoke"
        )
        stops.install()


def _run_check(name: str, **kwargs: Any) -> list[CheckMessage]:
    from . import checks

    found: list[CheckMessage] = getattr(checks, name)(**kwargs)
    return found


def _queue_deleted(**kwargs: Any) -> None:
    from .tokens import revocation

    revocation.queue_deleted(**kwargs)
