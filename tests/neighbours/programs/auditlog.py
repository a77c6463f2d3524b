"""django-auditlog writes down each change of every model."""

import json

from tests.neighbours import project

project.configure(
    apps=["auditlog"],
    middleware=["auditlog.middleware.AuditlogMiddleware"],
    AUDITLOG_INCLUDE_ALL_MODELS=True,
)

from auditlog.models import LogEntry

from django_quota.models import QuotaToken
from tests.neighbours import visit

visit.visit()
entries = LogEntry.objects.get_for_model(QuotaToken).count()
print(
    json.dumps({"entries": entries, "clear": visit.clear_secrets(), "sealed": visit.ciphertexts()})
)
