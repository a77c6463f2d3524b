"""django-simple-history copies each state of a registered model into a table of its own."""

import json

from tests.neighbours import project

project.configure(apps=["simple_history", "tests.neighbours.history"])

from django.apps import apps

from tests.neighbours import visit

visit.visit()
history = apps.get_app_config("history").get_model("HistoricalQuotaToken")
print(
    json.dumps(
        {
            "entries": history.objects.count(),
            "clear": visit.clear_secrets(),
            "shown": str(list(history.objects.values())),
        }
    )
)
