"""The app's configuration."""

from django.apps import AppConfig
from django.core.checks import Tags, register
from django.db.models.signals import pre_delete
from django.utils.translation import gettext_lazy as _


class QuotaConfig(AppConfig):
    """Add "django_quota" to INSTALLED_APPS."""

    name = "django_quota"
    verbose_name = _("Quota")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from . import checks, models, revocation

        register(checks.check_settings, Tags.security)
        register(checks.check_encryption_key, Tags.security)
        register(checks.check_installation)
        pre_delete.connect(
            revocation.queue_deleted, sender=models.QuotaToken, dispatch_uid="django_quota.revoke"
        )
