from simple_history import register

from django_quota.models import QuotaToken

register(QuotaToken, app=__package__)
