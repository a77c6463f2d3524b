import pghistory

from django_quota.models import QuotaToken


@pghistory.track(pghistory.InsertEvent(), pghistory.UpdateEvent())
class TrackedToken(QuotaToken):
    class Meta:
        proxy = True
