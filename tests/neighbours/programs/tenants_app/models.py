"""The models that django-tenants wants of a project."""

from django_tenants.models import DomainMixin, TenantMixin


class Tenant(TenantMixin):  # type: ignore[misc]
    auto_create_schema = True


class Domain(DomainMixin):  # type: ignore[misc]
    pass
