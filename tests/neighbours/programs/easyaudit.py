"""django-easy-audit writes down each change of every model, with the old and the new values."""

import json

from tests.neighbours import project

project.configure(
    apps=["easyaudit"], middleware=["easyaudit.middleware.easyaudit.EasyAuditMiddleware"]
)

from easyaudit.models import CRUDEvent

from tests.neighbours import visit

visit.visit()
entries = CRUDEvent.objects.filter(content_type__model="quotatoken").count()
print(
    json.dumps({"entries": entries, "clear": visit.clear_secrets(), "sealed": visit.ciphertexts()})
)
