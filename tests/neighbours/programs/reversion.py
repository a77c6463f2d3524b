"""django-reversion keeps a version of each token row that is written."""

import json

from tests.neighbours import project

project.configure(apps=["reversion"])

import reversion
from reversion.models import Version

from django_quota.models import QuotaToken
from tests.neighbours import visit

reversion.register(QuotaToken)
with reversion.create_revision(atomic=False):
    visit.visit()
versions = Version.objects.count()
print(
    json.dumps({"entries": versions, "clear": visit.clear_secrets(), "sealed": visit.ciphertexts()})
)
