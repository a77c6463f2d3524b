"""The Django app of the sandbox."""

from __future__ import annotations

from django.apps import AppConfig


class SandboxConfig(AppConfig):
    """The app config, which only :mod:`django_quota.sandbox.settings` installs."""

    name = "django_quota.sandbox"
    label = "quota_sandbox"
    verbose_name = "Quota sandbox"
    default_auto_field = "django.db.models.BigAutoField"
