"""The sandbox as a Django app, with a label that cannot clash with a project's own apps."""

from __future__ import annotations

from django.apps import AppConfig


class SandboxConfig(AppConfig):
    """Installed only by :mod:`django_quota.sandbox.settings`."""

    name = "django_quota.sandbox"
    label = "quota_sandbox"
    verbose_name = "Quota sandbox"
    default_auto_field = "django.db.models.BigAutoField"
