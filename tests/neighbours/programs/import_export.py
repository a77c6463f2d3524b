"""django-import-export exports every field of a model."""

import json

from tests.neighbours import project

project.configure(apps=["import_export"])

from import_export.resources import modelresource_factory

from django_quota.models import QuotaToken
from tests.neighbours import visit

visit.visit()
table = modelresource_factory(QuotaToken)().export()
print(json.dumps({"csv": table.csv, "json": table.json, "clear": visit.clear_secrets()}))
